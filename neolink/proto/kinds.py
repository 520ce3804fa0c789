# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of field that NEO's messages are made of.

A message class says what its fields are in ordinary type annotations. `kind_of` turns an annotation into a tree of the
small descriptions below, and everything else is derived from that tree: the checks here, and how a value travels in
`codec_m` and `codec_n`. So a message is declared once, and a codec is a statement per kind, not per message.

An annotation is a Python type where that says all (`bool`, `bytes`, a `WireEnum`, `list[Tid]`, `X | None`), and one of
the aliases below where NEO is more precise than Python: `Tid` is bytes to a type checker, and 8 bytes here.

The checks look at what is about to be sent. They refuse what the wire cannot carry, and beyond that every value which
is known to end a NEO node that receives it, as far as one can tell from the message alone. What depends on the receiver
or on what went before is beyond them: a partition that the cluster does not have, a storage that is not there, an
identification at a storage without the id_timestamp that the master gave, a transaction finished without a vote. Nor do
they hash object data: an N storage that is given a wrong checksum ends, and the sender has to see to that.
"""
import math
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec

from .enums import ErrorCodes, WireEnum
from .values import INVALID_TID, LETTERS

Wire: TypeAlias = Literal["M", "N"]

# NEO/py's msgpack decoder holds 64 MiB; a string that does not fit ends the process that receives it.
LONGEST_STRING_M = 0x4000000 - 4096
DEEPEST_ANY = 32            # levels inside an untyped value; a NEO node gives up at 1024, packet included


class Mismatch(Exception):
    """A value does not fit its field. On its way out it gathers the path to that value inside the field."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(expected, got)
        self.expected, self.got, self.path = expected, got, ""

    def within(self, step: str) -> "Mismatch":
        self.path = step + self.path
        return self

    def text(self, name: str) -> str:
        return f"{name}{self.path}: expected {self.expected}, got {self.got}"


class Kind(msgspec.Struct, frozen=True):
    """Base of the descriptions."""


class Int(Kind, frozen=True):
    """An integer, never negative: up to 64 bits on M, on N as `layout` (of struct) has it; `null` means None there."""
    name: str
    layout: str
    greatest_n: int
    least_n: int = 0
    null: int | None = None


class NodeId(Kind, frozen=True):
    """A node id. `storage`: that of a storage only."""
    storage: bool = False


class Bool(Kind, frozen=True):
    """True or False."""


class Compression(Kind, frozen=True):
    """How object data is compressed, 0 not at all, 1 zlib: an int on M, a byte that is 0 or 1 on N."""


class Float(Kind, frozen=True):
    """A 64-bit float; N writes None as eight bytes ff, which is a NaN."""


class Fixed(Kind, frozen=True):
    """`size` bytes without a length; `null` is how N writes None."""
    name: str
    size: int
    null: bytes | None = None


class Blob(Kind, frozen=True):
    """Bytes of any length."""


class Text(Kind, frozen=True):
    """Text; UTF-8 in the wire's byte strings."""


class Address(Kind, frozen=True):
    """Host and port."""


class Enum(Kind, frozen=True):
    """A member of `type`."""
    type: type[WireEnum]


class ErrorCode(Kind, frozen=True):
    """A member of ErrorCodes, the one enum that both wires carry as a plain integer."""


class ListOf(Kind, frozen=True):
    """Any number of `item`."""
    item: Kind


class MapOf(Kind, frozen=True):
    """A mapping; its order is kept."""
    key: Kind
    value: Kind


class TupleOf(Kind, frozen=True):
    """A named tuple."""
    type: type[tuple[Any, ...]]
    items: tuple[tuple[str, Kind], ...]


class Anything(Kind, frozen=True):
    """A value that NEO does not type: M only. Byte strings stay bytes, whether they hold text or not."""


class Nullable(Kind, frozen=True):
    """`kind`, or None on the wires named."""
    kind: Kind
    wires: str = "MN"


U32 = Annotated[int, Int("an int", ">I", 0xffffffff)]
U64 = Annotated[int, Int("an int", ">Q", 0xffffffffffffffff)]
Count = Annotated[int, Int("how many", ">I", 0xffffffff, least_n=1)]
Index = Annotated[int, Int("an int", ">i", 0x7fffffff, null=0)]
PTID = Int("a partition table id", ">Q", 0xffffffffffffffff, least_n=1, null=0)
Ptid = Annotated[int, PTID]
Nid = Annotated[int, NodeId()]
StorageNid = Annotated[int, NodeId(storage=True)]
Zip = Annotated[int, Compression()]
Tid = Annotated[bytes, Fixed("a tid of 8 bytes", 8, INVALID_TID)]
Oid = Annotated[bytes, Fixed("an oid of 8 bytes", 8, INVALID_TID)]
Sha1 = Annotated[bytes, Fixed("a checksum of 20 bytes", 20)]
Addr = Annotated[tuple[str, int], Address()]
ErrorCodeOrInt = Annotated[ErrorCodes | int, ErrorCode()]

_BUILTINS: dict[Any, Kind] = {bool: Bool(), float: Float(), bytes: Blob(), str: Text(), Any: Anything()}


def kind_of(annotation: Any) -> Kind:
    """The tree of kinds that an annotation stands for."""
    if annotation in _BUILTINS:
        return _BUILTINS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return next(note for note in arguments if isinstance(note, Kind))
    if origin in (Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        return Nullable(kind_of(next(argument for argument in arguments if argument is not type(None))))
    if origin is list:
        return ListOf(kind_of(arguments[0]))
    if origin is dict:
        return MapOf(kind_of(arguments[0]), kind_of(arguments[1]))
    if isinstance(annotation, type) and issubclass(annotation, WireEnum):
        return Enum(annotation)
    if isinstance(annotation, type) and issubclass(annotation, tuple):
        hints = get_type_hints(annotation, include_extras=True)
        return TupleOf(annotation, tuple((name, kind_of(hint)) for name, hint in hints.items()))
    raise TypeError(f"no kind of field for the annotation {annotation!r}")


def describe(value: object) -> str:
    """What a value is, short enough for an error message."""
    match value:
        case None | bool() | WireEnum():
            return repr(value)
        case bytes() | bytearray():
            return f"{type(value).__name__} of length {len(value)}"
    if type(value) in (list, tuple, dict):
        return f"{type(value).__name__} of {len(value)} items"          # type: ignore[arg-type]
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


# ---- checks: each is a function that raises Mismatch or returns nothing

Check: TypeAlias = Callable[[Any], None]


def checker(kind: Kind, wire: Wire) -> Check:
    """The function that refuses what must not leave on `wire` in a field of `kind`."""
    match kind:
        case Int():
            return _int_check(kind, wire)
        case NodeId():
            return _nid_check(kind)
        case Compression():
            return _compression_check(wire)
        case Fixed():
            return _fixed_check(kind, wire)
        case Enum(type=enum):
            return _type_check(enum, f"a {enum.__name__} member")
        case Bool():
            return _type_check(bool, "True or False")
        case Float():
            return _float_check
        case Blob():
            return _blob_check(wire)
        case Text():
            return _text_check(wire)
        case Address():
            return _address_check(_text_check(wire))
        case ErrorCode():
            return _error_code_check(wire)
        case ListOf(item=item):
            return _list_check(checker(item, wire))
        case MapOf(key=key, value=value):
            return _map_check(checker(key, wire), checker(value, wire))
        case TupleOf():
            return _tuple_check(kind, [checker(item, wire) for _, item in kind.items])
        case Nullable(kind=inner, wires=wires):
            return _nullable_check(checker(inner, wire)) if wire in wires else checker(inner, wire)
        case Anything():
            return _anything_check(_text_check(wire), _blob_check(wire))
    raise TypeError(f"no check for {kind!r}")


def _type_check(cls: type, expected: str) -> Check:
    def check(value: Any) -> None:
        if type(value) is not cls:
            raise Mismatch(expected, describe(value))
    return check


def _int_check(kind: Int, wire: Wire) -> Check:
    least, greatest = (kind.least_n, kind.greatest_n) if wire == "N" else (0, 0xffffffffffffffff)
    expected = f"{kind.name}, {least} to {greatest:#x}"

    def check(value: Any) -> None:
        if type(value) is not int or not least <= value <= greatest:
            raise Mismatch(expected, describe(value))
    return check


def _nid_check(kind: NodeId) -> Check:
    expected = "the nid of a storage" if kind.storage else "a nid, such as 1 for S1"
    namespaces = {0} if kind.storage else set(LETTERS)

    def check(value: Any) -> None:
        if type(value) is not int or value >> 24 not in namespaces or not value & 0xffffff:
            raise Mismatch(expected, describe(value))
    return check


def _compression_check(wire: Wire) -> Check:
    types, greatest = ((int, bool), 1) if wire == "N" else ((int,), 0xffffffffffffffff)

    def check(value: Any) -> None:
        if type(value) not in types or not 0 <= value <= greatest:
            raise Mismatch("compression 0 (none) or 1 (zlib), an int", describe(value))
    return check


def _fixed_check(kind: Fixed, wire: Wire) -> Check:
    size, expected = kind.size, kind.name
    null = kind.null if wire == "N" else None

    def check(value: Any) -> None:
        if type(value) is not bytes or len(value) != size:
            raise Mismatch(expected, describe(value))
        if value == null:
            raise Mismatch(expected, f"{value.hex()}, which wire N reads as None")
    return check


def _float_check(value: Any) -> None:
    if type(value) is not float or not math.isfinite(value):
        raise Mismatch("a finite float", describe(value))


def _blob_check(wire: Wire) -> Check:
    longest = LONGEST_STRING_M if wire == "M" else 0xffffffff

    def check(value: Any) -> None:
        if type(value) is not bytes:
            raise Mismatch("bytes", describe(value))
        if len(value) > longest:
            raise Mismatch(f"at most {longest} bytes (more would end a NEO node)", describe(value))
    return check


def _text_check(wire: Wire) -> Check:
    check_bytes = _blob_check(wire)

    def check(value: Any) -> None:
        if type(value) is not str:
            raise Mismatch("text (str)", describe(value))
        try:
            check_bytes(value.encode())
        except UnicodeEncodeError:
            raise Mismatch("text that UTF-8 can hold", describe(value)) from None
    return check


def _address_check(check_text: Check) -> Check:
    expected = "an address: host (str) and port (int, at most 65535)"

    def check(value: Any) -> None:
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise Mismatch(expected, describe(value))
        host, port = value
        if not host:
            raise Mismatch(expected, f"host {host!r}; no address at all is None")
        check_text(host)
        if type(port) is not int or not 0 <= port <= 65535:
            raise Mismatch(expected, f"port {describe(port)}")
    return check


def _error_code_check(wire: Wire) -> Check:
    unknown = ErrorCodes.UNDO_PACK_ERROR if wire == "N" else None

    def check(value: Any) -> None:
        if type(value) is not ErrorCodes or value is unknown:
            raise Mismatch(f"an ErrorCodes member that wire {wire} has", describe(value))
    return check


def _list_check(check_item: Check) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, (list, tuple)):
            raise Mismatch("a list", describe(value))
        for index, item in enumerate(value):
            try:
                check_item(item)
            except Mismatch as mismatch:
                raise mismatch.within(f"[{index}]")
    return check


def _map_check(check_key: Check, check_value: Check) -> Check:
    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Mismatch("a dict", describe(value))
        for key, item in value.items():
            try:
                check_key(key)
            except Mismatch as mismatch:
                raise mismatch.within(f" key {describe(key)}")
            try:
                check_value(item)
            except Mismatch as mismatch:
                raise mismatch.within(f"[{key!r}]")
    return check


def _tuple_check(kind: TupleOf, checks: list[Check]) -> Check:
    names = [name for name, _ in kind.items]
    expected = f"a {kind.type.__name__} ({', '.join(names)})"

    def check(value: Any) -> None:
        if not isinstance(value, (tuple, list)) or len(value) != len(names):
            raise Mismatch(expected, describe(value))
        for name, check_item, item in zip(names, checks, value):
            try:
                check_item(item)
            except Mismatch as mismatch:
                raise mismatch.within(f".{name}")
    return check


def _nullable_check(check_value: Check) -> Check:
    def check(value: Any) -> None:
        if value is not None:
            check_value(value)
    return check


def _anything_check(check_text: Check, check_bytes: Check) -> Check:
    def check(value: Any, depth: int = DEEPEST_ANY) -> None:
        if depth == 0:
            raise Mismatch(f"at most {DEEPEST_ANY} levels of lists and dicts", describe(value))
        match value:
            case None | bool() | WireEnum():
                pass
            case int():
                if not -1 << 63 <= value < 1 << 64:
                    raise Mismatch("an int of 64 bits", describe(value))
            case float():
                _float_check(value)
            case str():
                check_text(value)
            case bytes():
                check_bytes(value)
            case list() | tuple():
                for item in value:
                    check(item, depth - 1)
            case dict():
                for key, item in value.items():
                    if type(key) not in (int, str, bytes) and not isinstance(key, WireEnum):
                        raise Mismatch("a key that is an int, str, bytes or enum member", describe(key))
                    check(key, depth - 1)
                    check(item, depth - 1)
            case _:
                raise Mismatch("None, bool, int, float, str, bytes, an enum member, list or dict", describe(value))
    return check
