# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What the scenario tests share: packets made and read by hand, peers that are mere sockets, programs in processes of their
own, and a link that is full.

The codec here is the tests' own, so that a mistake of the core's is not made twice.
"""
import contextlib
import os
import resource
import socket
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from support import PATIENCE

import neolink

WIRES = ("2016", "N", "M")
KINDS = [(wire, routing) for wire in WIRES for routing in ("stream", "neo")]

REQUEST, ANSWER = 0x1234, 0x9234
"""A code that no catalogue knows counts as a request; with the answer bit it is an answer. On all wires."""
NOTIFY = 5
"""A notification on all wires."""
ERROR = 0x8000
PUSH = {"2016": 94, "N": 63, "M": 67}
"""AddTransaction: travels on the id of its receiver's request, without the answer bit."""


def each_wire(test: Any) -> Any:
    """The test runs once per wire."""
    return pytest.mark.parametrize("wire", WIRES)(test)


def each_kind(test: Any) -> Any:
    """The test runs once per wire and routing."""
    return pytest.mark.parametrize("wire, routing", KINDS)(test)


# ---- packets by hand


class Seen(NamedTuple):
    """A packet as it was on the wire."""

    conn_id: int
    code: int
    payload: bytes

    @property
    def error(self) -> str | None:
        """The text, when this is an Error."""
        return bytes(self.payload).partition(b"connection ")[2].decode() if self.code == ERROR else None


def body(wire: str, data: bytes = b"") -> bytes:
    """A payload that holds `data`: on M an array of one binary string."""
    return b"\x91\xc6" + len(data).to_bytes(4, "big") + data if wire == "M" else data


def data_of(wire: str, payload: Any) -> bytes:
    """What body() put in."""
    return bytes(payload)[6:] if wire == "M" else bytes(payload)


def frame(wire: str, conn_id: int, code: int, payload: bytes = b"") -> bytes:
    """A packet's bytes."""
    if wire == "M":
        return b"\x93\xce" + conn_id.to_bytes(4, "big") + b"\xcd" + code.to_bytes(2, "big") + (payload or b"\x90")
    length = len(payload) + (10 if wire == "2016" else 0)
    return conn_id.to_bytes(4, "big") + code.to_bytes(2, "big") + length.to_bytes(4, "big") + payload


def split(wire: str, data: bytes) -> tuple[list[Seen], bytes]:
    """The packets in `data`, and what remains."""
    found, at = [], 0
    with contextlib.suppress(IndexError):
        while at < len(data):
            packet, end = (_split_m if wire == "M" else _split_bin)(wire, data, at)
            if end > len(data):
                break
            found.append(packet)
            at = end
    return found, data[at:]


def _split_bin(wire: str, data: bytes, at: int) -> tuple[Seen, int]:
    if len(data) - at < 10:
        raise IndexError
    length = int.from_bytes(data[at + 6:at + 10], "big") - (10 if wire == "2016" else 0)
    end = at + 10 + length
    return Seen(int.from_bytes(data[at:at + 4], "big"), int.from_bytes(data[at + 4:at + 6], "big"), data[at + 10:end]), end


def _split_m(_: str, data: bytes, at: int) -> tuple[Seen, int]:
    assert data[at] == 0x93, data[at:at + 20]
    conn_id, at = _uint(data, at + 1)
    code, at = _uint(data, at)
    end = _skip(data, at)
    return Seen(conn_id, code, data[at:end]), end


def _uint(data: bytes, at: int) -> tuple[int, int]:
    sizes = {0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8}
    if data[at] < 0x80:
        return data[at], at + 1
    end = at + 1 + sizes[data[at]]
    if end > len(data):
        raise IndexError
    return int.from_bytes(data[at + 1:end], "big"), end


def _skip(data: bytes, at: int) -> int:
    """Past one msgpack item, of the kinds that these tests and Errors are made of."""
    first = data[at]
    if first < 0x80 or first in (0xc0, 0xc2, 0xc3):
        return at + 1
    if 0xa0 <= first < 0xc0:
        return at + 1 + (first & 0x1f)
    if 0x90 <= first < 0xa0:
        at += 1
        for _ in range(first & 0x0f):
            at = _skip(data, at)
        return at
    if first in (0xcc, 0xcd, 0xce, 0xcf):
        return _uint(data, at)[1]
    width = {0xc4: 1, 0xc5: 2, 0xc6: 4, 0xd9: 1, 0xda: 2}[first]
    if at + 1 + width > len(data):
        raise IndexError
    return at + 1 + width + int.from_bytes(data[at + 1:at + 1 + width], "big")


class RawPeer:
    """The other end of a link, as a socket that does what it is told."""

    def __init__(self, sock: socket.socket, wire: str) -> None:
        self.sock, self.wire = sock, wire
        self._rest = b""
        self._seen: list[Seen] = []
        sock.settimeout(PATIENCE)

    def send(self, conn_id: int, code: int, payload: bytes = b"") -> None:
        self.sock.sendall(frame(self.wire, conn_id, code, payload))

    def recv(self) -> Seen:
        """The next packet; EOFError at the end."""
        while not self._seen:
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError(f"with {self._rest!r} left")
            self._seen, self._rest = split(self.wire, self._rest + data)
        return self._seen.pop(0)

    def rest(self) -> list[Seen]:
        """All packets until the end of file; the stream must not end inside one."""
        found = []
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                found.append(self.recv())
        assert self._rest == b"", self._rest
        return found

    def reset(self) -> None:
        """Close it so that the kernel sends RST (TCP)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """As socket.socketpair(), over loopback TCP, where there is RST."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


@contextlib.contextmanager
def raw_peer(wire: str, routing: str | None = None, *, role: str = "client", tcp: bool = False,
             **options: Any) -> Iterator[tuple[neolink.NodeLink, RawPeer]]:
    """(link, peer): a link of ours whose other end is a mere socket. Leaving it aborts the link."""
    near, far = tcp_pair() if tcp else socket.socketpair()
    link = neolink.NodeLink(near, role, wire=wire, routing=routing, **options)
    try:
        with far:
            yield link, RawPeer(far, wire)
    finally:
        link.abort()


@contextlib.contextmanager
def both_ends(wire: str, routing: str | None = None, **options: Any) -> Iterator[tuple[neolink.NodeLink, neolink.NodeLink]]:
    """(client, server), closed at the end."""
    client, server = neolink.pair(wire=wire, routing=routing, **options)
    with contextlib.ExitStack() as stack:
        stack.callback(server.abort)
        stack.callback(client.abort)
        yield client, server


def stuff(link: neolink.NodeLink, size: int = 50_000) -> int:
    """Notify until the budget is full; how many were taken. The peer must not read.

    A peer that is a link reads in the background until it is over its link_rx_bytes.
    """
    sent = 0
    with pytest.raises(neolink.Timeout):
        while True:
            link.notify(NOTIFY, body(link.wire, sent.to_bytes(4, "big") + bytes(size)), timeout=0)
            sent += 1
    return sent


# ---- programs


def run_program(source: str, *args: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    """Run Python source in a process of its own, with this neolink and these helpers."""
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(os.path.abspath(neolink.__file__)))
    path = os.pathsep.join([root, here, os.environ.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source), *args], text=True,
                          env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=timeout)


def peak_memory() -> int:
    """The largest the process has been, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory() -> int:
    """How large the process is, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# ---- rates
#
# Rates are compared as processor time for the same work, in two ways that take turns. Wall time says more about what
# the machine does, so of that the fastest tenth of the turns is looked at, in which nobody was put aside: a wait that
# should not be there is in all of them, and far over what is allowed.


def is_above(bound: float, measure: Callable[[], float], lead: int = 35, rounds_max: int = 40 * 35 * 35) -> bool:
    """Whether what `measure` returns is above the bound more often than it is not.

    A walk: a step up for each value above, down for each other, until it is `lead` steps away from where it began. When
    three in five values are above, it ends below once in (3/2)^35, or 1.5 million, cases, after 175 rounds in the mean;
    when as many are above as are not, a coin decides, after 35^2 rounds in the mean, and almost never `rounds_max`.
    """
    steps = 0
    for _ in range(rounds_max):
        steps += 1 if measure() > bound else -1
        if abs(steps) == lead:
            break
    return steps > 0


@contextlib.contextmanager
def one_processor() -> Iterator[None]:
    """This thread, and those that it starts, share one. What a switch from one thread to another costs depends on whether
    both are on the same processor, by a factor of two or three; of two pairs of threads that do the same one may have been
    put so and the other not, for as long as they live."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Cost(NamedTuple):
    """What some work took, in seconds."""

    cpu: float
    wall: float


def cost(work: Callable[[], object], cpu_clock: Callable[[], float] = time.process_time) -> Cost:
    """What one turn of `work` takes."""
    cpu, wall = cpu_clock(), time.perf_counter()
    work()
    return Cost(cpu_clock() - cpu, time.perf_counter() - wall)


def keeps_its_rate(solo: Callable[[], Cost], loaded: Callable[[], Cost], share: float = 0.9, wall_share: float = 0.5,
                   trade: Callable[[], object] = lambda: None) -> bool:
    """Whether a turn of `loaded` is done at that share of the rate of `solo` or more.

    A round is some turns of each, alternating; what is saved in one may be paid in the next, so their sums are compared.
    In each half of a round `trade` makes the two change places. Of two pairs of links that do the same, with nothing
    queued, one may take up to a third more than the other for as long as they live (it is so in one process of five,
    and either of them); this way each has been the one with the load for half of what is compared.
    """
    ways = solo, loaded
    took: tuple[list[Cost], list[Cost]] = [], []

    def rate() -> float:
        for n in range(8):
            if n % 4 == 0:
                trade()
            for which in ((0, 1), (1, 0))[(n + n // 4) % 2]:    # each comes first after one of the trades
                took[which].append(ways[which]())
        alone, with_it = (sum(each.cpu for each in costs[-8:]) for costs in took)
        return alone / with_it

    if not is_above(share, rate):
        return False
    alone, with_it = (statistics.quantiles([each.wall for each in costs], n=10)[0] for costs in took)
    return alone / with_it > wall_share
