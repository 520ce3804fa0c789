# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink.cluster.client: joining, following the master, and reading from whichever cell can be read."""
from __future__ import annotations

import zlib
from collections.abc import Iterator
from hashlib import sha1
from typing import Any

import pytest
from cluster_fakes import M1, OUT, S1, S2, UP, FakeAdmin, Hangup
from support import Background, raises_in_time, until

import neolink
from neolink import cluster, proto
from neolink.proto import CellStates, ClusterStates, ErrorCodes, NodeStates, NodeTypes

SECONDS = 60.0
C1 = -0x1fffffff
TIME = 1795362300.25


def tid(number: int) -> bytes:
    return proto.id_from_int(number)


def answer(serial: int, data: bytes, **fields: Any) -> proto.AnswerObject:
    given = {"oid": tid(1), "serial": tid(serial), "next_serial": None, "compression": 0,
             "checksum": sha1(data).digest(), "data": data, "data_serial": None} | fields
    return proto.AnswerObject(**given)


class House:
    """A master and two storages made by hand. `rows` is the table that the master sends to who identifies."""

    def __init__(self, wire: str) -> None:
        self.wire = wire
        self.master, self.storages = FakeAdmin(wire), {S1: FakeAdmin(wire), S2: FakeAdmin(wire)}
        self.rows = [{S1: UP, S2: UP}, {S1: UP, S2: UP}]
        self.timestamp: float | None = TIME
        self.master.on(proto.RequestIdentification, self.accept)
        self.master.on(proto.AskLastTransaction, proto.AnswerLastTransaction(tid(9)))
        for nid, storage in self.storages.items():
            storage.on(proto.RequestIdentification, proto.AcceptIdentification(NodeTypes.STORAGE, nid, C1))

    def node(self, nid: int, state: NodeStates = NodeStates.RUNNING) -> proto.Node:
        host, port = self.storages[nid]._listener.address
        return proto.Node(NodeTypes.STORAGE, (host, port), nid, state, TIME)

    def accept(self, _: Any) -> Any:
        nodes = [proto.Node(NodeTypes.CLIENT, None, C1, NodeStates.RUNNING, self.timestamp),
                 self.node(S1), self.node(S2)]
        rows = [[proto.Cell(*cell) for cell in row.items()] for row in self.rows]
        return [proto.AcceptIdentification(NodeTypes.MASTER, M1, C1), proto.NotifyNodeInformation(1.0, nodes),
                proto.SendPartitionTable(5, 1, rows)]

    def on(self, question: type, *replies: Any) -> None:
        for storage in self.storages.values():
            storage.on(question, *replies)

    def join(self, timeout: float = SECONDS) -> cluster.Client:
        return cluster.client(self.master.address, "test", timeout=timeout)

    def close(self) -> None:
        for one in (self.master, *self.storages.values()):
            one.close()


@pytest.fixture(params=["M", "N"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    house = House(request.param)
    yield house
    house.close()


@pytest.fixture
def client(house: House) -> Iterator[cluster.Client]:
    with house.join() as client:
        yield client


# ---- joining


def test_join(house: House, client: cluster.Client) -> None:
    assert client.nid == C1 and client.partitions().ptid == 5
    assert [node.name for node in client.nodes()] == ["C1", "S1", "S2"]
    assert client.last_tid() == tid(9)
    identified = house.master.asked[0]
    assert (identified.node_type, identified.nid, identified.cluster) == (NodeTypes.CLIENT, None, "test")
    assert house.wire == "N" or identified.extra == {"read_only": True}


def test_storages_are_shown_the_time_that_the_master_gave(house: House, client: cluster.Client) -> None:
    house.on(proto.AskObject, answer(3, b"data"))
    client.load(1)
    shown = [one for storage in house.storages.values() for one in storage.asked_of(proto.RequestIdentification)]
    assert [(one.nid, one.id_timestamp) for one in shown] == [(C1, TIME)]


def test_without_a_time_no_storage_of_today_is_dialed(house: House) -> None:
    """It would exit. One of 1.12 refuses, and a NEO/go master never tells a time."""
    house.timestamp = None
    house.on(proto.AskObject, answer(3, b"data"))
    with house.join() as client:
        if house.wire == "N":
            assert client.load(1).data == b"data"
        else:
            raises_in_time(cluster.NoReadableCell, lambda seconds: client.load(1, timeout=seconds), "must not dial")
            assert not any(storage.asked for storage in house.storages.values())


def test_not_ready_is_waited_for(house: House) -> None:
    def later(_: Any) -> Any:
        raise Hangup(proto.Error(ErrorCodes.NOT_READY, "Retry Later"))

    house.master.on(proto.RequestIdentification, later, later, house.accept)
    with house.join() as client:
        assert client.nid == C1
    house.master.on(proto.RequestIdentification, later)
    raises_in_time(cluster.NotReady, lambda seconds: house.join(timeout=seconds), "Retry Later")


def test_a_wrong_name_is_refused(house: House) -> None:
    def refuse(_: Any) -> Any:
        raise Hangup(proto.Error(ErrorCodes.PROTOCOL_ERROR, "invalid cluster name"))

    house.master.on(proto.RequestIdentification, refuse)
    with pytest.raises(cluster.Refused, match="invalid cluster name"):
        house.join()
    assert len(house.master.asked) == 1


def test_a_secondary_master_tells_the_primary(house: House) -> None:
    host, port = house.master._listener.address
    with FakeAdmin(house.wire) as secondary:
        other = secondary._listener.address
        secondary.on(proto.RequestIdentification,
                     lambda _: [None, proto.NotPrimaryMaster(1, [(other[0], other[1]), (host, port)])])
        with cluster.client(secondary.address, "test", timeout=SECONDS) as client:
            assert client.nid == C1


def test_a_secondary_master_that_names_masters_only(house: House) -> None:
    """On wire N the first master in its list looks like none, so the primary may be any of them."""
    host, port = house.master._listener.address
    with FakeAdmin(house.wire) as secondary:
        other = secondary._listener.address
        secondary.on(proto.RequestIdentification,
                     lambda _: [None, proto.NotPrimaryMaster(None, [(host, port), (other[0], other[1])])])
        with cluster.client(secondary.address, "test", timeout=SECONDS) as client:
            assert client.nid == C1
        assert len(secondary.asked) == 1


def test_masters_that_are_not_there_are_passed_over(house: House) -> None:
    with FakeAdmin() as gone:
        address = gone.address
    with cluster.client(f"{address} {house.master.address}", "test", timeout=SECONDS) as client:
        assert client.nid == C1
    with pytest.raises(neolink.DialError):
        cluster.client(address, "test", timeout=0.2)


def test_a_lost_master_is_found_again(house: House, client: cluster.Client) -> None:
    house.on(proto.AskObject, answer(3, b"data"))
    client.load(1)
    house.master.hang_up()
    until(lambda: client._current.lost, "the loss of the master")  # type: ignore[union-attr]
    assert client.load(1).data == b"data" and client.last_tid() == tid(9)
    assert len(house.master.asked_of(proto.RequestIdentification)) == 2


# ---- following


def test_the_tables_follow_the_master(house: House, client: cluster.Client) -> None:
    before = client.partitions()
    house.master.tell(proto.NotifyPartitionChanges(6, 1, [
        proto.CellChange(0, S2, OUT), proto.CellChange(1, S1, CellStates.DISCARDED)]))
    house.master.tell(proto.NotifyNodeInformation(2.0, [house.node(S2, NodeStates.DOWN)]))
    house.master.tell(proto.NotifyClusterInformation(ClusterStates.STOPPING))
    until(lambda: client.state() is ClusterStates.STOPPING)
    assert client.partitions().rows == [{S1: UP, S2: OUT}, {S2: UP}] and client.partitions().ptid == 6
    assert before.rows == [{S1: UP, S2: UP}, {S1: UP, S2: UP}]
    assert client.nodes()[2].state is NodeStates.DOWN
    house.master.tell(proto.NotifyNodeInformation(3.0, [house.node(S2, NodeStates.UNKNOWN)]))
    until(lambda: len(client.nodes()) == 2)


def test_a_missed_change_of_the_table_starts_afresh(house: House, client: cluster.Client) -> None:
    house.master.tell(proto.NotifyPartitionChanges(8, 1, [proto.CellChange(0, S2, OUT)]))
    until(lambda: len(house.master.asked_of(proto.RequestIdentification)) == 2 or client.partitions() is None)
    assert client.partitions().ptid == 5


def test_invalidations(house: House, client: cluster.Client) -> None:
    commits = client.invalidations()
    house.master.tell(proto.InvalidateObjects(tid(10), [tid(1), tid(2)]))
    house.master.tell(proto.InvalidateObjects(tid(11), []))
    assert next(commits) == (tid(10), [tid(1), tid(2)]) and next(commits).tid == tid(11)
    waiting = Background(next, commits)
    client.close()
    with pytest.raises(neolink.LinkClosed):
        waiting.result()


# ---- reading


def test_load(house: House, client: cluster.Client) -> None:
    packed = zlib.compress(b"hello" * 100)
    house.on(proto.AskObject, answer(3, b"data", next_serial=tid(4)))
    assert client.load(1) == (tid(1), tid(3), tid(4), b"data", None)
    house.on(proto.AskObject, answer(3, packed, compression=1))
    assert client.load(1, before=5).data == b"hello" * 100
    house.on(proto.AskObject, answer(3, b""))
    assert client.load(1, at=3).data == b""
    house.on(proto.AskObject, answer(3, b"", checksum=bytes(20), compression=None if house.wire == "M" else 0))
    assert client.load(b"\0" * 7 + b"\1").data is None
    asked = [one for storage in house.storages.values() for one in storage.asked_of(proto.AskObject)]
    assert [(one.at, one.before) for one in asked] == [(None, None), (None, tid(5)), (tid(3), None), (None, None)]


def refuse(_: Any) -> Any:
    return proto.Error(ErrorCodes.NON_READABLE_CELL, "")


def hang_up(_: Any) -> Any:
    raise Hangup


BAD = {"refuses": refuse, "hangs up": hang_up, "corrupt": answer(3, b"data", checksum=b"x" * 20),
       "not zlib": answer(3, b"data", compression=1), "silent": None}


@pytest.mark.parametrize("bad", BAD)
def test_another_cell_is_read_when_one_fails(bad: str, house: House, client: cluster.Client) -> None:
    house.storages[S1].on(proto.AskObject, BAD[bad])
    house.storages[S2].on(proto.AskObject, answer(3, b"good"))
    asked = house.storages[S2].asked
    for seconds in (2.0, 20.0, SECONDS) if bad == "silent" else (SECONDS,):     # half of it is the silent one's
        asked.clear()
        try:
            assert client.load(1, timeout=seconds).data == b"good"
            break
        except cluster.NoReadableCell:      # on a busy machine the other half may be too short
            assert seconds < SECONDS
    assert house.storages[S1].asked_of(proto.AskObject) and len(house.storages[S2].asked_of(proto.AskObject)) == 1


def test_a_storage_that_is_gone(house: House, client: cluster.Client) -> None:
    house.storages[S1].close()
    house.storages[S2].on(proto.AskObject, answer(3, b"good"))
    assert client.load(1).data == b"good"


def test_when_all_cells_fail(house: House, client: cluster.Client) -> None:
    house.on(proto.AskObject, refuse)
    raises_in_time(cluster.NoReadableCell, lambda seconds: client.load(1, timeout=seconds),
                   "S1: .*NON_READABLE_CELL.*S2: ")


def test_cells_that_are_not_readable_are_not_read(house: House) -> None:
    house.rows = [{S1: OUT, S2: UP}, {S1: OUT}]
    house.on(proto.AskObject, answer(3, b"good"))
    with house.join() as client:
        assert client.load(2).data == b"good"
        raises_in_time(cluster.NoReadableCell, lambda seconds: client.load(1, timeout=seconds), "no readable cell")
        assert not house.storages[S1].asked
        late = Background(client.load, 1)
        house.master.tell(proto.NotifyPartitionChanges(6, 1, [proto.CellChange(1, S1, UP)]))
        assert late.result().data == b"good"


def test_what_does_not_exist(house: House, client: cluster.Client) -> None:
    house.on(proto.AskObject, proto.Error(ErrorCodes.OID_DOES_NOT_EXIST, "0000000000000001"))
    with pytest.raises(cluster.NoSuchObject, match="0000000000000001"):
        client.load(1)
    house.on(proto.AskTransactionInformation, proto.Error(ErrorCodes.TID_NOT_FOUND, "no"))
    with pytest.raises(cluster.NoSuchTransaction):
        client.transaction(1)


def test_history(house: House, client: cluster.Client) -> None:
    house.on(proto.AskObjectHistory, proto.AnswerObjectHistory(tid(1), [proto.Revision(tid(3), 5)]))
    assert client.history(1) == [(tid(3), 5)]


class Log:
    """What the storages answer about transactions 1 to `last`, of which partition 1 has every third."""

    def __init__(self, house: House, last: int) -> None:
        self.last = last
        house.on(proto.AskTIDsFrom, self.tids_from)
        house.on(proto.AskTIDs, lambda q: proto.AnswerTIDs([tid(n) for n in range(last, 0, -1)][q.first:q.last]))
        house.on(proto.AskTransactionInformation, lambda q: proto.AnswerTransactionInformation(
            q.tid, b"", b"number %d" % proto.id_to_int(q.tid), b"", False, []))
        house.master.on(proto.AskLastTransaction, proto.AnswerLastTransaction(tid(last)))

    def tids_from(self, q: Any) -> Any:
        low, high = proto.id_to_int(q.min_tid), proto.id_to_int(q.max_tid)
        found = [n for n in range(max(low, 1), min(high, self.last) + 1) if (n % 3 == 0) == q.partition]
        return proto.AnswerTIDsFrom([tid(n) for n in found][:q.length])


def test_transactions(house: House, client: cluster.Client) -> None:
    Log(house, 2345)
    assert list(client.tids()) == [tid(n) for n in range(1, 2346)]
    assert list(client.tids(7, 9)) == [tid(7), tid(8), tid(9)]
    assert [one.description for one in client.transactions(5, 6)] == [b"number 5", b"number 6"]


def test_undo_log(house: House, client: cluster.Client) -> None:
    Log(house, 30)
    assert [one.tid for one in client.undo_log(1, 3)] == [tid(29), tid(28)]


def test_oids(house: House, client: cluster.Client) -> None:
    if house.wire == "N":
        with pytest.raises(neolink.EncodeError):
            list(client.oids(tid=1))
        return

    def oids(q: Any) -> Any:
        start = proto.id_to_int(q.min_oid)
        mine = [n for n in range(start, 6) if n % 2 == q.partition][:1]
        return proto.AnswerOIDsFrom(tid(mine[0] + 1) if mine else None, [tid(n) for n in mine])

    house.on(proto.AskOIDsFrom, oids)
    assert list(client.oids()) == [tid(n) for n in (0, 2, 4, 1, 3, 5)]


@pytest.mark.parametrize("do", [
    lambda k: k.load(None), lambda k: k.load(b"short"), lambda k: k.load(1, before=b"\xff" * 8), lambda k: k.load(-1),
    lambda k: k.transaction(None), lambda k: k.history(None), lambda k: k.history(1, 5, 5),
    lambda k: k.history(1, -1, 5),
    lambda k: k.undo_log(3, 3), lambda k: k.load(1, before=2, at=1)])
def test_what_would_end_a_storage_does_not_leave(do: Any, house: House, client: cluster.Client) -> None:
    with pytest.raises((cluster.Unsafe, ValueError)):
        do(client)
    assert not any(storage.asked for storage in house.storages.values())


def test_nothing_is_left(house: House, no_leaks: None) -> None:
    house.on(proto.AskObject, answer(3, b"data"))
    with house.join() as client:
        client.load(1)
    house.master.hang_up()
    for storage in house.storages.values():
        storage.hang_up()
    with pytest.raises(neolink.LinkClosed):
        client.load(1)
