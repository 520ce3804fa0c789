# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Wire N, protocol 6: the fields of a message one after the other, without padding; numbers are big-endian.

Nothing on the wire says what comes next, so reading a field is walking its kind: a `Read` takes the payload and a
position and returns the value and the position behind it; a `Write` hands the bytes of a value to `out`. Many kinds
have a pattern that stands for None (a nid 0, a tid of eight bytes ff); where None is not allowed, it is refused.

A payload has to end where its last field ends. NEO/py and NEO/go ignore what follows; here it is a DecodeError, for it
means that the two ends do not agree about the message.
"""
import math
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec.structs import astuple

from ..errors import DecodeError
from .base import Message
from .enums import ErrorCodes, WireEnum
from .kinds import (Address, Blob, Bool, Compression, Enum, ErrorCode, Fixed, Float, Int, Kind, ListOf, MapOf,
                    Mismatch, NodeId, Nullable, Text, TupleOf, describe)

_U32, _U16, _I8 = struct.Struct(">I"), struct.Struct(">H"), struct.Struct(">b")
NULL_FLOAT = b"\xff" * 8

Out: TypeAlias = Callable[[bytes], None]
Write: TypeAlias = Callable[[Any, Out], None]
Read: TypeAlias = Callable[[bytes, int], tuple[Any, int]]


# ---- out; values have been checked, or the caller wants them as they are

def encoder(cls: type[Message], kinds: list[Kind]) -> Callable[[Message], bytes]:
    """The function that writes the fields of a `cls`."""
    if not kinds:
        return lambda message: b""
    writes = [writer(kind) for kind in kinds]

    def encode(message: Message) -> bytes:
        pieces: list[bytes] = []
        for write, value in zip(writes, astuple(message)):
            write(value, pieces.append)
        return b"".join(pieces)
    return encode


def writer(kind: Kind) -> Write:
    """The function that writes one field. None goes out as the pattern of its kind, where it has one."""
    match kind:
        case Int(layout=layout, null=null):
            return _number_writer(layout, null)
        case NodeId():
            return _number_writer(">i", 0)
        case Bool() | Compression():
            return lambda value, out: out(b"\1" if value else b"\0")
        case Float():
            return lambda value, out: out(NULL_FLOAT if value is None else struct.pack(">d", value))
        case Fixed(null=null):
            return _fixed_writer(null)
        case Blob():
            return _write_blob
        case Text():
            return lambda value, out: _write_blob(value.encode(), out)
        case Address():
            return _write_address
        case Enum():
            return _write_enum
        case ErrorCode():
            return lambda value, out: out(_U32.pack(_number_of(value)))
        case ListOf(item=item):
            return _list_writer(writer(item))
        case MapOf(key=key, value=value):
            return _map_writer(writer(key), writer(value))
        case TupleOf(items=items):
            return _tuple_writer([writer(item) for _, item in items])
        case Nullable(kind=TupleOf() as inner, wires=wires) if "N" in wires:
            return _option_writer(writer(inner))
        case Nullable(kind=inner):
            return writer(inner)
    raise TypeError(f"wire N has no form for {kind!r}")


def _number_of(value: Any) -> Any:
    return value.value if isinstance(value, WireEnum) else value


def _number_writer(layout: str, null: int | None) -> Write:
    pack = struct.Struct(layout).pack
    return lambda value, out: out(pack(null if value is None else value))


def _fixed_writer(null: bytes | None) -> Write:
    def write(value: Any, out: Out) -> None:
        out(null if value is None and null is not None else value)
    return write


def _write_blob(value: bytes, out: Out) -> None:
    out(_U32.pack(len(value)))
    out(value)


def _write_address(value: Any, out: Out) -> None:
    if value is None:
        out(_U32.pack(0))
        return
    host, port = value
    _write_blob(host.encode(), out)
    out(_U16.pack(port))


def _write_enum(value: Any, out: Out) -> None:
    out(_I8.pack(-1 if value is None else _number_of(value)))


def _list_writer(write_item: Write) -> Write:
    def write(value: Any, out: Out) -> None:
        out(_U32.pack(len(value)))
        for item in value:
            write_item(item, out)
    return write


def _map_writer(write_key: Write, write_value: Write) -> Write:
    def write(value: Any, out: Out) -> None:
        out(_U32.pack(len(value)))
        for key, item in value.items():
            write_key(key, out)
            write_value(item, out)
    return write


def _tuple_writer(writes: list[Write]) -> Write:
    def write(value: Any, out: Out) -> None:
        for write_item, item in zip(writes, value, strict=True):
            write_item(item, out)
    return write


def _option_writer(write_value: Write) -> Write:
    def write(value: Any, out: Out) -> None:
        out(b"\0" if value is None else b"\1")
        if value is not None:
            write_value(value, out)
    return write


# ---- in

def decoder(cls: type[Message], names: list[str], kinds: list[Kind]) -> Callable[[Any], Message]:
    """The function that makes a `cls` of a payload."""
    reads = list(zip(names, [reader(kind) for kind in kinds]))

    def decode(payload: Any) -> Message:
        data = payload if type(payload) is bytes else bytes(payload)
        values, position, name = [], 0, ""
        try:
            for name, read in reads:
                value, position = read(data, position)
                values.append(value)
        except Mismatch as mismatch:
            raise DecodeError(mismatch.text(f"{cls.__name__}.{name}")) from None
        if position != len(data):
            raise DecodeError(f"{cls.__name__}: expected {position} bytes of payload, got {len(data)}")
        return cls(*values)
    return decode


def reader(kind: Kind, nullable: bool = False) -> Read:
    """The function that reads one field."""
    match kind:
        case Int(name=name, layout=layout, null=null):
            return _number_reader(name, layout, null, nullable)
        case NodeId():
            return _number_reader("a nid", ">i", 0, nullable)
        case Bool():
            return lambda data, position: (_take(data, position, 1, "a bool") != b"\0", position + 1)
        case Compression():
            return lambda data, position: (int(_take(data, position, 1, "a bool") != b"\0"), position + 1)
        case Float():
            return _float_reader(nullable)
        case Fixed():
            return _fixed_reader(kind, nullable)
        case Blob():
            return _read_blob
        case Text():
            return _read_text
        case Address():
            return _address_reader(nullable)
        case Enum():
            return _enum_reader(kind, nullable)
        case ErrorCode():
            return _read_error_code
        case ListOf(item=item):
            return _list_reader(reader(item))
        case MapOf(key=key, value=value):
            return _map_reader(reader(key), reader(value))
        case TupleOf():
            return _option_reader(_tuple_reader(kind)) if nullable else _tuple_reader(kind)
        case Nullable(kind=inner, wires=wires):
            return reader(inner, nullable="N" in wires)
    raise TypeError(f"wire N has no form for {kind!r}")


def _take(data: bytes, position: int, size: int, expected: str) -> bytes:
    """The next `size` bytes."""
    taken = data[position:position + size]
    if len(taken) != size:
        raise Mismatch(f"{expected} at byte {position}", f"{len(taken)} bytes and the end of the payload")
    return taken


def _refuse_null(expected: str, pattern: bytes) -> Mismatch:
    return Mismatch(expected, f"None ({pattern.hex()})")


def _number_reader(expected: str, layout: str, null: int | None, nullable: bool) -> Read:
    number = struct.Struct(layout)
    size, unpack = number.size, number.unpack
    forbidden = null if not nullable else None

    def read(data: bytes, position: int) -> tuple[int | None, int]:
        taken = _take(data, position, size, expected)
        value, = unpack(taken)
        if value == null:
            if value == forbidden:
                raise _refuse_null(expected, taken)
            return None, position + size
        return value, position + size
    return read


def _float_reader(nullable: bool) -> Read:
    def read(data: bytes, position: int) -> tuple[float | None, int]:
        taken = _take(data, position, 8, "a float")
        value, = struct.unpack(">d", taken)
        if not math.isnan(value):
            return value, position + 8
        if not nullable:
            raise _refuse_null("a float", taken)
        return None, position + 8
    return read


def _fixed_reader(kind: Fixed, nullable: bool) -> Read:
    expected, size, null = kind.name, kind.size, kind.null

    def read(data: bytes, position: int) -> tuple[bytes | None, int]:
        end = position + size
        value = data[position:end]
        if len(value) != size:
            _take(data, position, size, expected)
        if value == null:
            if not nullable:
                raise _refuse_null(expected, value)
            return None, end
        return value, end
    return read


def _read_count(data: bytes, position: int, expected: str) -> tuple[int, int]:
    count, = _U32.unpack(_take(data, position, 4, expected))
    return count, position + 4


def _read_blob(data: bytes, position: int) -> tuple[bytes, int]:
    size, position = _read_count(data, position, "the length of a string")
    return _take(data, position, size, f"a string of {size} bytes"), position + size


def _read_text(data: bytes, position: int) -> tuple[str, int]:
    value, position = _read_blob(data, position)
    try:
        return value.decode(), position
    except UnicodeDecodeError:
        raise Mismatch("text in UTF-8", f"the bytes {value[:60]!r}") from None


def _address_reader(nullable: bool) -> Read:
    def read(data: bytes, position: int) -> tuple[tuple[str, int] | None, int]:
        host, position = _read_text(data, position)
        if not host:
            if not nullable:
                raise _refuse_null("an address", bytes(4))
            return None, position
        port, = _U16.unpack(_take(data, position, 2, "a port"))
        return (host, port), position + 2
    return read


def _enum_reader(kind: Enum, nullable: bool) -> Read:
    expected = f"a {kind.type.__name__}"
    members: dict[int, WireEnum | None] = {member.value: member for member in kind.type}
    if nullable:
        members[-1] = None

    def read(data: bytes, position: int) -> tuple[WireEnum | None, int]:
        value, = _I8.unpack(_take(data, position, 1, expected))
        if value not in members:
            raise Mismatch(expected, f"number {value}, which it does not have")
        return members[value], position + 1
    return read


def _read_error_code(data: bytes, position: int) -> tuple[ErrorCodes | int, int]:
    code, position = _read_count(data, position, "an error code")
    if code >= ErrorCodes.UNDO_PACK_ERROR.value:
        return code, position       # of a newer node: its text is worth more than a refusal
    return ErrorCodes(code), position


def _list_reader(read_item: Read) -> Read:
    def read(data: bytes, position: int) -> tuple[list[Any], int]:
        count, position = _read_count(data, position, "the length of a list")
        items: list[Any] = []
        try:
            for _ in range(count):
                item, position = read_item(data, position)
                items.append(item)
        except Mismatch as mismatch:
            raise mismatch.within(f"[{len(items)}]")
        return items, position
    return read


def _map_reader(read_key: Read, read_value: Read) -> Read:
    def read(data: bytes, position: int) -> tuple[dict[Any, Any], int]:
        count, position = _read_count(data, position, "the length of a map")
        items: dict[Any, Any] = {}
        try:
            for _ in range(count):
                key, position = read_key(data, position)
                if key in items:
                    raise Mismatch("different keys", f"{describe(key)} twice")
                items[key], position = read_value(data, position)
        except Mismatch as mismatch:
            raise mismatch.within(f"[item {len(items)}]")
        return items, position
    return read


def _tuple_reader(kind: TupleOf) -> Read:
    make = kind.type
    reads = [(name, reader(item)) for name, item in kind.items]

    def read(data: bytes, position: int) -> tuple[Any, int]:
        items, name = [], ""
        try:
            for name, read_item in reads:
                item, position = read_item(data, position)
                items.append(item)
        except Mismatch as mismatch:
            raise mismatch.within(f".{name}")
        return make(*items), position
    return read


def _option_reader(read_value: Read) -> Read:
    def read(data: bytes, position: int) -> tuple[Any, int]:
        flag = _take(data, position, 1, "an option byte")
        if flag == b"\0":
            return None, position + 1
        if flag != b"\1":
            raise Mismatch("option byte 00 or 01", flag.hex())
        return read_value(data, position + 1)
    return read
