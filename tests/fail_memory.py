# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The program of test_fault_memory.py: one operation, in which the n-th allocation of Python fails, for every n.

    python tests/fail_memory.py OPERATION [N]

That there was no n-th one shows right behind the operation, where it is met then. (To fail all from the n-th on would say
no more of us: the interpreter itself goes round for ever when it has no memory to enter an exception's handler.) Each run ends in success or MemoryError; then the link answers
an ask, or is closed. The whole is done three times, and the last time may not keep more memory than the one before. N
repeats one run. What is running is printed first, so that a crash is reported with its n.

Who answers is a child, in which nothing fails.
"""
from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import _testcapi

import neolink
from neolink.errors import Error

REQUEST, NOTIFY = 0x0020, 5
SOME = b"abc" * 10
PATIENCE = 20.0
SLACK = 12
"""Blocks of memory that a whole pass of many runs may keep: caches of the interpreter, not one block a run."""


class Stage:
    """What an operation works on: a link to the child, and two ends in this process."""

    def __init__(self, address: tuple[str, int], certificates: list[str]) -> None:
        self.address = address
        self.tls = neolink.TLS(*certificates) if certificates else None
        self.certificates = certificates
        self.link = neolink.dial(address, wire="2016", timeout=PATIENCE)
        self.client, self.server = neolink.pair(wire="2016")
        self.closed = neolink.pair(wire="2016")[0]
        self.closed.close()
        self.packets = [neolink.Packet(REQUEST, SOME) for _ in range(3)]
        self.notes = [neolink.Packet(NOTIFY, SOME) for _ in range(3)]

    def check(self) -> None:
        """The links that are there live on, or are closed and say so."""
        if not self.link.closed:
            assert bytes(self.link.ask(REQUEST, SOME, timeout=PATIENCE).payload) == SOME
        assert not self.client.closed and not self.server.closed
        while True:                                         # what a failed run left there is its affair
            try:
                self.server.accept(0).close()
            except neolink.Timeout:
                break

    def close(self) -> None:
        for link in (self.link, self.client, self.server):
            link.close()


# ---- operations: each gives what shall fail, and what has to be done before each run

Operation = Callable[[Stage], tuple[Callable[[], Any], Callable[[], Any]]]


def nothing() -> None:
    """No preparation."""


def sent(stage: Stage) -> neolink.Conn:
    """A Conn whose request is on its way to the other end."""
    conn = stage.client.new_conn()
    conn.send(REQUEST, SOME)
    return conn


def answer(stage: Stage) -> None:
    request = stage.server.recv1(timeout=PATIENCE)
    request.reply(REQUEST | 0x8000, SOME)


def receive(stage: Stage) -> None:
    stage.server.accept(timeout=PATIENCE).recv(timeout=PATIENCE).payload


def refused(call: Callable[[], Any]) -> Callable[[], None]:
    """A call whose error is made by the extension."""
    def run() -> None:
        try:
            call()
        except Error as error:
            str(error)
        else:
            raise AssertionError("that should have failed")
    return run


def adopt() -> None:
    ends = socket.socketpair()
    try:
        neolink.NodeLink(ends[0], "client").close()
    finally:
        for end in ends:
            end.close()


def listen() -> None:
    neolink.listen(("127.0.0.1", 0), wire="2016").close()


def dial(stage: Stage, tls: neolink.TLS | None = None) -> None:
    neolink.dial(stage.address, wire="2016", timeout=PATIENCE, tls=tls).close()


OPERATIONS: dict[str, Operation] = {
    "dial": lambda s: (lambda: dial(s), nothing),
    "listen": lambda s: (listen, nothing),
    "nodelink": lambda s: (adopt, nothing),
    "pair": lambda s: (lambda: [end.close() for end in neolink.pair(wire="M")], nothing),
    "new_conn": lambda s: (lambda: s.link.new_conn().close(), nothing),
    "send": lambda s: (lambda: sent(s), nothing),
    "recv": lambda s: (lambda: receive(s), lambda: sent(s)),
    "recv1_reply": lambda s: (lambda: answer(s), lambda: sent(s)),
    "ask": lambda s: (lambda: s.link.ask(REQUEST, SOME, timeout=PATIENCE).payload, nothing),
    "ask_many": lambda s: (lambda: s.link.ask_many(s.packets, timeout=PATIENCE), nothing),
    "notify": lambda s: (lambda: s.link.notify(NOTIFY, SOME), nothing),
    "notify_many": lambda s: (lambda: s.link.notify_many(s.notes), nothing),
    "stats": lambda s: (s.link.stats, nothing),
    "repr": lambda s: (lambda: (repr(s.link), repr(s.link.peer_address), repr(s.packets[0])), nothing),
    "limits": lambda s: (lambda: neolink.Limits(conns=5), nothing),
    "timeout_error": lambda s: (refused(lambda: s.server.accept(0)), nothing),
    "closed_error": lambda s: (refused(lambda: s.closed.ask(REQUEST, SOME, timeout=PATIENCE)), nothing),
    "dial_error": lambda s: (refused(lambda: neolink.dial(("127.0.0.1", 1), timeout=PATIENCE)), nothing),
    "tls": lambda s: (lambda: neolink.TLS(*s.certificates), nothing),
    "dial_tls": lambda s: (lambda: refused(lambda: dial(s, tls=s.tls))(), nothing),
}


# ---- running

def one(stage: Stage, act: Callable[[], Any], before: Callable[[], Any], n: int) -> bool:
    """One run; whether it had an n-th allocation."""
    outcome: Any = None
    reached = True
    before()
    _testcapi.set_nomemory(n, n + 1)
    try:
        act()
    except MemoryError:
        pass
    except BaseException as error:
        outcome = error
    try:
        bytearray(1000)
        bytearray(1000)
    except MemoryError:
        reached = False
    finally:
        _testcapi.remove_mem_hooks()
    if outcome is not None:
        raise outcome
    stage.check()
    return reached


def every(stage: Stage, operation: Operation) -> int:
    """All n; their number."""
    act, before = operation(stage)
    n, going = 0, True
    before()
    act()                                                   # what it imports is there from here on
    while going:
        n += 1
        os.write(1, f"{n}\n".encode())
        going = one(stage, act, before, n)
    return n


def serve(link: neolink.NodeLink) -> None:
    """Answer until the link ends."""
    with contextlib.suppress(Error), link:
        link.serve(lambda request: request.reply(request.packet.code | 0x8000, request.packet.payload))


def child() -> None:
    """Answers every request of every link."""
    listener = neolink.listen(("127.0.0.1", 0), wire="2016")
    print(*listener.address, flush=True)
    for link in listener:
        threading.Thread(target=serve, args=(link,), daemon=True).start()


def main(name: str, only: str | None, certificates: list[str]) -> None:
    faulthandler.enable()
    with subprocess.Popen([sys.executable, __file__, "--child"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host, port = process.stdout.readline().split()
            stage = Stage((host, int(port)), certificates)
            if only:
                act, before = OPERATIONS[name](stage)
                one(stage, act, before, int(only))
                return
            kept = []
            for _ in range(3):
                runs = every(stage, OPERATIONS[name])
                gc.collect()
                kept.append((sys.getallocatedblocks(), len(os.listdir("/proc/self/fd"))))
            assert kept[2][0] - kept[1][0] <= SLACK, f"blocks of memory and descriptors after each pass: {kept}"
            assert kept[2][1] == kept[0][1], f"blocks of memory and descriptors after each pass: {kept}"
            stage.close()
            print(f"{name}: {runs} allocations, {runs * 3} runs")
        finally:
            process.kill()


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        child()
    else:
        main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 and sys.argv[2] else None, sys.argv[3:])
