# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The scripted session that ends `neolink demo`: a cluster, looked at and steered, all of it through links.

The cluster is neolink.testing's, in this process; admin() and read() work on a live one as they stand. write() is what a
commit takes, message by message (section "writing" of docs/usage.rst): neolink's own client only reads.
"""
from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable

import neolink
from neolink import cluster, proto, testing

Say = Callable[[str, str], None]
NEW = bytes(8)
"""The serial of an object that has no revision yet."""


def run(say: Say) -> None:
    """Start a cluster and do with it what an administrator and a client do."""
    with testing.Cluster(name="demo", partitions=4, storages=2) as embedded:
        say("cluster", f"{embedded.name}: admin at {embedded.admin_address}, master at {embedded.master_address}")
        with cluster.connect(embedded.admin_address, timeout=10) as c:
            admin(c, say)
            oid, tid = write(embedded.master_address, embedded.name, b"hello, NEO")
            say("store", f"oid {proto.id_short(oid)} in transaction {proto.id_short(tid)}")
            with cluster.client(embedded.master_address, embedded.name, timeout=10) as client:
                found = client.load(oid)
                say("load", f"{found.data!r}, last transaction {proto.id_short(client.last_tid())}")
            embedded.add_storage()
            say("add", c.add("S3").message)
            c.set_replicas(1)
            say("tweak", "changed, for one replica" if c.tweak().changed else "nothing to do")
            say("pt", table(c.partitions()))


def admin(c: cluster.Admin, say: Say) -> None:
    """print cluster, node, pt and ids."""
    say("cluster", c.state().name)
    for node in c.nodes():
        assert node.nid is not None             # those that are known have one
        say("node", f"{proto.nid_str(node.nid)} {node.type.name} {node.state.name}")
    say("pt", table(c.partitions()))
    ids = c.ids()
    say("ids", f"ptid {ids.ptid}, last tid {proto.id_short(ids.last_tid)}")


def table(pt: cluster.PartitionTable) -> str:
    """One line: every partition with its cells."""
    rows = ("/".join(f"{proto.nid_str(nid)}:{state.name[0]}" for nid, state in sorted(row.items())) for row in pt.rows)
    return f"ptid {pt.ptid}: " + " ".join(f"{offset}={cells}" for offset, cells in enumerate(rows))


def identify(link: neolink.NodeLink, name: str, nid: int | None, stamp: float | None) -> proto.AcceptIdentification:
    """Say who we are: the first message to any node."""
    answer: proto.AcceptIdentification = link.ask(
        proto.RequestIdentification(proto.NodeTypes.CLIENT, nid, None, name, stamp, {}), timeout=10)
    return answer


def write(master_address: str, name: str, data: bytes) -> tuple[bytes, bytes]:
    """Commit one new object; its oid and the transaction's tid."""
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(neolink.dial(master_address, timeout=10))
        me = identify(master, name, None, None).your_nid
        nodes = {node.nid: node for node in master.recv1(timeout=10).message.nodes}      # the master tells at once
        rows = master.recv1(timeout=10).message.rows
        storages: dict[int, neolink.NodeLink] = {}

        def cells(number: bytes) -> list[neolink.NodeLink]:
            for nid, _state in rows[int.from_bytes(number, "big") % len(rows)]:
                if nid not in storages:
                    storages[nid] = stack.enter_context(neolink.dial(nodes[nid].address, timeout=10))
                    identify(storages[nid], name, me, nodes[me].id_timestamp)
            return [storages[nid] for nid, _state in rows[int.from_bytes(number, "big") % len(rows)]]

        ttid = master.ask(proto.AskBeginTransaction(None)).ttid
        oid = master.ask(proto.AskNewOIDs(1)).oids[0]
        for storage in cells(oid):
            storage.ask(proto.AskStoreObject(oid, NEW, 0, hashlib.sha1(data).digest(), data, None, ttid))
        voting = cells(ttid)                        # these keep the transaction, and vote by it; the others are asked to
        for storage in voting:
            storage.ask(proto.AskStoreTransaction(ttid, b"", b"neolink demo", b"", [oid], None))
        for storage in storages.values():
            if storage not in voting:
                storage.ask(proto.AskVoteTransaction(ttid))
        return oid, master.ask(proto.AskFinishTransaction(ttid, [oid], [], [], None)).tid
