# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Reading from a cluster as its clients do. There is nothing here that writes.

    with cluster.client("127.0.0.1:24210", "test") as client:
        tid = client.last_tid()
        client.load(1)                                          # Object(serial=…, data=…)
        for transaction in client.transactions():               # from the first to the last
            print(transaction.tid.hex(), transaction.description)

What is read lies in a partition, and a partition has cells: any readable one will do. When a storage cannot be reached,
is slow beyond its share of the time, says that its cell is not readable, or sends bytes that do not match their
checksum, the next one is asked; when all have failed, they are asked again, with the tables of then, until the time is
up (NoReadableCell, with the story of each). A lost master is found again in the same way.
"""
from __future__ import annotations

import queue
import threading
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha1
from types import EllipsisType
from typing import Any, Literal, NamedTuple, Self

import neolink
from neolink import errors, proto
from neolink._address import split
from neolink._core import check_timeout
from neolink._typed import Deadline
from neolink.cluster import values
from neolink.cluster.admin import CALL_SECONDS, Timeout
from neolink.cluster.asker import Pause
from neolink.cluster.errors import NoReadableCell, NoSuchObject, NoSuchTransaction, NotReady, remote
from neolink.cluster.membership import Session, refusal
from neolink.cluster.results import Node, PartitionTable
from neolink.cluster.values import Tid
from neolink.proto import ClusterStates, ErrorCodes, Revision

CHUNK = 1000
"""Tids or oids of one question, as NEO's own storages ask each other."""
INVALIDATIONS_MAX = 100_000
"""Invalidations kept for one that does not read them, before it is told that it has missed some."""

_MISSING = {ErrorCodes.OID_NOT_FOUND: NoSuchObject, ErrorCodes.OID_DOES_NOT_EXIST: NoSuchObject,
            ErrorCodes.TID_NOT_FOUND: NoSuchTransaction}


class Object(NamedTuple):
    """One revision of an object."""
    oid: bytes
    serial: bytes                   # the tid of this revision
    next_serial: bytes | None       # that of the next, None: this is the latest
    data: bytes | None              # None: deleted (its creation was undone)
    data_serial: bytes | None       # the revision that an undo went back to


class Transaction(NamedTuple):
    """What a transaction says of itself."""
    tid: bytes
    user: bytes
    description: bytes
    extension: bytes                # a pickled dict, or empty
    packed: bool
    oids: list[bytes]


class Invalidation(NamedTuple):
    """Another client's commit."""
    tid: bytes
    oids: list[bytes]


class _WrongData(Exception):
    """What a storage sent is not what it should be: ask another."""


class Client:
    """A read-only client. Made by cluster.client(); safe from any thread, and threads read at the same time."""

    def __init__(self, masters: list[Any], name: str, tls: neolink.TLS | None, timeout: float | None,
                 wire: Any) -> None:
        self._masters, self._name, self._tls, self._timeout, self._wire = masters, name, tls, timeout, wire
        self._current: Session | None = None
        self._joining = threading.Lock()        # one thread makes the session that all use
        self._closed = False
        self._queues: list[queue.SimpleQueue[Invalidation]] = []

    # ---- what the master tells

    @property
    def nid(self) -> int | None:
        """The nid that the master gave us."""
        return self._session(self._deadline(...)).nid

    def nodes(self) -> list[Node]:
        """The masters and storages, as the master tells clients."""
        session = self._session(self._deadline(...))
        with session.changed:
            return [session.nodes[nid] for nid in sorted(session.nodes)]

    def partitions(self) -> PartitionTable:
        """The partition table of now."""
        session = self._session(self._deadline(...))
        with session.changed:
            assert session.table is not None
            return session.table

    def state(self) -> ClusterStates | None:
        """The state of the cluster, as far as it changed since we joined; None: it serves clients."""
        return self._session(self._deadline(...)).state

    def last_tid(self, *, timeout: Timeout = ...) -> bytes:
        """The last committed transaction; eight zero bytes for an empty database."""
        return bytes(self._ask_master(proto.AskLastTransaction(), self._deadline(timeout)).tid)

    def invalidations(self) -> Iterator[Invalidation]:
        """The commits of other clients from now on, as they come. Ends with LinkDown when the master is lost (some may
        be missed then) or when the reader has fallen too far behind, with LinkClosed when the client is closed."""
        session = self._session(self._deadline(...))
        mine: queue.SimpleQueue[Invalidation] = queue.SimpleQueue()
        self._queues.append(mine)
        return self._invalidations(session, mine)

    # ---- objects

    def load(self, oid: Tid, before: Tid | None = None, *, at: Tid | None = None, timeout: Timeout = ...) -> Object:
        """The latest revision of an object, the latest before a tid, or exactly that of a tid. NoSuchObject if none."""
        if at is not None and before is not None:
            raise ValueError("load() takes before or at, not both")
        ident = values.tid(oid, "oid")
        message = proto.AskObject(ident, None if at is None else values.tid(at, "at"),
                                  None if before is None else values.tid(before, "before"))
        found: Object = self._read(ident, message, self._deadline(timeout), _object)
        return found

    def history(self, oid: Tid, first: int = 0, last: int = 100, *, timeout: Timeout = ...) -> list[Revision]:
        """The revisions number `first` to before `last`, newest first: (serial, size); size 0 is a deletion."""
        _check_range(first, last)
        ident = values.tid(oid, "oid")
        answer = self._read(ident, proto.AskObjectHistory(ident, first, last), self._deadline(timeout))
        return list(answer.history)

    def oids(self, tid: Tid | None = None, *, timeout: Timeout = ...) -> Iterator[bytes]:
        """All objects that exist at a tid (None: now), partition by partition. Not on wire N (EncodeError)."""
        when = self.last_tid(timeout=timeout) if tid is None else values.tid(tid)
        for partition in range(len(self.partitions().rows)):
            start: bytes | None = proto.ZERO_OID
            while start is not None:
                message = proto.AskOIDsFrom(partition, CHUNK, start, when)
                answer = self._read(partition, message, self._deadline(timeout))
                yield from answer.oids
                start = answer.next_oid

    # ---- transactions

    def transaction(self, tid: Tid, *, timeout: Timeout = ...) -> Transaction:
        """What a transaction says of itself. NoSuchTransaction if there is none."""
        ident = values.tid(tid)
        answer = self._read(ident, proto.AskTransactionInformation(ident), self._deadline(timeout))
        return Transaction(answer.tid, answer.user, answer.description, answer.extension, answer.packed,
                           list(answer.oids))

    def tids(self, first: Tid = 0, last: Tid | None = None, *, timeout: Timeout = ...) -> Iterator[bytes]:
        """The tids from `first` to `last` (None: the last one of now), both included, in order."""
        low = proto.id_to_int(values.tid(first, "first"))
        high = proto.id_to_int(self.last_tid(timeout=timeout) if last is None else values.tid(last, "last"))
        while low <= high:
            found = self._tids_from(low, high, timeout)
            yield from found
            if len(found) < CHUNK:
                return
            low = proto.id_to_int(found[-1]) + 1

    def transactions(self, first: Tid = 0, last: Tid | None = None, *, timeout: Timeout = ...) -> Iterator[Transaction]:
        """The same, with what each says of itself. Those that are packed away meanwhile are left out."""
        for tid in self.tids(first, last, timeout=timeout):
            try:
                yield self.transaction(tid, timeout=timeout)
            except NoSuchTransaction:
                continue

    def undo_log(self, first: int = 0, last: int = 20, *, timeout: Timeout = ...) -> list[Transaction]:
        """The transactions number `first` to before `last`, counted from the newest."""
        _check_range(first, last)
        deadline = self._deadline(timeout)
        message = proto.AskTIDs(0, last, proto.ALL_PARTITIONS)
        tids: set[bytes] = set()
        missing = set(range(len(self.partitions().rows)))
        while missing:                              # until storages were asked that have all partitions between them
            nid, answer = self._read(min(missing), message, deadline, lambda answer: answer, with_nid=True)
            tids.update(answer.tids)
            readable = {partition for partition, row in enumerate(self.partitions().rows) if nid in row.readable}
            missing -= readable | {min(missing)}
        newest = sorted(tids, reverse=True)[first:last]
        return [self.transaction(tid, timeout=deadline.left()) for tid in newest]

    # ---- life

    def close(self) -> None:
        """Hang up everywhere. Idempotent, from any thread."""
        self._closed = True
        session = self._current
        if session is not None:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- reading

    def _read(self, where: bytes | int, message: Any, deadline: Deadline,
              understand: Callable[[Any], Any] = lambda answer: answer, *, with_nid: bool = False) -> Any:
        """Ask a cell of a partition (or of the one that an oid or tid is in), another if that fails."""
        pause, story = Pause(deadline), []
        while True:
            session = self._session(deadline)
            partition = where if isinstance(where, int) else proto.id_to_int(where)
            cells = session.cells(partition)
            for place, node in enumerate(cells):
                left = deadline.left()
                share = Deadline(None if left is None else left / (len(cells) - place))
                try:
                    answer = understand(session.storage(node, share).ask(message, timeout=share.left()))
                    return (node.nid, answer) if with_nid else answer
                except errors.RemoteError as error:
                    if error.code in _MISSING:
                        raise remote(_MISSING[error.code], error.message, code=error.code, cause=error,
                                     text=f"{error.code.name}: {error.message}") from error
                    story.append(f"{node.name}: {error}")
                except (errors.LinkError, errors.Timeout, errors.DecodeError, _WrongData) as error:
                    story.append(f"{node.name}: {error}")
                    if not isinstance(error, _WrongData):
                        session.forget(node)
            if not cells:
                story.append(f"partition {partition} has no readable cell on a running storage")
            if not pause():
                raise NoReadableCell(f"{type(message).__name__}: the time is up; " + "; ".join(dict.fromkeys(story)))

    def _tids_from(self, low: int, high: int, timeout: Timeout) -> list[bytes]:
        """The first CHUNK tids between these, of all partitions; of each no more is asked than can be among them."""
        found: list[bytes] = []
        for partition in range(len(self.partitions().rows)):
            message = proto.AskTIDsFrom(proto.id_from_int(low), proto.id_from_int(high), CHUNK, partition)
            found += self._read(partition, message, self._deadline(timeout)).tids
            if len(found) >= CHUNK:
                found = sorted(found)[:CHUNK]
                high = proto.id_to_int(found[-1])
        return sorted(found)

    def _ask_master(self, message: Any, deadline: Deadline) -> Any:
        pause = Pause(deadline)
        while True:
            session = self._session(deadline)
            try:
                return session.link.ask(message, timeout=deadline.left())
            except errors.LinkDown:
                if not pause():
                    raise

    def _invalidations(self, session: Session, mine: queue.SimpleQueue[Invalidation]) -> Iterator[Invalidation]:
        try:
            while True:
                with session.changed:
                    session.changed.wait_for(lambda: not mine.empty() or session.lost)
                    lost = session.lost
                if mine.qsize() > INVALIDATIONS_MAX:
                    raise errors.LinkDown(f"more than {INVALIDATIONS_MAX} invalidations were not read: some are lost")
                if mine.empty():
                    raise errors.LinkClosed("the client was closed") if self._closed else \
                        errors.LinkDown("the master was lost: invalidations may have been missed") from lost
                yield mine.get()
        finally:
            self._queues.remove(mine)

    # ---- being a member

    def _session(self, deadline: Deadline) -> Session:
        """The membership of now, a new one if the last was lost."""
        session = self._current
        if session is not None and session.lost is None and not self._closed:
            return session
        left = deadline.left()
        if not self._joining.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
            raise errors.Timeout("timed out while another thread was finding the master")
        try:
            if self._closed:
                raise errors.LinkClosed("this client was closed")
            if self._current is None or self._current.lost is not None:
                if self._current is not None:
                    self._current.close()
                self._current = self._join(deadline)
                if self._closed:                    # while we joined, so close() did not see the session
                    self._current.close()
                    raise errors.LinkClosed("this client was closed")
            return self._current
        finally:
            self._joining.release()

    def _join(self, deadline: Deadline) -> Session:
        """Identify with the primary master: with the first that takes us, or whom a secondary points at. On wire N it
        cannot point at the first of the masters it names, so all of them are worth a try."""
        pause, nth, masters = Pause(deadline), 0, list(self._masters)
        redirected: Any = None
        trouble: errors.Error | None = None
        while True:
            target, redirected = redirected or masters[nth % len(masters)], None
            nth += 1
            try:
                return self._try(target, deadline)
            except _Elsewhere as elsewhere:
                redirected, trouble = elsewhere.primary, errors.LinkDown(f"{target} is a secondary master")
                named = [one for one in elsewhere.masters if one not in masters and "{}:{}".format(*one) not in masters]
                masters += named
                if (named or redirected is not None and redirected != target) and deadline.left() != 0:
                    continue
            except (NotReady, errors.DialError, errors.LinkDown) as error:
                trouble = error
                if isinstance(error, errors.DialError) and nth < len(masters):
                    continue
                if isinstance(error, errors.HandshakeError) and len(masters) == 1:
                    raise
            except errors.Timeout as error:
                raise trouble or error from None    # what there was to wait for tells more
            if not pause():
                raise trouble

    def _try(self, target: Any, deadline: Deadline) -> Session:
        left = deadline.left()
        link = neolink.dial(target, timeout=None if left is None else left / len(self._masters), tls=self._tls,
                            wire=self._wire)
        session = Session(link, self._name, self._tls, self._invalidated)
        try:
            session.identify(deadline)
            return session
        except errors.RemoteError as error:
            session.close()
            raise refusal(error) from error
        except errors.LinkError as error:
            session.close()
            if session.secondary:
                raise _Elsewhere(session.primary, session.masters) from error
            raise
        except BaseException:
            session.close()
            raise

    def _invalidated(self, tid: bytes, oids: list[bytes]) -> None:
        """On the follower thread: pass on to those who iterate invalidations()."""
        for mine in list(self._queues):
            if mine.qsize() <= INVALIDATIONS_MAX:
                mine.put(Invalidation(tid, oids))

    def _deadline(self, timeout: Timeout) -> Deadline:
        seconds = self._timeout if isinstance(timeout, EllipsisType) else timeout
        check_timeout(seconds)
        return Deadline(seconds)


class _Elsewhere(Exception):
    """A secondary master answered; it knows these masters, and perhaps which of them is the primary."""

    def __init__(self, primary: Any, masters: list[Any]) -> None:
        super().__init__(f"the primary master is at {primary}")
        self.primary, self.masters = primary, masters


def _object(answer: Any) -> Object:
    """An answer as an Object, its data unpacked and compared with its checksum."""
    data: bytes | None = bytes(answer.data)
    if not data and answer.checksum == proto.ZERO_HASH:
        data = None
    elif sha1(answer.data).digest() != answer.checksum:
        raise _WrongData(f"the data of {answer.oid.hex()} does not match its checksum")
    if data and answer.compression:
        try:
            data = zlib.decompress(data)
        except zlib.error as error:
            raise _WrongData(f"the data of {answer.oid.hex()} cannot be unpacked: {error}") from None
    return Object(answer.oid, answer.serial, answer.next_serial, data, answer.data_serial)


def _check_range(first: int, last: int) -> None:
    """A storage hangs up over a range that is empty or upside down."""
    values.count(first, "first")
    values.count(last, "last", 1)
    if first >= last:
        raise ValueError(f"first must be below last, not {first} and {last}")


def client(masters: neolink.Address | list[neolink.Address], name: str, *, tls: neolink.TLS | None = None,
           timeout: float | None = CALL_SECONDS, wire: Literal["auto", "M", "N"] = "auto") -> Client:
    """Join the cluster `name` as a client that only reads; `masters` as in NEO's own notation, "a:1 b:1", or a list.

    `timeout` is for joining, and the default for every call. Refused if the masters do not want us.
    """
    check_timeout(timeout)
    if not isinstance(name, str):
        raise TypeError(f"the cluster's name must be a str, not {name!r}")
    targets = [part for one in (masters if isinstance(masters, list) else [masters]) for part in split(one)]
    client = Client(targets, name, tls, timeout, wire)
    client._session(Deadline(timeout))
    return client
