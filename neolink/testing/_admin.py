# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The admin: what neoctl talks to.

Nobody identifies himself here. What is about the nodes, the partition table and the state of the cluster it answers
itself; the rest it passes on to the master, and hangs up on who sent what the master calls a protocol error, as NEO's
admin does.
"""
from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import neolink
from neolink import errors, proto
from neolink.proto import CellStates, ClusterStates, ErrorCodes, NodeTypes
from neolink.testing._node import Call, ServerNode, Session, handles, protocol_error

if TYPE_CHECKING:
    from neolink.testing._master import MasterNode
    from neolink.testing._state import State

FORWARDED = ("AddPendingNodes", "AskLastIDs", "AskLastTransaction", "AskRecovery", "CheckReplicas", "FlushLog",
             "Repair", "SetClusterState", "SetNodeState", "SetNumReplicas", "Truncate", "TweakPartitionTable")


class AdminNode(ServerNode):
    """The admin of the cluster, connected to its master as long as that is up."""

    type = NodeTypes.ADMIN

    def __init__(self, state: State, master: MasterNode, tls: neolink.TLS | None) -> None:
        super().__init__(state, proto.nid_parse("A1"), tls)
        self._master = master

    def handler_name(self, session: Session) -> str:
        return "AdminEventHandler"

    def handle(self, call: Call) -> None:
        name = type(call.message).__name__
        if not self.state.master_up and name not in ("Ping", "RequestIdentification"):
            call.reply(self.state.messages.Error(ErrorCodes.NOT_READY, "Not connected to a primary master."))
            call.session.hang_up()
        elif name in FORWARDED:
            call.session.role = NodeTypes.ADMIN         # the master takes orders from admins only
            self._master.handle(call)
        else:
            super().handle(call)

    @handles("RequestIdentification")
    def _identify(self, call: Call, message: Any) -> None:
        if self.state.wire == "N":
            raise protocol_error("unexpected packet: no handler found in AdminEventHandler")
        if message.node_type is not NodeTypes.ADMIN:
            raise protocol_error("reject non-admin node")
        raise protocol_error(f"unknown backup cluster {message.cluster}")

    @handles("AskPrimary")
    def _primary(self, call: Call, message: Any) -> Any:
        return self.state.messages.AnswerPrimary(self._master.nid)

    @handles("AskClusterState")
    def _cluster_state(self, call: Call, message: Any) -> Any:
        return self.state.messages.AnswerClusterState(self.state.cluster_state)

    @handles("AskNodeList")
    def _node_list(self, call: Call, message: Any) -> Any:
        return self.state.messages.AnswerNodeList(
            [node for node in self.state.nodes.values() if message.node_type in (None, node.type)])

    @handles("AskPartitionList")
    def _partition_list(self, call: Call, message: Any) -> Any:
        table = self.state.table
        first, last = message.min_offset, message.max_offset or len(table.rows)
        if first > last or last > len(table.rows):
            self._refuse_on_own_id(call, "invalid partition table offset")
            return None
        return self.state.messages.AnswerPartitionList(table.ptid, table.num_replicas, table.cells()[first:last])

    def _refuse_on_own_id(self, call: Call, text: str) -> None:
        """Send the Error as NEO's admin does in this one case: on an id of its own, not on that of the request."""
        call.keep()
        try:
            conn = call.session.link.new_conn()
            conn.send(self.state.messages.Error(ErrorCodes.PROTOCOL_ERROR, text))
        except errors.LinkError:
            pass

    @handles("AskMonitorInformation")
    def _monitor_information(self, call: Call, message: Any) -> Any:
        state = self.state
        cells = Counter(cell.state for row in state.table.cells() for cell in row)
        down = len(state.table.storages() - state.running())
        parts = [str(state.cluster_state)]
        if cells:
            parts.append(", ".join(f"{cell}={cells[cell]}" for cell in CellStates if cells[cell]))
        if down:
            parts.append(f"DOWN={down}")
        serving = state.cluster_state in (ClusterStates.RUNNING, ClusterStates.BACKINGUP)
        if serving:
            tid = state.database.last_tid
            parts.append(f"ltid={tid.hex()} ({_date(tid)})")
        problem = bool(down) or not serving
        warning = not problem and list(cells) != [CellStates.UP_TO_DATE]
        return proto.AnswerMonitorInformation([None] if warning else [], [None] if problem else [], "; ".join(parts))


def _date(tid: bytes) -> str:
    return proto.tid_to_datetime(tid).replace(tzinfo=None).isoformat(" ")
