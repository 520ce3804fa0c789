# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The primary master: who is in the cluster, what state it is in, and which transaction becomes which tid.

Clients and admins from outside identify themselves here, are told the nodes and the partition table, and from then on
all changes. The storages of the cluster are in the same process: the master looks into them when it commits.

The commands of neoctl are in `_commands`, which this class inherits: the cluster's own admin calls them directly, an
admin from outside sends them.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import neolink
from neolink import proto
from neolink.proto import (MAX_TID, ZERO_TID, CellChange, ClusterStates, ErrorCodes, Node, NodeStates, NodeTypes,
                           PackOrder, id_hex)
from neolink.testing._commands import Commands
from neolink.testing._database import Record, Transaction, partitions_of
from neolink.testing._node import Call, Delay, Refusal, Session, handles, protocol_error
from neolink.testing._partition import READABLE
from neolink.testing._state import M1, Begun, State

if TYPE_CHECKING:
    from neolink.testing._storage import StorageNode

CLIENT, ADMIN = (NodeTypes.CLIENT,), (NodeTypes.ADMIN,)
PEERS = CLIENT + ADMIN
VISIBLE = {     # the nodes that a peer is told about
    NodeTypes.CLIENT: (NodeTypes.MASTER, NodeTypes.STORAGE),
    NodeTypes.ADMIN: (NodeTypes.MASTER, NodeTypes.STORAGE, NodeTypes.CLIENT),
}
SERVING = (ClusterStates.RUNNING, ClusterStates.BACKINGUP)


class MasterNode(Commands):
    """The only master of the cluster, and so its primary."""

    type = NodeTypes.MASTER

    def __init__(self, state: State, storages: dict[int, StorageNode], tls: neolink.TLS | None) -> None:
        super().__init__(state, M1, tls)
        self.storages = storages
        self.packs: list[PackOrder] = []
        state.tell_client = self._tell_client

    def handler_name(self, session: Session) -> str:
        if session.role is NodeTypes.ADMIN:
            return "AdministrationHandler"
        if session.role is NodeTypes.CLIENT:
            return "ClientReadOnlyServiceHandler" if session.read_only else "ClientServiceHandler"
        return "IdentificationHandler"

    # ---- identification

    @handles("RequestIdentification", roles=(None,))
    def _identify(self, call: Call, message: Any) -> None:
        state = self.state
        self._check_identification(message)
        nid = self._grant_nid(message)
        session = call.session
        session.role, session.nid = message.node_type, nid
        session.read_only = bool(getattr(message, "extra", {}).get("read_only"))
        address = None if message.address is None else tuple(message.address)
        entry = Node(message.node_type, address, nid, NodeStates.RUNNING, state.timestamp())
        state.nodes[nid] = entry
        call.reply(state.messages.AcceptIdentification(NodeTypes.MASTER, self.nid, nid))
        visible = [node for node in state.nodes.values() if node.type in VISIBLE[session.role] and node is not entry]
        session.push(state.messages.NotifyNodeInformation(state.timestamp(), [entry, *visible]))
        session.push(state.messages.SendPartitionTable(state.table.ptid, state.table.num_replicas, state.table.cells()))
        self.tell_nodes([entry], besides=session)

    def _check_identification(self, message: Any) -> None:
        if message.cluster != self.state.name:
            raise protocol_error("invalid cluster name")
        if message.address is not None and tuple(message.address) == self.address:
            raise protocol_error("address conflict")
        if message.address is not None and any(node.address == tuple(message.address)
                                               for node in self.state.nodes.values()):
            raise protocol_error("already connected")
        if message.node_type not in PEERS:
            raise protocol_error(f"a neolink.testing.Cluster has its own {message.node_type} nodes and takes no others")
        if message.node_type is NodeTypes.CLIENT:
            self._check_client(message)

    def _check_client(self, message: Any) -> None:
        if self.state.cluster_state not in SERVING:
            raise Refusal(ErrorCodes.NOT_READY, "Retry Later", close=True)
        if self.state.cluster_state is ClusterStates.BACKINGUP and self.state.wire == "M" \
                and not message.extra.get("read_only"):
            raise Refusal(ErrorCodes.READ_ONLY_ACCESS, "read-write access requested but cluster is backing up")

    def _grant_nid(self, message: Any) -> int:
        """The nid that the dialer would like to keep, if it is of its kind and free; else a new one."""
        first = self.state.new_nid(message.node_type)
        wanted: int | None = message.nid
        if wanted is None or wanted in self.state.nodes or wanted >> 24 != first >> 24:
            return first
        return wanted

    def session_ended(self, session: Session) -> None:
        if session.nid is None:
            return
        gone = self.state.nodes.pop(session.nid)._replace(state=NodeStates.UNKNOWN)
        for ttid in [ttid for ttid, begun in self.state.pending.items() if begun.client == session.nid]:
            self.abort(ttid)
        self.tell_nodes([gone])

    # ---- telling

    def tell(self, message: Any, roles: tuple[NodeTypes | None, ...] = PEERS, besides: Session | None = None) -> None:
        """Send a notification to all identified peers of these roles."""
        for session in self.sessions:
            if session.role in roles and session is not besides:
                session.push(message)

    def _tell_client(self, nid: int, message: Any) -> None:
        for session in self.sessions:
            if session.nid == nid:
                session.push(message)

    def tell_nodes(self, nodes: list[Node], besides: Session | None = None) -> None:
        """Tell each peer what changed of those nodes that it knows."""
        timestamp = self.state.timestamp()
        for role in PEERS:
            visible = [node for node in nodes if node.type in VISIBLE[role]]
            if visible:
                self.tell(self.state.messages.NotifyNodeInformation(timestamp, visible), (role,), besides)

    def change_table(self, changes: list[CellChange]) -> None:
        """Make a step of the partition table and tell it, even if only the number of replicas changed."""
        table = self.state.table
        table.apply(changes)
        assert table.ptid is not None
        self.tell(self.state.messages.NotifyPartitionChanges(table.ptid, table.num_replicas, changes))

    def change_state(self, cluster_state: ClusterStates) -> None:
        """Put the cluster into a state and tell it."""
        self.state.cluster_state = cluster_state
        self.tell(self.state.messages.NotifyClusterInformation(cluster_state))

    # ---- storages come and go

    def storage_up(self, node: StorageNode) -> None:
        """A storage has started. One that has cells is used at once, or wakes a cluster that waits for its storages."""
        state = self.state
        used = state.cluster_state in SERVING and node.nid in state.table.storages()
        state.nodes[node.nid] = Node(NodeTypes.STORAGE, node.address, node.nid,
                                     NodeStates.RUNNING if used else NodeStates.PENDING, state.timestamp())
        self.tell_nodes([state.nodes[node.nid]])
        if used:
            self.replicate()
        elif state.cluster_state is ClusterStates.RECOVERING and state.table.ptid is not None:
            if state.table.storages() <= {node.nid for node in state.storages(NodeStates.PENDING)}:
                self.start_operation()

    def storage_down(self, nid: int) -> None:
        """A storage has gone. Without a readable copy of everything the cluster stops."""
        state = self.state
        gone = state.set_node(nid, NodeStates.DOWN)
        changes = state.table.outdated_without(nid, state.running())
        self.tell_nodes([gone])
        if changes:
            self.change_table(changes)
        if state.cluster_state in SERVING and not state.table.operational(state.running()):
            self.stop_operation()

    def replicate(self) -> None:
        """Let storages have copied what they lack: all look into the same database."""
        changes = self.state.table.replicated(self.state.running())
        if changes:
            self.change_table(changes)

    def start_operation(self) -> None:
        """From RECOVERING to RUNNING, with the storages that wait; the first time they share out the partitions."""
        state = self.state
        if state.table.ptid is None:
            state.table.fill([node.nid for node in state.storages(NodeStates.PENDING) if node.nid is not None])
        used = [node.nid for node in state.storages(NodeStates.PENDING) if node.nid in state.table.storages()]
        self.tell_nodes([state.set_node(nid, NodeStates.RUNNING) for nid in used if nid is not None])
        table = state.messages.SendPartitionTable(state.table.ptid, state.table.num_replicas, state.table.cells())
        self.tell(table, ADMIN)
        self.change_state(ClusterStates.VERIFYING)
        self.change_state(ClusterStates.RUNNING)
        self.replicate()
        state.wake()

    def stop_operation(self) -> None:
        """Back to RECOVERING: clients are sent away, transactions are forgotten, storages wait."""
        state = self.state
        for ttid in list(state.pending):
            self.abort(ttid)
        self.tell(state.messages.StopOperation(), CLIENT)
        for session in [session for node in (self, *self.storages.values()) for session in node.sessions
                        if session.role is NodeTypes.CLIENT]:
            session.hang_up()
        waiting = [state.set_node(nid, NodeStates.PENDING) for nid in sorted(state.running())]
        self.tell_nodes(waiting)
        self.change_state(ClusterStates.RECOVERING)

    # ---- reading

    @handles("AskLastTransaction", roles=PEERS)
    def _last_transaction(self, call: Call, message: Any) -> Any:
        return self.state.messages.AnswerLastTransaction(self.state.database.last_tid)

    @handles("AskLastIDs", roles=PEERS)
    def _last_ids(self, call: Call, message: Any) -> Any:
        database = self.state.database
        if self.state.wire == "N":
            return proto.n6.AnswerLastIDs(database.last_oid, database.last_tid)
        return proto.AnswerLastIDs(database.last_tid, database.last_oid, database.first_tid)

    @handles("AskPackOrders", roles=CLIENT)
    def _pack_orders(self, call: Call, message: Any) -> Any:
        return proto.AnswerPackOrders([order for order in self.packs if order.order >= message.min_tid])

    @handles("WaitForPack", roles=CLIENT)
    def _wait_for_pack(self, call: Call, message: Any) -> Any:
        return proto.WaitedForPack()        # a pack is done as soon as its transaction is committed

    # ---- writing

    def _check_writer(self, call: Call) -> None:
        if call.session.read_only:
            raise Refusal(ErrorCodes.READ_ONLY_ACCESS, "read-only access as requested by the client")
        if self.state.cluster_state is ClusterStates.BACKINGUP:
            raise Refusal(ErrorCodes.READ_ONLY_ACCESS, "read-only access because cluster is in backuping mode")

    @handles("AskNewOIDs", roles=CLIENT)
    def _new_oids(self, call: Call, message: Any) -> Any:
        self._check_writer(call)
        return self.state.messages.AnswerNewOIDs(self.state.database.new_oids(message.count))

    @handles("AskBeginTransaction", roles=CLIENT)
    def _begin(self, call: Call, message: Any) -> Any:
        self._check_writer(call)
        state = self.state
        if state.pending and (message.tid is not None or any(begun.given for begun in state.pending.values())):
            raise protocol_error("There can't be concurrent transactions when a TID is specified for any of them.")
        if message.tid is not None and message.tid <= state.database.last_tid:
            raise protocol_error("new TID must be greater than the last committed one")
        ttid = state.next_tid() if message.tid is None else message.tid
        assert call.session.nid is not None
        state.pending[ttid] = Begun(call.session.nid, given=message.tid is not None)
        return state.messages.AnswerBeginTransaction(ttid)

    def _begun(self, ttid: bytes) -> Begun:
        try:
            return self.state.pending[ttid]
        except KeyError:
            raise protocol_error(f"unknown ttid {id_hex(ttid)}") from None

    @handles("FailedVote", roles=CLIENT)
    def _failed_vote(self, call: Call, message: Any) -> Any:
        self._check_writer(call)
        begun = self._begun(message.ttid)
        running = self.state.running()
        failed = running & set(message.nids)
        if failed and not self.state.table.operational(running - failed):
            raise Refusal(ErrorCodes.INCOMPLETE_TRANSACTION)
        begun.failed = failed
        return self.state.messages.Error(ErrorCodes.ACK, "")

    @handles("AskFinishTransaction", roles=CLIENT)
    def _finish(self, call: Call, message: Any) -> Any:
        self._check_writer(call)
        state = self.state
        begun = self._begun(message.ttid)
        pack = getattr(message, "pack", None)       # M only
        if pack is not None and not ZERO_TID < pack.tid <= state.database.last_tid:
            raise protocol_error("invalid pack time")
        if not self._complete(message, begun):
            self.abort(message.ttid)
            raise Refusal(ErrorCodes.INCOMPLETE_TRANSACTION)
        tid = message.ttid if begun.given else state.next_tid(message.ttid)
        self._commit(message.ttid, tid)
        if pack is not None:
            self.pack(tid, pack.tid, pack.oids)
        self.invalidate(tid, message.oids, besides=call.session)
        return state.messages.AnswerTransactionFinished(message.ttid, tid)

    def _complete(self, message: Any, begun: Begun) -> bool:
        """Whether every partition concerned has a readable cell on a storage that voted, as far as we can tell."""
        state = self.state
        total = len(state.table.rows)
        if state.wire == "N":
            concerned = partitions_of([*message.oids, *message.checked, message.ttid], total)
        else:
            concerned = partitions_of([*message.oids, message.ttid], total) | {*message.deleted, *message.checked}
        voters = [nid for nid in state.running() - begun.failed if self.storages[nid].has_voted(message.ttid)]
        return all(any(state.table.rows[offset].get(nid) in READABLE for nid in voters) for offset in concerned)

    def _commit(self, ttid: bytes, tid: bytes) -> None:
        """Gather what the storages have of a transaction, store it, and let them release their locks."""
        stored: dict[bytes, Record] = {}
        transaction = Transaction(tid, ttid)
        for storage in self.storages.values():
            held = storage.transactions.get(ttid)
            if held is not None:
                stored.update(held.stored)
                transaction = held.metadata or transaction
        self.state.database.commit(transaction._replace(tid=tid), stored)
        self._end(ttid)

    def _end(self, ttid: bytes) -> None:
        self.state.pending.pop(ttid, None)
        for storage in self.storages.values():
            storage.forget_transaction(ttid)
        self.state.wake()

    def abort(self, ttid: bytes) -> None:
        """Forget a transaction everywhere."""
        self._end(ttid)

    @handles("AbortTransaction", roles=CLIENT)
    def _abort(self, call: Call, message: Any) -> None:
        self._check_writer(call)
        if self._begun(message.ttid).client != call.session.nid:
            raise protocol_error(f"unknown ttid {id_hex(message.ttid)}")
        self.abort(message.ttid)

    @handles("AskFinalTID", roles=CLIENT)
    def _final_tid(self, call: Call, message: Any) -> Any:
        self._check_writer(call)
        if message.ttid in self.state.pending:
            raise Delay
        known = message.ttid <= self.state.database.last_tid
        return self.state.messages.AnswerFinalTID(MAX_TID if known else None)      # MAX_TID: ask the storages

    @handles("AskPack", roles=CLIENT)
    def _ask_pack(self, call: Call, message: Any) -> Any:
        self.state.database.pack(message.tid)
        return proto.AnswerPack(True)

    def pack(self, order: bytes, tid: bytes, oids: list[bytes] | None) -> None:
        """Carry out a pack order, and remember it."""
        self.packs.append(PackOrder(order, True, oids is not None, oids, tid))
        self.state.database.pack(tid, oids)

    def invalidate(self, tid: bytes, oids: Iterable[bytes], besides: Session | None = None) -> None:
        """Tell the clients, but the one that committed, that objects have changed."""
        self.tell(self.state.messages.InvalidateObjects(tid, list(oids)), CLIENT, besides)
