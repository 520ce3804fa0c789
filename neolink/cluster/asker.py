# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""One question at a time to an admin, of several that may be asked.

Why one at a time: an admin of NEO 1.12 gives every answer that it relays the id of the latest question, and an admin of
any age may send an Error under an id of its own. With a single question under way, there is nothing to mix up. For the
same reason a link on which a question timed out is not used again: its answer may still come, under a later id.

What an admin says when it cannot answer, and what is done about it:

    NOT_READY                           it has no primary master; it closes. The next admin is asked, or the same one
                                        again after a pause, until the time is up
    PROTOCOL_ERROR connection to        the master went away. Questions are asked again; commands are not, for they may
      master lost                       have been done: MasterLost
    the link ends                       likewise: questions are asked again, commands raise LinkDown
    DENIED                              the master refuses: Refused
    PROTOCOL_ERROR unexpected packet    it is no admin but waits for us to identify: NotAnAdmin
"""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import neolink
from neolink import errors, proto
from neolink._address import split
from neolink._typed import Deadline
from neolink.cluster.errors import MasterLost, NoSuchNode, NotAnAdmin, NotReady, Refused, remote

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two tries: soon at first, because most waits are short, then not so often as to be a load."""

_NO_SUCH_NODE = ("unknown node", "invalid storage node")    # how the master begins to say so


class Pause:
    """Growing pauses until a deadline: `while pause(): …`"""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._seconds = FIRST_PAUSE

    def __call__(self) -> bool:
        """Sleep a little more than the last time. False: the time is up."""
        left = self._deadline.left()
        if left is not None and left <= self._seconds:
            time.sleep(left)
            return False
        time.sleep(self._seconds)
        self._seconds = min(1.5 * self._seconds, LONGEST_PAUSE)
        return True


class Asker:
    """The link to whichever admin answers. Safe from any thread: they queue."""

    def __init__(self, address: Any, tls: neolink.TLS | None, wire: Any) -> None:
        targets = address if isinstance(address, list) else [address]
        self._targets = [part for target in targets for part in split(target)]
        self._tls, self._wire = tls, wire
        self._first = 0                         # the target to try first
        self._link: neolink.NodeLink | None = None
        self._busy = threading.Lock()           # held while a question is under way; guards the two above
        self._closed = False

    def connect(self, deadline: Deadline) -> None:
        """Dial now, so that a wrong address shows at once."""
        with self._turn(deadline, "connect"):
            self._linked(deadline)

    def ask(self, message: proto.Message, deadline: Deadline, *, repeat: bool) -> Any:
        """The answer. `repeat`: to ask twice does no harm, so a lost link or master is no reason to give up."""
        with self._turn(deadline, type(message).__name__):
            pause, redialed, problem = Pause(deadline), False, None
            while True:
                try:
                    return self._linked(deadline).ask(message, timeout=deadline.left())
                except errors.RemoteError as error:
                    problem = self._understood(error)
                    again = isinstance(problem, NotReady) or repeat and isinstance(problem, MasterLost)
                    if not again or not pause():
                        raise problem from error
                except errors.LinkDown:
                    self._drop()
                    if redialed or not repeat:
                        raise
                    redialed = True
                except errors.Timeout:
                    self._drop()
                    if problem is not None:         # what there was to wait for tells more
                        raise problem from None
                    raise
                except errors.EncodeError:          # nothing was sent
                    raise
                except BaseException:               # an odd answer, or Ctrl-C while one is owed to us
                    self._drop()
                    raise

    def notify(self, message: proto.Message, deadline: Deadline) -> None:
        """Send a notification, and make sure that the admin took it: what it refuses, it refuses before a Pong."""
        with self._turn(deadline, type(message).__name__):
            pause, refusal = Pause(deadline), None
            while True:
                try:
                    link = self._linked(deadline)
                except errors.Timeout:
                    if refusal is not None:         # what there was to wait for tells more
                        raise refusal from None
                    raise
                with link.new_conn() as conn:
                    try:
                        conn.send(message, timeout=deadline.left())
                        link.ask(proto.Ping(), timeout=deadline.left())
                        return
                    except errors.LinkDown as down:
                        refusal = self._refusal(conn, down)
                        self._drop()
                        if not isinstance(refusal, NotReady) or not pause():
                            raise refusal from None
                    except errors.Timeout:
                        self._drop()
                        raise refusal or errors.Timeout(
                            f"{type(message).__name__}: the admin did not say in time that it took it") from None

    def close(self) -> None:
        self._closed = True
        link = self._link
        if link is not None:
            link.close()                        # wakes whoever waits for an answer, too

    @property
    def wire(self) -> str | None:
        """The wire of the admin that was asked last."""
        link = self._link
        return None if link is None else link.wire

    # ---- all below with self._busy held

    @contextmanager
    def _turn(self, deadline: Deadline, what: str) -> Iterator[None]:
        left = deadline.left()
        if not self._busy.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
            raise errors.Timeout(f"{what}: timed out while another question to the admin was under way")
        try:
            yield
        finally:
            self._busy.release()

    def _linked(self, deadline: Deadline) -> neolink.NodeLink:
        """The link, dialed anew if there is none that works."""
        if self._closed:
            raise errors.LinkClosed("this cluster connection was closed")
        if self._link is None or self._link.closed:
            self._link = self._dial(deadline)
            if self._closed:                        # while we dialed, so close() did not see the link
                self._link.abort()
                raise errors.LinkClosed("this cluster connection was closed")
        return self._link

    def _dial(self, deadline: Deadline) -> neolink.NodeLink:
        """A link to the first target, from the one that is next, that takes it."""
        failures: list[errors.Error] = []
        order = self._targets[self._first:] + self._targets[:self._first]
        for place, target in enumerate(order):
            left = deadline.left()
            try:
                link = neolink.dial(target, timeout=None if left is None else left / (len(order) - place),
                                    tls=self._tls, wire=self._wire, accept="ignore")
            except (errors.DialError, errors.Timeout) as error:
                failures.append(error)
            else:
                self._first = self._targets.index(target)
                return link
        raise failures[0] if len(failures) == 1 else _none_answers(failures)

    def _drop(self) -> None:
        """Give this link up; the next admin has its turn."""
        if self._link is not None:
            self._link.abort()
            self._link = None
        self._first = (self._first + 1) % len(self._targets)

    def _understood(self, error: errors.RemoteError) -> errors.RemoteError:
        """What an Error answer means. After all but DENIED the admin closes, so the link is dropped."""
        problem = understood(error)
        if not isinstance(problem, Refused):
            self._drop()
        return problem

    def _refusal(self, conn: neolink.Conn, down: errors.LinkDown) -> errors.Error:
        """Why the link ended after a notification: the Error that came for it, if any."""
        try:
            conn.expect(proto.Pong, timeout=0)
        except errors.RemoteError as error:
            return understood(error)
        except errors.Error:
            pass
        return down


def understood(error: errors.RemoteError) -> errors.RemoteError:
    """An Error answer of an admin as one of cluster.errors, if it is one of those."""
    code, message = error.code, error.message
    if code is proto.ErrorCodes.DENIED:
        cls = NoSuchNode if message.startswith(_NO_SUCH_NODE) else Refused
        return remote(cls, message, code=code, cause=error)
    if code is proto.ErrorCodes.NOT_READY:
        return remote(NotReady, message, code=code, cause=error)
    if code is proto.ErrorCodes.PROTOCOL_ERROR and message == "connection to master lost":
        return remote(MasterLost, message, code=code, cause=error,
                      text="the admin lost its master over this: it may or may not have been done")
    if code is proto.ErrorCodes.PROTOCOL_ERROR and message.startswith("unexpected packet"):
        where = "this address" if error.link is None else _text(error.link.peer_address)
        return remote(NotAnAdmin, message, code=code, cause=error,
                      text=f"{where} is a master or a storage, not an admin: it wants to know first who we are. "
                           "Give the address that a neoadmin was started with")
    return error


def _text(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else f"unix:{address}"


def _none_answers(failures: Sequence[errors.Error]) -> errors.Error:
    """One error for several targets: a handshake that failed tells more than a host that is down."""
    cls = next((kind for kind in (errors.HandshakeError, errors.DialError, errors.Timeout)
                if any(isinstance(failure, kind) for failure in failures)), errors.DialError)
    failure = cls("none of the admins could be reached: " + "; ".join(str(one) for one in failures))
    for one in failures:
        if isinstance(one, errors.HandshakeError) and isinstance(failure, errors.HandshakeError):
            failure.ours, failure.theirs = one.ours, one.theirs
    failure.op = "dial"
    return failure
