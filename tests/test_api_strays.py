# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Limits.stray_share: how much of the time packets that nobody wants may take, told by the link's counters."""
import socket

import pytest
from scenario_kit import ANSWER, frame, raw_peer
from support import Background, until

import neolink

COUNT = 6_000


def throttles(**limits) -> int:
    """How often a link was throttled that got so many answers to nothing; it got them all."""
    with raw_peer("N", "stream", limits=neolink.Limits(**limits)) as (link, peer):
        sending = Background(peer.sock.sendall, frame("N", 7, ANSWER) * COUNT)
        until(lambda: link.stats().ignored_packets == COUNT)
        sending.result()
        return link.stats().throttles


def test_by_default_they_have_a_twentieth():
    assert neolink.Limits().stray_share == 0.05


def test_more_than_their_share():
    """Two thousand would have to take a fifth of a second, on however slow a machine."""
    assert throttles(stray_share=0.001) > 0


@pytest.mark.parametrize("share", [None, 1, 1.0])
def test_without_a_bound(share):
    assert throttles(stray_share=share) == 0


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-0.5, ValueError), (1.01, ValueError), (10**400, ValueError),
                                              (float("nan"), ValueError), ("1", TypeError)])
def test_refused(value, error):
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(error, match=r"Limits\.stray_share"):
        neolink.NodeLink(ours, "client", limits=neolink.Limits(stray_share=value))
