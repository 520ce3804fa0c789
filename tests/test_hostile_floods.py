# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Floods: packets that mean nothing to anybody, as fast as they can be sent. What they can take is bounded by Limits,
and by what any traffic takes; the links of others are served meanwhile.

A flood uses processor time and caches, as everything does that has to be read. What is promised, and is looked at here:

- all floods together are read for a share of a processor's time (Limits.stray_share), by estimate, and their peers
  wait; at which rate others are served meanwhile by the clock is for a benchmark to say (row 16 of bench/).

And where that is switched off:

- the same work is done for an ask of others, by the counters, and takes their threads about the same processor time;
- the poller does a bounded piece for the flood, then looks after others;
- a packet of a flood costs no more than a few ordinary ones of its size.

The flood comes from processes of their own, which read what they are answered: a peer that does not is cut off, which
is another test's matter.
"""
import contextlib
import functools
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import (
    ANSWER,
    NOTIFY,
    REQUEST,
    RawPeer,
    Cost,
    body,
    both_ends,
    cost,
    each_wire,
    frame,
    keeps_its_rate,
    one_processor,
    memory,
    raw_peer,
)
from support import PATIENCE, Background, poller_clock, until

import neolink

pytestmark = pytest.mark.usefixtures("balanced")
MB = 1 << 20


class Flood(NamedTuple):
    """Packets with ids in steps; `answer` is in what each is answered when nobody accepts."""

    id_step: int
    first_id: int
    code: int
    payload: bytes
    answer: bytes = b""

    @functools.cache
    def packets(self, wire: str, count: int) -> bytes:
        payload = body(wire, self.payload) if self.payload else b""
        ids = range(self.first_id, self.first_id + count * self.id_step, self.id_step) if self.id_step else [0] * count
        return b"".join(frame(wire, conn_id, self.code, payload) for conn_id in ids)


# On a link whose end is the client, routed by parity: even ids are the peer's to open, odd ones were never opened.
FLOODS = {
    "opens": Flood(2, 0, REQUEST, b"", b"refused"),
    "opens by notifications": Flood(2, 0, NOTIFY, b"x"),
    "dead ids": Flood(2, 1, REQUEST, b"x", b"closed"),
    "unexpected answers": Flood(2, 1, ANSWER, b"x"),
    "one id": Flood(0, 0, NOTIFY, b"x"),
}
each_flood = pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
# What is sent to one id is queued, and stops at the budget: it does not pour.
each_that_pours = pytest.mark.parametrize("flood", list(FLOODS.values())[:-1], ids=list(FLOODS)[:-1])


@contextlib.contextmanager
def echoing() -> Iterator[tuple[neolink.NodeLink, Background]]:
    """A link that has nothing to do with the hostile one, and whose peer echoes, on a thread."""
    with both_ends("N") as (client, server):
        serving = Background(server.serve, lambda request: neolink.Packet(ANSWER, request.packet.payload))
        yield client, serving
        client.close()
        serving.result()


def drain(sock: socket.socket) -> None:
    """Read all that comes, until the end; that of an abort may be inside a packet."""
    while sock.recv(1 << 16):
        pass


@each_wire
@each_flood
def test_a_flood_of_packets(wire, flood):
    """Twenty thousand, and the peer reads what it is told: memory stays within the limits, and others are served."""
    count, limits = 20_000, neolink.Limits(conns=200, accept_backlog=100, link_rx_bytes=MB, link_tx_bytes=MB)
    packets = flood.packets(wire, count)
    threads = threading.active_count()
    with raw_peer(wire, "stream", limits=limits) as (link, peer), echoing() as (link_of_others, _):
        before = memory()
        draining = Background(drain, peer.sock)
        sending = Background(peer.sock.sendall, packets)
        until(lambda: link.stats().packets_received >= count or link.closed or link.stats().rx_bytes_queued >= MB)
        stats = link.stats()
        assert stats.conns <= 200 and stats.rx_bytes_queued < 1.2 * MB and stats.tx_bytes_queued < 1.2 * MB
        assert memory() - before < 16 * MB
        assert threading.active_count() <= threads + 3          # ours: echo, drain, send
        link_of_others.ask(REQUEST, timeout=PATIENCE)
        link.abort()
        for each in (sending, draining):
            with contextlib.suppress(OSError):
                each.result()
        at_rest(link)


# ---- its share

HOSE = """
import socket, sys
sock, count, due = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
piece = sys.stdin.buffer.read(count)
try:
    sock.sendall(piece)
    while True:
        sock.sendall(piece)                         # while the one before is answered
        missing = due
        while missing:
            missing -= len(sock.recv(min(missing, 1 << 16))) or sys.exit()
except OSError:
    pass                                            # the link ended
"""
SHARE = neolink.Limits().stray_share
STRAY, REPLY, QUANTUM = 100e-9, 200e-9, 200e-6
"""What the core estimates in seconds that a stray takes, and a reply; and how much it lets pass before it looks."""


PIECE = 2000
"""Packets at once: the answers to two fit into what a peer may leave unread."""


def due_for(flood: Flood, peer: RawPeer) -> int:
    """How many bytes a piece is answered with, by the answer to one packet."""
    if not flood.answer:
        return 0
    peer.sock.sendall(flood.packets("N", 1))
    answer = peer.sock.recv(1000)
    assert flood.answer in answer
    return PIECE * len(answer)


@contextlib.contextmanager
def hose(flood: Flood) -> Iterator[neolink.NodeLink]:
    """A link into which a process pours as fast as it can, and reads what it is told; else it would be cut off."""
    with raw_peer("N", "stream", limits=neolink.Limits(accept_backlog=0)) as (link, peer):
        packets, due = flood.packets("N", PIECE), due_for(flood, peer)
        peer.sock.settimeout(None)                  # for the process, too
        command = [sys.executable, "-c", HOSE, str(peer.sock.fileno()), str(len(packets)), str(due)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[peer.sock.fileno()]) as process:
            try:
                process.stdin.write(packets)
                process.stdin.flush()
                yield link
            finally:
                link.abort()
                peer.sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("waited_on", [False, True], ids=["", "with a thread that waits"])
@each_that_pours
def test_floods_have_one_share_together(flood, waited_on):
    """Three at once, read by the poller or by a thread that waits for something on their link: by their packets, they
    are read for their share of the time that passed, twice that at the most since they do not begin together.

    On a busy machine a hose may come too late to read what it is told, and its link is ended for that; or all of it is
    so slow that the floods never have more than their share. Then some packets are enough."""
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(hose(flood)) for _ in range(3)]
        waiting = [Background(link.recv1) for link in links if waited_on]
        began, before = time.monotonic(), [link.stats() for link in links]

        def has_had_enough(link: neolink.NodeLink) -> bool:
            stats = link.stats()
            return link.closed or stats.throttles >= 10 or stats.packets_received > 30_000

        until(lambda: all(map(has_had_enough, links)))
        read = [link.stats() for link in links]
        passed = time.monotonic() - began
        packets = sum(now.packets_received - then.packets_received for now, then in zip(read, before))
        took = packets * (STRAY + (REPLY if flood.answer else 0))
        assert took < 2 * SHARE * passed + len(links) * 2 * QUANTUM
        for link in links:
            link.abort()
        for each in waiting:
            with pytest.raises(neolink.LinkError):
                each.result()


# ---- while it pours

FLOODER = """
import socket, sys
sock, count, due = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
piece = sys.stdin.buffer.read(count)
while command := sys.stdin.buffer.read(1):          # a piece for each
    sock.sendall(piece)
    missing = due
    while missing:
        missing -= len(sock.recv(min(missing, 1 << 16))) or sys.exit("the link ended")
    sys.stdout.buffer.write(command)                # the first has left
    sys.stdout.flush()
"""
class Flooder:
    """A process that floods `link`, a piece for each byte that it is written."""

    def __init__(self, link: neolink.NodeLink, flood: Flood, sock: socket.socket, due: int) -> None:
        packets = flood.packets("N", PIECE)
        command = [sys.executable, "-c", FLOODER, str(sock.fileno()), str(len(packets)), str(due)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        pass_fds=[sock.fileno()])
        self.process.stdin.write(packets)
        self.link, self._size, self._due = link, len(packets), link.stats().bytes_received

    def pour(self, pieces: int) -> None:
        """Begin with so many; returns when the first has left."""
        self.process.stdin.write(b"." * pieces)
        self.process.stdin.flush()
        self._due += pieces * self._size
        assert self.process.stdout.read(1)

    def wait(self, pieces: int) -> None:
        """Until the rest of `pieces` has come."""
        assert len(self.process.stdout.read(pieces - 1)) == pieces - 1
        until(lambda: self.link.stats().bytes_received == self._due)


@contextlib.contextmanager
def flooder(flood: Flood) -> Iterator[Flooder]:
    """On a link where nothing is accepted."""
    with raw_peer("N", "stream", limits=neolink.Limits(accept_backlog=0, stray_share=None)) as (link, peer):
        due = due_for(flood, peer)
        peer.sock.settimeout(None)                  # for the process, too
        hose = Flooder(link, flood, peer.sock, due)
        with hose.process:
            try:
                yield hose
            finally:
                link.abort()


WORK = ("rx_takes", "rx_handovers", "rx_arms", "tx_turns", "tx_handoffs", "poller_reads", "poller_idle_wakeups")


def work_of(link: neolink.NodeLink) -> dict[str, int]:
    stats = link.stats()
    return {name: getattr(stats, name) for name in WORK}


@each_that_pours
def test_others_take_the_same_work_and_time_while_it_pours(flood):
    """Twenty asks without and twenty with, in turns: by the counters of their link, and the processor time of the
    thread that asks and of the one that answers. A quarter is for the caches, in which the flood is, too."""
    pieces = 10 if flood.answer else 40
    with flooder(flood) as hose, one_processor(), echoing() as (link, serving):
        clock = serving.clock()
        work: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
        turns = poured = 0

        def asks() -> None:
            for _ in range(20):
                link.ask(REQUEST, timeout=PATIENCE)

        def turn(with_flood: bool) -> Cost:
            nonlocal turns, poured
            turns += 1
            if with_flood:
                hose.pour(pieces)
            before, received = work_of(link), hose.link.stats().bytes_received
            took = cost(asks, lambda: time.thread_time() + time.clock_gettime(clock))
            poured += hose.link.stats().bytes_received - received
            work[with_flood].update(work_of(link))
            work[with_flood].subtract(before)
            if with_flood:
                hose.wait(pieces)
            return took

        asks()
        assert keeps_its_rate(lambda: turn(False), lambda: turn(True), share=0.75, wall_share=0)
        end = time.monotonic() + PATIENCE
        while poured <= MB and time.monotonic() < end:          # while they asked: a busy machine may give it few turns
            turn(False)
            turn(True)
        assert poured > MB
        for name in WORK:       # a thread that is put aside for long makes the poller look at its link, once
            assert work[True][name] <= work[False][name] + turns, (name, work, turns)


# ---- what the poller does for it


@contextlib.contextmanager
def filled(packets: bytes, **limits: Any) -> Iterator[Callable[[], neolink.NodeLink]]:
    """The maker of a link whose socket is full already; until it is called nobody reads."""
    near, far = socket.socketpair()
    with far:
        far.settimeout(PATIENCE)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * len(packets))
        far.sendall(packets)
        made: list[neolink.NodeLink] = []

        def make() -> neolink.NodeLink:
            unbounded = neolink.Limits(stray_share=None, **limits)
            link = neolink.NodeLink(near, "client", wire="N", routing="stream", limits=unbounded)
            made.append(link)
            return link

        try:
            yield make
        finally:
            near.close()
            for link in made:
                link.abort()


BLOCK, TURN = 65536, 1024
"""Bytes the poller reads at once, and packets after which it does not read again before it looked after others."""


def test_the_poller_leaves_a_flood_for_others():
    """Packets as small as they can be: a turn of a flooded link is a read of them, not sixteen as of ordinary links."""
    count = 30_000
    packets = Flood(2, 1, ANSWER, b"").packets("N", count)
    with filled(packets) as make:
        link = make()
        until(lambda: link.stats().packets_received == count)
        at_rest(link)
        per_turn = TURN - 1 + BLOCK * count // len(packets)
        assert link.stats().poller_reads >= count / per_turn > 1


@each_that_pours
def test_a_packet_of_a_flood_costs_no_more_than_a_few_ordinary_ones(flood):
    """Those of the same size that are queued for a Conn; in processor time of the core's thread, which reads both."""
    clock = poller_clock()

    def reading(kind: Flood) -> Cost:
        with filled(kind.packets("N", PIECE), accept_backlog=1 if kind is ordinary else 0, link_rx_bytes=None,
                    conn_rx_bytes=None) as make:

            def read() -> None:
                link = make()
                until(lambda: link.stats().packets_received == PIECE)

            return cost(read, lambda: time.clock_gettime(clock))

    ordinary = flood._replace(id_step=0, first_id=0, code=NOTIFY, answer=b"")
    assert keeps_its_rate(lambda: reading(ordinary), lambda: reading(flood), share=0.25, wall_share=0)
