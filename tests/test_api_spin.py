# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Limits.spin_seconds: when a waiting thread tries the socket before it sleeps, told by the link's counters."""
import os
import socket
import struct

import pytest
from support import Background

import neolink

pytestmark = pytest.mark.usefixtures("no_leaks")

HEAD = struct.Struct(">IHI")            # wire 2016
ASKS = 400
many_processors = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: nothing tries")


def echo(sock):
    """A plain peer in Python, slower than any try: answers one request at a time until the end."""
    while head := sock.recv(HEAD.size, socket.MSG_WAITALL):
        conn_id, code, length = HEAD.unpack(head)
        sock.sendall(HEAD.pack(conn_id, code | 0x8000, length))


def stats_of_asks(**limits):
    """The client's counters after ASKS asks, one after the other, to a slow peer."""
    ours, theirs = socket.socketpair()
    peer = Background(echo, theirs)
    with neolink.NodeLink(ours, "client", limits=neolink.Limits(**limits)) as link:
        for _ in range(ASKS):
            link.ask(0x2E)
        stats = link.stats()
    peer.result()
    theirs.close()
    return stats


def test_zero_is_off():
    stats = stats_of_asks(spin_seconds=0)
    assert (stats.spins, stats.spin_hits, stats.packets_received) == (0, 0, ASKS)


@many_processors
def test_default_tries():
    assert 0 < neolink.Limits().spin_seconds < 0.001
    stats = stats_of_asks()
    assert stats.spins > 0 and stats.spin_hits <= stats.spins


@many_processors
def test_misses_make_it_rare():
    """A try of a nanosecond is one read, too early for this peer: after each miss twice as many asks do without."""
    stats = stats_of_asks(spin_seconds=1e-9)
    assert 0 < stats.spins < ASKS / 4


@many_processors
def test_hits_keep_it_up():
    """A try that takes longer than any answer is worth it every time, and leaves the GIL to whoever answers."""
    stats = stats_of_asks(spin_seconds=None)
    assert stats.spin_hits > ASKS / 2


def test_one_processor_is_off():
    """On one processor the peer could not answer while we try."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert stats_of_asks().spins == 0
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_refused(value, error):
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(error, match=r"Limits\.spin_seconds"):
        neolink.NodeLink(ours, "client", limits=neolink.Limits(spin_seconds=value))
