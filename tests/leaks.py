# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing is left behind: threads, descriptors and byte budgets are back where they began.

`balanced` is a fixture for whole modules: whatever a test does, afterwards the process has the descriptors and threads it
had before, and every link that was watched (`balanced.watch(link)`, or made by `balanced.pair()`) has nothing queued, no
Conn, nobody waiting and nobody inside. `at_rest` asks the same of a link that is still open, which says more: closing
would throw away what was forgotten.

A background thread of a test may be on its way out still, so each condition is polled, with a deadline.
"""
import gc
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import neolink

LEAK_PATIENCE = 10.0
"""Seconds until what should go is said to have leaked."""
GAUGES = ("conns", "rx_bytes_queued", "tx_bytes_queued", "waiters", "inside")


def gauges(link: neolink.NodeLink) -> dict[str, int]:
    """What a link holds that it has to give back, where it is not zero."""
    stats = link.stats()
    return {name: getattr(stats, name) for name in GAUGES if getattr(stats, name)}


def open_files() -> dict[str, str]:
    """Descriptor -> what it refers to."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:           # the one that listed the directory
            pass
    return found


def at_rest(*links: neolink.NodeLink, conns: int = 0, patience: float = LEAK_PATIENCE) -> None:
    """Fail unless each link comes to hold nothing but that many Conns."""
    wanted = {"conns": conns} if conns else {}
    for link in links:
        _settle(lambda link=link: gauges(link) == wanted, lambda link=link: f"{link!r} still holds {gauges(link)}", patience)


class Balance:
    """What the process had when this was made, and the links to look at in the end."""

    def __init__(self, patience: float = LEAK_PATIENCE) -> None:
        self._patience = patience
        self._links: list[neolink.NodeLink] = []
        self._files = open_files()
        self._threads = set(threading.enumerate())

    def watch(self, link: neolink.NodeLink) -> neolink.NodeLink:
        """Have this link checked in the end, too."""
        self._links.append(link)
        return link

    def pair(self, **options: Any) -> tuple[neolink.NodeLink, neolink.NodeLink]:
        """neolink.pair(), both ends watched."""
        client, server = neolink.pair(**options)
        return self.watch(client), self.watch(server)

    def check(self) -> None:
        """Fail when anything is left."""
        try:
            _settle(lambda: not self._new_threads(), lambda: f"threads left: {self._new_threads()}", self._patience)
            at_rest(*self._links, patience=self._patience)
        finally:
            self._links.clear()             # a link that was not closed is a descriptor, which comes next
        gc.collect()                        # exceptions that tests caught refer to frames, and those to everything
        gc.freeze()                         # what is left is not the test's: the next need not look through it again
        _settle(lambda: len(open_files()) <= len(self._files), lambda: f"descriptors left: {self._new_files()}",
                self._patience)

    def _new_threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in self._threads]

    def _new_files(self) -> dict[str, str]:
        return {fd: target for fd, target in open_files().items() if self._files.get(fd) != target}


def _settle(condition: Any, complaint: Any, patience: float) -> None:
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            pytest.fail(complaint(), pytrace=False)
        time.sleep(0.001)


@pytest.fixture
def balanced() -> Iterator[Balance]:
    """The test leaves nothing behind."""
    for link in neolink.pair():             # starts what the process keeps: the core's thread and its descriptors
        link.close()
    balance = Balance()
    yield balance
    balance.check()
