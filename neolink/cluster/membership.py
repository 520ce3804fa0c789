# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Being a client of a cluster: identified with the primary master, and told what changes.

A Session is one membership: a link to the primary master, the nid and time that it gave us, and the tables it keeps us
informed of. A thread takes its notifications, in order, and applies them under a condition that readers may wait on.
The links to the storages belong to the session, for storages know us by that nid and that time; when the master is lost
all of it ends, and the next one starts afresh.

    us → M   RequestIdentification(CLIENT, …, read_only)    ← AcceptIdentification, or Error; a secondary master sends
                                                              NotPrimaryMaster instead, and hangs up
    M → us   NotifyNodeInformation (everything, we first), SendPartitionTable; later what changes
    us → S   RequestIdentification(CLIENT, our nid, …, our time)    when there is something to read

A storage of today exits when it is shown a nid that it does not know without a time, so we do not dial without one.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import neolink
from neolink import errors, proto
from neolink._typed import Deadline
from neolink.cluster.errors import NotReady, Refused, remote
from neolink.cluster.results import Node, PartitionTable, Row, rows_of
from neolink.proto import CellStates, ClusterStates, ErrorCodes, NodeStates, NodeTypes

Invalidated = Callable[[bytes, list[bytes]], None]


class Session:
    """One membership. Lost when `lost` is not None; then make another."""

    def __init__(self, link: neolink.NodeLink, name: str, tls: neolink.TLS | None, invalidated: Invalidated) -> None:
        self.link, self.name = link, name
        self._tls, self._invalidated = tls, invalidated
        self.changed = threading.Condition()            # guards all below up to the storages
        self.nid: int | None = None
        self.id_timestamp: float | None = None
        self.nodes: dict[int, Node] = {}
        self.table: PartitionTable | None = None
        self.state: ClusterStates | None = None         # None: the master has not said; it serves us, so it runs
        self.secondary = False                          # this is a secondary master …
        self.primary: tuple[str, int] | None = None     # … and this the primary, if it tells …
        self.masters: list[tuple[str, int]] = []        # … among these
        self.lost: Exception | None = None
        self._dialing = threading.Lock()                # guards the dict of storages, and one dial at a time
        self._storages: dict[int, neolink.NodeLink] = {}
        self._follower = threading.Thread(target=self._follow, name="neolink-client", daemon=True)
        self._follower.start()

    # ---- beginning and end

    def identify(self, deadline: Deadline) -> None:
        """Introduce ourselves, and wait for both tables."""
        accepted = self.link.ask(identification(self.link.wire, None, self.name, None, read_only=True),
                                 timeout=deadline.left())
        with self.changed:
            self.nid = accepted.your_nid
            self._find_own_time()
            complete = self.changed.wait_for(lambda: self.lost or self.table and self.nodes, deadline.left())
            if self.lost:
                raise self.lost
            if not complete:
                raise errors.Timeout("the master has accepted us, but sends no tables")

    def close(self) -> None:
        self.link.close()
        with self._dialing:
            for link in self._storages.values():
                link.close()
            self._storages.clear()
        if self._follower is not threading.current_thread():
            self._follower.join()

    # ---- whom to read from

    def cells(self, partition: int) -> list[Node]:
        """The running storages that have all data of this partition, connected ones first."""
        with self.changed:
            assert self.table is not None
            if not self.table.rows:
                return []
            readable = self.table.rows[partition % len(self.table.rows)].readable
            found = [self.nodes[nid] for nid in readable if nid in self.nodes]
        found = [node for node in found if node.state is NodeStates.RUNNING and node.address]
        return sorted(found, key=lambda node: node.nid not in self._storages)

    def storage(self, node: Node, deadline: Deadline) -> neolink.NodeLink:
        """A link to this storage, on which we are identified."""
        assert node.nid is not None and node.address is not None
        link = self._storages.get(node.nid)             # those that are there do not wait for a dial under way
        if link is not None and not link.closed:
            return link
        left = deadline.left()
        if not self._dialing.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
            raise errors.Timeout("timed out while another storage was dialed")
        try:
            link = self._storages.get(node.nid)
            if link is None or link.closed:
                link = self._storages[node.nid] = self._dial(node.address, deadline)
            return link
        finally:
            self._dialing.release()

    def forget(self, node: Node) -> None:
        """Give up the link to this storage."""
        with self._dialing:
            link = self._storages.pop(node.nid, None) if node.nid is not None else None
        if link is not None:
            link.abort()

    def _dial(self, address: tuple[str, int], deadline: Deadline) -> neolink.NodeLink:
        if self.lost:
            raise errors.LinkDown("the membership ended meanwhile") from self.lost
        if self.id_timestamp is None and self.link.wire == "M":
            raise errors.LinkDown("the master did not tell when it identified us, so we must not dial storages")
        link = neolink.dial(address, timeout=deadline.left(), tls=self._tls, wire=self.link.wire, accept="ignore")
        try:
            link.ask(identification(link.wire, self.nid, self.name, self.id_timestamp), timeout=deadline.left())
        except BaseException:
            link.abort()
            raise
        return link

    # ---- what the master tells

    def _follow(self) -> None:
        """The follower thread: apply notifications until the link ends."""
        lost: Exception
        try:
            while True:
                with self.link.recv1() as request:
                    self._apply(request.message)
        except errors.Error as error:
            lost = error
        except BaseException as error:      # a bug of ours must not leave readers with tables that nobody updates
            lost = error if isinstance(error, Exception) else errors.LinkDown("interrupted")
        with self.changed:
            self.lost = lost
            self.changed.notify_all()
        self.link.abort()

    def _apply(self, message: Any) -> None:
        with self.changed:
            match message:
                case proto.InvalidateObjects():
                    self._invalidated(message.tid, list(message.oids))
                case proto.NotifyNodeInformation():
                    self._update_nodes(message.nodes)
                case proto.SendPartitionTable():
                    self.table = PartitionTable(message.ptid, message.num_replicas, rows_of(message.rows))
                case proto.NotifyPartitionChanges():
                    self._update_table(message)
                case proto.NotifyClusterInformation():
                    self.state = message.state
                case proto.StopOperation():
                    self.state = ClusterStates.RECOVERING
                case proto.NotPrimaryMaster():
                    self.secondary = True
                    self.masters = [(host, port) for host, port in message.known_masters]
                    if message.primary is not None:
                        self.primary = self.masters[message.primary]
                    raise errors.LinkDown("this is a secondary master")
            self.changed.notify_all()

    def _update_nodes(self, nodes: list[Any]) -> None:
        for fields in nodes:
            node = Node(*fields)
            if node.nid is None:
                continue
            if node.state is NodeStates.UNKNOWN:
                self.nodes.pop(node.nid, None)
            else:
                self.nodes[node.nid] = node
        self._find_own_time()

    def _find_own_time(self) -> None:
        if self.nid in self.nodes:
            self.id_timestamp = self.nodes[self.nid].id_timestamp

    def _update_table(self, message: Any) -> None:
        if self.table is None or self.table.ptid is None or message.ptid != self.table.ptid + 1:
            raise errors.LinkDown(f"a change of the partition table was missed: {message.ptid} came")
        rows = [Row(row) for row in self.table.rows]        # readers hold the old table: it stays as it is
        for offset, nid, state in message.cells:
            if state is CellStates.DISCARDED:
                rows[offset].pop(nid, None)
            else:
                rows[offset][nid] = state
        self.table = PartitionTable(message.ptid, message.num_replicas, rows)


def identification(wire: str, nid: int | None, name: str, id_timestamp: float | None, *,
                   read_only: bool = False) -> Any:
    """The first message to a master (nid None) or a storage. Wire N has no read-only clients; we do not write there."""
    if wire == "N":
        return proto.n6.RequestIdentification(NodeTypes.CLIENT, nid, None, name, id_timestamp, [], [])
    extra = {"read_only": True} if read_only else {}
    return proto.RequestIdentification(NodeTypes.CLIENT, nid, None, name, id_timestamp, extra)


def refusal(error: errors.RemoteError) -> errors.RemoteError:
    """What an Error answer to our identification means."""
    if error.code is ErrorCodes.NOT_READY:
        return remote(NotReady, error.message, code=error.code, cause=error)
    return remote(Refused, error.message, code=error.code, cause=error, text=f"the master refuses us: {error.message}")
