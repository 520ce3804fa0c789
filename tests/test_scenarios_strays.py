# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Packets for nobody: S23 to S32. Who is told so, who is not, and that it never grows."""
import socket
import time

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import (
    ANSWER,
    ERROR,
    NOTIFY,
    PUSH,
    REQUEST,
    RawPeer,
    body,
    both_ends,
    data_of,
    each_kind,
    each_wire,
    frame,
    memory,
    raw_peer,
)
from support import PATIENCE, Background, until, waiting

import neolink

pytestmark = pytest.mark.usefixtures("balanced")


def quiet(link: neolink.NodeLink, peer: RawPeer) -> None:
    """The link sends nothing more: what it sends next is this."""
    link.notify(NOTIFY)
    assert peer.recv().code == NOTIFY


@each_kind
@pytest.mark.parametrize("closed_later", [False, True])
def test_s23_refused_exactly_once(wire, routing, closed_later):
    with raw_peer(wire, routing, accept="queue" if closed_later else "refuse") as (link, peer):
        link.close_accept()
        for conn_id in (0, 2, 4):
            peer.send(conn_id, REQUEST)
            peer.send(conn_id + 100, NOTIFY)
        refused = [peer.recv() for _ in range(3)]
        assert [(packet.conn_id, packet.error) for packet in refused] == [(0, "refused"), (2, "refused"), (4, "refused")]
        until(lambda: link.stats().packets_received == 6)
        quiet(link, peer)
        stats = link.stats()
        assert (stats.refused_conns, stats.ignored_packets, stats.conns) == (3, 3, 0)
        at_rest(link)


@each_kind
def test_s23_who_waits_for_accept_is_refused_too(wire, routing):
    with raw_peer(wire, routing) as (link, peer):
        for code in (NOTIFY, REQUEST, REQUEST):         # on one Conn: each request of it is told
            peer.send(2, code)
        peer.send(4, REQUEST)
        until(lambda: link.stats().packets_received == 4)
        link.close_accept()
        assert [(packet.conn_id, packet.error) for packet in (peer.recv(), peer.recv(), peer.recv())] == \
            [(2, "refused"), (2, "refused"), (4, "refused")]
        quiet(link, peer)
        stats = link.stats()
        assert (stats.refused_conns, stats.ignored_packets) == (3, 1)
        at_rest(link)


@each_kind
def test_s24_closed_conn_answers_closed(wire, routing):
    with raw_peer(wire, routing) as (link, peer):
        peer.send(2, REQUEST)
        with link.recv1(timeout=20) as request:
            request.reply(ANSWER)
        assert peer.recv().code == ANSWER
        peer.send(2, REQUEST)
        peer.send(2, NOTIFY)
        assert (packet := peer.recv()).error == "closed" and packet.conn_id == 2
        until(lambda: link.stats().packets_received == 3)
        quiet(link, peer)
        assert link.stats().ignored_packets == 1
        at_rest(link)


@each_kind
def test_s25_an_error_or_answer_to_a_dead_id_meets_silence(wire, routing):
    with raw_peer(wire, routing, accept="refuse") as (link, peer):
        with link.new_conn() as conn:
            dead = conn.conn_id
        for conn_id in (dead, 0, 2, 7, 0xFFFFFFFE):
            for code in (ERROR, ANSWER):
                peer.send(conn_id, code, body(wire))
        until(lambda: link.stats().packets_received == 10)
        quiet(link, peer)
        assert link.stats().ignored_packets == 10
        at_rest(link)


@each_kind
def test_s25_two_ends_of_ours_never_play_ping_pong(wire, routing):
    """Each refuses the other; a raw end could be told anything, ours tell each other once."""
    with both_ends(wire, routing, accept="refuse") as (client, server):
        for link in (client, server):
            for _ in range(5):
                assert link.ask(REQUEST, timeout=20).code == ERROR
            with link.new_conn() as conn:
                conn.send(REQUEST)
        # answers come in order, so one more round trip each way finds all Errors that are to come
        for link in (client, server, client, server):
            link.ask(REQUEST, timeout=20)
        sent = [link.stats().packets_sent for link in (client, server)]
        # 5 asks + 1 request + 2 asks of one's own, and as many refusals of the other's
        assert sent == [16, 16]
        at_rest(client, server)


@pytest.mark.thread_unsafe(reason="it measures the memory of the process")
@pytest.mark.no_asan
@each_wire
def test_s26_a_flood_to_dead_ids_takes_no_memory(wire):
    """The peer reads the replies: it may go on as long as it likes."""
    with raw_peer(wire, accept="refuse") as (link, peer):
        ids = b"".join(frame(wire, 2 * n, REQUEST) for n in range(2000))
        rounds = 10
        peer.sock.settimeout(PATIENCE)
        before = 0

        def read(count):
            return [peer.recv().error for _ in range(count)]

        for turn in range(rounds):
            reading = Background(read, 2000)
            peer.sock.sendall(ids)
            assert reading.result() == ["refused"] * 2000
            if turn == 2:
                before = memory()
        assert memory() - before < 4 << 20
        assert link.stats().refused_conns == 2000 * rounds and not link.closed
        at_rest(link)


@each_wire
def test_s27_a_flood_with_unread_replies_ends_the_link_and_says_so(wire):
    with raw_peer(wire, accept="refuse") as (link, peer):
        ids = b"".join(frame(wire, 2 * n, REQUEST) for n in range(2000))
        asking = Background(link.ask, REQUEST)
        waiting(link)
        flooding = Background(lambda: [peer.sock.sendall(ids) for _ in range(10_000)])
        with pytest.raises(neolink.ProtocolError, match="flood"):
            asking.result()
        with pytest.raises(OSError):
            flooding.result()
        assert "flood" in str(link.fault)
        at_rest(link)


@each_wire
def test_s27_the_reader_goes_on_while_the_writer_is_stuck(wire):
    """Replies wait, answers and requests still come in."""
    with raw_peer(wire) as (link, peer):
        asking = Background(link.ask, REQUEST)
        asked = peer.recv()
        link.close_accept()
        payload = body(wire, bytes(100_000))
        with pytest.raises(neolink.Timeout):
            while True:
                link.notify(NOTIFY, payload, timeout=0)
        peer.send(2, REQUEST)                       # its "refused" cannot leave now
        peer.send(asked.conn_id, ANSWER)
        assert asking.result().code == ANSWER
        reading = Background(peer.rest)
        link.close()
        assert [packet.error for packet in reading.result() if packet.code == ERROR] == ["refused"]


@each_kind
def test_s28_a_late_answer_is_dropped_and_counted(wire, routing):
    with raw_peer(wire, routing) as (link, peer):
        with pytest.raises(neolink.Timeout) as caught:
            link.ask(REQUEST, timeout=0.01)
        assert caught.value.maybe_sent
        asked = peer.recv()
        peer.send(asked.conn_id, ANSWER)
        peer.send(asked.conn_id, ANSWER)            # the second one is nobody's
        until(lambda: link.stats().packets_received == 2)
        stats = link.stats()
        assert (stats.late_answers, stats.ignored_packets, stats.conns) == (1, 1, 0)
        with pytest.raises(neolink.Timeout):
            link.accept(timeout=0)
        quiet(link, peer)
        at_rest(link)


@each_kind
def test_s29_an_id_that_is_used_again(wire, routing):
    """The old entry expires while the new Conn opens: the new one is whole, and no request is lost without a word."""
    with raw_peer(wire, routing, limits=neolink.Limits(closed_seconds=0.0005)) as (link, peer):
        closed = 0
        for turn in range(300):
            end = time.monotonic() + turn % 10 * 0.0002
            while time.monotonic() < end:           # another distance from the expiry each time
                pass
            opened = None
            while opened is None:
                received = link.stats().packets_received
                peer.send(2, REQUEST)
                try:
                    opened = link.accept(timeout=0.001)
                except neolink.Timeout:
                    until(lambda received=received: link.stats().packets_received > received)
                    try:
                        opened = link.accept(timeout=0)
                    except neolink.Timeout:
                        assert peer.recv().error == "closed"
                        closed += 1
            with opened:
                assert opened.recv(timeout=20).code == REQUEST
                peer.send(2, NOTIFY, body(wire, b"more"))
                assert data_of(wire, opened.recv(timeout=20).payload) == b"more"
                opened.send(ANSWER)
            assert peer.recv().code == ANSWER
        at_rest(link)


def near_the_end(wire, routing, first):
    near, far = socket.socketpair()
    return (neolink.NodeLink(near, "client", wire=wire, routing=routing, _first_id=first),
            neolink.NodeLink(far, "server", wire=wire, routing=routing))


@each_kind
def test_s30_ids_wrap_around_and_pass_over_those_that_are_open(wire, routing):
    client, server = near_the_end(wire, routing, 0xFFFFFFFB)
    with client, server:
        conns = [client.new_conn() for _ in range(4)]
        assert [conn.conn_id for conn in conns] == [0xFFFFFFFB, 0xFFFFFFFD, 0xFFFFFFFF, 1]
        for conn in conns:
            conn.send(REQUEST, body(wire, conn.conn_id.to_bytes(4, "big")))
        for conn in reversed(conns):
            pass
        for _ in conns:
            with server.recv1(timeout=20) as request:
                assert data_of(wire, request.packet.payload) == request.packet.conn_id.to_bytes(4, "big")
                request.reply(ANSWER, request.packet.payload)
        for conn in conns:
            assert data_of(wire, conn.recv(timeout=20).payload) == conn.conn_id.to_bytes(4, "big")
            conn.close()
        at_rest(client, server)
    client, server = near_the_end(wire, routing, 0xFFFFFFFF)
    with client, server:
        keep = [client.new_conn() for _ in range(2)]
        assert [conn.conn_id for conn in keep] == [0xFFFFFFFF, 1]


def test_s30_a_full_table_is_a_clear_error():
    with both_ends("M", limits=neolink.Limits(conns=3)) as (client, server):
        conns = [client.new_conn() for _ in range(3)]
        for use in (client.new_conn, lambda: client.ask(REQUEST), lambda: client.ask_many([neolink.Packet(REQUEST)])):
            with pytest.raises(neolink.TooManyConns, match=r"Limits\.conns"):
                use()
        conns[1].close()
        client.new_conn().close()
        for conn in conns:
            conn.close()
        at_rest(client, server)


@each_wire
def test_s31_the_same_id_in_both_directions_at_once(wire):
    """NEO/py counts 0, 1, 2 whatever end it is: the answer bit tells the two conversations apart."""
    with raw_peer(wire, "neo") as (link, peer):
        conn = link.new_conn()
        conn.send(REQUEST, body(wire, b"ours"))
        mine = peer.recv().conn_id
        peer.send(mine, REQUEST, body(wire, b"theirs"))
        with link.recv1(timeout=20) as request:
            assert request.packet.conn_id == mine and data_of(wire, request.packet.payload) == b"theirs"
            peer.send(mine, ANSWER, body(wire, b"to ours"))
            assert data_of(wire, conn.recv(timeout=20).payload) == b"to ours"
            request.reply(ANSWER, body(wire, b"to theirs"))
        assert data_of(wire, peer.recv().payload) == b"to theirs"
        peer.send(mine, ANSWER, body(wire, b"again"))       # theirs is closed, ours is not
        assert data_of(wire, conn.recv(timeout=20).payload) == b"again"
        conn.close()
        at_rest(link)


@each_wire
def test_s31_parity_decides_on_a_stream_link(wire):
    with raw_peer(wire, "stream", role="server") as (link, peer):
        conn = link.new_conn()
        assert conn.conn_id == 0
        conn.send(REQUEST)
        peer.recv()
        peer.send(0, REQUEST, body(wire, b"on ours"))       # even: ours, whatever the code
        assert data_of(wire, conn.recv(timeout=20).payload) == b"on ours"
        peer.send(1, REQUEST)
        assert link.accept(timeout=20).conn_id == 1
        conn.close()


@each_wire
def test_s32_pushed_packets_go_to_our_conn(wire):
    """Replication: AddTransaction and AddObject come on the asker's id, without the answer bit."""
    with raw_peer(wire, "neo") as (link, peer):
        with link.new_conn() as conn:
            conn.send(REQUEST)
            asked = peer.recv().conn_id
            for code in (PUSH[wire], PUSH[wire] + 1, ANSWER):
                peer.send(asked, code, body(wire))
            assert [conn.recv(timeout=20).code for _ in range(3)] == [PUSH[wire], PUSH[wire] + 1, ANSWER]
        for conn_id in (asked, 77):                         # closed, unknown: never a new Conn
            peer.send(conn_id, PUSH[wire], body(wire))
        until(lambda: link.stats().packets_received == 5)
        if wire == "2016":                                  # where every code but two counts as a request
            assert [peer.recv().error for _ in range(2)] == ["closed"] * 2
        quiet(link, peer)
        assert link.stats().ignored_packets == (0 if wire == "2016" else 2)
        at_rest(link)
