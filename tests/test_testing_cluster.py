# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink.testing.Cluster: who gets in, what they are told, and what neoctl's commands do."""
from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, until
from testing_kit import WIRES, Client

import neolink
from neolink import proto, testing
from neolink.proto import CellStates, ClusterStates, ErrorCodes, NodeStates, NodeTypes, nid_parse

UP, OUT = CellStates.UP_TO_DATE, CellStates.OUT_OF_DATE
M1, C1 = nid_parse("M1"), nid_parse("C1")


@pytest.fixture(params=WIRES)
def cluster(request: pytest.FixtureRequest, no_leaks: None) -> Iterator[testing.Cluster]:
    with testing.Cluster(wire=request.param, storages=2, replicas=1) as cluster:
        yield cluster


@pytest.fixture
def ctl(cluster: testing.Cluster) -> Iterator[neolink.NodeLink]:
    with neolink.dial(cluster.admin_address) as link:
        yield link


def refused(link: neolink.NodeLink, message: Any) -> tuple[ErrorCodes, str]:
    with pytest.raises(neolink.RemoteError) as raised:
        link.ask(message, timeout=PATIENCE)
    return raised.value.code, raised.value.message


def denied(link: neolink.NodeLink, message: Any) -> str:
    code, text = refused(link, message)
    assert code is ErrorCodes.DENIED
    return text


def ended(link: neolink.NodeLink) -> None:
    """The peer closes the link, between two packets."""
    with pytest.raises(neolink.LinkDown) as raised:
        link.recv1(PATIENCE)
    assert raised.value.clean


# ---- identification


def test_a_client_is_told_the_nodes_and_the_table(cluster: testing.Cluster) -> None:
    with Client(cluster) as client:
        assert client.nid == C1 and cluster.clients == [C1]
        own, *others = client.nodes
        assert (own.type, own.nid, own.address) == (NodeTypes.CLIENT, C1, None)
        assert {(node.nid, node.state) for node in others} == {(nid, NodeStates.RUNNING) for nid in (M1, 1, 2)}
        assert client.table.rows == [[(1, UP), (2, UP)], [(2, UP), (1, UP)]] * 2
        assert client.ask(proto.AskLastTransaction()).tid == proto.ZERO_TID
    cluster.wait(lambda c: not c.clients)


def test_a_client_keeps_its_nid_only_if_it_is_free(cluster: testing.Cluster) -> None:
    with Client(cluster) as first, neolink.dial(cluster.master_address) as link:
        assert link.ask(first.identification(first.nid, None)).your_nid == C1 + 1
    with neolink.dial(cluster.master_address) as link:
        assert link.ask(first.identification(C1 + 76, None)).your_nid == C1 + 76


def test_the_master_refuses_as_neo_does(cluster: testing.Cluster) -> None:
    with Client(cluster) as client:
        own = tuple(cluster.nodes[M1].address or ())
        cases = [(client.identification(None, None, name="other"), "invalid cluster name"),
                 (client.identification(None, None, node_type=NodeTypes.ADMIN, address=own), "address conflict"),
                 (client.identification(None, None, node_type=NodeTypes.ADMIN, address=cluster.nodes[1].address),
                  "already connected"),
                 (proto.AskLastTransaction(), "unexpected packet: no handler found in IdentificationHandler")]
        for message, text in cases:
            with neolink.dial(cluster.master_address) as link:
                assert refused(link, message) == (ErrorCodes.PROTOCOL_ERROR, text)
                ended(link)
        assert refused(client.master, proto.AskClusterState()) == (
            ErrorCodes.PROTOCOL_ERROR, "unexpected packet: no handler found in ClientServiceHandler")


def test_a_storage_refuses_as_neo_does(cluster: testing.Cluster) -> None:
    with Client(cluster) as client:
        stamp = client.nodes[0].id_timestamp
        client.storage(1)
        cases = [(client.identification(client.nid, stamp, name="other"), "invalid cluster name"),
                 (client.identification(None, None), "reject anonymous non-storage node"),
                 (client.identification(1, None), "uuid conflict or loopback connection"),
                 (client.identification(client.nid, stamp - 1), "unknown by master"),
                 (client.identification(client.nid + 1, stamp), "unknown by master"),
                 (client.identification(client.nid, stamp), "already connected")]
        for message, text in cases:
            with neolink.dial(cluster.storages[1].address) as link:
                assert refused(link, message)[1] == text
                ended(link)


def test_a_client_has_to_wait_until_the_cluster_runs() -> None:
    with testing.Cluster(running=False) as cluster, neolink.dial(cluster.master_address) as link:
        message = proto.RequestIdentification(NodeTypes.CLIENT, None, None, "test", None, {})
        assert refused(link, message) == (ErrorCodes.NOT_READY, "Retry Later")


def test_read_only_clients() -> None:
    with testing.Cluster() as cluster:
        with Client(cluster, read_only=True) as client:
            assert refused(client.master, proto.AskNewOIDs(1)) == (
                ErrorCodes.READ_ONLY_ACCESS, "read-only access as requested by the client")
            assert client.ask(proto.AskLastTransaction()).tid == proto.ZERO_TID     # the link lives on
        cluster.state = ClusterStates.BACKINGUP
        with pytest.raises(neolink.RemoteError, match="read-write access requested but cluster is backing up"):
            Client(cluster)


def test_an_admin_from_outside_hears_of_everything(cluster: testing.Cluster) -> None:
    with Client(cluster) as helper:
        message = helper.identification(None, None, node_type=NodeTypes.ADMIN, address=("127.0.0.1", 9), backup=[])
        with neolink.dial(cluster.master_address) as admin:
            admin.ask(message, timeout=PATIENCE)
            kinds = [type(admin.recv1(PATIENCE).message).__name__ for _ in range(2)]
            assert kinds == ["NotifyNodeInformation", "SendPartitionTable"]
            assert admin.ask(proto.AskClusterState()).state is ClusterStates.RUNNING
            helper.master.close()
            (gone,) = admin.recv1(PATIENCE).message.nodes
            assert (gone.nid, gone.state) == (helper.nid, NodeStates.UNKNOWN)
            cluster.stop_storage("S2")
            (down,) = admin.recv1(PATIENCE).message.nodes
            assert (down.nid, down.state) == (2, NodeStates.DOWN)
            assert [tuple(cell) for cell in admin.recv1(PATIENCE).message.cells] == [(i, 2, OUT) for i in range(4)]


# ---- neoctl: looking


def test_what_the_admin_tells(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    tid = cluster.store(7, b"seven")
    assert ctl.ask(proto.AskClusterState()).state is ClusterStates.RUNNING
    assert ctl.ask(proto.AskPrimary()).nid == M1
    assert ctl.ask(proto.AskRecovery()) == proto.AnswerRecovery(1, None, None)
    assert ctl.ask(proto.AskLastTransaction()).tid == tid
    ids = ctl.ask(proto.AskLastIDs())
    assert (ids.last_tid, ids.last_oid) == (tid, proto.id_from_int(7))
    assert [node.nid for node in ctl.ask(proto.AskNodeList(NodeTypes.STORAGE)).nodes] == [1, 2]
    assert len(ctl.ask(proto.AskNodeList(None)).nodes) == 4
    assert len(ctl.ask(proto.AskPartitionList(1, 3, None)).rows) == 2
    assert ctl.ask(proto.AskPartitionList(0, 0, None)).ptid == 1
    ctl.ask(proto.Ping())


def test_a_bad_range_is_refused_under_a_foreign_id() -> None:
    """As NEO's admin does: on an id of its own counter, so that the asker cannot tell by the id what is refused."""
    with testing.Cluster() as cluster:
        with neolink.dial(cluster.admin_address) as raw:
            with pytest.raises(neolink.Timeout):
                raw.ask(proto.AskPartitionList(7, 9, None), timeout=0.05)
            until(lambda: raw.stats().packets_received == 1, "the refusal")


def test_summary_in_neos_words() -> None:
    with testing.Cluster(storages=2, replicas=1) as cluster, neolink.dial(cluster.admin_address) as ctl:
        cluster.store(1, b"x")
        date = proto.tid_to_datetime(cluster.last_tid).replace(tzinfo=None)
        tail = f"; ltid={cluster.last_tid.hex()} ({date})"
        assert ctl.ask(proto.AskMonitorInformation()) == proto.AnswerMonitorInformation(
            [], [], "RUNNING; UP_TO_DATE=8" + tail)
        cluster.stop_storage("S2")
        assert ctl.ask(proto.AskMonitorInformation()) == proto.AnswerMonitorInformation(
            [], [None], "RUNNING; OUT_OF_DATE=4, UP_TO_DATE=4; DOWN=1" + tail)


def test_without_a_master(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    cluster.stop_master()
    assert refused(ctl, proto.AskClusterState()) == (ErrorCodes.NOT_READY, "Not connected to a primary master.")
    ended(ctl)
    host, port = cluster.master_address.split(":")
    with socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind((host, int(port)))           # it is kept for the master meanwhile, and nobody listens there
        with pytest.raises(ConnectionRefusedError):
            other.connect((host, int(port)))
    cluster.start_master()
    with neolink.dial(cluster.admin_address) as again, Client(cluster):
        assert again.ask(proto.AskPrimary()).nid == M1


# ---- neoctl: changing


def test_states_that_are_refused(ctl: neolink.NodeLink) -> None:
    assert denied(ctl, proto.SetClusterState(ClusterStates.RECOVERING)) == "Invalid state requested"
    assert denied(ctl, proto.SetClusterState(ClusterStates.VERIFYING)) == "Can not switch to this state"
    assert denied(ctl, proto.SetClusterState(ClusterStates.STOPPING_BACKUP)) == "Can not switch to this state"
    assert denied(ctl, proto.SetClusterState(ClusterStates.STARTING_BACKUP)) == \
        "No upstream cluster to backup defined in configuration"


def test_starting_and_stopping(no_leaks: None) -> None:
    with testing.Cluster(running=False) as cluster, neolink.dial(cluster.admin_address) as ctl:
        assert denied(ctl, proto.AddPendingNodes([1])) == "addPendingNodes RPC can not be used in RECOVERING state"
        assert ctl.ask(proto.AskRecovery()).ptid is None
        assert ctl.ask(proto.SetClusterState(ClusterStates.VERIFYING)).message == "Cluster state changed"
        assert cluster.state is ClusterStates.RUNNING
        assert ctl.ask(proto.SetClusterState(ClusterStates.STOPPING)).message == "Cluster state changed"
        ended(ctl)
        with pytest.raises(neolink.DialError):
            neolink.dial(cluster.admin_address)


def test_kill_and_drop(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    with Client(cluster) as client:
        assert denied(ctl, proto.SetNodeState(9, NodeStates.DOWN)) == "unknown node"
        assert denied(ctl, proto.SetNodeState(M1, NodeStates.DOWN)) == "can not kill primary master node"
        assert denied(ctl, proto.SetNodeState(client.nid, NodeStates.DOWN)) == "can not switch node to DOWN state"
        assert denied(ctl, proto.SetNodeState(2, NodeStates.UNKNOWN)) == "a running node must be stopped before removal"
        assert ctl.ask(proto.SetNodeState(2, NodeStates.DOWN)).message == "state changed"
        assert client.pushes.wait(proto.NotifyPartitionChanges).ptid == 2
        assert ctl.ask(proto.SetNodeState(2, NodeStates.DOWN)).message == "node already in DOWN state"
        assert denied(ctl, proto.TweakPartitionTable(False, [])) == "tweak: down nodes must be listed explicitly"
        assert ctl.ask(proto.SetNodeState(2, NodeStates.UNKNOWN)).message == "node permanently removed"
        assert cluster.partition_table == [{1: UP}] * 4
        assert client.pushes.wait(proto.NotifyNodeInformation, 3).nodes[0].state is NodeStates.UNKNOWN


def test_the_last_copy_is_not_dropped(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    cluster.stop_storage("S1")
    cluster.stop_storage("S2")
    assert cluster.state is ClusterStates.RECOVERING
    assert denied(ctl, proto.SetNodeState(2, NodeStates.UNKNOWN)) == \
        "Refuse to drop nodes that contain the only readable copies of partition 0"


def test_a_storage_is_added_and_gets_cells(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    nid = cluster.add_storage()
    assert cluster.nodes[nid].state is NodeStates.PENDING
    assert ctl.ask(proto.AddPendingNodes([1, 9])).message == "No node added"
    assert ctl.ask(proto.AddPendingNodes([nid])).message == "Nodes added: S3"
    dry = ctl.ask(proto.TweakPartitionTable(True, [2]))
    assert dry.changed and cluster.partition_table[0] == {1: UP, 2: UP}
    done = ctl.ask(proto.TweakPartitionTable(False, [2]))
    assert done.rows == dry.rows and (nid, OUT) in done.rows[0] and (2, CellStates.FEEDING) in done.rows[0]
    ctl.ask(proto.Ping())       # after what follows the answer
    assert [set(row) for row in cluster.partition_table] == [{1, nid}] * 4
    assert denied(ctl, proto.TweakPartitionTable(True, [1, 2, 3])) == "Can't remove all nodes."


def test_replicas_checks_repairs(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    assert ctl.ask(proto.SetNumReplicas(0)).message == ""
    assert ctl.ask(proto.AskPartitionList(0, 0, None)).num_replicas == 0
    assert ctl.ask(proto.CheckReplicas({0: 1, 1: None}, proto.ZERO_TID, None)).code is ErrorCodes.ACK
    assert ctl.ask(proto.Repair([1, 2], True)).code is ErrorCodes.ACK
    assert denied(ctl, proto.Repair([9], True)) == "invalid storage node S9"
    ctl.notify(proto.FlushLog())
    assert refused(ctl, proto.CheckReplicas({77: None}, proto.ZERO_TID, None)) == (
        ErrorCodes.PROTOCOL_ERROR, "connection to master lost")
    ended(ctl)


def test_truncate(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    first, last = cluster.store(1, b"one"), cluster.store(1, b"two")
    assert denied(ctl, proto.Truncate(last)) == "Truncating after last transaction does nothing"
    with Client(cluster) as client:
        assert ctl.ask(proto.Truncate(first)).code is ErrorCodes.ACK
        client.pushes.wait(proto.StopOperation)
        client.pushes.join()
    ctl.ask(proto.Ping())
    assert cluster.state is ClusterStates.RUNNING
    assert cluster.load(1) == b"one" and cluster.last_tid == first


# ---- storages that stop


def test_a_storage_stops_and_comes_back(cluster: testing.Cluster) -> None:
    with Client(cluster) as client:
        link = client.storage(2)
        cluster.stop_storage("S2")
        assert client.pushes.wait(proto.NotifyPartitionChanges).cells == [(i, 2, OUT) for i in range(4)]
        client.storage_pushes[2].join()
        assert link.closed
        cluster.store(1, b"while it was away")
        cluster.start_storage("S2")
        assert client.pushes.wait(proto.NotifyPartitionChanges, 2).cells == [(i, 2, UP) for i in range(4)]
        assert client.pushes.wait(proto.NotifyNodeInformation, 3).nodes[0].state is NodeStates.RUNNING


def test_without_data_the_cluster_stops(cluster: testing.Cluster) -> None:
    with Client(cluster) as client:
        cluster.stop_storage(2)
        cluster.stop_storage(1)
        client.pushes.wait(proto.StopOperation)
        client.pushes.join()
    assert cluster.state is ClusterStates.RECOVERING
    cluster.start_storage(1)        # which has everything, but not everybody is back
    assert cluster.state is ClusterStates.RECOVERING
    cluster.start_storage(2)
    assert cluster.state is ClusterStates.RUNNING
    assert cluster.partition_table == [{1: UP, 2: UP}] * 4


def test_ids_of_storages_are_checked(cluster: testing.Cluster) -> None:
    with pytest.raises(KeyError, match="'S9' is no storage of this cluster; there are: S1, S2"):
        cluster.stop_storage("S9")


@pytest.mark.parametrize("arguments", [{"wire": "2016"}, {"partitions": 0}, {"storages": 0}, {"replicas": -1}])
def test_arguments_are_checked(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        testing.Cluster(**arguments)


def test_a_cluster_with_tls(tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme", reason="TLS tests make their certificates with trustme")
    ca = trustme.CA()
    leaf = ca.issue_cert("node.example")
    paths = [str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    for path, pem in zip(paths, (ca.cert_pem, leaf.cert_chain_pems[0], leaf.private_key_pem)):
        pem.write_to_path(path)
    tls = neolink.TLS(*paths)
    with testing.Cluster(tls=tls) as cluster, neolink.dial(cluster.admin_address, tls=tls) as ctl:
        assert ctl.ask(proto.AskClusterState(), timeout=PATIENCE).state is ClusterStates.RUNNING
        with pytest.raises(neolink.HandshakeError):
            neolink.dial(cluster.admin_address)
