# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""testing.pair(), and the fixtures that the pytest plugin brings to other people's tests."""
from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from support import PATIENCE

from neolink import testing

USERS_TESTS = """
import pytest
from neolink import proto
from neolink.proto import ClusterStates

def test_pair(neolink_pair):
    client, server = neolink_pair
    client.notify(proto.CloseClient())
    assert server.recv1(5).message == proto.CloseClient()

@pytest.mark.neolink_pair(next_id=0xfffffffe)
def test_pair_with_arguments(neolink_pair):
    assert [link.new_conn().conn_id for link in neolink_pair] == [0xffffffff, 0xfffffffe]

def test_cluster(neolink_cluster):
    assert neolink_cluster.state is ClusterStates.RUNNING and neolink_cluster.wire == "M"

@pytest.mark.neolink_cluster(wire="N", storages=3)
def test_cluster_with_arguments(neolink_cluster):
    assert len(neolink_cluster.storages) == 3 and neolink_cluster.wire == "N"
"""


def test_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_user.py").write_text(USERS_TESTS)
    installed = importlib.metadata.entry_points(group="pytest11", name="neolink")
    plugin = [] if installed else ["-p", "neolink._pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-W", "error", *plugin, "test_user.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("next_id", "client_ids", "server_ids"), [
    (0, [1, 3, 5], [0, 2, 4]),
    (6, [7, 9, 11], [6, 8, 10]),
    (0xfffffffd, [0xfffffffd, 0xffffffff, 1], [0xfffffffc, 0xfffffffe, 0]),
])
def test_ids_of_a_pair(no_leaks: None, next_id: int, client_ids: list[int], server_ids: list[int]) -> None:
    client, server = testing.pair(next_id=next_id)
    with client, server:
        assert [client.new_conn().conn_id for _ in range(3)] == client_ids
        assert [server.new_conn().conn_id for _ in range(3)] == server_ids


def test_a_pair_talks_across_the_end_of_its_ids() -> None:
    client, server = testing.pair(next_id=0xffffffff, wire="N")
    with client, server:
        for _ in range(3):
            client.notify(2, b"x")
        ids = []
        for _ in range(3):
            with server.recv1(PATIENCE) as request:
                ids.append(request.conn.conn_id)
        assert ids == [0xffffffff, 1, 3]


@pytest.mark.parametrize("next_id", [-1, 1 << 32])
def test_ids_that_are_none(next_id: int) -> None:
    with pytest.raises(ValueError, match="next_id must be an id of 32 bits"):
        testing.pair(next_id=next_id)
