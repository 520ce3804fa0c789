# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The Python contenders and servers: `python contend.py NAME ARGUMENT...`, started by rows.py.

A contender is a function here that returns another one, which does n operations. See bench.h for the rounds, and for the
codes of the packets. What a contender needs is imported inside it, so that neolink need not be there to run its peers.
"""
from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Callable

NOTE, ASK, ANSWER = 1, 2, 0x8000
HEAD = struct.Struct(">IHI")
Operations = Callable[[int], None]


def connect(port: str) -> socket.socket:
    """A TCP connection without delay to a server of this run."""
    sock = socket.create_connection(("127.0.0.1", int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def socket_ask(port: str, size: str) -> Operations:
    """The round trip as one writes it with a bare socket: pack, sendall, recv, unpack."""
    sock, payload = connect(port), bytes(int(size))

    def run(n: int) -> None:
        send, recv, pack, unpack = sock.sendall, sock.recv, HEAD.pack, HEAD.unpack_from
        for i in range(n):
            send(pack(2 * i + 1, ASK, HEAD.size + len(payload)) + payload)
            answer = recv(65536)
            while len(answer) < HEAD.size or len(answer) < unpack(answer)[2]:
                answer += recv(65536)
    return run


def link_ask(port: str, size: str) -> Operations:
    """link.ask(code, payload)"""
    import neolink
    link, payload = neolink.NodeLink(connect(port), "client"), bytes(int(size))

    def run(n: int) -> None:
        ask = link.ask
        for _ in range(n):
            ask(ASK, payload)
    return run


CONTENDERS: dict[str, Callable[..., Operations]] = {
    "socket_ask": socket_ask, "link_ask": link_ask,
}
SERVERS: dict[str, Callable[..., None]] = {}


def pin_self() -> None:
    """As pin_self of bench.h."""
    if os.environ.get("BENCH_CPU"):
        os.sched_setaffinity(0, {int(os.environ["BENCH_CPU"])})


def do_rounds(operations: Operations) -> None:
    """As do_rounds of bench.h."""
    pin_self()
    print("ready", flush=True)
    for line in sys.stdin:
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        operations(int(line))
        wall = time.perf_counter_ns() - wall
        print(wall, time.process_time_ns() - cpu, flush=True)


def main() -> None:
    """Be the contender or server that the command line names."""
    name, *arguments = sys.argv[1:]
    if name in SERVERS:
        SERVERS[name](*arguments)
    else:
        do_rounds(CONTENDERS[name](*arguments))


if __name__ == "__main__":
    main()
