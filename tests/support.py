# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Words that the tests share.

Nothing here sleeps to get lucky: `until` polls a condition with a deadline and fails when it is over; `Background` is a
thread whose result, or exception, the test asks for.
"""
import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import neolink

PATIENCE = 60.0
"""Seconds until a test gives up on something that is sure to happen."""


def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Poll until the condition is true; fail when PATIENCE is over."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come true within {PATIENCE} s")
        time.sleep(0.001)


def within(seconds: float, attempt: Callable[[], float]) -> None:
    """attempt() measures what it does; one of those that a minute has room for, and of five, must have taken less than
    `seconds`.

    A busy machine lengthens one or another, and cannot shorten any. A wait that should not be there is in all of them.
    """
    took: list[float] = []
    end = time.monotonic() + 60
    while not took or took[-1] >= seconds:
        if len(took) >= 5 and time.monotonic() > end:
            pytest.fail(f"not within {seconds} s: {took}")
        took.append(attempt())


def raises_in_time(error: type[Exception], call: Callable[[float], object], match: str = "") -> Exception:
    """What call(seconds) raises when its time is up, having learnt why it had to wait: this error.

    A busy machine may need longer to learn anything at all. Then it is a bare Timeout, and there is more time.
    """
    for seconds in (0.5, 5.0, PATIENCE):
        with pytest.raises((error, neolink.Timeout)) as caught:
            call(seconds)
        if isinstance(caught.value, error) and re.search(match, str(caught.value)):
            return caught.value
    raise caught.value


class Background:
    """function(*args) on a thread of its own; result() is what it returned, or raises what it raised."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._outcome: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function, args, kwargs), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            self._outcome = function(*args, **kwargs)
        except BaseException as error:
            self._error = error

    def done(self) -> bool:
        return not self._thread.is_alive()

    def clock(self) -> int:
        """That of its processor time, for time.clock_gettime()."""
        return time.pthread_getcpuclockid(self._thread.ident)

    def result(self) -> Any:
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            pytest.fail("a thread did not end")
        if self._error is not None:
            raise self._error
        return self._outcome


def serve_who_asks(listener: neolink.Listener, answer: Callable[[neolink.Request], neolink.Packet | None]) -> None:
    """Accept and serve one link after the other until somebody has asked: on auto a dialer that had to wait for the
    processor leaves one connection for another."""
    asked: list[neolink.Request] = []

    def handler(request: neolink.Request) -> neolink.Packet | None:
        asked.append(request)
        return answer(request)

    while not asked:
        with listener.accept(timeout=PATIENCE) as link:
            try:
                link.serve(handler)
            except neolink.LinkDown:
                if asked:
                    raise


def waiting(link: neolink.NodeLink, threads: int = 1) -> None:
    """Return when that many threads wait on the link."""
    until(lambda: link.stats().waiters >= threads, f"{threads} waiting threads")


def kick(link: neolink.NodeLink, noticed: Callable[[], object], threads: int = 1) -> None:
    """SIGALRM to the main thread once that many threads wait on the link; and again, until its handler ran: a signal
    that comes after the thread was counted and before it sleeps is noticed when the wait ends."""
    waiting(link, threads)
    while not noticed():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
        end = time.monotonic() + 1
        while not noticed() and time.monotonic() < end:
            time.sleep(0.001)


@contextlib.contextmanager
def alarm(action: Callable[[], object], seconds: float = 0.05) -> Iterator[None]:
    """SIGALRM after so long, for which action() runs; and again until it ran, for the reason that kick() has."""
    ran: list[object] = []

    def on_signal(*_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if not ran:
            ran.append(True)
            action()

    before = signal.signal(signal.SIGALRM, on_signal)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def poller_clock() -> int:
    """The clock of the processor time that the core's thread takes, for time.clock_gettime()."""
    def is_poller(task: Path) -> bool:
        try:
            return (task / "comm").read_text() == "neolink\n"
        except (FileNotFoundError, ProcessLookupError):         # a thread joined a moment ago may still be listed
            return False

    found: list[int] = []

    def is_one() -> bool:
        found[:] = (int(task.name) for task in Path("/proc/self/task").iterdir() if is_poller(task))
        return len(found) == 1

    until(is_one, "that there is one thread of the core")
    return ~found[0] << 3 | 6                       # as the kernel's headers put it together
