# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What all nodes of a test cluster share, instead of telling each other over the wire.

A real master tells storages and admins what it decides, and they act on what they were told last. The doubles live in
one process: they look at one State, under one lock, so that they are never of two opinions. Only peers from outside
are told with messages, each in the order in which things happened.

Who cannot be answered yet, because an object is locked by somebody else's transaction, say, is parked as a call;
whoever changes something that a parked call may wait for says `wake()`, and the calls are tried again in their order.
"""
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from neolink import proto
from neolink.proto import ClusterStates, Node, NodeStates, NodeTypes, id_from_int, id_to_int
from neolink.testing._database import Database
from neolink.testing._partition import PartitionTable

if TYPE_CHECKING:
    from neolink.proto.kinds import Wire
    from neolink.testing._node import Call, Session
    from neolink.testing._rules import Rule

FIRST_NID = {NodeTypes.MASTER: "M1", NodeTypes.STORAGE: "S1", NodeTypes.CLIENT: "C1", NodeTypes.ADMIN: "A1"}
M1 = proto.nid_parse("M1")


class State:
    """The nodes, the partition table, the database, and the lock that guards them all."""

    def __init__(self, name: str, wire: Wire, partitions: int, num_replicas: int) -> None:
        self.name = name
        self.wire: Wire = wire
        self.messages: Any = proto.n6 if wire == "N" else proto     # the classes of this wire's messages
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)       # notified after each message and each change
        self.cluster_state = ClusterStates.RECOVERING
        self.nodes: dict[int, Node] = {}
        self.table = PartitionTable(partitions, num_replicas)
        self.database = Database()
        self.pending: dict[bytes, Begun] = {}       # transactions begun and not finished, by ttid
        self.master_up = True
        self.rules: list[Rule] = []
        self.failures: list[BaseException] = []     # what handlers raised that is nobody's business outside
        self.stop_all: Callable[[], None] = lambda: None    # ends all nodes; set by the Cluster
        self.tell_client: Callable[[int, Any], None] = lambda nid, message: None    # by the master; set by it
        self._parked: list[Call] = []
        self._awake = False
        self._last_tid = 0
        self._last_timestamp = 0.0

    # ---- nodes

    def new_nid(self, node_type: NodeTypes) -> int:
        """The lowest free number of a type."""
        nid = proto.nid_parse(FIRST_NID[node_type])
        while nid in self.nodes:
            nid += 1
        return nid

    def timestamp(self) -> float:
        """The time, later than all times given before."""
        self._last_timestamp = max(time.time(), self._last_timestamp + 1e-6)
        return self._last_timestamp

    @property
    def last_timestamp(self) -> float:
        return self._last_timestamp

    def set_node(self, nid: int, state: NodeStates, **fields: Any) -> Node:
        """Change a node's entry, and return it."""
        self.nodes[nid] = self.nodes[nid]._replace(state=state, **fields)
        return self.nodes[nid]

    def storages(self, *states: NodeStates) -> list[Node]:
        """The entries of the storages, of those in some states only if any are given, by number."""
        return sorted((node for node in self.nodes.values() if node.type is NodeTypes.STORAGE
                       and (not states or node.state in states)), key=lambda node: node.nid or 0)

    def running(self) -> set[int]:
        """The nids of the storages that run."""
        return {nid for nid, node in self.nodes.items()
                if node.type is NodeTypes.STORAGE and node.state is NodeStates.RUNNING}

    # ---- transaction ids

    def next_tid(self, ttid: bytes | None = None) -> bytes:
        """A tid of this moment, above all others; one that commits `ttid` is of the same partition."""
        now = id_to_int(proto.datetime_to_tid(datetime.now(timezone.utc)))
        number = max(now, self._last_tid + 1, id_to_int(self.database.last_tid) + 1)
        if ttid is not None:
            number += (id_to_int(ttid) - number) % len(self.table.rows)
        self._last_tid = number
        return id_from_int(number)

    # ---- calls that wait

    def park(self, call: Call) -> None:
        self._parked.append(call)

    def wake(self) -> None:
        """Something changed that a parked call may wait for."""
        self._awake = True

    def settle(self) -> None:
        """Try the parked calls again as long as there is news, then tell those who wait for the state to change."""
        while self._awake:
            self._awake = False
            parked, self._parked = self._parked, []
            for call in parked:
                call.node.handle(call)
        self.changed.notify_all()

    def forget(self, session: Session) -> None:
        """A peer is gone: so are its calls."""
        self._parked = [call for call in self._parked if call.session is not session]


class Begun:
    """A transaction that a client has begun, as the master sees it."""

    def __init__(self, client: int, given: bool) -> None:
        self.client = client
        self.given = given                  # its tid was given by the client
        self.failed: set[int] = set()       # storages that did not vote
