# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Node ids, object ids, transaction ids and time, as NEO writes and prints them.

A node id (nid) is a signed 32-bit number whose top byte names the kind of node and whose low 24 bits count from 1:
S1 is 1, M1 is 0xf0000001 = -268435455. Negative ids are given anew at each identification; storages keep theirs.

Object and transaction ids (oid, tid) are 8 bytes, big-endian. A tid is a date in UTC. Its high word counts minutes in a
calendar whose months all have 31 days, which keeps the arithmetic trivial and the order right; its low word is the
position within the minute, in units of 60 s / 2**32. Both conversions truncate, so a date may come back 1 us earlier.
"""
from datetime import datetime, timezone

ZERO_TID = ZERO_OID = bytes(8)              # "no revision yet": the serial of a new object
MAX_TID = bytes.fromhex("7fffffffffffffff")     # the largest real tid
INVALID_TID = INVALID_OID = b"\xff" * 8     # how N writes None; never a value
ZERO_HASH = bytes(20)                       # the checksum of "no data"
ALL_PARTITIONS = 0xffffffff                 # AskTIDs.partition: all that the storage can read

NAMESPACES = {"S": 0x00, "M": -0x10, "C": -0x20, "A": -0x30}    # top byte of a nid, signed
LETTERS = {namespace: letter for letter, namespace in NAMESPACES.items()}

_MICROSECONDS_PER_MINUTE = 60_000_000


def nid_str(nid: int) -> str:
    """A nid as NEO prints it: `nid_str(1)` is "S1". ValueError if its top byte is no namespace."""
    letter = LETTERS.get(nid >> 24)
    if letter is None or not nid & 0xffffff:
        raise ValueError(f"{nid} is not a node id: no node type has numbers like {nid & 0xffffffff:#010x}")
    return f"{letter}{nid & 0xffffff}"


def nid_parse(text: str) -> int:
    """The nid of a letter (S, M, C or A) and a number from 1: `nid_parse("M1")` is -268435455."""
    letter, number = text[:1], text[1:]
    if letter not in NAMESPACES or not (number.isascii() and number.isdigit()):
        raise ValueError(f"{text!r} is not a node id: expected S, M, C or A and a number, such as S1")
    count = int(number)
    if not 1 <= count <= 0xffffff:
        raise ValueError(f"{text!r} is not a node id: the number must be between 1 and {0xffffff}")
    return (NAMESPACES[letter] << 24) + count


def id_to_int(value: bytes) -> int:
    """The number in an oid or tid: `id_to_int(ZERO_TID)` is 0."""
    return int.from_bytes(_eight_bytes(value), "big")


def id_from_int(number: int) -> bytes:
    """The oid or tid of a number: `id_from_int(1)` is b"\\0\\0\\0\\0\\0\\0\\0\\1"."""
    if not 0 <= number < 1 << 64:
        raise ValueError(f"{number} does not fit the 8 bytes of an oid or tid")
    return number.to_bytes(8, "big")


def id_hex(value: bytes | None) -> str:
    """An oid or tid in NEO's logs and error messages: 16 hex digits, or "None"."""
    return "None" if value is None else _eight_bytes(value).hex()


def id_from_hex(text: str) -> bytes:
    """The oid or tid of its hex form, with or without 0x and leading zeros."""
    digits = text.removeprefix("0x")
    if not 1 <= len(digits) <= 16:
        raise ValueError(f"{text!r} is not an oid or tid: expected 1 to 16 hex digits")
    try:
        return bytes.fromhex(digits.rjust(16, "0"))
    except ValueError:
        raise ValueError(f"{text!r} is not an oid or tid: expected 1 to 16 hex digits") from None


def id_short(value: bytes) -> str:
    """An oid or tid in the output of neoctl: `0x40d308fc1f08122`, without leading zeros."""
    return f"{id_to_int(value):#x}"


def tid_to_datetime(tid: bytes) -> datetime:
    """The date of a tid, in UTC. ValueError for the few tids that name a day such as February 30."""
    number = id_to_int(tid)
    minutes, fraction = number >> 32, number & 0xffffffff
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    months, day = divmod(days, 31)
    year, month = divmod(months, 12)
    second, microsecond = divmod(fraction * _MICROSECONDS_PER_MINUTE >> 32, 1_000_000)
    try:
        return datetime(1900 + year, 1 + month, 1 + day, hour, minute, second, microsecond, timezone.utc)
    except ValueError as error:
        raise ValueError(f"tid {tid.hex()} is not a date: {error}") from None


def datetime_to_tid(when: datetime) -> bytes:
    """The tid of a date. A date without time zone is taken as UTC, NEO's clock."""
    when = when.replace(tzinfo=timezone.utc) if when.tzinfo is None else when.astimezone(timezone.utc)
    if when.year < 1900:
        raise ValueError(f"{when} has no tid: NEO's time begins in 1900")
    days = ((when.year - 1900) * 12 + when.month - 1) * 31 + when.day - 1
    minutes = (days * 24 + when.hour) * 60 + when.minute
    microseconds = when.second * 1_000_000 + when.microsecond
    if minutes >= 1 << 32:
        raise ValueError(f"{when} has no tid: it lies beyond the 8 bytes of one")
    return id_from_int(minutes << 32 | (microseconds << 32) // _MICROSECONDS_PER_MINUTE)


def _eight_bytes(value: bytes) -> bytes:
    if len(value) != 8:
        raise ValueError(f"an oid or tid has 8 bytes, not {len(value)}: {value.hex()}")
    return value
