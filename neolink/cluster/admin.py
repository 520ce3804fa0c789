# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""A cluster through the eyes of its admin: every command of neoctl as a method, and what neoctl cannot do.

    with cluster.connect("127.0.0.1:9999") as c:
        c.state()                                   # ClusterStates.RUNNING
        c.partitions().out_of_date                  # {2: [0, 3]}: S2 is being filled with partitions 0 and 3
        for progress in c.tweaking("S2"):           # empty S2, and watch
            print(f"{progress.fraction:.0%}")

The admin is asked (asker.py); the primary master decides. What the master refuses raises Refused. But there is also
what it does not refuse and dies of: those commands are checked here against the cluster's own tables, and not sent
(Unsafe).

`timeout` is for the whole call, tries and retries included; without it the one given to connect() holds.
"""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import EllipsisType
from typing import Any, Literal, Self, TypeVar

import neolink
from neolink import errors, proto
from neolink._core import check_timeout
from neolink._typed import Deadline
from neolink.cluster import values
from neolink.cluster.asker import Asker, Pause
from neolink.cluster.errors import MasterLost, NoSuchNode, NoSuchPartition, NotReady, Unsafe, remote
from neolink.cluster.results import (Ids, Node, Outcome, PartitionTable, Progress, Snapshot, Summary, Tweak, rows_of)
from neolink.cluster.values import NodeId, Tid
from neolink.proto import CellStates, ClusterStates, NodeStates, NodeTypes

Timeout = float | None | EllipsisType
"""Seconds, None for ever; ... is what connect() was given."""
Storages = NodeId | Literal["all"]
T = TypeVar("T")

CALL_SECONDS = 30.0
"""The default of connect(): a master that elects or recovers is back in less, and a script should not hang for ever."""
SNAPSHOT_TRIES = 10
"""A table that changes between all of so many pairs of looks is being rebuilt; the caller is told."""

_NOTHING_DONE = ("No node added", "node already in")    # how the master says that there was nothing to do


class Admin:
    """A cluster, asked and steered through its admins. Made by cluster.connect(); safe from any thread."""

    def __init__(self, asker: Asker, timeout: float | None) -> None:
        self._asker = asker
        self._timeout = timeout
        self._outer = threading.local()         # .deadline: that of a wait() in which this thread calls other methods

    # ---- looking

    def state(self, *, timeout: Timeout = ...) -> ClusterStates:
        """What the cluster is doing. NotReady if the admin does not know (yet)."""
        deadline = self._deadline(timeout)
        state = self._found(lambda: self._ask(proto.AskClusterState(), deadline).state, deadline,
                            "the admin does not know the state of the cluster yet")
        return ClusterStates(state)

    def primary(self, *, timeout: Timeout = ...) -> int:
        """The nid of the primary master."""
        return int(self._ask(proto.AskPrimary(), self._deadline(timeout)).nid)

    def primary_node(self, *, timeout: Timeout = ...) -> Node:
        """The primary master with its address."""
        deadline = self._deadline(timeout)

        def look() -> Node | None:              # two questions, and an election may be in between
            nid = self._ask(proto.AskPrimary(), deadline).nid
            return next((node for node in self._nodes(NodeTypes.MASTER, deadline) if node.nid == nid), None)

        return self._found(look, deadline, "the admin does not list its primary master")

    def ids(self, *, timeout: Timeout = ...) -> Ids:
        """How far the database has come."""
        deadline = self._deadline(timeout)
        recovery = self._ask(proto.AskRecovery(), deadline)
        if recovery.backup_tid is not None:
            last = self._ask(proto.AskLastTransaction(), deadline).tid
            return Ids(recovery.ptid, recovery.backup_tid, recovery.truncate_tid, None, last, None)
        answer = self._ask(proto.AskLastIDs(), deadline)
        first = getattr(answer, "first_tid", None)              # wire N does not say
        return Ids(recovery.ptid, None, recovery.truncate_tid, answer.last_oid or proto.ZERO_OID,
                   answer.last_tid or proto.ZERO_TID, None if first == proto.MAX_TID else first)

    def nodes(self, type: NodeTypes | str | None = None, *, timeout: Timeout = ...) -> list[Node]:
        """The nodes of a type ("storage", …), or all, by nid."""
        kind = None if type is None else values.member(NodeTypes, type)
        return self._nodes(kind, self._deadline(timeout))

    def partitions(self, first: int = 0, last: int | None = None, *, timeout: Timeout = ...) -> PartitionTable:
        """The partition table, or its rows from `first` to before `last`.

        The whole table is asked for in any case: an admin may answer to rows that are not there under a wrong id.
        """
        table = self._table(self._deadline(timeout))
        end = len(table.rows) if last is None else last
        if not 0 <= first <= end <= len(table.rows):
            raise remote(NoSuchPartition, f"no partitions {first} to {end}: the table has {len(table.rows)}")
        return table._replace(rows=table.rows[first:end], first=first)

    def summary(self, *, timeout: Timeout = ...) -> Summary:
        """The health of this cluster and of its backups. Not on wire N, which knows no monitoring (EncodeError)."""
        answer = self._ask(proto.AskMonitorInformation(), self._deadline(timeout))
        return Summary(list(answer.warning), list(answer.problem), answer.summary)

    def snapshot(self, *, timeout: Timeout = ...) -> Snapshot:
        """State, table and nodes of one moment.

        There is no such question, so the table is asked for before and after: if it did not change meanwhile, what lies
        between belongs to it. After some tries the last one is returned as not consistent.
        """
        deadline = self._deadline(timeout)
        before = self._table(deadline)
        for _ in range(SNAPSHOT_TRIES):
            nodes = self._nodes(None, deadline)
            state = self._ask(proto.AskClusterState(), deadline).state
            after = self._table(deadline)
            known = {node.nid for node in nodes}
            consistent = before == after and all(cell.nid in known for cell in after.cells())
            if consistent:
                break
            before = after
        return Snapshot(state, after, nodes, consistent)

    # ---- changing

    def start(self, *, timeout: Timeout = ...) -> Outcome:
        """Leave recovery with the storages that are there: set_state(VERIFYING)."""
        return self.set_state(ClusterStates.VERIFYING, timeout=timeout)

    def set_state(self, state: ClusterStates | str, *, timeout: Timeout = ...) -> Outcome:
        """Start, stop, or begin or end to be a backup. Returns when the master has agreed, see wait_state().

        STARTING_BACKUP ends the master of a 1.12 cluster that has no upstream cluster configured, where one of today
        refuses. Nobody can be asked whether it has, so this cannot be refused here: MasterLost says so.
        """
        message, wire = proto.SetClusterState(values.member(ClusterStates, state)), self.wire
        try:
            return Outcome(True, self._do(message, self._deadline(timeout)))
        except MasterLost as error:
            if wire != "N" or message.state is not ClusterStates.STARTING_BACKUP:
                raise
            text = f"{error}; a 1.12 master ends over this when no upstream cluster is configured"
            raise remote(MasterLost, error.message, code=error.code, text=text, cause=error) from error

    def set_replicas(self, number: int, *, timeout: Timeout = ...) -> Outcome:
        """Keep this many copies of everything beyond the first; takes effect with a tweak()."""
        deadline = self._deadline(timeout)
        message = proto.SetNumReplicas(values.count(number, "the number of replicas"))
        before = self._table(deadline).num_replicas
        return Outcome(before != number, self._do(message, deadline))

    def add(self, *nids: Storages, timeout: Timeout = ...) -> Outcome:
        """Take storages that wait (PENDING) into the cluster; `nids` of the outcome are those that were waiting."""
        deadline = self._deadline(timeout)
        text = self._do(proto.AddPendingNodes(self._storages(nids, deadline)), deadline)
        added = text.partition("Nodes added:")[2].replace(",", " ").split()
        return Outcome(bool(added), text, tuple(proto.nid_parse(name) for name in added))

    def tweak(self, *nids: NodeId, dry_run: bool = False, timeout: Timeout = ...) -> Tweak:
        """Spread the data anew over the storages, without those listed. tweaking() does that and watches."""
        message = proto.TweakPartitionTable(bool(dry_run), values.storages(nids))
        answer = self._ask(message, self._deadline(timeout), repeat=dry_run)
        return Tweak(answer.changed, rows_of(answer.rows), bool(dry_run))

    def drop(self, nid: NodeId, *, timeout: Timeout = ...) -> Outcome:
        """Remove a storage that is down from the cluster, for ever. retiring() moves its data away before."""
        return self._set_node_state(nid, NodeStates.UNKNOWN, timeout)

    def kill(self, nid: NodeId, *, timeout: Timeout = ...) -> Outcome:
        """Make a storage or a secondary master exit."""
        return self._set_node_state(nid, NodeStates.DOWN, timeout)

    def prune_orphan(self, *nids: Storages, dry_run: bool = False, timeout: Timeout = ...) -> Outcome:
        """Let storages delete raw data that nothing refers to. Begins it: NEO does not tell when it is done."""
        deadline = self._deadline(timeout)
        return Outcome(None, self._do(proto.Repair(self._storages(nids, deadline), bool(dry_run)), deadline))

    def truncate(self, tid: Tid, *, timeout: Timeout = ...) -> Outcome:
        """Forget all transactions after `tid`. The cluster recovers with it, and forgets for ever."""
        return Outcome(True, self._do(proto.Truncate(values.tid(tid)), self._deadline(timeout)))

    def flush_log(self, *, timeout: Timeout = ...) -> None:
        """Let all nodes write their buffered debug log to disk. Returns when the admin has taken it."""
        self._asker.notify(proto.FlushLog(), self._deadline(timeout))

    def check(self, partitions: Mapping[int, NodeId | None] | Iterable[int] | None = None, min_tid: Tid | None = None,
              max_tid: Tid | None = None, *, timeout: Timeout = ...) -> Outcome:
        """Compare the replicas of partitions (None: all), each with a source known to be good, or with any (None).

        Begins it: NEO does not tell when it is done. A number that is no partition, or a source that is no storage,
        would end the master, so both are looked up before.
        """
        deadline = self._deadline(timeout)
        low = proto.ZERO_TID if min_tid is None else values.tid(min_tid, "min_tid")
        high = None if max_tid is None else values.tid(max_tid, "max_tid")
        if high is not None and low > high:
            return Outcome(False, "nothing to check: min_tid is above max_tid")
        wanted = self._to_check(partitions, deadline)
        if not wanted:
            return Outcome(False, "nothing to check: no partitions")
        return Outcome(None, self._do(proto.CheckReplicas(wanted, low, high), deadline))

    # ---- waiting and watching

    def wait(self, predicate: Callable[[Admin], T], *, timeout: Timeout = ...) -> T:
        """Until predicate(self) is true; returns its value. A cluster that is not ready or not there is waited for."""
        deadline = self._deadline(timeout)
        pause = Pause(deadline)
        trouble: Exception | None = None
        while True:
            try:
                with self._within(deadline):
                    value = predicate(self)
                if value:
                    return value
                trouble = None
            except (NotReady, MasterLost, errors.LinkError, errors.Timeout) as error:
                trouble = error
            if not pause():
                because = f"; at last: {trouble}" if trouble else ""
                raise errors.Timeout(f"wait: the time is up, and it is still not so{because}") from trouble

    def wait_state(self, *states: ClusterStates | str, timeout: Timeout = ...) -> ClusterStates:
        """Until the cluster is in (one of) the state(s); returns which."""
        wanted = [values.member(ClusterStates, state) for state in states]
        if not wanted:
            raise TypeError("wait_state() needs a state to wait for")
        last: list[ClusterStates] = []

        def reached(c: Admin) -> ClusterStates | None:
            last[:] = [c.state()]
            return last[0] if last[0] in wanted else None

        try:
            found = self.wait(lambda c: [state] if (state := reached(c)) else None, timeout=timeout)
        except errors.Timeout as error:
            names = " or ".join(state.name for state in wanted)
            now = f"the cluster is {last[0].name}" if last else "the cluster did not tell its state"
            raise errors.Timeout(f"wait for {names}: the time is up, {now}") from error
        assert found is not None
        return found[0]

    def replicating(self, *, what: str = "replication", timeout: float | None = None) -> Iterator[Progress]:
        """How far replication is, whenever that changes, until nothing moves any more.

        Cells of storages that do not run are not waited for: nobody fills them.
        """
        deadline = self._deadline(timeout)
        pause, last = Pause(deadline), None
        while True:
            try:
                with self._within(deadline):
                    progress = _progress(what, self.snapshot())
            except errors.Timeout:
                if last is None:
                    raise
                progress = last
            if progress != last:
                yield progress
                pause, last = Pause(deadline), progress
            if progress.finished:
                return
            if not pause():
                raise errors.Timeout(f"{what}: the time is up with {len(progress.pending)} cells to go")

    def tweaking(self, *nids: NodeId, timeout: float | None = None) -> Iterator[Progress]:
        """tweak(), at once; the iterator tells how far it is."""
        self.tweak(*nids)
        return self.replicating(what="tweak", timeout=timeout)

    def retiring(self, nid: NodeId, *, timeout: float | None = None) -> Iterator[Progress]:
        """Take a storage out of the cluster for ever: tweak() without it, at once; as the iterator advances, wait until
        the others have its data, stop it, and drop it. The last Progress comes after the drop."""
        number = values.storage(nid)
        self.tweak(number)
        return self._retire(number, self._deadline(timeout))

    def checking(self, partitions: Mapping[int, NodeId | None] | Iterable[int] | None = None,
                 min_tid: Tid | None = None, max_tid: Tid | None = None, *,
                 timeout: float | None = None) -> Iterator[Progress]:
        """check(), one partition after the other as the iterator advances. `pending` are the cells that the table calls
        CORRUPTED: only wire N puts them there, and at a time of its own; on M the master's log has them."""
        deadline = self._deadline(timeout)
        wanted = self._to_check(partitions, deadline)
        return self._check_each(wanted, min_tid, max_tid, deadline)

    # ---- life

    @property
    def wire(self) -> str | None:
        """The wire the admin speaks: "M" or "N"."""
        return self._asker.wire

    def close(self) -> None:
        """Hang up. Idempotent, from any thread; whoever waits for an answer gets LinkClosed."""
        self._asker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- inside

    def _deadline(self, timeout: Timeout) -> Deadline:
        """The end of `timeout`, but not after that of the wait() this is called in."""
        seconds = self._timeout if isinstance(timeout, EllipsisType) else timeout
        check_timeout(seconds)
        outer = getattr(self._outer, "deadline", None)
        left = None if outer is None else outer.left()
        return Deadline(seconds if left is None else left if seconds is None else min(left, seconds))

    @contextmanager
    def _within(self, deadline: Deadline) -> Iterator[None]:
        """What this thread calls inside ends with `deadline`."""
        before = getattr(self._outer, "deadline", None)
        self._outer.deadline = deadline
        try:
            yield
        finally:
            self._outer.deadline = before

    def _ask(self, message: proto.Message, deadline: Deadline, *, repeat: bool = True) -> Any:
        return self._asker.ask(message, deadline, repeat=repeat)

    def _found(self, look: Callable[[], T | None], deadline: Deadline, otherwise: str) -> T:
        """What `look` finds, which is asked again until the time is up: then NotReady, unless it was never answered."""
        pause, looked = Pause(deadline), False
        while True:
            try:
                found = look()
            except errors.Timeout:
                if not looked:
                    raise
                raise remote(NotReady, otherwise) from None
            if found is not None:
                return found
            looked = True
            if not pause():
                raise remote(NotReady, otherwise)

    def _do(self, message: proto.Message, deadline: Deadline) -> str:
        """Send a command that is answered by ACK; what the master said with it."""
        return str(self._asker.ask(message, deadline, repeat=False).message)

    def _table(self, deadline: Deadline) -> PartitionTable:
        answer = self._ask(proto.AskPartitionList(0, 0, None), deadline)
        return PartitionTable(answer.ptid, answer.num_replicas, rows_of(answer.rows))

    def _nodes(self, kind: NodeTypes | None, deadline: Deadline) -> list[Node]:
        nodes = [Node(*node) for node in self._ask(proto.AskNodeList(kind), deadline).nodes]
        return sorted(nodes, key=lambda node: (node.nid is None, node.nid or 0, node.address or ("", 0)))

    def _storages(self, nids: tuple[Storages, ...], deadline: Deadline) -> list[int]:
        """The nids of storages; "all" stands for all that the admin knows."""
        if not nids:
            raise ValueError('name the storages, or "all"')
        if nids == ("all",):
            answer = self._ask(proto.AskNodeList(NodeTypes.STORAGE), deadline)
            return [node.nid for node in answer.nodes if node.nid is not None]
        return values.storages(nids)

    def _set_node_state(self, nid: NodeId, state: NodeStates, timeout: Timeout) -> Outcome:
        number = values.nid(nid)
        text = self._do(proto.SetNodeState(number, state), self._deadline(timeout))
        return Outcome(not text.startswith(_NOTHING_DONE), text, (number,))

    def _to_check(self, partitions: Mapping[int, NodeId | None] | Iterable[int] | None,
                  deadline: Deadline) -> dict[int, int | None]:
        """What CheckReplicas may carry: rows that exist, and sources that can be read there."""
        table = self._table(deadline)
        if partitions is None:
            partitions = range(len(table.rows))
        pairs = partitions.items() if isinstance(partitions, Mapping) else ((one, None) for one in partitions)
        storages = {node.nid: node for node in self._nodes(NodeTypes.STORAGE, deadline)}
        wanted: dict[int, int | None] = {}
        for partition, source in pairs:
            if isinstance(partition, bool) or not isinstance(partition, int):
                raise TypeError(f"a partition is an int, not {partition!r}")
            if not 0 <= partition < len(table.rows):
                raise remote(NoSuchPartition, f"not sent: there is no partition {partition}, the table has "
                             f"{len(table.rows)}; the master would exit over it")
            wanted[partition] = None if source is None else values.storage(source)
            nid = wanted[partition]
            if nid is not None and nid not in storages:
                raise remote(NoSuchNode, f"not sent: there is no storage {proto.nid_str(nid)}; the master would exit "
                             "over it")
            if nid is not None and nid not in table.rows[partition].readable:
                raise remote(Unsafe, f"not sent: {proto.nid_str(nid)} has no readable cell of partition {partition}, "
                             "so it cannot tell who is right")
        return wanted

    def _check_each(self, wanted: dict[int, int | None], min_tid: Tid | None, max_tid: Tid | None,
                    deadline: Deadline) -> Iterator[Progress]:
        for done, (partition, source) in enumerate(wanted.items(), 1):
            with self._within(deadline):
                self.check({partition: source}, min_tid, max_tid)
                table = self.partitions()
            corrupted = [cell for cell in table.cells() if cell.state is CellStates.CORRUPTED]
            yield Progress("check", done, len(wanted), corrupted, table.ptid)

    def _retire(self, nid: int, deadline: Deadline) -> Iterator[Progress]:
        last = None
        for last in self.replicating(what="retire", timeout=deadline.left()):
            if not last.finished:
                yield last
        with self._within(deadline):
            _check_dispensable(self.snapshot(), nid)
        self.kill(nid, timeout=deadline.left())
        self.wait(lambda c: all(node.nid != nid or node.state is not NodeStates.RUNNING for node in c.nodes("storage")),
                  timeout=deadline.left())
        self.drop(nid, timeout=deadline.left())
        assert last is not None
        yield last._replace(ptid=self.partitions(timeout=deadline.left()).ptid)


def _check_dispensable(now: Snapshot, nid: int) -> None:
    """Refuse to stop a storage when others that run do not have all of its data."""
    others = now._replace(nodes=[node for node in now.nodes if node.nid != nid])
    if others.unreadable:
        lacking = ", ".join(map(str, others.unreadable))
        raise remote(Unsafe, f"not stopped: only {proto.nid_str(nid)} has all of the partition(s) {lacking}")


def _progress(what: str, now: Snapshot) -> Progress:
    """Counted in cells of storages that run."""
    running = {node.nid for node in now.nodes if node.state is NodeStates.RUNNING}
    cells = [cell for cell in now.table.cells() if cell.nid in running]
    pending = [cell for cell in cells if cell.state in (CellStates.OUT_OF_DATE, CellStates.FEEDING)]
    return Progress(what, len(cells) - len(pending), len(cells), pending, now.table.ptid)


def connect(address: neolink.Address | list[neolink.Address], *, tls: neolink.TLS | None = None,
            timeout: float | None = CALL_SECONDS, wire: Literal["auto", "M", "N"] = "auto") -> Admin:
    """A cluster by the address of its admin; of several ("a:1 b:1", or a list) each that fails is followed by the next.

    `timeout` is for the connection, and the default for every question.
    """
    check_timeout(timeout)
    asker = Asker(address, tls, wire)
    asker.connect(Deadline(timeout))
    return Admin(asker, timeout)
