# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink.cluster and `neolink ctl` beside the real neoctl, on live clusters of NEO/py master and 1.12.

What both can do is done by both and compared, letter by letter. What would end a node is tried, too: the fixture fails
the test after which a node is missing.
"""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import neolink
from neolink import cluster as clusters
from neolink import proto
from neolink.proto import CellStates, ClusterStates, NodeTypes

from .peers import Cluster, join

SECONDS = 20.0

ROOT = Path(neolink.__file__).parent.parent


def ctl(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """`neolink ctl` against the cluster's admin."""
    tls = ["--tls", *cluster.tls] if cluster.tls else []
    command = [sys.executable, "-m", "neolink", "ctl", "-a", join(cluster.admin), *tls, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def tls_of(cluster: Cluster) -> neolink.TLS | None:
    return neolink.TLS(*cluster.tls) if cluster.tls else None


@pytest.fixture
def c(cluster: Cluster) -> Iterator[clusters.Admin]:
    with clusters.connect(join(cluster.admin), tls=tls_of(cluster), timeout=SECONDS) as c:
        yield c


SAME = ["print ids", "print pt", "print pt 0 1", "print node", "print node storage", "print node client",
        "print cluster", "print primary", "add S9", "add all", "tweak -n", "prune_orphan 1 all", "flush_log",
        "check 0:", "check 0:S1", "set replicas 0", "start", "set cluster running", "set cluster stopping_backup",
        "drop S1", "drop S9", "kill M1", "kill C9", "prune_orphan 1 S9"]


class Cases:
    wire: str
    with_tls = False

    @pytest.mark.parametrize("words", SAME)
    def test_neoctl_says_the_same(self, words: str, cluster: Cluster) -> None:
        ours, theirs = ctl(cluster, *words.split()), cluster.ctl(*words.split())
        assert "Traceback" not in ours.stderr
        if words == "kill C9":
            assert ours.returncode and theirs.returncode        # with a traceback, there
        else:
            assert (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr)
            assert bool(ours.returncode) == bool(theirs.returncode)

    def test_what_neoctl_prints_parsed(self, c: clusters.Admin, cluster: Cluster) -> None:
        assert str(c.state()) == cluster.ctl("print", "cluster").stdout.strip()
        assert proto.nid_str(c.primary()) == cluster.ctl("print", "primary").stdout.strip()
        assert c.primary_node().address == cluster.master
        lines = [line.split(" | ") for line in cluster.ctl("print", "node").stdout.splitlines()]
        assert [(node.name, str(node.type), str(node.state)) for node in c.nodes()] == \
            [(line[0].strip(), line[1].strip(), line[3].strip()) for line in lines]
        head, *rows = cluster.ctl("print", "pt").stdout.splitlines()
        table = c.partitions()
        assert head == f"# ptid: {table.ptid}, replicas: {table.num_replicas}"
        assert rows == ["S1 R " + "U" * len(table.rows)]
        assert f"last_ptid = {c.ids().ptid}" in cluster.ctl("print", "ids").stdout

    def test_a_snapshot(self, c: clusters.Admin, cluster: Cluster) -> None:
        now = c.snapshot()
        assert now.consistent and now.operational and now.state is ClusterStates.RUNNING
        assert now.table.up_to_date == {1: list(range(len(now.table.rows)))} and now.table.settled

    def test_what_would_end_a_node(self, c: clusters.Admin, cluster: Cluster) -> None:
        for do in (lambda: c.check({77: None}), lambda: c.check({0: "S9"}), lambda: c.check({0: "A1"}),
                   lambda: c.check({0: None}, min_tid=b"short"), lambda: c.add(77 << 24),
                   lambda: c.prune_orphan(77 << 24),
                   lambda: c.set_replicas(-1), lambda: c.truncate(None)):  # type: ignore[arg-type]
            with pytest.raises(clusters.Refused) as caught:
                do()
            assert caught.value.code is None                # nobody was asked
        c.check()
        list(c.checking())
        with pytest.raises(clusters.NoSuchPartition):
            c.partitions(7, 9)
        assert c.state() is ClusterStates.RUNNING

    def test_masters_and_storages_are_no_admins(self, cluster: Cluster) -> None:
        for address in (cluster.master, cluster.storage):
            with clusters.connect(join(address), tls=tls_of(cluster), timeout=SECONDS) as c, \
                    pytest.raises(clusters.NotAnAdmin):
                c.state()

    def test_a_client_reads(self, cluster: Cluster) -> None:
        with clusters.client(join(cluster.master), cluster.name, tls=tls_of(cluster), timeout=SECONDS) as client:
            assert client.nid is not None and client.nid < 0
            tids = list(client.tids())
            assert tids == sorted(tids) and (client.last_tid() == tids[-1] if tids else client.last_tid() == bytes(8))
            with pytest.raises(clusters.NoSuchObject):
                client.load(1 << 40)
            with pytest.raises(clusters.NoSuchTransaction):
                client.transaction(1)
        with pytest.raises(clusters.Refused, match="invalid cluster name"):
            clusters.client(join(cluster.master), "nope", tls=tls_of(cluster), timeout=SECONDS)

    def test_a_storage_comes_and_goes(self, c: clusters.Admin, cluster: Cluster) -> None:
        """add, tweak, watch it replicate, and retire it: the whole life of a storage."""
        with clusters.client(join(cluster.master), cluster.name, tls=tls_of(cluster), timeout=SECONDS) as client, \
                cluster.another("neostorage", "-a", "SQLite", "-d", "second.sqlite", name="second"):
            c.wait(lambda c: len(c.nodes(NodeTypes.STORAGE)) == 2, timeout=SECONDS)
            name = c.nodes(NodeTypes.STORAGE)[1].name
            added = c.add(name)
            assert added.changed and [proto.nid_str(nid) for nid in added.nids] == [name]
            assert c.set_replicas(1).changed
            last = list(c.tweaking(timeout=SECONDS))[-1]
            assert last.finished and last.total == 2 * len(c.partitions().rows)
            c.wait(lambda c: client.partitions().ptid == c.partitions().ptid, timeout=SECONDS)
            assert client.partitions().rows[0][name] is CellStates.UP_TO_DATE
            assert c.set_replicas(0).changed
            assert list(c.retiring(name, timeout=SECONDS))[-1].finished
            assert [node.name for node in c.nodes(NodeTypes.STORAGE)] == ["S1"]
            assert list(c.partitions().rows[0]) == [1]


class TestCtlM(Cases):
    wire = "M"

    def test_summary(self, c: clusters.Admin, cluster: Cluster) -> None:
        assert ctl(cluster, "print", "summary").stdout == cluster.ctl("print", "summary").stdout
        assert c.summary().problem == []


class TestCtlMTls(TestCtlM):
    with_tls = True


class TestCtlN(Cases):
    wire = "N"
