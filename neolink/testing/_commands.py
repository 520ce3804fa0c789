# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What neoctl asks of the master: the commands that an admin passes on.

Which of them are refused, and in which words, is NEO's own; people have scripts that read them. Where the real master
would end because of a command, the answer here is what the real admin makes of its end, and the master lives on.
"""
from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from neolink.proto import (CellChange, ClusterStates, ErrorCodes, NodeStates, NodeTypes,
                           nid_str)
from neolink.testing._node import Call, ServerNode, denied, handles, protocol_error
from neolink.testing._partition import PartitionTable, TableError

if TYPE_CHECKING:
    from neolink.testing._storage import StorageNode

ADMIN = (NodeTypes.ADMIN,)
LEGAL_STATES = {    # where to: from where
    ClusterStates.VERIFYING: (ClusterStates.RECOVERING,),
    ClusterStates.STARTING_BACKUP: (ClusterStates.RUNNING, ClusterStates.STOPPING_BACKUP),
    ClusterStates.STOPPING_BACKUP: (ClusterStates.BACKINGUP, ClusterStates.STARTING_BACKUP),
    ClusterStates.STOPPING: tuple(ClusterStates),
}
LEGAL_NODE_STATES = {NodeTypes.MASTER: (NodeStates.DOWN,), NodeTypes.STORAGE: (NodeStates.DOWN, NodeStates.UNKNOWN)}
TABLE_STATES = (ClusterStates.RUNNING, ClusterStates.STARTING_BACKUP, ClusterStates.BACKINGUP)
MASTER_ENDED = "connection to master lost"
"""What an admin answers when the master ended because of the command."""


class Commands(ServerNode):
    """The part of the master that does what neoctl says."""

    storages: dict[int, StorageNode]
    packs: list[Any]

    @abstractmethod
    def change_state(self, cluster_state: ClusterStates) -> None: ...
    @abstractmethod
    def change_table(self, changes: list[CellChange]) -> None: ...
    @abstractmethod
    def tell_nodes(self, nodes: list[Any]) -> None: ...
    @abstractmethod
    def start_operation(self) -> None: ...
    @abstractmethod
    def stop_operation(self) -> None: ...
    @abstractmethod
    def replicate(self) -> None: ...

    def _ack(self, text: str = "") -> Any:
        return self.state.messages.Error(ErrorCodes.ACK, text)

    def _check_state(self, command: str, *allowed: ClusterStates) -> None:
        if self.state.cluster_state not in allowed:
            raise denied(f"{command} RPC can not be used in {self.state.cluster_state} state")

    # ---- the cluster

    @handles("AskClusterState", roles=ADMIN)
    def _cluster_state(self, call: Call, message: Any) -> Any:
        return self.state.messages.AnswerClusterState(self.state.cluster_state)

    @handles("AskRecovery", roles=ADMIN)
    def _recovery(self, call: Call, message: Any) -> Any:
        backup = self.state.cluster_state is ClusterStates.BACKINGUP
        return self.state.messages.AnswerRecovery(self.state.table.ptid,
                                                  self.state.database.last_tid if backup else None, None)

    @handles("SetClusterState", roles=ADMIN)
    def _set_cluster_state(self, call: Call, message: Any) -> None:
        wanted = message.state
        if wanted not in LEGAL_STATES:
            raise denied("Invalid state requested")
        if self.state.cluster_state not in LEGAL_STATES[wanted]:
            raise denied("Can not switch to this state")
        if wanted is ClusterStates.VERIFYING and not self.state.storages(NodeStates.PENDING):
            raise denied("Cannot exit recovery without any storage node")
        if wanted is ClusterStates.STARTING_BACKUP:
            if self.state.pending or any(node.type is NodeTypes.CLIENT for node in self.state.nodes.values()):
                raise denied(f"Can not switch to {wanted} state with pending transactions or connected clients")
            raise denied("No upstream cluster to backup defined in configuration")
        call.reply(self._ack("Cluster state changed"))
        if wanted is ClusterStates.VERIFYING:
            self.start_operation()
        elif wanted is ClusterStates.STOPPING:
            self.change_state(ClusterStates.STOPPING)
            self.state.stop_all()
        else:       # STOPPING_BACKUP: what was a backup becomes an ordinary cluster
            self.change_state(ClusterStates.STOPPING_BACKUP)
            self.change_state(ClusterStates.RUNNING)

    @handles("Truncate", roles=ADMIN)
    def _truncate(self, call: Call, message: Any) -> None:
        self._check_state("truncate", ClusterStates.RUNNING)
        database = self.state.database
        if database.last_tid <= message.tid:
            raise denied("Truncating after last transaction does nothing")
        if self.state.wire == "M" and database.first_tid > message.tid:
            raise denied("Truncating before first transaction is probably not what you intended to do")
        if any(order.order > message.tid for order in self.packs):
            raise denied("Can not truncate before an approved pack")
        call.reply(self._ack())
        self.stop_operation()
        database.truncate(message.tid)
        self.start_operation()

    @handles("FlushLog", roles=ADMIN)
    def _flush_log(self, call: Call, message: Any) -> None:
        for session in self.sessions:
            if session.role is not None and session is not call.session:
                session.push(self.state.messages.FlushLog())

    # ---- nodes

    @handles("SetNodeState", roles=ADMIN)
    def _set_node_state(self, call: Call, message: Any) -> None:
        node = self.state.nodes.get(message.nid)
        wanted = message.state
        if node is None:
            raise denied("unknown node")
        if wanted not in LEGAL_NODE_STATES.get(node.type, ()):
            raise denied(f"can not switch node to {wanted} state")
        if message.nid == self.nid:
            raise denied("can not kill primary master node")
        changed = node.state is not wanted
        text = "state changed" if changed else f"node already in {wanted} state"
        if wanted is NodeStates.DOWN:
            self._kill(message.nid)
        else:
            text = self._drop(message.nid, text)
        call.reply(self._ack(text))
        if changed:
            self.tell_nodes([node._replace(state=wanted)])
        if self.state.cluster_state in TABLE_STATES and not self.state.table.operational(self.state.running()):
            self.stop_operation()

    def _kill(self, nid: int) -> None:
        self.state.set_node(nid, NodeStates.DOWN)
        changes = self.state.table.outdated_without(nid, self.state.running())
        if changes:
            self.change_table(changes)
        self.storages[nid].stop()

    def _drop(self, nid: int, text: str) -> str:
        if self.state.nodes[nid].state is NodeStates.RUNNING:
            raise denied("a running node must be stopped before removal")
        try:
            changes = self.state.table.dropped(nid)
        except TableError as error:
            raise denied(str(error)) from None
        del self.state.nodes[nid]
        self.storages.pop(nid).stop()
        if not changes:
            return text
        self.change_table(changes)
        return "node permanently removed"

    @handles("AddPendingNodes", roles=ADMIN)
    def _add_pending_nodes(self, call: Call, message: Any) -> None:
        self._check_state("addPendingNodes", *TABLE_STATES)
        added = [node.nid for node in self.state.storages(NodeStates.PENDING) if node.nid in message.nids]
        if added:
            self.tell_nodes([self.state.set_node(nid, NodeStates.RUNNING) for nid in added if nid is not None])
        names = ", ".join(nid_str(nid) for nid in added if nid is not None)
        call.reply(self._ack(f"Nodes added: {names}" if added else "No node added"))

    @handles("Repair", roles=ADMIN)
    def _repair(self, call: Call, message: Any) -> Any:
        for nid in message.nids:
            node = self.state.nodes.get(nid)
            if node is None or node.type is not NodeTypes.STORAGE or node.state is NodeStates.DOWN:
                raise denied(f"invalid storage node {nid_str(nid)}")
        return self._ack()

    # ---- data

    @handles("SetNumReplicas", roles=ADMIN)
    def _set_num_replicas(self, call: Call, message: Any) -> Any:
        self._check_state("setNumReplicas", *TABLE_STATES)
        self.state.table.num_replicas = message.num_replicas
        self.change_table([])
        return self._ack()

    @handles("TweakPartitionTable", roles=ADMIN)
    def _tweak(self, call: Call, message: Any) -> None:
        self._check_state("tweakPartitionTable", *TABLE_STATES)
        staying = [node for node in self.state.storages()
                   if node.nid not in message.nids and node.state is not NodeStates.PENDING]
        if any(node.state is not NodeStates.RUNNING for node in staying):
            raise denied("tweak: down nodes must be listed explicitly")
        table = self.state.table
        try:
            changes = table.tweaked([node.nid for node in staying if node.nid is not None])
        except TableError as error:
            raise denied(str(error)) from None
        if message.dry_run:
            table = _after(table, changes)
        elif changes:
            self.change_table(changes)
        call.reply(self.state.messages.AnswerTweakPartitionTable(bool(changes), table.cells()))
        if changes and not message.dry_run:
            self.replicate()

    @handles("CheckReplicas", roles=ADMIN)
    def _check_replicas(self, call: Call, message: Any) -> Any:
        rows = self.state.table.rows
        for offset, source in message.partitions.items():
            if offset >= len(rows) or source is not None and source not in self.state.nodes:
                raise protocol_error(MASTER_ENDED)
        return self._ack()      # all replicas are one database, so there is nothing to find


def _after(table: PartitionTable, changes: list[CellChange]) -> PartitionTable:
    """A copy of the table with the changes made."""
    copy = PartitionTable(len(table.rows), table.num_replicas)
    copy.rows = [dict(row) for row in table.rows]
    copy.apply(changes)
    return copy
