# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Handlers on threads: NodeLink.handle_new_conn and NodeLink.serve.

There is no dispatcher. Each idle worker is itself blocked in accept; one that takes a Conn and leaves no other idle
starts a successor before it runs the handler, as long as the pool may grow. So a Conn never waits for a thread to be
woken by another, and a handler that keeps its worker for hours keeps nobody else waiting. A worker that comes back
and finds enough idle ones ends.

Nothing here uses a timer. Workers leave their accept when the link ends, or when the pool stops: then all are woken
(`NodeLink._wake_accept`), and stop() returns when the last has left, so that a Conn opened after handle_new_conn(None)
is queued again for accept(), for sure. A worker that is still on its way into accept is woken too: it asked for the
number of wakes (`_wakes`) when it saw that the pool goes on, and does not sleep when there has been another one since.
"""
from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from neolink import errors

if TYPE_CHECKING:
    from neolink import Conn, NodeLink, Request

ConnHandler = Callable[["Conn"], object]
RequestHandler = Callable[["Request"], object]

WORKERS_MAX = 256
"""Workers of a pool when the caller sets no bound. A peer never says that a Conn ended, so handlers may stay long."""
IDLE_MAX = 4
"""Idle workers kept: a burst of short handlers then starts no threads."""


class Workers:
    """The threads that take from one link. `take` blocks for the next thing to do, `run` does it."""

    def __init__(self, link: NodeLink, request: bool, run: Callable[[Any], None]) -> None:
        self._link = link
        self._request = request             # take requests (recv1) or Conns (accept)
        self._run = run
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)     # somebody stopped being idle: for stop()
        self._limit = 0                     # guarded by _lock, as all below
        self._threads = 0
        self._idle = 0                      # in accept, or on the way there
        self._stopping = False

    def grow(self, limit: int) -> None:
        """Let there be up to `limit` workers, and one now."""
        with self._lock:
            self._limit, self._stopping = limit, False
            if self._idle == 0 and self._threads < limit:
                self._start()

    def stop(self) -> None:
        """Return when no worker takes any more. Those that run a handler end after it."""
        with self._lock:
            self._stopping = True
            self._link._wake_accept()
            while self._idle:
                self._changed.wait()

    def work(self) -> None:
        """Take and run until the link ends, which raises, or the pool stops. The caller is a worker meanwhile."""
        with self._lock:
            self._limit += 1
            self._threads += 1
            self._idle += 1
        self._work()

    def _start(self) -> None:
        # Counted before it runs, so that two starters do not both see room for one.
        self._threads += 1
        self._idle += 1
        try:
            threading.Thread(target=self._thread, name=f"neolink-{self._link.serial}", daemon=True).start()
        except RuntimeError:                # no more threads: those there are go on
            self._threads -= 1
            self._idle -= 1
            if self._threads == 0:
                raise

    def _thread(self) -> None:
        try:
            self._work()
        except errors.Error:
            pass                            # the link ended; whoever uses it is told there

    def _work(self) -> None:
        taken = wakes = None
        try:
            while (taken := self._take(wakes)) is not None:
                self._run(taken)
                taken = None                # let go of the Conn before the next wait
                with self._lock:
                    if self._stopping or self._idle >= IDLE_MAX or self._threads > self._limit:
                        return
                    wakes = self._link._wakes()
                    self._idle += 1
        finally:
            with self._lock:
                self._threads -= 1

    def _wakes(self) -> int | None:
        """What a worker brings into accept, so that it sees a stop() from here on; None when the pool stops already."""
        with self._lock:
            return None if self._stopping else self._link._wakes()

    def _take(self, wakes: int | None) -> Any:
        """The next Conn or Request, None when the pool stops. The worker is idle until this returns. `wakes` is what
        _wakes() would have said when it became idle, if it was asked then."""
        taken = None
        try:
            if wakes is not None:
                taken = self._link._take(self._request, wakes)
            while taken is None and (wakes := self._wakes()) is not None:
                taken = self._link._take(self._request, wakes)
        finally:
            with self._lock:
                self._idle -= 1
                if taken is not None and self._idle == 0 and self._threads < self._limit and not self._stopping:
                    self._start()
                if self._stopping:
                    self._changed.notify_all()
        return taken


class ConnPool:
    """The pool of handle_new_conn: made with the first handler, kept by the link."""

    def __init__(self, link: NodeLink) -> None:
        self._link = link
        self._handler: ConnHandler | None = None
        self._setting = threading.Lock()    # one change at a time
        self._workers = Workers(link, False, self._serve)

    def set(self, handler: ConnHandler | None, limit: int) -> None:
        """Serve with `handler` from now on; None: stop taking Conns, and return when nobody takes any more."""
        with self._setting:
            if handler is None:
                self._workers.stop()        # _handler stays: a Conn taken a moment ago is still served by it
            else:
                self._handler = handler
                self._workers.grow(limit)

    def _serve(self, conn: Conn) -> None:
        handler = self._handler
        assert handler is not None          # set before the first worker starts
        with conn:
            try:
                handler(conn)
            except BaseException as error:
                if not is_own_end(error, conn):
                    report(error)


def serve(link: NodeLink, handler: RequestHandler, workers: int) -> None:
    """NodeLink.serve: the caller is one of the workers, and returns when the link ends."""

    def run(request: Request) -> None:
        try:
            value = handler(request)
            if value is not None:
                request.reply(value)
        except Exception as error:
            if not is_own_end(error, request.conn):
                report(error)
        finally:
            request.close()                 # `with` would make two method objects for each request

    try:
        if workers == 1:
            alone(link, run)
        else:
            together(link, run, workers)
    except (errors.LinkClosed, errors.NotAccepting):
        pass
    except errors.LinkDown as error:
        if not error.clean:
            raise


def alone(link: NodeLink, run: Callable[[Request], None]) -> NoReturn:
    """One worker needs no pool: it has no successor to start, and nobody stops it."""
    recv1 = link.recv1
    while True:
        run(recv1())                        # no name for the request: it is let go of before the next wait


def together(link: NodeLink, run: Callable[[Request], None], workers: int) -> None:
    """The caller and up to workers - 1 threads of a pool that ends with this call."""
    pool = Workers(link, True, run)
    pool.grow(workers - 1)
    try:
        pool.work()
    finally:
        pool.stop()


def is_own_end(error: BaseException, conn: Conn) -> bool:
    """Whether a handler ended because its own link or Conn did, which is nobody's news."""
    if isinstance(error, errors.LinkError):
        return error.link is conn.link
    return isinstance(error, errors.ConnError) and error.link is conn.link and error.conn_id == conn.conn_id


class Reports:
    """Which exceptions go to the hook that prints them: of each kind one a second, and how many there were.

    A kind is a type and the line that raised it, so there are no more of them than the program has lines that raise.
    """

    SECONDS = 1.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[tuple[type, str, int], tuple[float, int]] = {}    # when it was told, and not told since

    def others(self, error: BaseException) -> int | None:
        """How many of its kind were not told since the last that was; None: this one is not told either."""
        kind = (type(error), *raised_at(error))
        with self._lock:
            now = self._clock()
            told, held_back = self._kinds.get(kind, (now - self.SECONDS, 0))
            if now - told < self.SECONDS:
                self._kinds[kind] = told, held_back + 1
                return None
            self._kinds[kind] = now, 0
            return held_back


def raised_at(error: BaseException) -> tuple[str, int]:
    """The file and line of the innermost frame."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return (traceback.tb_frame.f_code.co_filename, traceback.tb_lineno) if traceback else ("", 0)


_reports = Reports()


def _after_fork() -> None:
    """Whoever held its lock is not in the child."""
    global _reports
    _reports = Reports()


os.register_at_fork(after_in_child=_after_fork)


def report(error: BaseException) -> None:
    """As if the thread had died of it: to threading.excepthook.

    A peer decides how often a handler raises, and Python's own hook prints each traceback: so that one gets one of each
    kind a second, and "neolink" logs with it how many it did not get. A hook of the program's own gets them all.
    """
    others: int | None = 0
    if threading.excepthook is threading.__excepthook__:
        others = _reports.others(error)
    if others is None:
        return
    args = (type(error), error, error.__traceback__, threading.current_thread())
    try:
        threading.excepthook(threading.ExceptHookArgs(args))
        if others:
            import logging

            logging.getLogger("neolink").warning("%d more like this %s were raised since the last that was printed",
                                                 others, type(error).__name__)
    except Exception as broken:             # a broken hook must not end the worker
        sys.__excepthook__(type(broken), broken, broken.__traceback__)
