# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Watching the links of a process from inside.

The core keeps a ring of what happened while a trace runs, and nothing otherwise: off, it costs one load and one
branch per event. A thread reads the ring and calls back; a reader that cannot keep up loses events, and each event
says how many were lost before it. The ring is read to its end after the trace was stopped.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, NamedTuple, Self

from neolink import _core, _serve

RING_EVENTS = 4096


class TraceEvent(NamedTuple):
    """Something that happened on a link."""

    kind: Literal["connect", "accept", "send", "recv", "close"]
    time_ns: int
    """On the clock of time.monotonic_ns()."""
    link: int
    """NodeLink.serial of the link."""
    conn_id: int
    code: int
    len: int
    """Bytes of the packet's payload."""
    lost: int
    """Events that were dropped before this one, because nobody read them in time."""


class Trace:
    """with Trace(print): … calls print(event) for each event of the process, on a thread of its own.

    One trace at a time in a process. Leaving it returns when the callback has seen everything; `lost` then says how
    many events were dropped after the last one it saw. What the callback raises goes to threading.excepthook.
    """

    def __init__(self, callback: Callable[[TraceEvent], object], *, events: int = RING_EVENTS) -> None:
        if not callable(callback):
            raise TypeError(f"callback must be callable, not {type(callback).__name__}")
        if events < 1:
            raise ValueError(f"events must be 1 or more, not {events}")
        self._callback = callback
        self._events = events
        self._thread: threading.Thread | None = None
        self.lost = 0

    def __enter__(self) -> Self:
        _core._trace_start(self._events)
        self.lost = 0
        self._thread = threading.Thread(target=self._read, name="neolink-trace", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.lost = _core._trace_stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _read(self) -> None:
        while events := _core._trace_read(True):
            self._deliver(events)

    def _deliver(self, events: list[_core._Event]) -> None:
        for event in events:
            try:
                self._callback(TraceEvent._make(event))
            except BaseException as error:
                _serve.report(error)
