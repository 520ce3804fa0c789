# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The codec's fuzzing, briefly and the same each time; fuzz_codec.py goes on for as long as one likes."""
import struct

import pytest
from fuzz_codec import captured, check, run

from neolink import proto
from neolink.proto import codec_n


def test_what_neo_sent_is_a_message_of_its_wire():
    told = [check(*case) for case in captured()]
    assert told.count(True) > 500 and told.count(True) > 0.8 * len(told)


def test_mutations():
    told = run(seed=7, runs=15000)
    assert all(told[f"{wire} {what}"] > 200 for wire in "NM" for what in ("message", "refused")), told


def test_a_codec_that_forgets_to_look_is_found(monkeypatch):
    def careless(data, position, size, expected):
        return data[position:position + size]
    monkeypatch.setattr(codec_n, "_take", careless)
    monkeypatch.setattr(proto.coding, "_decoders", type(proto.coding._decoders)())
    with pytest.raises(struct.error):
        run(seed=1, runs=15000)         # one of the seeds that do not come upon the length of a list first: 2**31 of nothing
