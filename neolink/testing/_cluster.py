# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Cluster: a NEO cluster in this process, for tests and examples.

    with testing.Cluster(partitions=4, storages=2) as cluster:
        cluster.store(1, b"hello")
        link = neolink.dial(cluster.admin_address)
        link.ask(proto.AskClusterState())           # AnswerClusterState(state=ClusterStates.RUNNING)

Its nodes listen on loopback and speak the real wire; what happens between them happens under one lock. The methods
here are the test's own hands: they change the cluster from outside the protocol, and peers are told as they would be
by real nodes.
"""
from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import neolink
from neolink import proto
from neolink.proto import (CellChange, CellStates, ClusterStates, Message, Node, NodeStates, NodeTypes, nid_parse,
                           nid_str)
from neolink.testing._admin import AdminNode
from neolink.testing._database import NOTHING, Record, Transaction, pack_data
from neolink.testing._master import MasterNode
from neolink.testing._node import ServerNode
from neolink.testing._rules import WAIT_SECONDS, Rule
from neolink.testing._state import State
from neolink.testing._storage import StorageNode

if TYPE_CHECKING:
    from neolink.proto.kinds import Wire

Oid = int | bytes
Nid = int | str


class Cluster:
    """A master, storages and an admin in this process, RUNNING from the start.

    `partitions` and `replicas` (copies beyond the first) lay out the partition table over `storages` storages. `wire`
    is "M" or "N". With `tls` all nodes use it. With `running` False the cluster waits in RECOVERING for a start
    command.

    A context manager. Closing it raises what went wrong in a reply function, if anything did.
    """

    def __init__(self, name: str = "test", partitions: int = 4, replicas: int = 0, storages: int = 1,
                 wire: Wire = "M", *, tls: neolink.TLS | None = None, running: bool = True) -> None:
        if wire not in ("M", "N"):
            raise ValueError(f"wire must be 'M' or 'N', not {wire!r}: a cluster speaks in messages")
        if partitions < 1 or replicas < 0 or storages < 1:
            raise ValueError(f"a cluster needs partitions and storages, and not less than 0 replicas, "
                             f"not {partitions=}, {storages=}, {replicas=}")
        self._tls = tls
        self._state = State(name, wire, partitions, replicas)
        self._state.stop_all = self._stop
        self.storages: dict[int, StorageNode] = {}
        self._master = MasterNode(self._state, self.storages, tls)
        self._admin = AdminNode(self._state, self._master, tls)
        self._nodes: list[ServerNode] = [self._master, self._admin]
        try:
            self._start(storages, running)
        except BaseException:
            self._stop()
            raise

    def _start(self, storages: int, running: bool) -> None:
        with self._state.lock:
            for node in (self._master, self._admin):
                node.start()
                stamp = None if node is self._master else self._state.timestamp()
                self._state.nodes[node.nid] = Node(node.type, node.address, node.nid, NodeStates.RUNNING, stamp)
            for _ in range(storages):
                self.add_storage()
            if running:
                self._master.start_operation()

    def close(self) -> None:
        """Stop all nodes, hang up on all peers, and wait for the threads. Idempotent."""
        with self._state.lock:
            self._stop()
        for node in self._nodes:
            node.join()
        failures, self._state.failures = self._state.failures, []
        if failures:
            raise failures[0]

    def _stop(self) -> None:
        for node in self._nodes:
            node.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        try:
            self.close()
        except BaseException:
            if error is None:       # else the test has failed already, most likely because of this
                raise

    def __repr__(self) -> str:
        return f"<neolink.testing.Cluster {self.name!r} {self._state.wire} {self.state} admin {self.admin_address}>"

    # ---- where and what it is

    @property
    def name(self) -> str:
        """The cluster's name, which clients have to know."""
        return self._state.name

    @property
    def wire(self) -> Wire:
        """M or N."""
        return self._state.wire

    @property
    def admin_address(self) -> str:
        """Where neoctl connects to, as "host:port"."""
        return "{}:{}".format(*self._admin.address)

    @property
    def master_address(self) -> str:
        """Where clients connect to, as "host:port"."""
        return "{}:{}".format(*self._master.address)

    @property
    def state(self) -> ClusterStates:
        """The state of the cluster. To force another one is to skip what leads to it in NEO; peers are told."""
        with self._state.lock:          # who was answered finds all done that the answer is about
            return self._state.cluster_state

    @state.setter
    def state(self, state: ClusterStates) -> None:
        with self._state.lock:
            self._master.change_state(ClusterStates(state))
            self._changed()

    @property
    def nodes(self) -> dict[int, Node]:
        """All nodes by nid, the connected clients among them."""
        with self._state.lock:
            return dict(self._state.nodes)

    @property
    def clients(self) -> list[int]:
        """The nids of the connected clients."""
        return [nid for nid, node in self.nodes.items() if node.type is NodeTypes.CLIENT]

    @property
    def partition_table(self) -> list[dict[int, CellStates]]:
        """By partition: the state of its cell on each storage."""
        with self._state.lock:
            return [dict(row) for row in self._state.table.rows]

    def wait(self, condition: Callable[[Cluster], object], timeout: float = WAIT_SECONDS) -> None:
        """Return when `condition(cluster)` holds. It is looked at after each message and each change."""
        with self._state.changed:
            if not self._state.changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError(f"{self!r}: the condition did not hold within {timeout:g} s")

    def _changed(self) -> None:
        self._state.wake()
        self._state.settle()

    # ---- other answers

    def on(self, message: type[Message], reply: Any, *, node: Nid | None = None, times: int | None = None) -> Rule:
        """Answer a message otherwise than a node would: see `neolink.testing` for what a reply can be.

        `node` limits it to "master", "storage", "admin" or one node such as "S2"; `times` to that many messages. The
        newest rule that fits is taken. What is returned counts the messages, waits for them, and ends the rule when
        it is left as a context manager.
        """
        rule = Rule(self._state, message, reply, nid_str(node) if isinstance(node, int) else node, times)
        with self._state.lock:
            self._state.rules.append(rule)
        return rule

    def hang_up(self, nid: Nid) -> None:
        """Close all links of a client."""
        number = _nid(nid)
        with self._state.lock:
            sessions = [session for node in self._nodes for session in node.sessions if session.nid == number]
        for session in sessions:
            session.hang_up()

    # ---- data

    @property
    def last_tid(self) -> bytes:
        """The last committed transaction."""
        return self._state.database.last_tid

    def new_oid(self) -> bytes:
        """An oid that nobody else gets."""
        with self._state.lock:
            return self._state.database.new_oids(1)[0]

    def store(self, oid: Oid, data: bytes) -> bytes:
        """Commit a transaction that stores an object, and return its tid. Clients are told."""
        with self.transaction() as transaction:
            transaction.store(oid, data)
        return transaction.tid

    def transaction(self, user: bytes = b"", description: bytes = b"", extension: bytes = b"") -> Writing:
        """Several objects in one transaction, committed when the with block is left without an exception."""
        return Writing(self._commit, Transaction(b"", b"", user, description, extension))

    def load(self, oid: Oid, *, at: bytes | None = None, before: bytes | None = None) -> bytes | None:
        """The data of an object, without compression; None if it was deleted. KeyError if there is no such revision."""
        with self._state.lock:
            content = self._state.database.load(_oid(oid), at, before)[0].content
        return None if content.deleted else content.plain()

    def history(self, oid: Oid) -> list[bytes]:
        """The serials of an object, newest first."""
        with self._state.lock:
            return [serial for serial, _ in self._state.database.history(_oid(oid), 0, 1 << 62)]

    def _commit(self, transaction: Transaction, objects: dict[bytes, Record]) -> bytes:
        state = self._state
        with state.lock:
            for storage in self.storages.values():
                for oid in objects.keys() & storage.locks.keys():
                    owner = storage.locks[oid].hex()
                    raise RuntimeError(f"object {oid.hex()} is locked by transaction {owner} of a client")
            tid = state.next_tid()
            state.database.commit(transaction._replace(tid=tid, ttid=tid, oids=tuple(objects)), objects)
            self._master.invalidate(tid, objects)
            self._changed()
        return tid

    # ---- nodes

    def add_storage(self) -> int:
        """Start one more storage and return its nid. It is PENDING until it is added, and empty before a tweak."""
        with self._state.lock:
            storage = StorageNode(self._state, self._state.new_nid(NodeTypes.STORAGE), self._tls)
            storage.start()
            self.storages[storage.nid] = storage
            self._nodes.append(storage)
            self._master.storage_up(storage)
            self._changed()
            return storage.nid

    def stop_storage(self, nid: Nid) -> None:
        """Stop a storage as if its process had ended: its links close, and its cells go out of date."""
        storage = self._storage(nid)
        with self._state.lock:
            if storage.listening:
                storage.stop()
                self._master.storage_down(storage.nid)
                self._changed()
        storage.join()

    def start_storage(self, nid: Nid) -> None:
        """Start a storage that was stopped, at the same address. What it missed it has at once."""
        storage = self._storage(nid)
        with self._state.lock:
            if not storage.listening:
                storage.start()
                self._master.storage_up(storage)
                self._changed()

    def set_cell(self, partition: int, nid: Nid, state: CellStates) -> None:
        """Put one cell of the partition table into a state; DISCARDED removes it. Peers are told."""
        with self._state.lock:
            self._master.change_table([CellChange(partition, self._storage(nid).nid, state)])
            self._changed()

    def stop_master(self) -> None:
        """Stop the master: its links close, nobody can connect to it, and the admin knows of no primary."""
        with self._state.lock:
            self._state.master_up = False
            self._master.stop()
        self._master.join()

    def start_master(self) -> None:
        """Start the master again, at the same address."""
        with self._state.lock:
            if not self._master.listening:
                self._master.start()
                self._state.master_up = True

    def _storage(self, nid: Nid) -> StorageNode:
        try:
            return self.storages[_nid(nid)]
        except KeyError:
            there = ", ".join(map(nid_str, self.storages)) or "none"
            raise KeyError(f"{nid!r} is no storage of this cluster; there are: {there}") from None


class Writing:
    """A transaction of the test's own."""

    def __init__(self, commit: Callable[[Transaction, dict[bytes, Record]], bytes], metadata: Transaction) -> None:
        self._commit = commit
        self._metadata = metadata
        self._objects: dict[bytes, Record] = {}
        self._tid: bytes | None = None

    @property
    def tid(self) -> bytes:
        """The tid, once it is committed."""
        if self._tid is None:
            raise RuntimeError("the transaction is committed when its with block is left")
        return self._tid

    def store(self, oid: Oid, data: bytes, *, compress: bool = False) -> None:
        """A new revision of an object."""
        self._objects[_oid(oid)] = Record(proto.ZERO_TID, pack_data(data, compress))

    def delete(self, oid: Oid) -> None:
        """A revision that says that the object is gone."""
        self._objects[_oid(oid)] = Record(proto.ZERO_TID, NOTHING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._tid = self._commit(self._metadata, self._objects)


def _oid(oid: Oid) -> bytes:
    return proto.id_from_int(oid) if isinstance(oid, int) else oid


def _nid(nid: Nid) -> int:
    return nid if isinstance(nid, int) else nid_parse(nid)
