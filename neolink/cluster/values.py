# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments as people give them, made into what travels: "S1" or 1, a tid as 8 bytes or a number, "storage".

What is wrong is refused here, before it can leave: some of it would end the node that reads it.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from neolink import proto
from neolink.cluster.errors import Unsafe, remote

Tid = bytes | int
NodeId = int | str
M = TypeVar("M", bound=proto.WireEnum)


def unsafe(message: str) -> Unsafe:
    return remote(Unsafe, message)


def nid(value: NodeId) -> int:
    """The nid of "S1", or of its number."""
    if isinstance(value, str):
        return proto.nid_parse(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a node is an int or a name such as 'S1', not {value!r}")
    try:
        proto.nid_str(value)
    except ValueError as error:
        raise unsafe(str(error)) from None
    return value


def storage(value: NodeId) -> int:
    """The nid of a storage. Nids of other kinds are refused where only storages make sense."""
    number = nid(value)
    if number < 0:
        raise unsafe(f"{proto.nid_str(number)} is no storage: storages are S1, S2, …")
    return number


def storages(values: Iterable[NodeId]) -> list[int]:
    if isinstance(values, str):
        raise TypeError(f"a list of nodes is expected, not {values!r}")
    return [storage(value) for value in values]


def tid(value: Tid, what: str = "tid") -> bytes:
    """A tid or oid: 8 bytes, or a number of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, (int, bytes)):
        raise unsafe(f"{what} must be 8 bytes or an int, not {value!r}")
    if isinstance(value, int):
        if not 0 <= value < 1 << 64:
            raise unsafe(f"{what} {value} does not fit 8 bytes")
        value = value.to_bytes(8, "big")
    if len(value) != 8:
        raise unsafe(f"{what} must have 8 bytes, not {len(value)}: {value.hex()}")
    if value == proto.INVALID_TID:
        raise unsafe(f"{what} {value.hex()} is no {what}: on the wire it means that there is none")
    return value


def count(value: int, what: str, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {value!r}")
    if not least <= value < 1 << 32:
        raise unsafe(f"{what} must be between {least} and {2**32 - 1}, not {value}")
    return value


def member(enum: type[M], value: M | str) -> M:
    """A member of an enum, by itself or by its name in upper or lower case."""
    if isinstance(value, enum):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{enum.__name__} or its name expected, not {value!r}")
    try:
        return enum[value.upper()]
    except KeyError:
        names = ", ".join(one.name for one in enum)
        raise ValueError(f"{value!r} is none of {enum.__name__}: {names}") from None
