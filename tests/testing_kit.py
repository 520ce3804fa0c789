# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""A NEO client in few lines, for tests that look at a cluster message by message. It notes all that is pushed to it."""
from __future__ import annotations

import hashlib
import threading
from typing import Any, Self

from support import PATIENCE

import neolink
from neolink import proto, testing
from neolink.proto import NodeTypes

WIRES = ["M", "N"]


class Pushes:
    """Takes the notifications of a link on a thread of its own."""

    def __init__(self, link: neolink.NodeLink) -> None:
        self.all: list[Any] = []
        self._came = threading.Condition()
        self._link = link
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def _take(self) -> None:
        try:
            while True:
                with self._link.recv1() as request, self._came:
                    self.all.append(request.message)
                    self._came.notify_all()
        except neolink.LinkError:
            pass

    def wait(self, cls: type, count: int = 1) -> Any:
        """The push number `count` of a class."""
        def found() -> list[Any]:
            return [message for message in self.all if type(message).__name__ == cls.__name__]
        with self._came:
            assert self._came.wait_for(lambda: len(found()) >= count, PATIENCE), \
                f"{cls.__name__} came {len(found())} times, not {count}"
            return found()[count - 1]

    def join(self) -> None:
        self._thread.join()


class Client:
    """A client that is identified at the master, and at storages when it needs them."""

    def __init__(self, cluster: testing.Cluster, **extra: Any) -> None:
        self.cluster = cluster
        self.wire = cluster.wire
        self.m: Any = proto.n6 if self.wire == "N" else proto
        self.master = neolink.dial(cluster.master_address, wire=self.wire)
        self.pushes = Pushes(self.master)
        accepted = self.master.ask(self.identification(None, None, **extra), timeout=PATIENCE)
        self.nid: int = accepted.your_nid
        self.nodes = self.pushes.wait(proto.NotifyNodeInformation).nodes
        self.table = self.pushes.wait(proto.SendPartitionTable)
        self.storages: dict[int, neolink.NodeLink] = {}
        self.storage_pushes: dict[int, Pushes] = {}

    def identification(self, nid: int | None, stamp: float | None, *, name: str | None = None,
                       node_type: NodeTypes = NodeTypes.CLIENT, address: Any = None, **extra: Any) -> Any:
        start = (node_type, nid, address, name or self.cluster.name, stamp)
        return self.m.RequestIdentification(*start, [], []) if self.wire == "N" else \
            self.m.RequestIdentification(*start, extra)

    def storage(self, nid: int) -> neolink.NodeLink:
        """The link to a storage."""
        if nid not in self.storages:
            link = neolink.dial(self.cluster.storages[nid].address, wire=self.wire)
            link.ask(self.identification(self.nid, self.nodes[0].id_timestamp), timeout=PATIENCE)
            self.storages[nid], self.storage_pushes[nid] = link, Pushes(link)
        return self.storages[nid]

    def nids(self, id_: bytes) -> list[int]:
        """The storages with cells for an oid or tid, by the table of the identification."""
        return [nid for nid, _ in self.table.rows[proto.id_to_int(id_) % len(self.table.rows)]]

    def ask(self, message: Any) -> Any:
        return self.master.ask(message, timeout=PATIENCE)

    def load(self, oid: bytes, at: bytes | None = None, before: bytes | None = None) -> Any:
        return self.storage(self.nids(oid)[0]).ask(self.m.AskObject(oid, at, before), timeout=PATIENCE)

    def begin(self) -> bytes:
        ttid: bytes = self.ask(self.m.AskBeginTransaction(None)).ttid
        return ttid

    def store_message(self, ttid: bytes, oid: bytes, serial: bytes, data: bytes, undo: bytes | None = None) -> Any:
        checksum = proto.ZERO_HASH if undo or not data else hashlib.sha1(data).digest()
        return self.m.AskStoreObject(oid, serial, 0, checksum, data, undo, ttid)

    def store(self, ttid: bytes, oid: bytes, serial: bytes, data: bytes, undo: bytes | None = None) -> list[Any]:
        """Store at all cells; the conflicts that they answer."""
        message = self.store_message(ttid, oid, serial, data, undo)
        return [self.storage(nid).ask(message, timeout=PATIENCE).conflict for nid in self.nids(oid)]

    def vote(self, ttid: bytes, oids: list[bytes], pack: Any = None) -> None:
        more = () if self.wire == "N" else (pack,)
        metadata = self.m.AskStoreTransaction(ttid, b"user", b"what", b"", oids, *more)
        for nid in self.nids(ttid):
            self.storage(nid).ask(metadata, timeout=PATIENCE)
        for nid in {nid for oid in oids for nid in self.nids(oid)} - set(self.nids(ttid)):
            self.storage(nid).ask(self.m.AskVoteTransaction(ttid), timeout=PATIENCE)

    def finish(self, ttid: bytes, oids: list[bytes], pack: Any = None) -> bytes:
        rest = ([],) if self.wire == "N" else ([], [], pack)
        tid: bytes = self.ask(self.m.AskFinishTransaction(ttid, oids, *rest)).tid
        return tid

    def commit(self, oid: bytes, serial: bytes, data: bytes, undo: bytes | None = None) -> bytes:
        """All of it for one object."""
        ttid = self.begin()
        assert set(self.store(ttid, oid, serial, data, undo)) == {None}
        self.vote(ttid, [oid])
        return self.finish(ttid, [oid])

    def close(self) -> None:
        for link in (self.master, *self.storages.values()):
            link.close()
        for pushes in (self.pushes, *self.storage_pushes.values()):
            pushes.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
