# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What changes a cluster for good, on live clusters of NEO/py master and 1.12: each test has one of its own.

Start, stop, kill, drop, tweak, check, truncate and backup, by neolink.cluster or `neolink ctl`; and after each step
the real neoctl prints the same as ours. What our client reads is what NEO/py's own ZODB client reads.
"""
from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from neolink import cluster as clusters
from neolink import proto
from neolink.proto import ClusterStates, NodeStates

from .conftest import neopy_or_skip
from .peers import Cluster, join, wait_until
from .test_ctl_live import ROOT, SECONDS, ctl, tls_of

NewCluster = Callable[..., Cluster]
PRINTS = ["print cluster", "print primary", "print ids", "print node", "print node storage", "print pt"]


@pytest.fixture
def new_cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewCluster]:
    """Start a cluster for this test: new_cluster(counts=(1, 2), replicas=1). The arguments are peers.Cluster's."""
    software = neopy_or_skip(request.cls.wire)
    with ExitStack() as started:
        def new(name: str = "test", **options: Any) -> Cluster:
            directory = tmp_path / name
            directory.mkdir()
            cluster = Cluster(software, directory, name=name, **options)
            cluster.start()
            started.callback(cluster.stop)
            return cluster

        yield new


def admin(cluster: Cluster) -> clusters.Admin:
    return clusters.connect(join(cluster.admin), tls=tls_of(cluster), timeout=SECONDS)


def same(cluster: Cluster, *commands: str) -> None:
    """Both tools say the same and succeed, or fail, alike: these commands, or all that print."""
    for words in commands or PRINTS:
        ours, theirs = ctl(cluster, *words.split()), cluster.ctl(*words.split())
        assert (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr), words
        assert bool(ours.returncode) == bool(theirs.returncode), words


def done(cluster: Cluster, *words: str) -> str:
    """`neolink ctl` did it; what it printed."""
    said = ctl(cluster, *words)
    assert (said.returncode, said.stderr) == (0, ""), words
    return said.stdout


def states(c: clusters.Admin) -> dict[str, NodeStates]:
    return {node.name: node.state for node in c.nodes("storage")}


def written(cluster: Cluster) -> Any:
    """Let NEO/py's client write; what it reads then."""
    if lacks := cluster.software.lacks_zodb():
        pytest.skip(f"NEO/py's client needs ZODB there: {lacks}")
    cluster.software.zodb("write", cluster.all_masters(), cluster.name)
    return read_by_neo(cluster)


def read_by_neo(cluster: Cluster, *options: str) -> Any:
    return json.loads(cluster.software.zodb("dump", cluster.all_masters(), cluster.name, *options))


def revision(client: clusters.Client, oid: bytes, before: bytes | None = None) -> list[str | None] | None:
    try:
        found = client.load(oid, before=before)
    except clusters.NoSuchObject:
        return None
    return None if found.data is None else [
        found.data.hex(), found.serial.hex(), found.next_serial.hex() if found.next_serial else None]


def read_by_us(client: clusters.Client) -> Any:
    """All that can be read, in the form of zodb_client.py."""
    transactions = list(client.transactions())
    after = [proto.id_from_int(proto.id_to_int(one.tid) + 1) for one in transactions]
    return {
        "last_tid": client.last_tid().hex(),
        "transactions": [{"tid": one.tid.hex(), "user": one.user.decode(), "description": one.description.decode(),
                          "oids": [oid.hex() for oid in sorted(one.oids)]} for one in transactions],
        "objects": {oid.hex(): {
            "now": revision(client, oid),
            "before": {tid.hex(): revision(client, oid, tid) for tid in after},
            "history": [[one.serial.hex(), one.size] for one in client.history(oid)],
        } for oid in {oid for one in transactions for oid in one.oids}},
        "undo_log": [[one.tid.hex(), one.description.decode()] for one in client.undo_log(0, 100)],
    }


class Life:
    wire: str

    def test_a_client_reads_what_neos_client_reads(self, new_cluster: NewCluster) -> None:
        """Transactions, every object before and after each of them, histories, the undo log; on two storages."""
        cluster = new_cluster(counts=(1, 2), partitions=3)
        expected = written(cluster)
        assert len(expected["transactions"]) == 6 and len(expected["objects"]) == 2
        with clusters.client(cluster.all_masters(), cluster.name, timeout=SECONDS) as client:
            assert read_by_us(client) == expected
        same(cluster)

    def test_reads_go_on_when_a_storage_dies(self, new_cluster: NewCluster) -> None:
        """Without a word, and with the client linked to it."""
        cluster = new_cluster(counts=(1, 2), replicas=1, partitions=2)
        expected = written(cluster)
        with clusters.client(cluster.all_masters(), cluster.name, timeout=SECONDS) as client:
            assert read_by_us(client) == expected
            cluster.process("neostorage").kill()
            assert read_by_us(client) == expected

    def test_start_and_stop(self, new_cluster: NewCluster) -> None:
        cluster = new_cluster(counts=(1, 2), replicas=1, partitions=4, autostart=False)
        assert done(cluster, "print", "cluster") == "RECOVERING\n"
        same(cluster, *PRINTS, "set cluster running", "set cluster starting_backup", "set replicas 2", "tweak -n",
             "truncate tid:1" if self.wire == "M" else "truncate 1")
        assert json.loads(done(cluster, "--json", "--wait", "start"))["message"] == "Cluster state changed"
        assert done(cluster, "print", "cluster") == "RUNNING\n"
        assert done(cluster, "print", "pt") == "# ptid: 1, replicas: 1\nS1 R UUUU\nS2 R UUUU\n"
        same(cluster, *PRINTS, "start", *["set cluster starting_backup"] * (self.wire == "M"))
        assert ctl(cluster, "start").returncode == 1
        master = cluster.process("neomaster")
        assert done(cluster, "--wait", "set", "cluster", "stopping") == "Cluster state changed\n"
        wait_until(lambda: not master.alive(), "the master ends")

    def test_kill_and_drop_a_storage(self, new_cluster: NewCluster) -> None:
        """The other one has a copy of everything, so the cluster goes on."""
        cluster = new_cluster(counts=(1, 2), replicas=1, partitions=4)
        with admin(cluster) as c:
            assert states(c) == {"S1": NodeStates.RUNNING, "S2": NodeStates.RUNNING}
            same(cluster, "drop S2")                                        # a running node must be stopped before
            assert done(cluster, "--wait", "kill", "S2") == "state changed\n"
            wait_until(lambda: not all(process.alive() for process in cluster.processes), "S2 ends")
            assert states(c) == {"S1": NodeStates.RUNNING, "S2": NodeStates.DOWN}
            now = c.snapshot()
            assert now.operational and now.consistent and now.state is ClusterStates.RUNNING
            assert now.table.out_of_date == {2: [0, 1, 2, 3]} and not now.table.settled
            same(cluster, *PRINTS, "kill S2", "tweak -n")                   # down nodes must be listed
            assert ctl(cluster, "--exit-code", "kill", "S2").returncode == 7
            assert c.kill("S2").changed is False
            assert c.drop("S2").changed and list(states(c)) == ["S1"]
            same(cluster, *PRINTS, "drop S2", "kill S2")                    # unknown node
            assert ctl(cluster, "drop", "S2").returncode == 4
            with pytest.raises(clusters.NoSuchNode):
                c.kill("S2")

    def test_the_only_copy_is_not_dropped(self, new_cluster: NewCluster) -> None:
        cluster = new_cluster(counts=(1, 2), partitions=4)
        with admin(cluster) as c:
            same(cluster, "drop S2", "kill S2", "kill S1")
            with pytest.raises(clusters.Refused, match="only readable copies"):
                c.kill("S2")
            cluster.forget(cluster.process("neostorage2"))
            c.wait_state("recovering", timeout=SECONDS)
            same(cluster, *PRINTS, "tweak -n")
            now = c.snapshot()
            assert not now.operational and now.unreadable      # storages that wait serve nobody

    def test_replicas_and_tweak(self, new_cluster: NewCluster) -> None:
        """Two storages with one copy get two; what a dry run foretells is what comes."""
        cluster = new_cluster(counts=(1, 2), partitions=4)
        with admin(cluster) as c:
            assert c.set_replicas(0).changed is False and c.tweak().changed is False
            assert ctl(cluster, "--exit-code", "tweak").returncode == 7
            assert done(cluster, "set", "replicas", "1") == "\n"
            assert c.partitions().num_replicas == 1
            same(cluster, *PRINTS, "tweak -n")
            foretold = c.tweak(dry_run=True)
            assert foretold.changed and all(len(row) == 2 for row in foretold.rows)
            said = done(cluster, "--wait", "tweak")
            assert said.count("O") == 4 and said.count("U") == 4
            assert c.partitions().up_to_date == {1: [0, 1, 2, 3], 2: [0, 1, 2, 3]}
            assert [set(row) for row in c.partitions().rows] == [set(row) for row in foretold.rows]
            same(cluster, *PRINTS, "tweak -n")
            assert c.set_replicas(0).changed and list(c.tweaking())[-1].finished
            assert sorted(map(len, c.partitions().up_to_date.values())) == [2, 2]
            same(cluster, "print pt", "tweak -n S2")
            assert list(c.tweaking("S2"))[-1].finished
            assert c.partitions().up_to_date[1] == [0, 1, 2, 3]
            assert list(c.retiring("S2"))[-1].finished
            assert c.partitions().by_node() == {1: [0, 1, 2, 3]} and list(states(c)) == ["S1"]
            same(cluster)

    def test_check(self, new_cluster: NewCluster) -> None:
        """Replicas that agree: it is begun, nobody ends, and nothing is called corrupted."""
        cluster = new_cluster(counts=(1, 2), replicas=1, partitions=3)
        with admin(cluster) as c:
            for words in ("check :", "check :S2", "check 0: 2:S1 tid:1 tid:9"):
                assert done(cluster, *words.split()) == ""
            same(cluster, "check 0: 1:S2", "check 1:S1 1 9")
            assert list(c.checking({0: "S1", 2: None}))[-1].finished
            assert c.partitions().corrupted == {} and c.state() is ClusterStates.RUNNING
        cluster.check_well()

    def test_a_secondary_master(self, new_cluster: NewCluster) -> None:
        """The client finds the primary behind it; it can be killed, the primary cannot."""
        cluster = new_cluster(counts=(2, 1))
        with admin(cluster) as c:
            primary = c.primary_node()
            [secondary] = [node for node in c.nodes("master") if node.nid != primary.nid]
            assert primary.address in cluster.masters and secondary.state is NodeStates.RUNNING
            same(cluster, *PRINTS, "print node master", f"kill {primary.name}")
            assert secondary.address is not None
            with clusters.client(join(secondary.address), cluster.name, timeout=SECONDS) as client:
                assert client.last_tid() == bytes(8)
            assert done(cluster, "--wait", "kill", secondary.name) == "state changed\n"
            wait_until(lambda: not all(process.alive() for process in cluster.processes), "the secondary ends")
            assert c.primary_node() == primary
            same(cluster)

    def test_truncate(self, new_cluster: NewCluster) -> None:
        cluster = new_cluster(counts=(1, 2), replicas=1, partitions=2)
        before = written(cluster)
        tid = before["transactions"][2]["tid"]
        word = f"tid:0x{tid}" if self.wire == "M" else f"0x{tid}"
        assert done(cluster, "--wait", "truncate", word) == ""
        with admin(cluster) as c, clusters.client(cluster.all_masters(), cluster.name, timeout=SECONDS) as client:
            assert c.ids().last_tid.hex() == tid
            after = read_by_us(client)
        assert after["transactions"] == before["transactions"][:3] and after["last_tid"] == tid
        assert after == read_by_neo(cluster)
        same(cluster, *PRINTS, f"truncate {word}")                          # after the last one: does nothing

    def test_backup(self, new_cluster: NewCluster) -> None:
        """A second cluster follows the first, is read from meanwhile, and is then one of its own."""
        upstream = new_cluster("upstream", partitions=2)
        backup = new_cluster("backup", partitions=2, upstream=upstream)
        expected = written(upstream)
        last = bytes.fromhex(expected["last_tid"])
        with admin(backup) as c:
            same(backup, "set cluster stopping_backup")
            assert done(backup, "--wait", "set", "cluster", "starting_backup") == "Cluster state changed\n"
            assert c.state() is ClusterStates.BACKINGUP
            assert c.wait(lambda c: (ids := c.ids()).backup_tid == last and ids, timeout=SECONDS).last_tid == last
            same(backup, *PRINTS, "set cluster starting_backup", *["print summary"] * (self.wire == "M"))
            assert json.loads(done(backup, "--json", "print", "ids"))["backup_tid"] == expected["last_tid"]
            with clusters.client(backup.all_masters(), backup.name, timeout=SECONDS) as client:
                assert read_by_us(client) == expected
            if self.wire == "M":
                assert read_by_neo(backup, "read_only") == expected
            assert done(backup, "--wait", "set", "cluster", "stopping_backup") == "Cluster state changed\n"
            assert c.state() is ClusterStates.RUNNING and c.ids().backup_tid is None
            assert c.ids().last_tid == last
            same(backup)
        assert read_by_neo(backup) == expected


class TestLifeM(Life):
    wire = "M"

    def test_the_session_of_the_documentation(self, new_cluster: NewCluster) -> None:
        """docs/cluster.rst shows the session of `neolink demo` as a script for a live cluster."""
        cluster = new_cluster(counts=(1, 2), partitions=4)
        text = (ROOT / "docs" / "cluster.rst").read_text()
        [block] = re.findall(r"^\.\. code:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
        script = textwrap.dedent(block).replace("127.0.0.1:9999", join(cluster.admin)).replace(
            "127.0.0.1:24210", join(cluster.master))
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60,
                              check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("RUNNING\n") and "b'hello, NEO' True\n" in done.stdout
        with admin(cluster) as c:
            assert c.partitions().up_to_date == {1: [0, 1, 2, 3], 2: [0, 1, 2, 3]}
        same(cluster)


class TestLifeN(Life):
    wire = "N"

    def test_a_backup_of_nobody_ends_the_master(self, new_cluster: NewCluster) -> None:
        """1.12 does not look whether it has an upstream cluster. neoctl waits for ever then; ours says what happened."""
        cluster = new_cluster()
        master = cluster.process("neomaster")
        said = ctl(cluster, "set", "cluster", "starting_backup")
        assert said.returncode == 8 and "no upstream cluster is configured" in said.stderr
        wait_until(lambda: not master.alive(), "the master ends")
