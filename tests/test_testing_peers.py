# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Unpatched NEO against neolink.testing.Cluster: its control tool and its ZODB client, on both wires.

What these accept is the measure of the doubles. They run where NEO is installed, see interop/peers.py for the
environment; ZODB has to be importable there too for the client.
"""
from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop.peers import NeoPy, find_neopy

from neolink import proto, testing
from neolink.proto import ClusterStates

SECONDS = 60.0

# Runs on Python 2 and 3. What it prints is what the test looks at.
SESSION = """
from __future__ import print_function
import sys
import transaction
from persistent.mapping import PersistentMapping
from ZODB.DB import DB
from ZODB.POSException import ConflictError
from neo.client.Storage import Storage

def connect():
    database = DB(Storage(master_nodes=sys.argv[1], name='test'))
    manager = transaction.TransactionManager()
    return database, manager, database.open(manager)

database, manager, connection = connect()
root = connection.root()
root['map'] = PersistentMapping()
root['map']['large'] = 'x' * 100000
manager.get().note(u'first')
manager.commit()
root['map']['small'] = 1
manager.commit()
database.undo(database.undoLog(0, 1)[0]['id'], manager.get())
manager.commit()
connection.sync()
print('undone', sorted(root['map']))

other, other_manager, other_connection = connect()
root['map']['mine'] = 1
other_connection.root()['map']['theirs'] = 2
other_manager.commit()
try:
    manager.commit()
except ConflictError:
    print('conflict')
manager.abort()
connection.sync()
print('seen', sorted(root['map']))

storage = database.storage
print('history', len(database.history(root['map']._p_oid, 10)))
print('transactions', len(list(storage.iterator())))
root['map']['aborted'] = 3
manager.abort()
other.close()
database.close()
print('done')
"""
PRINTED = ["undone ['large']", "conflict", "seen ['large', 'theirs']", "history 4", "transactions 5", "done"]


@pytest.fixture(params=["M", "N"])
def neo(request: pytest.FixtureRequest) -> NeoPy:
    found = find_neopy(request.param)
    if found is None:
        pytest.skip(f"no NEO/py of wire {request.param}: set NEOLINK_NEOPY and NEOLINK_NEOPY_PYTHON (M), or "
                    "NEOLINK_NEO112_PYTHON (N)")
    return found


@pytest.fixture
def cluster(neo: NeoPy) -> Iterator[testing.Cluster]:
    with testing.Cluster(wire=neo.wire, storages=2) as cluster:     # type: ignore[arg-type]
        yield cluster


def run(neo: NeoPy, command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=neo.env(), cwd=directory, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=SECONDS, check=False)


def ctl(neo: NeoPy, cluster: testing.Cluster, directory: Path, arguments: str) -> str:
    """What neoctl prints, on either stream."""
    done = run(neo, neo.command("neoctl", "-a", cluster.admin_address, *arguments.split()), directory)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def test_neoctl_prints(neo: NeoPy, cluster: testing.Cluster, tmp_path: Path) -> None:
    cluster.store(12, b"twelve")
    ids = ctl(neo, cluster, tmp_path, "print ids")
    assert "last_oid = 0xc\n" in ids and f"last_tid = {proto.id_short(cluster.last_tid)} " in ids
    assert ctl(neo, cluster, tmp_path, "print pt") == "# ptid: 1, replicas: 0\nS1 R U.U.\nS2 R .U.U\n"
    nodes = ctl(neo, cluster, tmp_path, "print node")
    assert [line.split(" ")[0] for line in nodes.splitlines()] == ["A1", "M1", "S1", "S2"]
    assert ctl(neo, cluster, tmp_path, "print cluster") == "RUNNING\n"
    assert ctl(neo, cluster, tmp_path, "print primary") == "M1\n"
    if neo.wire == "M":
        assert "RUNNING; UP_TO_DATE=4; ltid=" in ctl(neo, cluster, tmp_path, "print summary")


def test_neoctl_changes(neo: NeoPy, cluster: testing.Cluster, tmp_path: Path) -> None:
    def did(arguments: str, expected: str) -> None:
        assert expected in ctl(neo, cluster, tmp_path, arguments)

    did("start", "Can not switch to this state")
    did("set cluster recovering", "Invalid state requested")
    ctl(neo, cluster, tmp_path, "set replicas 1")
    did("tweak S9", "S1 R UOUO\nS2 R OUOU\n")       # S9: 1.12 fails in tweak without an argument
    did("print pt", "# ptid: 4, replicas: 1\nS1 R UUUU\nS2 R UUUU\n")
    did("kill S2", "state changed")
    did("print pt", "S2 D OOOO")
    did("drop S1", "a running node must be stopped before removal")
    did("drop S2", "node permanently removed")
    cluster.add_storage()
    did("add all", "Nodes added: S2")
    did("truncate 1", "Truncating after last transaction does nothing")
    did("set cluster stopping", "Cluster state changed")
    assert cluster.state is ClusterStates.STOPPING


@pytest.mark.parametrize("replicas", [0, 1])
def test_the_zodb_client(neo: NeoPy, replicas: int, tmp_path: Path) -> None:
    """Commits, undo, a conflict between two clients, history and iteration."""
    if run(neo, [neo.python, "-c", "import ZODB, neo.client.Storage"], tmp_path).returncode:
        pytest.skip(f"{neo.python} has no ZODB: install NEO there with its client")
    script = tmp_path / "session.py"
    script.write_text(SESSION)
    with testing.Cluster(wire=neo.wire, storages=2, replicas=replicas) as cluster:      # type: ignore[arg-type]
        done = run(neo, [neo.python, str(script), cluster.master_address], tmp_path)
        assert done.stdout.splitlines() == PRINTED, done.stdout + done.stderr
        cluster.wait(lambda c: not c.clients)
        assert len(cluster.history(1)) == 4
