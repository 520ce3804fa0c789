# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""A NEO link in the plainest Python there is: one socket, blocking calls, one thread. To be compared with, not to be
fast.

It shares nothing with the C core, and was written from the description of the wires alone:

    2016    u32 id, u16 code, u32 length of the whole packet, payload
    N       u32 id, u16 code, u32 length of the payload, payload;           opening: u32 version, each way
    M       the msgpack array [id, code, args], no length;                  opening: the msgpack array ["NEO", version]

`payload` is what follows the header; on M the bytes of `args` as they came.
"""
from __future__ import annotations

import struct
from collections.abc import Callable
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET, socket
from typing import NamedTuple

import msgspec

HEADER = struct.Struct(">IHI")
ANSWER_BIT = 0x8000
ERROR = 0x8000
PROTOCOL_ERROR = {"2016": 5, "N": 6, "M": 6}
"""The number under which NEO's own link layer says "connection closed" and the like."""
VERSIONS = {"N": 6, "M": 5}


class Packet(NamedTuple):
    """One packet."""

    id: int
    code: int
    payload: bytes


# ---- msgpack, as far as the end of an item has to be found

FIXED = {0xca: 4, 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8, 0xd0: 1, 0xd1: 2, 0xd2: 4, 0xd3: 8,
         0xd4: 2, 0xd5: 3, 0xd6: 5, 0xd7: 9, 0xd8: 17}
"""First byte -> how many follow. (An ext of n bytes has one more, its type.)"""
COUNTED = {0xc4: 1, 0xc5: 2, 0xc6: 4, 0xd9: 1, 0xda: 2, 0xdb: 4, 0xc7: 1, 0xc8: 2, 0xc9: 4}
"""First byte of a bin, str or ext -> the width of its count of bytes."""
NESTED = {0xdc: (2, 1), 0xdd: (4, 1), 0xde: (2, 2), 0xdf: (4, 2)}
"""First byte of an array or map -> the width of its count, and how many items each counts for."""


def read_item(read: Callable[[int], bytes]) -> bytes:
    """The bytes of the one msgpack item that comes next."""
    head = read(1)
    first, items = head[0], 0
    if first < 0x80 or first >= 0xe0 or first in (0xc0, 0xc2, 0xc3):
        return head
    if first < 0x90:
        items = 2 * (first & 0x0f)
    elif first < 0xa0:
        items = first & 0x0f
    elif first < 0xc0:
        return head + read(first & 0x1f)
    elif first in FIXED:
        return head + read(FIXED[first])
    elif first in COUNTED:
        count = read(COUNTED[first])
        return head + count + read(int.from_bytes(count, "big") + (first in (0xc7, 0xc8, 0xc9)))
    elif first in NESTED:
        width, each = NESTED[first]
        count = read(width)
        head, items = head + count, each * int.from_bytes(count, "big")
    else:
        raise ValueError(f"{first:#x} begins no msgpack item")
    return head + b"".join(read_item(read) for _ in range(items))


# ---- payloads


def wrap(wire: str, data: bytes) -> bytes:
    """A payload of that wire that holds `data`."""
    return msgspec.msgpack.encode([data]) if wire == "M" else data


def unwrap(wire: str, payload: bytes | memoryview) -> bytes:
    """What wrap() put in."""
    if wire != "M":
        return bytes(payload)
    data, = msgspec.msgpack.decode(payload, type=tuple[bytes])
    return data


def error_payload(wire: str, text: str) -> bytes:
    """The fields of an Error."""
    if wire == "M":
        return msgspec.msgpack.encode([PROTOCOL_ERROR[wire], text.encode()])
    return struct.pack(">II", PROTOCOL_ERROR[wire], len(text)) + text.encode()


def error_text(wire: str, payload: bytes | memoryview) -> str:
    """Why, in an Error."""
    if wire == "M":
        _, text = msgspec.msgpack.decode(payload, type=tuple[int, bytes])
        return text.decode()
    _, length = struct.unpack_from(">II", payload)
    return bytes(payload)[8:8 + length].decode()


# ---- the link


class ReferencePeer:
    """One end of a link. It does what it is told, in the order it is told."""

    def __init__(self, sock: socket, wire: str, role: str) -> None:
        self.sock, self.wire = sock, wire
        self._next_id = 1 if role == "client" else 0

    # -- bytes

    def _read(self, n: int) -> bytes:
        """Exactly n bytes; EOFError at the end of the stream."""
        data = bytearray()
        while len(data) < n:
            chunk = self.sock.recv(n - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)

    def shake(self, version: int | None = None) -> int | None:
        """Say the opening and read the other's; the version it speaks. 2016 has none."""
        if self.wire == "2016":
            return None
        version = VERSIONS[self.wire] if version is None else version
        if self.wire == "N":
            self.sock.sendall(struct.pack(">I", version))
            return int.from_bytes(self._read(4), "big")
        self.sock.sendall(msgspec.msgpack.encode(["NEO", version]))
        magic, theirs = msgspec.msgpack.decode(read_item(self._read), type=tuple[str, int])
        assert magic == "NEO", magic
        return theirs

    # -- packets

    def frame(self, packet: Packet) -> bytes:
        """Its bytes."""
        if self.wire == "M":
            number = msgspec.msgpack.encode
            return b"\x93" + number(packet.id) + number(packet.code) + (packet.payload or b"\x90")
        length = len(packet.payload) + (HEADER.size if self.wire == "2016" else 0)
        return HEADER.pack(packet.id, packet.code, length) + packet.payload

    def send(self, *packets: Packet) -> None:
        self.sock.sendall(b"".join(map(self.frame, packets)))

    def recv(self) -> Packet:
        """The next packet; EOFError at the end, ValueError for what is none."""
        if self.wire == "M":
            if (first := self._read(1)) != b"\x93":
                raise ValueError(f"{first!r} begins no packet")
            number, code = (msgspec.msgpack.decode(read_item(self._read), type=int) for _ in range(2))
            return Packet(number, code, read_item(self._read))
        number, code, length = HEADER.unpack(self._read(HEADER.size))
        return Packet(number, code, self._read(length - (HEADER.size if self.wire == "2016" else 0)))

    # -- conversations

    def new_id(self) -> int:
        """For a conversation that this end opens: even for a server, odd for a client, as NEO/go does."""
        self._next_id += 2
        return self._next_id - 2

    def ask(self, code: int, payload: bytes = b"") -> Packet:
        """Ask and wait for the answer; nothing else may come meanwhile."""
        asked = Packet(self.new_id(), code, payload)
        self.send(asked)
        answer = self.recv()
        assert answer.id == asked.id, answer
        return answer

    def reply(self, to: Packet, payload: bytes = b"") -> None:
        self.send(Packet(to.id, to.code | ANSWER_BIT, payload))

    # -- ends

    def half_close(self) -> None:
        """Says that nothing more comes; still reads."""
        self.sock.shutdown(SHUT_WR)

    def reset(self) -> None:
        """Ends it so that the kernel sends RST (TCP)."""
        self.sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
