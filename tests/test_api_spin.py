# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What a second processor changes: when a waiting thread tries the socket before it sleeps (Limits.spin_seconds), and that
threads woken together come one after the other. Told by the link's counters."""
import ctypes
import os
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
from contextlib import contextmanager

import pytest
from support import Background, waiting

import neolink

pytestmark = pytest.mark.usefixtures("no_leaks")

HEAD = struct.Struct(">IHI")            # wire 2016
ASKS = 400
many_processors = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor: nothing tries")
needs_gil = pytest.mark.skipif(sysconfig.get_config_var("Py_GIL_DISABLED"), reason="no GIL to wait for")


# A plain peer, slower than any try: answers one request at a time until the end. A process of its own, for in ours it
# would want the GIL, and what it costs to get that back makes a difference here. With the name of a thread's file in
# /proc it answers when that thread sleeps.
ECHO = """
import socket, struct, sys
sock, head = socket.socket(fileno=int(sys.argv[1])), struct.Struct(">IHI")

def sleeps(name):
    with open(name) as file:
        return file.read().rpartition(")")[2].split()[0] == "S"

while request := sock.recv(head.size, socket.MSG_WAITALL):
    while sys.argv[2] and not sleeps(sys.argv[2]):
        pass
    conn_id, code, length = head.unpack(request)
    sock.sendall(head.pack(conn_id, code | 0x8000, length))
"""


def tcp_pair():
    """As socket.socketpair(), of TCP."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname()), server.accept()[0]


@contextmanager
def slow_peer(when_asleep=False, tcp=False, peer_cpus=None, **limits):
    """A link to it."""
    ours, theirs = tcp_pair() if tcp else socket.socketpair()
    us = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/stat" if when_asleep else ""
    with theirs:
        peer = subprocess.Popen([sys.executable, "-c", ECHO, str(theirs.fileno()), us], pass_fds=[theirs.fileno()])
    if peer_cpus:
        os.sched_setaffinity(peer.pid, peer_cpus)
    with peer, neolink.NodeLink(ours, "client", limits=neolink.Limits(**limits)) as link:
        yield link
    assert peer.returncode == 0


def stats_of_asks(asks=ASKS, **kind):
    """The client's counters after so many asks, one after the other, to a slow peer."""
    with slow_peer(**kind) as link:
        for _ in range(asks):
            link.ask(0x2E)
        return link.stats()


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
    """A try of a nanosecond is one read, too early for this peer, who waits until we sleep: after each miss twice as many
    asks do without."""
    stats = stats_of_asks(spin_seconds=1e-9, when_asleep=True)
    assert 0 < stats.spins < ASKS / 4


@many_processors
def test_hits_keep_it_up():
    """A try that takes longer than any answer is worth it every time, and leaves the GIL to whoever answers. On a machine
    that has no time for the peer, hits are rare; but behind each comes another try. If we had no time either, the poller
    took the link for idle, and read the answer."""
    asked, hits, hit = 0, 0, False
    with slow_peer(spin_seconds=None) as link:
        while asked < ASKS or not hits:
            before = link.stats()
            link.ask(0x2E)
            after = link.stats()
            tries = after.spins - before.spins
            assert tries or not hit or after.poller_reads > before.poller_reads
            hit = 0 < tries == after.spin_hits - before.spin_hits
            asked, hits = asked + 1, hits + hit


def busy_echo(sock):
    """The same in a thread of ours, which keeps the GIL for 20 ms after each answer: PyDLL does not give it up."""
    libc = ctypes.PyDLL(None)
    while request := sock.recv(HEAD.size, socket.MSG_WAITALL):
        conn_id, code, length = HEAD.unpack(request)
        libc.send(sock.fileno(), HEAD.pack(conn_id, code | 0x8000, length), HEAD.size, 0)
        libc.usleep(20000)


@many_processors
@needs_gil
def test_misses_that_cost_more_than_a_try_do_not_make_it_rare():
    """The asker has its answer, and not the GIL: what that cost is worth a try, however many were in vain. Unless it got no
    processor before the GIL was free again, and waited for nothing: so not each time. By misses alone there would be ten
    tries in so many asks."""
    asked, tries = 0, 15
    ours, theirs = socket.socketpair()
    peer = Background(busy_echo, theirs)
    with theirs:
        with neolink.NodeLink(ours, "client", limits=neolink.Limits(spin_seconds=1e-9)) as link:
            while link.stats().spins < tries:
                assert asked < ASKS
                link.ask(0x2E)
                asked += 1
        peer.result()


@many_processors
def test_peer_that_may_run_here_is_not_tried_for():
    """A peer of this host, over TCP, while nobody is pinned."""
    assert stats_of_asks(tcp=True).spins == 0


@many_processors
def test_peer_on_a_processor_of_its_own_is_tried_for():
    """Also within a host. It is seen where the peer is when an answer was slept for; the poller may have read the first ones."""
    before = os.sched_getaffinity(0)
    here, there = sorted(before)[:2]
    with slow_peer(tcp=True, peer_cpus={there}) as link:
        os.sched_setaffinity(0, {here})
        try:
            asked = 0
            while not link.stats().spins:
                assert asked < ASKS
                link.ask(0x2E)
                asked += 1
        finally:
            os.sched_setaffinity(0, before)


def test_one_processor_is_off():
    """On one processor the peer could not answer while we try."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert stats_of_asks().spins == 0
    finally:
        os.sched_setaffinity(0, before)


def wakes_left():
    """The counter, after one write of the peer had answers for many threads."""
    askers = 8
    ours, theirs = socket.socketpair()
    with theirs, neolink.NodeLink(ours, "client") as link:
        threads = [Background(link.ask, 0x2E) for _ in range(askers)]
        waiting(link, askers)
        requests = [HEAD.unpack(theirs.recv(HEAD.size, socket.MSG_WAITALL)) for _ in range(askers)]
        theirs.sendall(b"".join(HEAD.pack(conn_id, code | 0x8000, HEAD.size) for conn_id, code, _ in requests))
        assert {answer.conn_id for answer in [thread.result() for thread in threads]} == {r[0] for r in requests}
        return link.stats().wakes_left


@many_processors
@needs_gil
def test_threads_come_one_after_the_other():
    assert wakes_left() > 0


def test_all_come_at_once_on_one_processor():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert wakes_left() == 0
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)])
def test_refused(value, error):
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(error, match=r"Limits\.spin_seconds"):
        neolink.NodeLink(ours, "client", limits=neolink.Limits(spin_seconds=value))
