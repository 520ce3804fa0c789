# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Wire M: a message is a msgpack array of its fields.

Out: msgspec packs what NEO packs the same way: shortest ints, 64-bit floats, bytes as bin, None, bool, lists, tuples
and dicts. Three things differ, and `lower` replaces them: text (NEO writes it as bin, msgspec as str), enum members
(fixext 1) and error codes (plain ints). Messages without any of these are packed straight from the Struct, and a
message without fields is a constant.

In: msgspec unpacks to plain values, enum members included; then one function per field, made by `lifter`, checks and
converts. Only what NEO sends is accepted: a str, a missing or a surplus field, an unknown member are a DecodeError.
"""
from collections.abc import Callable
from operator import call
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import astuple

from ..errors import DecodeError
from . import enums
from .base import Message
from .kinds import (Address, Anything, Blob, Bool, Compression, Enum, ErrorCode, Fixed, Float, Int, Kind, ListOf,
                    MapOf, Mismatch, NodeId, Nullable, Text, TupleOf, describe)

EMPTY_ARRAY = b"\x90"

# ext types, in the alphabetical order of the enums' names; ErrorCodes has number 2 and never uses it
ENUM_OF_EXT: dict[int, type[enums.WireEnum]] = {
    0: enums.CellStates, 1: enums.ClusterStates, 3: enums.NodeStates, 4: enums.NodeTypes}


class PackedMember:
    """What stands for an enum member while msgspec packs: it becomes an Ext, but unlike one it can be a map's key."""
    __slots__ = ("ext",)

    def __init__(self, ext: msgspec.msgpack.Ext) -> None:
        self.ext = ext


class UnknownMember(NamedTuple):
    """An ext that is no member of any enum, until the field it is in refuses it."""
    ext: int
    value: bytes

    def __repr__(self) -> str:
        enum = ENUM_OF_EXT.get(self.ext)
        return f"of ext {self.ext} ({enum.__name__ if enum else 'no enum'}), value {self.value.hex()}"


PACKED_MEMBERS: dict[enums.WireEnum, PackedMember] = {
    member: PackedMember(msgspec.msgpack.Ext(ext, bytes([member.value])))
    for ext, enum in ENUM_OF_EXT.items() for member in enum}
MEMBERS: dict[tuple[int, bytes], enums.WireEnum] = {
    (packed.ext.code, bytes(packed.ext.data)): member for member, packed in PACKED_MEMBERS.items()}


def _ext_of(value: Any) -> msgspec.msgpack.Ext:
    if isinstance(value, PackedMember):
        return value.ext
    raise TypeError(f"msgpack has no form for a {type(value).__name__}")


def _member_of(ext: int, value: memoryview) -> enums.WireEnum | UnknownMember:
    data = value.tobytes()
    try:
        return MEMBERS[ext, data]
    except KeyError:
        return UnknownMember(ext, data)


pack = msgspec.msgpack.Encoder(enc_hook=_ext_of).encode
unpack = msgspec.msgpack.Decoder(ext_hook=_member_of).decode


# ---- out

SAME_TYPES = frozenset((type(None), bool, int, float, bytes))


def lower(value: Any) -> Any:
    """The value as msgspec has to see it to pack it like NEO."""
    cls = type(value)
    if cls in SAME_TYPES:
        return value
    if cls is str:
        return value.encode()
    if issubclass(cls, enums.WireEnum):
        return value.value if cls is enums.ErrorCodes else PACKED_MEMBERS[value]
    if issubclass(cls, (list, tuple)):
        return [lower(item) for item in value]
    if cls is dict:
        return {lower(key): lower(item) for key, item in value.items()}
    return value


def packs_as_it_is(kind: Kind) -> bool:
    """Whether msgspec packs every value of this kind as NEO does."""
    match kind:
        case Nullable(kind=inner) | ListOf(item=inner):
            return packs_as_it_is(inner)
        case MapOf(key=key, value=value):
            return packs_as_it_is(key) and packs_as_it_is(value)
        case TupleOf(items=items):
            return all(packs_as_it_is(item) for _, item in items)
    return isinstance(kind, (Int, NodeId, Bool, Compression, Float, Fixed, Blob))


def encoder(cls: type[Message], kinds: list[Kind]) -> Callable[[Message], bytes]:
    """The function that packs the fields of a `cls`, of whatever values they are."""
    if not kinds:
        return lambda message: EMPTY_ARRAY
    if all(packs_as_it_is(kind) for kind in kinds):
        return pack
    return lambda message: pack(lower(astuple(message)))


# ---- in: each is a function that returns the value, converted where needed, or raises Mismatch

Lift: TypeAlias = Callable[[Any], Any]


def decoder(cls: type[Message], names: list[str], kinds: list[Kind]) -> Callable[[Any], Message]:
    """The function that makes a `cls` of a payload."""
    lifts, count = [lifter(kind) for kind in kinds], len(kinds)
    empty = cls() if not kinds else None
    only = lifts[0] if count == 1 else None         # a field by itself takes no machinery

    def decode(payload: Any) -> Message:
        if empty is not None and payload == EMPTY_ARRAY:
            return empty
        values = _array(cls, payload)
        if len(values) != count:
            raise DecodeError(f"{cls.__name__}: expected {count} fields, got {len(values)}")
        try:
            return cls(only(values[0])) if only else cls(*map(call, lifts, values))     # each lift with its value
        except Mismatch:
            raise _first_mismatch(cls, names, lifts, values) from None
    return decode


def _array(cls: type[Message], payload: Any) -> list[Any]:
    try:
        values = unpack(payload) if payload else []
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{cls.__name__}: expected one msgpack array of fields, got {len(payload)} bytes that are "
                          f"not: {error}") from None
    if type(values) is not list:
        raise DecodeError(f"{cls.__name__}: expected an array of fields, got {describe(values)}")
    return values


def _first_mismatch(cls: type[Message], names: list[str], lifts: list[Lift], values: list[Any]) -> DecodeError:
    for name, lift, value in zip(names, lifts, values):
        try:
            lift(value)
        except Mismatch as mismatch:
            return DecodeError(mismatch.text(f"{cls.__name__}.{name}"))
    raise AssertionError("a field that did not fit now fits")


def lifter(kind: Kind) -> Lift:
    """The function for one field."""
    match kind:
        case Int() | Compression():
            return _same(int, "an int")
        case NodeId():
            return _lift_nid
        case Bool():
            return _same(bool, "true or false")
        case Float():
            return _same(float, "a float")
        case Blob():
            return _same(bytes, "bytes (bin)")
        case Fixed(name=name, size=size):
            return _fixed_lifter(name, size)
        case Text():
            return _lift_text
        case Address():
            return _lift_address
        case ErrorCode():
            return _lift_error_code
        case Enum(type=enum):
            return _same(enum, f"a {enum.__name__} member (ext)")
        case ListOf(item=item):
            return _list_lifter(lifter(item))
        case MapOf(key=key, value=value):
            return _map_lifter(lifter(key), lifter(value))
        case TupleOf():
            return _tuple_lifter(kind)
        case Nullable(kind=inner, wires=wires):
            return _nullable_lifter(lifter(inner)) if "M" in wires else lifter(inner)
        case Anything():
            return _lift_anything
    raise TypeError(f"wire M has no form for {kind!r}")


def _same(cls: type, expected: str) -> Lift:
    def lift(value: Any) -> Any:
        if type(value) is cls:
            return value
        raise Mismatch(expected, describe(value))
    return lift


def _fixed_lifter(expected: str, size: int) -> Lift:
    def lift(value: Any) -> bytes:
        if type(value) is bytes and len(value) == size:
            return value
        raise Mismatch(expected, describe(value))
    return lift


def _lift_nid(value: Any) -> int:
    if type(value) is int and -1 << 31 <= value < 1 << 31:
        return value
    raise Mismatch("a nid (32-bit int)", describe(value))


def _lift_text(value: Any) -> str:
    if type(value) is not bytes:
        raise Mismatch("text (bin)", describe(value))
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Mismatch("text in UTF-8", f"the bytes {value[:60]!r}") from None


def _lift_address(value: Any) -> tuple[str, int]:
    if type(value) is not list or len(value) != 2 or type(value[1]) is not int:
        raise Mismatch("an address (bin and int)", describe(value))
    return _lift_text(value[0]), value[1]


def _lift_error_code(value: Any) -> enums.ErrorCodes | int:
    if type(value) is not int:
        raise Mismatch("an error code (int)", describe(value))
    try:
        return enums.ErrorCodes(value)
    except ValueError:
        return value            # of a newer node: its text is worth more than a refusal


def _list_lifter(lift_item: Lift) -> Lift:
    def lift(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Mismatch("an array", describe(value))
        items: list[Any] = []
        try:
            for item in value:
                items.append(lift_item(item))
        except Mismatch as mismatch:
            raise mismatch.within(f"[{len(items)}]")
        return items
    return lift


def _map_lifter(lift_key: Lift, lift_value: Lift) -> Lift:
    def lift(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise Mismatch("a map", describe(value))
        items: dict[Any, Any] = {}
        for key, item in value.items():
            try:
                lifted = lift_key(key)
            except Mismatch as mismatch:
                raise mismatch.within(f" key {describe(key)}")
            try:
                items[lifted] = lift_value(item)
            except Mismatch as mismatch:
                raise mismatch.within(f"[{lifted!r}]")
        return items
    return lift


def _tuple_lifter(kind: TupleOf) -> Lift:
    make, size = kind.type, len(kind.items)
    lifts = [(name, lifter(item)) for name, item in kind.items]

    def lift(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != size:
            raise Mismatch(f"a {make.__name__} (array of {size})", describe(value))
        items = []
        for (name, lift_item), item in zip(lifts, value):
            try:
                items.append(lift_item(item))
            except Mismatch as mismatch:
                raise mismatch.within(f".{name}")
        return make(*items)
    return lift


def _nullable_lifter(lift_value: Lift) -> Lift:
    def lift(value: Any) -> Any:
        return None if value is None else lift_value(value)
    return lift


def _lift_anything(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | bytes() | enums.WireEnum():
            return value
        case list():
            return [_lift_anything(item) for item in value]
        case dict():
            return {_lift_anything(key): _lift_anything(item) for key, item in value.items()}
    raise Mismatch("nil, bool, int, float, bin, an enum member, array or map", describe(value))
