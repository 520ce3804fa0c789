# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink.testing.Cluster: objects and transactions, as clients read and write them and as a test puts them in."""
from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from support import PATIENCE, Background
from testing_kit import WIRES, Client

import neolink
from neolink import proto, testing
from neolink.proto import MAX_TID, ZERO_HASH, ZERO_TID, CellStates, ClusterStates, ErrorCodes, id_from_int, id_to_int

ONE, TWO = id_from_int(1), id_from_int(2)


@pytest.fixture(params=WIRES)
def cluster(request: pytest.FixtureRequest, no_leaks: None) -> Iterator[testing.Cluster]:
    with testing.Cluster(wire=request.param, storages=2) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: testing.Cluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


def refused(link: neolink.NodeLink, message: Any) -> tuple[ErrorCodes, str]:
    with pytest.raises(neolink.RemoteError) as raised:
        link.ask(message, timeout=PATIENCE)
    return raised.value.code, raised.value.message


# ---- reading


def test_revisions(cluster: testing.Cluster, client: Client) -> None:
    first, second = cluster.store(1, b"one"), cluster.store(1, b"two")
    answer = client.load(ONE)
    assert (answer.serial, answer.next_serial, answer.data, answer.data_serial) == (second, None, b"two", None)
    assert answer.checksum == hashlib.sha1(b"two").digest() and answer.compression == 0
    assert client.load(ONE, before=second).data == b"one"
    assert client.load(ONE, at=first).next_serial == second
    link = client.storage(client.nids(ONE)[0])
    assert refused(link, client.m.AskObject(ONE, None, first)) == (ErrorCodes.OID_NOT_FOUND, ONE.hex())
    nine = id_from_int(9)
    assert refused(link, client.m.AskObject(nine, None, None)) == (ErrorCodes.OID_DOES_NOT_EXIST, nine.hex())
    assert refused(link, client.m.AskObject(TWO, None, None)) == (ErrorCodes.NON_READABLE_CELL, "")
    history = link.ask(client.m.AskObjectHistory(ONE, 0, 10))
    assert history.history == [(second, 3), (first, 3)]
    assert refused(link, client.m.AskObjectHistory(ONE, 2, 2)) == (ErrorCodes.PROTOCOL_ERROR, "invalid offsets")


def test_a_deleted_object(cluster: testing.Cluster, client: Client) -> None:
    cluster.store(1, b"one")
    with cluster.transaction() as transaction:
        transaction.delete(1)
    answer = client.load(ONE)
    assert (answer.serial, answer.data, answer.checksum) == (transaction.tid, b"", ZERO_HASH)
    assert answer.compression == (None if cluster.wire == "M" else 0)
    assert cluster.load(1) is None


def test_transactions(cluster: testing.Cluster, client: Client) -> None:
    with cluster.transaction(b"me", b"both", b"ext") as transaction:
        transaction.store(1, b"x" * 1000, compress=True)
        transaction.store(2, b"y")
    tid = transaction.tid
    found = client.storage(client.nids(tid)[0]).ask(client.m.AskTransactionInformation(tid))
    assert (found.user, found.description, found.extension, found.oids) == (b"me", b"both", b"ext", [ONE, TWO])
    assert client.load(ONE).compression == 1 and cluster.load(1) == b"x" * 1000
    tids = [tid, *(cluster.store(1, b"%d" % number) for number in range(9))]
    newest = sorted((tid for nid in (1, 2) for tid in client.storage(nid).ask(
        client.m.AskTIDs(0, 100, proto.ALL_PARTITIONS)).tids), reverse=True)
    assert newest == tids[::-1]
    partition = id_to_int(tid) % 4
    ascending = client.storage(client.nids(tid)[0]).ask(client.m.AskTIDsFrom(ZERO_TID, MAX_TID, 1, partition))
    assert ascending.tids == [tid]
    four = id_from_int(4)
    assert refused(client.storage(client.nids(four)[0]), client.m.AskTransactionInformation(four)) == (
        ErrorCodes.TID_NOT_FOUND, f"{four.hex()} does not exist")


def test_walking_objects() -> None:
    with testing.Cluster(partitions=1) as cluster, Client(cluster) as client:
        for number in (3, 1, 2):
            tid = cluster.store(number, b"x")
        link = client.storage(1)
        first = link.ask(proto.AskOIDsFrom(0, 2, ZERO_TID, MAX_TID))
        assert first.oids == [ONE, TWO] and first.next_oid == id_from_int(3)
        three, before_two = id_from_int(3), id_from_int(id_to_int(tid) - 1)
        assert link.ask(proto.AskOIDsFrom(0, 2, first.next_oid, MAX_TID)) == proto.AnswerOIDsFrom(None, [three])
        assert link.ask(proto.AskOIDsFrom(0, 9, ZERO_TID, before_two)).oids == [ONE, three]


# ---- writing


def test_a_commit_is_told_to_others(cluster: testing.Cluster, client: Client) -> None:
    oids = client.ask(client.m.AskNewOIDs(3)).oids
    assert oids == [ONE, TWO, id_from_int(3)]
    with Client(cluster) as other:
        ttid = client.begin()
        for oid in oids:
            assert client.store(ttid, oid, ZERO_TID, b"data of " + oid) == [None]
        client.vote(ttid, oids)
        tid = client.finish(ttid, oids)
        assert other.pushes.wait(proto.InvalidateObjects) == client.m.InvalidateObjects(tid, oids)
        assert tid > ttid and (id_to_int(tid) - id_to_int(ttid)) % 4 == 0
        assert other.load(TWO).data == b"data of " + TWO
        assert cluster.load(TWO) == b"data of " + TWO and cluster.last_tid == tid
        client.ask(proto.Ping())
        assert not [m for m in client.pushes.all if type(m).__name__ == "InvalidateObjects"]


def test_a_conflict(cluster: testing.Cluster, client: Client) -> None:
    base = cluster.store(1, b"base")
    newer = cluster.store(1, b"newer")
    ttid = client.begin()
    assert client.store(ttid, ONE, base, b"mine") == [newer]
    assert client.store(ttid, ONE, newer, b"resolved") == [None]
    client.vote(ttid, [ONE])
    assert client.finish(ttid, [ONE]) == cluster.last_tid and cluster.load(1) == b"resolved"


def test_checking_that_an_object_is_current(cluster: testing.Cluster, client: Client) -> None:
    base = cluster.store(1, b"base")
    newer = cluster.store(1, b"newer")
    link, ttid = client.storage(client.nids(ONE)[0]), client.begin()
    assert link.ask(client.m.AskCheckCurrentSerial(ttid, ONE, base)).conflict == newer
    assert link.ask(client.m.AskCheckCurrentSerial(ttid, ONE, newer)).conflict is None
    with pytest.raises(RuntimeError, match="is locked by transaction"):
        cluster.store(1, b"past the lock")


def test_a_locked_object_is_waited_for(cluster: testing.Cluster, client: Client) -> None:
    """The second client's answer comes when the first one has committed, and is a conflict."""
    base = cluster.store(1, b"base")
    with Client(cluster) as second:
        mine, theirs = client.begin(), second.begin()
        client.store(mine, ONE, base, b"mine")
        with cluster.on(proto.AskStoreObject, testing.PASS) as stores:
            waiting = Background(second.store, theirs, ONE, base, b"theirs")
            stores.wait()
            client.vote(mine, [ONE])
            tid = client.finish(mine, [ONE])
            assert waiting.result() == [tid]


def test_an_abort_releases_locks(cluster: testing.Cluster, client: Client) -> None:
    base = cluster.store(1, b"base")
    with Client(cluster) as second:
        mine, theirs = client.begin(), second.begin()
        client.store(mine, ONE, base, b"mine")
        with cluster.on(proto.AskStoreObject, testing.PASS) as stores:
            waiting = Background(second.store, theirs, ONE, base, b"theirs")
            stores.wait()
            client.master.notify(client.m.AbortTransaction(mine, client.nids(ONE)))
            assert waiting.result() == [None]
        client.master.notify(client.m.AbortTransaction(mine, []))       # again: it is unknown now
        client.pushes.join()
        assert client.master.closed


def test_a_client_that_goes_releases_locks(cluster: testing.Cluster, client: Client) -> None:
    base = cluster.store(1, b"base")
    with Client(cluster) as second:
        mine, theirs = client.begin(), second.begin()
        client.store(mine, ONE, base, b"mine")
        with cluster.on(proto.AskStoreObject, testing.PASS) as stores:
            waiting = Background(second.store, theirs, ONE, base, b"theirs")
            stores.wait()
            cluster.hang_up(client.nid)
            assert waiting.result() == [None]


def test_a_deadlock_is_broken() -> None:
    """Two clients lock two objects in opposite order: the younger one is told to give way, and meets a conflict."""
    with testing.Cluster() as cluster, Client(cluster) as old, Client(cluster) as young:
        base = cluster.store(1, b"1")
        base_two = cluster.store(2, b"2")
        first, second = old.begin(), young.begin()
        old.store(first, ONE, base, b"old")
        young.store(second, TWO, base_two, b"young")
        blocked = Background(young.store, second, ONE, base, b"young")
        waiting = Background(old.store, first, TWO, base_two, b"old")
        young.storage_pushes[1].wait(proto.NotifyDeadlock)
        relock = Background(young.storage(1).ask, proto.AskRelockObject(second, TWO), timeout=PATIENCE)
        assert waiting.result() == [None]
        old.vote(first, [ONE, TWO])
        tid = old.finish(first, [ONE, TWO])
        assert blocked.result() == [tid]
        conflict = relock.result().conflict
        assert (conflict.serial, conflict.conflict_serial, conflict.data.data) == (base_two, tid, b"young")


def test_a_deadlock_is_broken_on_n() -> None:
    """The same: the younger one moves its locks behind the older one's, gets one back, and a conflict for the other."""
    with testing.Cluster(wire="N") as cluster, Client(cluster) as old, Client(cluster) as young:
        base, base_two = cluster.store(1, b"1"), cluster.store(2, b"2")
        free = cluster.store(3, b"3")
        first, second = old.begin(), young.begin()
        old.store(first, ONE, base, b"old")
        young.store(second, TWO, base_two, b"young")
        young.store(second, id_from_int(3), free, b"young")
        blocked = Background(young.store, second, ONE, base, b"young")
        waiting = Background(old.store, first, TWO, base_two, b"old")
        told = young.pushes.wait(proto.NotifyDeadlock)
        assert told.ttid == second and told.locking_tid > second
        rebased = young.storage(1).ask(proto.AskRebaseTransaction(second, told.locking_tid), timeout=PATIENCE)
        assert rebased.oids == [TWO] and waiting.result() == [None]
        again = Background(young.storage(1).ask, proto.AskRebaseObject(second, TWO), timeout=PATIENCE)
        old.vote(first, [ONE, TWO])
        tid = old.finish(first, [ONE, TWO])
        assert blocked.result() == [tid]
        conflict = again.result().conflict
        assert (conflict.serial, conflict.conflict_serial, conflict.data.data) == (base_two, tid, b"young")


def test_what_breaks_the_protocol_is_refused(cluster: testing.Cluster, client: Client) -> None:
    message = client.store_message(client.begin(), ONE, ZERO_TID, b"data")
    message.checksum = ZERO_HASH
    nid = client.nids(ONE)[0]
    assert refused(client.storage(nid), message) == (ErrorCodes.PROTOCOL_ERROR, "invalid checksum")
    rest = ([],) if client.wire == "N" else ([], [], None)
    assert refused(client.master, client.m.AskFinishTransaction(ONE, [], *rest)) == (
        ErrorCodes.PROTOCOL_ERROR, f"unknown ttid {ONE.hex()}")


def test_a_commit_without_votes_is_incomplete(cluster: testing.Cluster, client: Client) -> None:
    ttid = client.begin()
    client.store(ttid, ONE, ZERO_TID, b"data")
    rest = ([],) if client.wire == "N" else ([], [], None)
    assert refused(client.master, client.m.AskFinishTransaction(ttid, [ONE], *rest)) == (
        ErrorCodes.INCOMPLETE_TRANSACTION, "")


def test_failed_votes(cluster: testing.Cluster, client: Client) -> None:
    ttid = client.begin()
    assert client.ask(client.m.FailedVote(ttid, [])).code is ErrorCodes.ACK
    assert refused(client.master, client.m.FailedVote(ttid, [1])) == (ErrorCodes.INCOMPLETE_TRANSACTION, "")


def test_transactions_with_given_tids(cluster: testing.Cluster, client: Client) -> None:
    last = cluster.store(1, b"x")
    given = id_from_int(id_to_int(last) + 1000)
    ttid = client.ask(client.m.AskBeginTransaction(given)).ttid
    client.vote(ttid, [])
    assert ttid == given == client.finish(ttid, [])
    assert refused(client.master, client.m.AskBeginTransaction(last))[1] == \
        "new TID must be greater than the last committed one"


def test_a_commit_in_doubt(cluster: testing.Cluster, client: Client) -> None:
    ttid = client.begin()
    client.store(ttid, ONE, ZERO_TID, b"x")
    client.vote(ttid, [ONE])
    with Client(cluster) as again:
        with cluster.on(proto.AskFinalTID, testing.PASS) as asked:
            waiting = Background(again.ask, again.m.AskFinalTID(ttid))
            asked.wait()
            tid = client.finish(ttid, [ONE])
            assert waiting.result().tid == MAX_TID          # ask the storages
        assert again.storage(again.nids(ttid)[0]).ask(again.m.AskFinalTID(ttid)).tid == tid
        assert again.ask(again.m.AskFinalTID(MAX_TID)).tid is None


def test_undo(cluster: testing.Cluster, client: Client) -> None:
    first, second = cluster.store(1, b"one"), cluster.store(1, b"two")
    link, ttid = client.storage(client.nids(ONE)[0]), client.begin()
    after = id_from_int(id_to_int(second) + 1)

    def undo_serial(undone: bytes) -> Any:
        return link.ask(client.m.AskObjectUndoSerial(ttid, after, undone, [ONE])).objects

    assert undo_serial(second) == {ONE: (second, first, True)}
    assert undo_serial(first) == {ONE: (second, None, False)}
    tid = client.commit(ONE, second, b"", undo=first)
    answer = client.load(ONE)
    assert (answer.serial, answer.data, answer.data_serial) == (tid, b"one", first)
    after = MAX_TID
    assert undo_serial(tid) == {ONE: (tid, second, True)}
    assert undo_serial(ttid) == {}


def test_an_out_of_date_cell_stores_without_lock() -> None:
    with testing.Cluster(storages=2, replicas=1) as cluster, Client(cluster) as client:
        cluster.set_cell(1, "S2", CellStates.OUT_OF_DATE)
        ttid = client.begin()
        assert dict(zip(client.nids(ONE), client.store(ttid, ONE, ZERO_TID, b"x"))) == {1: None, 2: ZERO_TID}
        assert refused(client.storage(2), proto.AskObject(ONE, None, None)) == (ErrorCodes.NON_READABLE_CELL, "")
        client.vote(ttid, [ONE])
        client.finish(ttid, [ONE])
        assert cluster.load(1) == b"x"


def test_packing(cluster: testing.Cluster, client: Client) -> None:
    first, second = cluster.store(1, b"one"), cluster.store(1, b"two")
    if cluster.wire == "N":
        assert client.ask(proto.AskPack(second)).status is True
    else:
        order = proto.PackRequest(None, second)
        ttid = client.begin()
        client.vote(ttid, [], order)
        tid = client.finish(ttid, [], order)
        assert client.ask(proto.WaitForPack(tid)) == proto.WaitedForPack()
        assert client.ask(proto.AskPackOrders(ZERO_TID)).orders == [(tid, True, False, None, second)]
    assert cluster.history(1) == [second]
    with pytest.raises(KeyError):
        cluster.load(1, at=first)


def test_writes_to_a_backup_are_refused() -> None:
    with testing.Cluster() as cluster, Client(cluster) as client:
        client.storage(1)
        cluster.state = ClusterStates.BACKINGUP
        text = "read-only access because cluster is in backuping mode"
        assert refused(client.master, proto.AskNewOIDs(1)) == (ErrorCodes.READ_ONLY_ACCESS, text)
        assert refused(client.storage(1), client.store_message(ONE, ONE, ZERO_TID, b"x")) == (
            ErrorCodes.READ_ONLY_ACCESS, text)


# ---- what a test sees by itself


def test_a_transaction_that_fails_is_not_committed() -> None:
    with testing.Cluster() as cluster:
        with pytest.raises(ZeroDivisionError), cluster.transaction() as transaction:
            transaction.store(1, b"x")
            1 / 0
        assert cluster.last_tid == ZERO_TID
        with pytest.raises(RuntimeError, match="committed when its with block is left"):
            transaction.tid
        with pytest.raises(KeyError):
            cluster.load(1)
