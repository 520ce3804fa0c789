# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The program of test_fail_memory.py: one operation, in which the n-th allocation of Python fails, for every n.

    python tests/fail_memory.py [--tls CA CERT KEY] OPERATION [N]

That there was no n-th one shows right behind the operation, where it is met then. (To fail all from the n-th on would say
no more of us: the interpreter itself goes round for ever when it has no memory to enter an exception's handler.) Each run
ends in success, in MemoryError, or in the SystemError that CPython 3.11's loop makes of a handler it has no memory to
enter; the operation "interpreter" shows that, and has nothing of ours. A function of C that returned NULL without an
exception is told from it by its text, "... returned NULL without setting an exception".

After each run the links answer, or are closed. The whole is done three times; the last time may not keep more memory than
the one before, and no pass a descriptor. N repeats one run. What is running is printed first, so that a crash is reported
with its n. Who answers is a child, in which nothing fails.
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
SOCKETPAIR = socket.socketpair
ENDS: list[socket.socket] = []
PATIENCE = 20.0
INTERPRETERS_OWN = "error return without exception set"
SLACK = 12
"""Blocks of memory that a whole pass of many runs may keep: caches of the interpreter, not one block a run."""


class Stage:
    """What an operation works on: a link to the child, and two ends in this process."""

    def __init__(self, ports: list[int], certificates: list[str]) -> None:
        self.address, self.tls_address = [("127.0.0.1", port) for port in (ports[0], ports[-1])]
        self.tls = neolink.TLS(*certificates) if certificates else None
        self.certificates = certificates
        self.link = neolink.dial(self.address, wire="2016", timeout=PATIENCE)
        self.client, self.server = neolink.pair(wire="2016")
        self.closed = neolink.pair(wire="2016")[0]
        self.closed.close()
        self.packets = [neolink.Packet(REQUEST, SOME) for _ in range(3)]
        self.notes = [neolink.Packet(NOTIFY, SOME) for _ in range(3)]

    def check(self) -> None:
        """The links that are there live on, or are closed and say so."""
        if not self.link.closed:
            assert bytes(self.link.ask(REQUEST, SOME, timeout=PATIENCE).payload) == SOME
        close_ends()
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


def make_ends() -> None:
    """The next socketpair() gives ends that are there already: Python's own loses descriptors when it has no memory."""
    close_ends()
    ENDS[:] = SOCKETPAIR()
    socket.socketpair = lambda *_: tuple(ENDS)


def close_ends() -> None:
    """A descriptor has one owner: a socket that still has it can close it, whatever became of the link."""
    for end in ENDS:
        if end.fileno() >= 0:
            os.fstat(end.fileno())
            end.close()
    ENDS.clear()


def adopt() -> None:
    neolink.NodeLink(ENDS[0], "client").close()


def listen() -> None:
    neolink.listen(("127.0.0.1", 0), wire="2016").close()


def dial(stage: Stage) -> None:
    neolink.dial(stage.address, wire="2016", timeout=PATIENCE).close()


def dial_tls(stage: Stage) -> None:
    neolink.dial(stage.tls_address, wire="M", timeout=PATIENCE, tls=stage.tls).close()


def interpreter() -> None:
    """An exception of a plain class, raised and caught: no line of ours."""
    def fail() -> None:
        raise LookupError(bytes(100))
    try:
        fail()
    except LookupError as error:
        str(error)


OPERATIONS: dict[str, Operation] = {
    "interpreter": lambda s: (interpreter, nothing),
    "dial": lambda s: (lambda: dial(s), nothing),
    "listen": lambda s: (listen, nothing),
    "nodelink": lambda s: (adopt, make_ends),
    "pair": lambda s: (lambda: [end.close() for end in neolink.pair(wire="M")], make_ends),
    "new_conn": lambda s: (lambda: s.link.new_conn().close(), nothing),
    "new_conns": lambda s: (lambda: [conn.close() for conn in [s.link.new_conn() for _ in range(100)]], nothing),
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
    "dial_tls": lambda s: (lambda: dial_tls(s), nothing),
}
NEEDS_TLS = ("tls", "dial_tls")


# ---- running

def one(stage: Stage, act: Callable[[], Any], before: Callable[[], Any], n: int) -> bool:
    """One run; whether it had an n-th allocation."""
    outcome: Any = None
    reached = True
    before()
    _testcapi.set_nomemory(n - 1, n)                        # it counts from none
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
    if outcome is not None and not (type(outcome) is SystemError and str(outcome) == INTERPRETERS_OWN):
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


def take(listener: neolink.Listener) -> None:
    for link in listener:
        threading.Thread(target=serve, args=(link,), daemon=True).start()


def child(certificates: list[str]) -> None:
    """Answers every request of every link, until it is killed."""
    listeners = [neolink.listen(("127.0.0.1", 0), wire="2016")]
    if certificates:
        listeners.append(neolink.listen(("127.0.0.1", 0), wire="M", tls=neolink.TLS(*certificates)))
    for listener in listeners[1:]:
        threading.Thread(target=take, args=(listener,), daemon=True).start()
    print(*(listener.address[1] for listener in listeners), flush=True)
    take(listeners[0])


def main(name: str, only: str | None, certificates: list[str]) -> None:
    """All runs of an operation, or one of them."""
    faulthandler.enable()
    command = [sys.executable, __file__, "--child", *certificates]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            stage = Stage([int(port) for port in process.stdout.readline().split()], certificates)
            if only:
                act, before = OPERATIONS[name](stage)
                one(stage, act, before, int(only))
                return
            kept = []
            for _ in range(3):
                runs = every(stage, OPERATIONS[name])
                gc.collect()
                kept.append((sys.getallocatedblocks(), len(os.listdir("/proc/self/fd"))))
            flat = kept[2][0] - kept[1][0] <= SLACK and kept[2][1] == kept[0][1]
            assert flat, f"blocks of memory and descriptors after each pass: {kept}"
            stage.close()
            print(f"{name}: {runs} allocations, {runs * 3} runs")
        finally:
            process.kill()


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[0] == "--child":
        child(words[1:])
    else:
        files = words[1:4] if words[0] == "--tls" else []
        words = words[4:] if files else words
        main(words[0], words[1] if words[1:] else None, files)
