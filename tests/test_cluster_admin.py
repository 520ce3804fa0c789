# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink.cluster: the questions and commands to an admin, against one made by hand and against recorded ones."""
from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from cluster_fakes import (FEED, M1, NODES, OUT, S1, S2, UP, FakeAdmin, Hangup, Replay, ack, not_ready, table)
from support import Background, raises_in_time, until

import neolink
from neolink import cluster, proto
from neolink.proto import ClusterStates, ErrorCodes, NodeStates

SECONDS = 60.0


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with FakeAdmin() as admin:
        yield admin


@pytest.fixture
def c(admin: FakeAdmin) -> Iterator[cluster.Admin]:
    with cluster.connect(admin.address, timeout=SECONDS) as c:
        yield c


# ---- looking


def test_state_primary_nodes(c: cluster.Admin) -> None:
    assert c.state() is ClusterStates.RUNNING
    assert c.primary() == M1
    assert c.primary_node().address == ("127.0.0.1", 24410)
    assert [node.name for node in c.nodes()] == ["A1", "M1", "S1", "S2"]
    assert [node.name for node in c.nodes("storage")] == ["S1", "S2"]
    assert c.nodes(proto.NodeTypes.STORAGE)[0].identified is not None


def test_partitions_tell_who_has_what(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskPartitionList, table({S1: UP, S2: OUT}, {S1: FEED, S2: UP}, ptid=7))
    now = c.partitions()
    assert (now.ptid, now.num_replicas) == (7, 1)
    assert now.rows[0]["S2"] is now.rows[0][S2] is OUT
    assert now.up_to_date == {S1: [0], S2: [1]} and now.out_of_date == {S2: [0]} and now.feeding == {S1: [1]}
    assert now.rows[1].readable == [S1, S2] and not now.settled
    part = c.partitions(1, 2)
    assert part.rows == now.rows[1:] and part.out_of_date == {} and part.feeding == {S1: [1]}
    with pytest.raises(KeyError):
        now.rows[0]["S3"]


@pytest.mark.parametrize("first,last", [(7, 9), (0, 5), (2, 1), (-1, None)])
def test_partitions_that_are_not_there(c: cluster.Admin, first: int, last: int | None) -> None:
    with pytest.raises(cluster.NoSuchPartition, match="the table has 4"):
        c.partitions(first, last)


def test_ids_of_an_empty_database(c: cluster.Admin) -> None:
    assert c.ids() == cluster.Ids(1, None, None, bytes(8), bytes(8), None)


def test_ids_of_a_backup() -> None:
    with Replay("wire-M/ctl-backup-print-ids") as admin, cluster.connect(admin.address, timeout=SECONDS) as c:
        tid = proto.id_from_hex("40d30928bd30c76")
        assert c.ids() == cluster.Ids(1, tid, None, None, tid, None)


def test_ids_have_the_first_tid() -> None:
    with Replay("wire-M/ctl-print-ids-after-restart") as admin, cluster.connect(admin.address, timeout=SECONDS) as c:
        ids = c.ids()
        assert ids.first_tid == proto.id_from_hex("40d308f61d53703") and ids.ptid == 14


def test_ids_on_wire_n() -> None:
    with FakeAdmin("N") as admin, cluster.connect(admin.address, timeout=SECONDS) as c:
        admin.on(proto.AskLastIDs, proto.n6.AnswerLastIDs(last_oid=b"\0" * 7 + b"\5", last_tid=b"\0" * 7 + b"\7"))
        ids = c.ids()
        assert (ids.last_oid[-1:], ids.last_tid[-1:], ids.first_tid) == (b"\5", b"\7", None)
        with pytest.raises(neolink.EncodeError):
            c.summary()


def test_a_1_12_master_that_ends_over_a_backup_of_nobody() -> None:
    with FakeAdmin("N") as admin, cluster.connect(admin.address, timeout=SECONDS) as c:
        admin.on(proto.SetClusterState, proto.Error(ErrorCodes.PROTOCOL_ERROR, "connection to master lost"))
        with pytest.raises(cluster.MasterLost, match="no upstream cluster is configured"):
            c.set_state("starting_backup")
        with pytest.raises(cluster.MasterLost) as caught:
            c.set_state("stopping")
        assert "upstream" not in str(caught.value)


def test_a_snapshot_is_of_one_moment(admin: FakeAdmin, c: cluster.Admin) -> None:
    one, two = table({S1: UP}, ptid=1), table({S1: UP, S2: OUT}, ptid=2)
    admin.on(proto.AskPartitionList, one, two, two)
    now = c.snapshot()
    assert now.consistent and now.table.ptid == 2 and now.operational
    assert now.node("S2").state is NodeStates.RUNNING  # type: ignore[union-attr]
    assert len(admin.asked_of(proto.AskPartitionList)) == 3


def test_a_snapshot_tells_when_it_is_not(admin: FakeAdmin, c: cluster.Admin) -> None:
    ptids = iter(range(1, 1000))
    admin.on(proto.AskPartitionList, lambda _: table({S1: UP}, ptid=next(ptids)))
    assert not c.snapshot().consistent


def test_a_snapshot_whose_cells_have_no_node_is_not_consistent(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskPartitionList, table({S1: UP, 9: UP}))
    assert not c.snapshot().consistent


def test_a_snapshot_counts_running_storages_only(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.nodes[0] = NODES[0]._replace(state=NodeStates.DOWN)
    admin.on(proto.AskPartitionList, table({S1: UP}, {S1: UP, S2: UP}, {S1: UP, S2: OUT}))
    assert c.snapshot().unreadable == [0, 2] and not c.snapshot().operational


# ---- not ready, several admins, one question at a time


def test_not_ready_is_asked_again(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskClusterState, not_ready, not_ready, proto.AnswerClusterState(ClusterStates.RUNNING))
    assert c.state() is ClusterStates.RUNNING
    assert len(admin.asked) == 3


def test_not_ready_until_the_time_is_up(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskClusterState, not_ready)

    def ask(seconds: float) -> None:
        admin.asked.clear()
        try:
            c.state(timeout=seconds)
        except cluster.NotReady as refused:
            assert refused.code is ErrorCodes.NOT_READY
            raise refused if len(admin.asked) > 1 else neolink.Timeout("no second question yet")

    raises_in_time(cluster.NotReady, ask, "Not connected to a primary master.")


def test_what_was_answered_tells_more_than_that_the_time_is_up(admin: FakeAdmin, c: cluster.Admin) -> None:
    """When the time is up, the next question may be under way: here, one that has no answer."""
    def state(seconds: float) -> None:
        admin.on(proto.AskClusterState, proto.AnswerClusterState(None), None)
        c.state(timeout=seconds)

    def primary_node(seconds: float) -> None:
        admin.on(proto.AskPrimary, proto.AnswerPrimary(M1 + 1), None)
        c.primary_node(timeout=seconds)

    raises_in_time(cluster.NotReady, state, "does not know the state")
    raises_in_time(cluster.NotReady, primary_node, "does not list its primary")


def test_a_command_that_met_no_master_is_sent_again(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.SetClusterState, not_ready, ack("Cluster state changed"))
    assert c.start().changed
    assert len(admin.asked_of(proto.SetClusterState)) == 2


def test_another_admin_is_asked(admin: FakeAdmin) -> None:
    with FakeAdmin() as lame:
        lame.on(proto.AskClusterState, not_ready)
        with cluster.connect([lame.address, admin.address], timeout=SECONDS) as c:
            assert c.state() is ClusterStates.RUNNING
            assert len(lame.asked) == 1 and len(admin.asked) == 1


def test_an_admin_that_is_not_there_is_passed_over(admin: FakeAdmin) -> None:
    with FakeAdmin() as gone:
        address = gone.address
    with cluster.connect(f"{address} {admin.address}", timeout=SECONDS) as c:
        assert c.state() is ClusterStates.RUNNING
    with pytest.raises(neolink.DialError):
        cluster.connect(address, timeout=SECONDS)


def test_a_question_survives_a_lost_link_and_a_lost_master(admin: FakeAdmin, c: cluster.Admin) -> None:
    def hang_up(_: Any) -> Any:
        raise Hangup

    def lose_master(_: Any) -> Any:
        raise Hangup(proto.Error(ErrorCodes.PROTOCOL_ERROR, "connection to master lost"))

    admin.on(proto.AskPrimary, hang_up, lose_master, proto.AnswerPrimary(M1))
    assert c.primary() == M1


def test_a_command_does_not(admin: FakeAdmin, c: cluster.Admin) -> None:
    def hang_up(_: Any) -> Any:
        raise Hangup

    def lose_master(_: Any) -> Any:
        raise Hangup(proto.Error(ErrorCodes.PROTOCOL_ERROR, "connection to master lost"))

    admin.on(proto.SetNodeState, hang_up, lose_master, ack("state changed"))
    with pytest.raises(neolink.LinkDown):
        c.kill("S1")
    with pytest.raises(cluster.MasterLost, match="may or may not"):
        c.kill("S1")
    assert len(admin.asked_of(proto.SetNodeState)) == 2


def test_one_question_at_a_time(admin: FakeAdmin, c: cluster.Admin) -> None:
    """An admin of 1.12 mixes up the ids of answers when it is asked two things at once."""
    held, go = threading.Event(), threading.Event()

    def hold(_: Any) -> Any:
        held.set()
        assert go.wait(SECONDS)
        return proto.AnswerRecovery(1, None, None)

    admin.on(proto.AskRecovery, hold)
    first, second = Background(c.ids), None
    assert held.wait(SECONDS)
    second = Background(c.state)
    with pytest.raises(neolink.Timeout, match="another question"):
        c.primary(timeout=0.05)
    assert not second.done() and len(admin.asked) == 1
    go.set()
    assert first.result().ptid == 1 and second.result() is ClusterStates.RUNNING


def test_a_link_that_owes_an_answer_is_not_used_again(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskPrimary, lambda _: None, proto.AnswerPrimary(M1))
    with pytest.raises(neolink.Timeout):
        c.primary(timeout=0.05)
    assert c.primary() == M1


def test_an_odd_answer_costs_the_link(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskPrimary, proto.Pong(), proto.AnswerPrimary(M1))
    with pytest.raises(neolink.UnexpectedMessage):
        c.primary()
    assert c.primary() == M1


def test_ctrl_c_while_an_answer_is_owed(admin: FakeAdmin, c: cluster.Admin) -> None:
    """The late answer must not be taken for that to the next question."""
    noticed = threading.Event()

    def on_signal(*_: Any) -> None:
        if not noticed.is_set():
            noticed.set()
            raise KeyboardInterrupt

    def interrupt(_: Any) -> Any:
        """One that comes just before the wait falls asleep is noticed when that ends; then it takes another."""
        while not noticed.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
            noticed.wait(0.1)

    admin.on(proto.AskPrimary, interrupt, proto.AnswerPrimary(M1))
    first = c._asker._link
    before = signal.signal(signal.SIGINT, on_signal)
    try:
        with pytest.raises(KeyboardInterrupt):
            c.primary()
        assert c.primary() == M1 and c._asker._link is not first
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_master_is_no_admin(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskClusterState, proto.Error(
        ErrorCodes.PROTOCOL_ERROR, "unexpected packet: no handler found in IdentificationHandler"))
    with pytest.raises(cluster.NotAnAdmin, match="neoadmin"):
        c.state()


# ---- commands


Do = Callable[[cluster.Admin], Any]
COMMANDS: list[tuple[str, Do, bool | None, str]] = [
    ("ctl-start", lambda c: c.start(), True, "Cluster state changed"),
    ("ctl-set-cluster-stopping", lambda c: c.set_state("stopping"), True, "Cluster state changed"),
    ("ctl-add", lambda c: c.add("S3"), True, "Nodes added: S3"),
    ("ctl-add-all", lambda c: c.add("all"), False, "No node added"),
    ("ctl-add-unknown-node", lambda c: c.add(9), False, "No node added"),
    ("ctl-drop", lambda c: c.drop("S2"), True, "node permanently removed"),
    ("ctl-kill-secondary", lambda c: c.kill("M2"), True, "state changed"),
    ("ctl-set-replicas", lambda c: c.set_replicas(1), False, ""),
    ("ctl-prune-orphan", lambda c: c.prune_orphan("all", dry_run=True), None, ""),
    ("ctl-check", lambda c: c.check({0: None, 1: "S1"}), None, ""),
]


@pytest.mark.parametrize("capture,do,changed,message", COMMANDS, ids=[one[0] for one in COMMANDS])
def test_commands(capture: str, do: Do, changed: bool | None, message: str) -> None:
    """What neoctl sent leaves, field by field, and the outcome tells a change from none."""
    with Replay(f"wire-M/{capture}") as admin, cluster.connect(admin.address, timeout=SECONDS) as c:
        questions = list(admin.questions)
        outcome = do(c)
        assert (outcome.changed, outcome.message) == (changed, message)
        assert all(question in admin.asked for question in questions)


def test_added_storages_have_names(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AddPendingNodes, ack("Nodes added: S3, S4"))
    assert c.add("S3", "S4", "S5").nids == (3, 4)


def test_set_replicas_tells_a_change(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.SetNumReplicas, ack())
    assert c.set_replicas(0).changed is True and c.set_replicas(1).changed is False


def test_a_node_already_down(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.SetNodeState, ack("node already in DOWN state"))
    assert c.kill("S1").changed is False


def test_truncate(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.Truncate, ack())
    assert c.truncate(7).changed
    assert admin.asked == [proto.Truncate(b"\0" * 7 + b"\7")]


def test_flush_log(admin: FakeAdmin, c: cluster.Admin) -> None:
    c.flush_log()
    assert admin.asked == [proto.FlushLog(), proto.Ping()]


def test_flush_log_without_master(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.FlushLog, not_ready)
    raises_in_time(cluster.NotReady, lambda seconds: c.flush_log(timeout=seconds))


def test_flush_log_says_what_it_waited_for(admin: FakeAdmin, c: cluster.Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the time is up while it dials anew."""
    def too_late(*_: Any, **__: Any) -> NoReturn:
        raise neolink.Timeout("dial: timed out")

    monkeypatch.setattr(neolink, "dial", too_late)          # c has its first link
    admin.on(proto.FlushLog, not_ready)
    raises_in_time(cluster.NotReady, lambda seconds: c.flush_log(timeout=seconds))
    with pytest.raises(neolink.Timeout, match="dial: timed out"):
        c.flush_log(timeout=SECONDS)


def test_tweak() -> None:
    with Replay("wire-M/ctl-tweak-changed") as admin, cluster.connect(admin.address, timeout=SECONDS) as c:
        tweak = c.tweak("S2")
        assert tweak.changed and tweak.rows[0] == {1: UP, 2: UP, 3: OUT}
    with Replay("wire-M/ctl-tweak-dry-run") as admin, cluster.connect(admin.address, timeout=SECONDS) as c:
        assert c.tweak(dry_run=True)[::2] == (False, True)


@pytest.mark.parametrize("capture,do,error", [
    ("ctl-drop-running-node", lambda c: c.drop(S1), cluster.Refused),
    ("ctl-drop-unknown-node", lambda c: c.drop("S9"), cluster.NoSuchNode),
    ("ctl-prune-orphan-unknown", lambda c: c.prune_orphan("S9", dry_run=True), cluster.NoSuchNode),
    ("ctl-start-refused-running", lambda c: c.start(), cluster.Refused),
])
def test_refusals(capture: str, do: Do, error: type[cluster.Refused]) -> None:
    with Replay(f"wire-M/{capture}") as admin, cluster.connect(admin.address, timeout=SECONDS) as c:
        with pytest.raises(error) as caught:
            do(c)
        assert caught.value.message == admin.head["printed"] and caught.value.code is ErrorCodes.DENIED
        assert c.state() is ClusterStates.RUNNING       # a refusal does not cost the link


# ---- what would end a node does not leave


HARMFUL: list[tuple[Do, type[Exception]]] = [
    (lambda c: c.check({77: None}), cluster.NoSuchPartition),
    (lambda c: c.check([4]), cluster.NoSuchPartition),
    (lambda c: c.check({-1: None}), cluster.NoSuchPartition),
    (lambda c: c.check({0: "S9"}), cluster.NoSuchNode),
    (lambda c: c.check({0: "A1"}), cluster.Unsafe),
    (lambda c: c.check({0: None}, min_tid=b"short"), cluster.Unsafe),
    (lambda c: c.check({0: None}, max_tid=b"\xff" * 8), cluster.Unsafe),
    (lambda c: c.checking({0: "S9"}), cluster.NoSuchNode),
    (lambda c: c.add(77 << 24), cluster.Unsafe),
    (lambda c: c.add(0), cluster.Unsafe),
    (lambda c: c.add("M1"), cluster.Unsafe),
    (lambda c: c.add(), ValueError),
    (lambda c: c.prune_orphan(77 << 24), cluster.Unsafe),
    (lambda c: c.prune_orphan("C1"), cluster.Unsafe),
    (lambda c: c.kill(77 << 24), cluster.Unsafe),
    (lambda c: c.drop(None), TypeError),
    (lambda c: c.tweak(77 << 24), cluster.Unsafe),
    (lambda c: c.set_replicas(-1), cluster.Unsafe),
    (lambda c: c.set_replicas(1 << 40), cluster.Unsafe),
    (lambda c: c.set_replicas(None), TypeError),
    (lambda c: c.truncate(None), cluster.Unsafe),
    (lambda c: c.truncate(b"\xff" * 8), cluster.Unsafe),
    (lambda c: c.truncate(-1), cluster.Unsafe),
    (lambda c: c.truncate(1 << 64), cluster.Unsafe),
    (lambda c: c.set_state(2), TypeError),
    (lambda c: c.set_state("runing"), ValueError),
    (lambda c: c.nodes(1), TypeError),
]


@pytest.mark.parametrize("wire", ["M", "N"])
@pytest.mark.parametrize("number", range(len(HARMFUL)))
def test_what_would_end_a_node_does_not_leave(wire: str, number: int) -> None:
    do, error = HARMFUL[number]
    with FakeAdmin(wire) as admin, cluster.connect(admin.address, timeout=SECONDS) as c:
        with pytest.raises(error):
            do(c)
        harmless = {"AskPartitionList", "AskNodeList"}
        assert {type(question).__name__ for question in admin.asked} <= harmless
        assert all((q.min_offset, q.max_offset, q.nid) == (0, 0, None) for q in admin.asked_of(proto.AskPartitionList))


def test_unsafe_is_an_encode_error_and_a_refusal() -> None:
    assert issubclass(cluster.Unsafe, neolink.EncodeError) and issubclass(cluster.Unsafe, cluster.Refused)


def test_check_without_min_tid_sends_zero(admin: FakeAdmin, c: cluster.Admin) -> None:
    """min_tid None would end a storage of 1.12 and a master of today."""
    admin.on(proto.CheckReplicas, ack())
    c.check()
    assert admin.asked[-1] == proto.CheckReplicas({0: None, 1: None, 2: None, 3: None}, bytes(8), None)


def test_check_with_a_source_that_cannot_tell(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskPartitionList, table({S1: UP, S2: OUT}))
    with pytest.raises(cluster.Unsafe, match="no readable cell"):
        c.check({0: "S2"})


def test_nothing_to_check(admin: FakeAdmin, c: cluster.Admin) -> None:
    assert c.check([0], min_tid=2, max_tid=1).changed is False
    admin.on(proto.AskPartitionList, table(ptid=None))
    assert c.check().changed is False
    assert not admin.asked_of(proto.CheckReplicas)


# ---- waiting and watching


def test_wait_state(admin: FakeAdmin, c: cluster.Admin) -> None:
    states = [ClusterStates.RECOVERING, ClusterStates.VERIFYING, ClusterStates.RUNNING]
    admin.on(proto.AskClusterState, *[proto.AnswerClusterState(state) for state in states])
    assert c.wait_state("running", "backingup") is ClusterStates.RUNNING
    raises_in_time(neolink.Timeout, lambda seconds: c.wait_state(ClusterStates.STOPPING, timeout=seconds),
                   "the cluster is RUNNING")


def test_wait_state_recovering_is_a_state(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskClusterState, proto.AnswerClusterState(ClusterStates.RECOVERING))
    assert c.wait_state("recovering", timeout=SECONDS) is ClusterStates.RECOVERING


def test_wait_outlasts_a_cluster_that_is_not_there(admin: FakeAdmin, c: cluster.Admin) -> None:
    def hang_up(_: Any) -> Any:
        raise Hangup

    running = proto.AnswerClusterState(ClusterStates.RUNNING)
    admin.on(proto.AskClusterState, hang_up, not_ready, hang_up, hang_up, running)
    assert c.wait(lambda c: c.state() is ClusterStates.RUNNING) is True


def test_wait_ends_what_it_calls(admin: FakeAdmin, c: cluster.Admin) -> None:
    """The predicate's own calls have the default timeout, but not longer than the wait."""
    admin.on(proto.AskClusterState, lambda _: None)
    waiting = Background(c.wait, lambda c: c.state(), timeout=0.1)
    until(waiting.done, "the end of the wait")
    with pytest.raises(neolink.Timeout):
        waiting.result()


def test_wait_does_not_hide_mistakes(c: cluster.Admin) -> None:
    with pytest.raises(ZeroDivisionError):
        c.wait(lambda c: 1 // 0)


def test_replicating(admin: FakeAdmin, c: cluster.Admin) -> None:
    steps = [table({S1: UP, S2: OUT}, {S1: UP, S2: OUT}, ptid=1), table({S1: UP, S2: UP}, {S1: UP, S2: OUT}, ptid=2),
             table({S1: UP, S2: UP}, {S1: UP, S2: UP}, ptid=3)]
    admin.on(proto.AskPartitionList, *[step for step in steps for _ in range(2)])
    seen = list(c.replicating(timeout=SECONDS))
    assert [(one.done, one.total) for one in seen] == [(2, 4), (3, 4), (4, 4)]
    assert seen[1].pending == [cluster.Cell(1, S2, OUT)] and seen[-1].finished and seen[0].fraction == 0.5


def test_replicating_does_not_wait_for_the_dead(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.nodes[2] = NODES[2]._replace(state=NodeStates.DOWN)
    admin.on(proto.AskPartitionList, table({S1: UP, S2: OUT}))
    assert [one.finished for one in c.replicating(timeout=SECONDS)] == [True]


def test_replicating_has_an_end(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskPartitionList, table({S1: UP, S2: OUT}))
    raises_in_time(neolink.Timeout, lambda seconds: list(c.replicating(timeout=seconds)), "1 cells to go")


def test_retiring(admin: FakeAdmin, c: cluster.Admin) -> None:
    full, empty = table({S1: OUT, S2: UP}, ptid=2), table({S1: UP}, ptid=3)
    admin.on(proto.TweakPartitionTable, proto.AnswerTweakPartitionTable(True, full.rows))
    admin.on(proto.AskPartitionList, full, full, empty)

    def stop(question: Any) -> Any:
        if question.state is NodeStates.DOWN:
            admin.nodes[2] = NODES[2]._replace(state=NodeStates.DOWN)
            return ack("state changed")
        assert admin.nodes[2].state is NodeStates.DOWN
        return ack("node permanently removed")

    admin.on(proto.SetNodeState, stop)
    seen = list(c.retiring("S2", timeout=SECONDS))
    assert [(one.done, one.total) for one in seen] == [(1, 2), (1, 1)]
    assert [question.state for question in admin.asked_of(proto.SetNodeState)] == [NodeStates.DOWN, NodeStates.UNKNOWN]
    assert admin.asked_of(proto.TweakPartitionTable) == [proto.TweakPartitionTable(False, [S2])]


def test_a_storage_that_others_cannot_replace_is_not_stopped(admin: FakeAdmin, c: cluster.Admin) -> None:
    """The other one is down, so there is nothing to wait for: the copies will never be complete."""
    admin.nodes[0] = NODES[0]._replace(state=NodeStates.DOWN)
    lonely = table({S1: OUT, S2: UP}, {S1: UP, S2: UP})
    admin.on(proto.TweakPartitionTable, proto.AnswerTweakPartitionTable(True, lonely.rows))
    admin.on(proto.AskPartitionList, lonely)
    with pytest.raises(cluster.Unsafe, match="only S2 has all of the partition.s. 0, 1"):
        list(c.retiring("S2", timeout=SECONDS))
    assert not admin.asked_of(proto.SetNodeState)


def test_checking_goes_partition_by_partition(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.CheckReplicas, ack())
    assert [one.done for one in c.checking({0: "S1", 2: None})] == [1, 2]
    assert [question.partitions for question in admin.asked_of(proto.CheckReplicas)] == [{0: S1}, {2: None}]


def test_close_wakes_who_waits(admin: FakeAdmin, c: cluster.Admin) -> None:
    admin.on(proto.AskPrimary, lambda _: None)
    waiting = Background(c.primary)
    until(lambda: admin.asked, "the question")
    c.close()
    with pytest.raises(neolink.LinkClosed):
        waiting.result()
    with pytest.raises(neolink.LinkClosed):
        c.state()
