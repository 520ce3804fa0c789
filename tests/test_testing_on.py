# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Cluster.on(): misbehaviour on command."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support import PATIENCE, Background, until
from testing_kit import Client

import neolink
from neolink import proto, testing
from neolink.proto import ClusterStates, ErrorCodes

STATE = proto.AskClusterState()
RUNNING, STOPPING = (proto.AnswerClusterState(state) for state in (ClusterStates.RUNNING, ClusterStates.STOPPING))


@pytest.fixture
def cluster(no_leaks: None) -> Iterator[testing.Cluster]:
    with testing.Cluster() as cluster:
        yield cluster


@pytest.fixture
def ctl(cluster: testing.Cluster) -> Iterator[neolink.NodeLink]:
    with neolink.dial(cluster.admin_address) as link:
        yield link


def test_a_message(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    with cluster.on(proto.AskClusterState, STOPPING) as rule:
        assert ctl.ask(STATE) == STOPPING
        assert rule.requests == [STATE]
    assert ctl.ask(STATE) == RUNNING
    rule.remove()


def test_an_error(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    cluster.on(proto.AskClusterState, proto.Error(ErrorCodes.NOT_READY, "later"))
    with pytest.raises(neolink.RemoteError, match="NOT_READY: later"):
        ctl.ask(STATE)


def test_a_packet(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    cluster.on(proto.AskClusterState, neolink.Packet(*proto.encode(proto.Pong(), "M")))
    with pytest.raises(neolink.UnexpectedMessage):
        ctl.ask(STATE)


def test_a_callable(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    """It sees the request, may use the cluster, and decides each time."""
    replies: list[Any] = [STOPPING, testing.PASS, None]
    seen = []

    def reply(request: neolink.Request) -> Any:
        seen.append((request.message, cluster.state))
        return replies.pop(0)

    cluster.on(proto.AskClusterState, reply)
    assert [ctl.ask(STATE) for _ in range(2)] == [STOPPING, RUNNING]
    with pytest.raises(neolink.Timeout):
        ctl.ask(STATE, timeout=0.05)
    until(lambda: seen == [(STATE, ClusterStates.RUNNING)] * 3, "the third")


def test_silence_leaves_the_rest_alone(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    cluster.on(proto.AskClusterState, testing.SILENCE)
    with pytest.raises(neolink.Timeout):
        ctl.ask(STATE, timeout=0.05)
    assert ctl.ask(proto.Ping()) == proto.Pong()


def test_times_and_the_newest_first(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    cluster.on(proto.AskClusterState, proto.AnswerClusterState(ClusterStates.VERIFYING))
    cluster.on(proto.AskClusterState, STOPPING, times=2)
    states = [ctl.ask(STATE).state for _ in range(3)]
    assert states == [ClusterStates.STOPPING, ClusterStates.STOPPING, ClusterStates.VERIFYING]


@pytest.mark.parametrize("action", [testing.HANG_UP, testing.RESET])
def test_the_link_ends(cluster: testing.Cluster, ctl: neolink.NodeLink, action: testing.Action) -> None:
    cluster.on(proto.AskClusterState, action)
    with pytest.raises(neolink.LinkDown):
        ctl.ask(STATE, timeout=PATIENCE)
    with neolink.dial(cluster.admin_address) as again:
        again.ask(proto.AskPrimary())


@pytest.mark.parametrize("wire", ["M", "N"])
def test_garbage(wire: Any) -> None:
    with testing.Cluster(wire=wire) as cluster, neolink.dial(cluster.admin_address) as ctl:
        cluster.on(proto.AskClusterState, testing.Garbage(b"\xff" * 64 if wire == "N" else b"\xc1"))
        with pytest.raises(neolink.ProtocolError):
            ctl.ask(STATE, timeout=PATIENCE)


def test_a_gate_delays_only_what_it_holds(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    gate = testing.Gate()
    rule = cluster.on(proto.AskClusterState, gate)
    waiting = [Background(ctl.ask, STATE, timeout=PATIENCE) for _ in range(2)]
    rule.wait(2)
    assert ctl.ask(proto.Ping()) == proto.Pong()
    cluster.wait(lambda _: gate.held == 2)
    gate.open()
    assert [each.result() for each in waiting] == [RUNNING] * 2
    assert ctl.ask(STATE) == RUNNING and gate.held == 0


def test_a_gate_with_a_reply(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    gate = testing.Gate(STOPPING)
    rule = cluster.on(proto.AskClusterState, gate)
    waiting = Background(ctl.ask, STATE, timeout=PATIENCE)
    rule.wait()
    gate.open()
    assert waiting.result() == STOPPING


def test_one_node_of_several() -> None:
    with testing.Cluster(storages=2) as cluster, Client(cluster) as client:
        cluster.on(proto.AskObject, proto.Error(ErrorCodes.NON_READABLE_CELL, "S2 only"), node="S2")
        cluster.on(proto.Ping, testing.HANG_UP, node="master")
        cluster.store(1, b"x")
        cluster.store(2, b"x")
        texts = []
        for oid in (b"\0" * 7 + b"\1", b"\0" * 7 + b"\2"):
            try:
                texts.append(client.load(oid).data)
            except neolink.RemoteError as error:
                texts.append(error.message)
        assert sorted(map(str, texts)) == ["S2 only", str(b"x")]
        client.storage(1).ask(proto.Ping(), timeout=PATIENCE)
        with pytest.raises(neolink.LinkDown):
            client.ask(proto.Ping())


def test_messages_that_differ_on_n_match_by_name() -> None:
    with testing.Cluster(wire="N") as cluster, neolink.dial(cluster.admin_address) as ctl:
        cluster.on(proto.AskLastIDs, proto.n6.AnswerLastIDs(None, None))
        assert ctl.ask(proto.AskLastIDs()) == proto.n6.AnswerLastIDs(None, None)
        with pytest.raises(ValueError, match="wire N has no AskMonitorInformation"):
            cluster.on(proto.AskMonitorInformation, testing.SILENCE)


def test_a_reply_function_that_fails_is_told_at_the_end() -> None:
    def reply(request: neolink.Request) -> Any:
        raise ZeroDivisionError("in the test")

    cluster = testing.Cluster()
    cluster.on(proto.AskClusterState, reply)
    with neolink.dial(cluster.admin_address) as ctl, pytest.raises(neolink.LinkDown):
        ctl.ask(STATE, timeout=PATIENCE)
    with pytest.raises(ZeroDivisionError, match="in the test"):
        cluster.close()
    cluster.close()


def test_a_wait_that_ends_says_how_far_it_came(cluster: testing.Cluster, ctl: neolink.NodeLink) -> None:
    rule = cluster.on(proto.AskClusterState, RUNNING)
    ctl.ask(STATE)
    with pytest.raises(TimeoutError, match="AskClusterState came 1 times in 0 s, not 2"):
        rule.wait(2, timeout=0)
    with pytest.raises(TimeoutError, match="did not hold"):
        cluster.wait(lambda c: c.clients, timeout=0)


@pytest.mark.parametrize(("message", "reply", "times"), [(STATE, RUNNING, None), (proto.AskClusterState, 3, None),
                                                         (proto.AskClusterState, proto.Pong, None),
                                                         (proto.AskClusterState, RUNNING, 0)])
def test_arguments_are_checked(cluster: testing.Cluster, message: Any, reply: Any, times: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        cluster.on(message, reply, times=times)
