# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink.testing.Cluster under the hands of the real thing: NEO/py's neoctl and its ZODB client, as they come.

Both run as child processes of an interpreter that has NEO/py, know nothing of neolink, and must not notice.
"""
from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from neolink import cluster as clusters
from neolink import testing

from .conftest import neopy_or_skip
from .peers import END_SECONDS, NeoPy
from .test_cluster_life import read_by_us
from .test_ctl_live import SECONDS


class Embedded:
    wire: str

    @pytest.fixture
    def software(self) -> NeoPy:
        return neopy_or_skip(self.wire)

    @pytest.fixture
    def cluster(self) -> Iterator[testing.Cluster]:
        with testing.Cluster(wire=self.wire, storages=2, replicas=1) as cluster:  # type: ignore[arg-type]
            yield cluster

    def neoctl(self, software: NeoPy, cluster: testing.Cluster, words: str) -> tuple[int, str]:
        done = subprocess.run(software.command("neoctl", "-a", cluster.admin_address, *words.split()),
                              env=software.env(), capture_output=True, text=True, timeout=END_SECONDS, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def test_neoctl_prints(self, software: NeoPy, cluster: testing.Cluster) -> None:
        assert self.neoctl(software, cluster, "print cluster") == (0, "RUNNING\n")
        assert self.neoctl(software, cluster, "print primary") == (0, "M1\n")
        assert self.neoctl(software, cluster, "print pt") == (0, "# ptid: 1, replicas: 1\nS1 R UUUU\nS2 R UUUU\n")
        status, nodes = self.neoctl(software, cluster, "print node storage")
        assert status == 0 and [line.split(" | ")[:2] for line in nodes.splitlines()] == \
            [["S1", "STORAGE"], ["S2", "STORAGE"]]
        cluster.store(1, b"data")
        status, ids = self.neoctl(software, cluster, "print ids")
        assert status == 0 and "last_oid = 0x1\n" in ids and f"last_tid = 0x{int(cluster.last_tid.hex(), 16):x}" in ids
        if self.wire == "M":
            assert self.neoctl(software, cluster, "print summary")[0] == 0

    def test_neoctl_changes(self, software: NeoPy, cluster: testing.Cluster) -> None:
        """The life of a storage, and refusals, in the words of real nodes."""
        def did(words: str) -> tuple[int, str]:
            return self.neoctl(software, cluster, words)

        assert did("kill S2") == (0, "state changed\n")
        assert did("kill S2") == (0, "node already in DOWN state\n")
        assert did("tweak -n")[0] == 1                          # down nodes must be listed
        assert did("drop S2") == (0, "node permanently removed\n")
        assert did("drop S2") == (1, "unknown node\n")
        assert did("drop S1")[0] == 1
        assert did("set replicas 0")[0] == 0
        assert did("tweak -n") == (0, "No change done.\n")
        assert did("add all") == (0, "No node added\n")
        assert did("check 0:S1")[0] == 0
        assert did("prune_orphan 1 all")[0] == 0
        assert did("start") == (1, "Can not switch to this state\n")
        assert did("set cluster stopping") == (0, "Cluster state changed\n")

    def test_the_zodb_client_writes_and_reads(self, software: NeoPy, cluster: testing.Cluster) -> None:
        """What it wrote it reads back, from a process of its own; and our client reads the same."""
        if lacks := software.lacks_zodb():
            pytest.skip(f"NEO/py's client needs ZODB there: {lacks}")
        software.zodb("write", cluster.master_address, cluster.name)
        read = json.loads(software.zodb("dump", cluster.master_address, cluster.name))
        assert [one["description"] for one in read["transactions"][1:]] == \
            ["commit 0", "commit 1", "commit 2", "made", "unmade"]
        with clusters.client(cluster.master_address, cluster.name, timeout=SECONDS) as client:
            assert read_by_us(client) == read
        assert read["last_tid"] == cluster.last_tid.hex()


class TestEmbeddedM(Embedded):
    wire = "M"


class TestEmbeddedN(Embedded):
    wire = "N"
