# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Ids, times and node ids, as NEO writes and prints them."""
from datetime import datetime, timedelta, timezone

import pytest

from neolink import proto

DATES = [       # from NEO itself; both directions truncate, so the second reads back a microsecond earlier
    (datetime(1970, 1, 1), "023c2b0000000000", datetime(1970, 1, 1)),
    (datetime(2012, 1, 1, 12, 34, 56), "03937af2eeeeeeee", datetime(2012, 1, 1, 12, 34, 55, 999999)),
    (datetime(2023, 11, 14, 22, 13, 20, 250000), "03f47f9556666666", datetime(2023, 11, 14, 22, 13, 20, 249999)),
    (datetime(1900, 1, 1), "0000000000000000", datetime(1900, 1, 1)),
]
NIDS = [("S1", 1), ("S16777215", 0xffffff), ("M1", -268435455), ("C1", -536870911), ("A1", -805306367),
        ("M2", -268435454)]


@pytest.mark.parametrize("date, tid, back", DATES, ids=[tid for _, tid, _ in DATES])
def test_dates(date, tid, back):
    assert proto.datetime_to_tid(date).hex() == tid
    assert proto.datetime_to_tid(date.replace(tzinfo=timezone.utc)).hex() == tid
    elsewhere = date.replace(tzinfo=timezone.utc).astimezone(timezone(timedelta(hours=9)))
    assert proto.datetime_to_tid(elsewhere).hex() == tid
    assert proto.tid_to_datetime(bytes.fromhex(tid)) == back.replace(tzinfo=timezone.utc)


def test_a_printed_tid():       # the last line of neoctl's `print ids`, from a recorded session
    tid = proto.id_from_hex("0x40d308fc1f08122")
    assert proto.tid_to_datetime(tid) == datetime(2026, 11, 22, 15, 43, 45, 454563, timezone.utc)
    assert proto.id_short(tid) == "0x40d308fc1f08122" and proto.id_hex(tid) == "040d308fc1f08122"


def test_dates_that_are_none():
    february_30 = proto.id_from_int((((100 * 12 + 1) * 31 + 29) * 24 * 60) << 32)
    with pytest.raises(ValueError, match=f"tid {february_30.hex()} is not a date"):
        proto.tid_to_datetime(february_30)
    east = timezone(timedelta(hours=1))
    for date in (datetime(1899, 12, 31), datetime(1900, 1, 1, tzinfo=east), datetime(9999, 1, 1)):
        with pytest.raises(ValueError, match="has no tid"):
            proto.datetime_to_tid(date)
    with pytest.raises(ValueError, match="8 bytes, not 7"):
        proto.tid_to_datetime(bytes(7))


def test_ids_and_numbers():
    assert proto.id_from_int(1) == bytes(7) + b"\1" and proto.id_to_int(proto.MAX_TID) == 2 ** 63 - 1
    assert proto.id_hex(proto.ZERO_OID) == "0" * 16 and proto.id_hex(None) == "None"
    assert proto.id_from_hex("192") == proto.id_from_hex("0000000000000192") == proto.id_from_int(0x192)
    for number in (-1, 1 << 64):
        with pytest.raises(ValueError, match="does not fit"):
            proto.id_from_int(number)
    for text in ("", "0x", "g", "1" * 17, "-1", "1 2"):
        with pytest.raises(ValueError, match="not an oid or tid"):
            proto.id_from_hex(text)


@pytest.mark.parametrize("text, nid", NIDS)
def test_nids(text, nid):
    assert proto.nid_parse(text) == nid and proto.nid_str(nid) == text


@pytest.mark.parametrize("text", ["", "S", "S0", "X1", "1", "S-1", "S 1", "S1x", "s1", "S16777216", "S\u0661"])
def test_texts_that_are_no_nid(text):
    with pytest.raises(ValueError, match="is not a node id"):
        proto.nid_parse(text)


@pytest.mark.parametrize("nid", [0, 1 << 24, -0x10000000, -1, 1 << 31])
def test_numbers_that_are_no_nid(nid):
    with pytest.raises(ValueError, match="is not a node id"):
        proto.nid_str(nid)
