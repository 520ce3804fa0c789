# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Limits.stray_share: how much of the time packets that nobody wants may take, told by the link's counters."""
import itertools
import socket

import pytest
from scenario_kit import ANSWER, frame, raw_peer
from support import Background, until

import neolink

def throttles(count: int = 6_000, *, at_last: bool = False, **limits) -> int:
    """How often a link was throttled that got so many answers to nothing; it got them all. `at_last`: until it is."""
    with raw_peer("N", "stream", limits=neolink.Limits(**limits)) as (link, peer):
        for turn in itertools.count(1):
            sending = Background(peer.sock.sendall, frame("N", 7, ANSWER) * count)
            until(lambda turn=turn: link.stats().ignored_packets == turn * count)
            sending.result()
            if link.stats().throttles or not at_last:
                return link.stats().throttles


def test_by_default_they_have_a_twentieth():
    assert neolink.Limits().stray_share == 0.05


def test_more_than_their_share():
    """Two thousand have to take a second; on a machine that has no time for them this may not be in the first turn."""
    assert throttles(2_500, at_last=True, stray_share=1e-5) > 0


@pytest.mark.parametrize("share", [None, 1, 1.0])
def test_without_a_bound(share):
    assert throttles(stray_share=share) == 0


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-0.5, ValueError), (1.01, ValueError), (10**400, ValueError),
                                              (float("nan"), ValueError), ("1", TypeError)])
def test_refused(value, error):
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(error, match=r"Limits\.stray_share"):
        neolink.NodeLink(ours, "client", limits=neolink.Limits(stray_share=value))
