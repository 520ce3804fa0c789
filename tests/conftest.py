# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures that the tests share, and what holds for all of a run."""
import contextlib
import gc
import signal
import threading
from collections.abc import Iterator

import pytest
from support import descriptors, until

import neolink


def pytest_sessionstart() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would this process and the programs that it starts."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def only_garbage_of_its_own() -> None:
    """Many tests end with a search for garbage (leaks.py), and looking through all of pytest and hypothesis for it, and
    through what earlier tests have left to them, took half the processor time of a run."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def links() -> Iterator[tuple[neolink.NodeLink, neolink.NodeLink]]:
    """(client end, server end) on wire M."""
    client, server = neolink.pair()
    with contextlib.closing(client), contextlib.closing(server):
        yield client, server


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """The test gives back its descriptors and threads."""
    for link in neolink.pair():         # starts what the process keeps: the core's thread and its descriptors
        link.close()
    before = descriptors(), threading.active_count()
    yield
    until(lambda: descriptors() <= before[0], "closing all descriptors")
    until(lambda: threading.active_count() <= before[1], "ending all threads")
