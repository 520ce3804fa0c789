# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Half-closes and last data: S16, S18 to S22. What was sent with success arrives, and what is over leaves the table."""
import socket
import time

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import ANSWER, NOTIFY, REQUEST, body, both_ends, data_of, each_kind, each_wire, frame, raw_peer
from support import PATIENCE, Background, until, waiting

import neolink

pytestmark = pytest.mark.usefixtures("balanced")


@each_kind
@pytest.mark.parametrize("tcp", [False, True])
def test_s16_all_that_came_is_readable_then_comes_the_end(wire, routing, tcp):
    with raw_peer(wire, routing, tcp=tcp) as (link, peer):
        conn = link.new_conn()
        conn.send(REQUEST)
        conn_id = peer.recv().conn_id
        for n in range(100):
            peer.send(conn_id, ANSWER, body(wire, bytes([n])))
        peer.send(2, REQUEST, body(wire, b"opener"))
        peer.sock.close()
        until(lambda: link.closed)
        assert [data_of(wire, packet.payload) for packet in conn] == [bytes([n]) for n in range(100)]
        with pytest.raises(neolink.LinkDown) as caught:
            conn.recv()
        assert caught.value.clean
        with link.accept() as opened:               # Conns that the peer opened before its end may still be taken
            assert data_of(wire, opened.recv().payload) == b"opener"
        with pytest.raises(neolink.LinkDown):
            link.accept()
        conn.close()
        at_rest(link)


@each_kind
def test_s16_between_two_links(wire, routing):
    with both_ends(wire, routing) as (client, server):
        conn = client.new_conn()
        conn.send(REQUEST)
        with server.recv1(timeout=20) as request:
            for n in range(200):
                request.reply(ANSWER, body(wire, n.to_bytes(2, "big") + bytes(5000)))
        closing = Background(server.close)
        assert [data_of(wire, packet.payload)[:2] for packet in conn] == [n.to_bytes(2, "big") for n in range(200)]
        closing.result()


@each_wire
def test_s18_close_with_unread_input_does_not_destroy_what_the_peer_has_not_read(wire):
    """A kernel sends RST when a socket is closed with unread input, and the peer's loses what it has not read yet."""
    with raw_peer(wire, tcp=True) as (link, peer):
        for n in range(500):
            link.notify(NOTIFY, body(wire, n.to_bytes(2, "big") + bytes(100)))
        for n in range(200):
            peer.send(2 * n, REQUEST, body(wire, bytes(1000)))
        closing = Background(link.close)
        peer.sock.sendall(frame(wire, 1000, REQUEST, body(wire, bytes(100_000))))
        packets = peer.rest()
        closing.result()
        assert [int.from_bytes(data_of(wire, packet.payload)[:2], "big") for packet in packets] == list(range(500))


@each_kind
def test_s19_close_recv_answers_closed_once_for_each_request(wire, routing):
    with raw_peer(wire, routing) as (link, peer):
        peer.send(2, REQUEST)
        conn = link.accept(timeout=20)
        peer.send(2, REQUEST)                       # queued: 2 with the opener
        peer.send(2, NOTIFY)                        # queued, but wants no reply
        until(lambda: link.stats().packets_received == 3)
        conn.close_recv()
        for _ in range(3):
            peer.send(2, REQUEST)                   # later
        peer.send(2, ANSWER if routing == "stream" else NOTIFY)
        assert [peer.recv().error for _ in range(5)] == ["closed"] * 5
        conn.send(ANSWER, body(wire, b"still"))
        assert data_of(wire, peer.recv().payload) == b"still"
        with pytest.raises(neolink.ConnClosed):
            conn.recv()
        assert link.stats().conns == 1
        conn.close()
        at_rest(link)


def test_s19_close_recv_wakes_recv():
    with both_ends("M") as (client, _):
        conn = client.new_conn()
        receiving = Background(conn.recv)
        waiting(client)
        conn.close_recv()
        with pytest.raises(neolink.ConnClosed):
            receiving.result()
        conn.send(REQUEST)


@each_wire
def test_s20_the_peer_ends_its_half_of_the_link(wire):
    """A FIN is the end of a link in NEO: what came before stays readable, sending fails, nothing hangs."""
    with raw_peer(wire, tcp=True) as (link, peer):
        conn = link.new_conn()
        conn.send(REQUEST)
        peer.send(peer.recv().conn_id, ANSWER)
        peer.sock.shutdown(socket.SHUT_WR)
        assert [packet.code for packet in conn] == [ANSWER]
        with pytest.raises(neolink.LinkDown) as caught:
            conn.send(REQUEST)
        assert caught.value.clean


@each_kind
def test_s21_both_ends_closed_and_the_entry_has_left_the_table(wire, routing):
    limits = neolink.Limits(closed_seconds=0, conns=1)
    with both_ends(wire, routing, limits=limits) as (client, server):
        for _ in range(50):                         # more than conns=1 would hold, and ids are never used up
            with client.new_conn() as conn:
                conn.send(REQUEST)
                with server.accept(timeout=20) as peer:
                    peer.recv(timeout=20)
                    peer.send(ANSWER)
                conn.recv(timeout=20)
        at_rest(client, server)


@each_kind
def test_s22_the_entry_of_a_closed_conn_leaves_after_its_time(wire, routing):
    """Within closed_seconds the id answers "closed"; then it is a new one."""
    with raw_peer(wire, routing, limits=neolink.Limits(closed_seconds=0.3)) as (link, peer):
        peer.send(2, REQUEST)
        accepted = link.accept(timeout=20)
        begin, conn = time.monotonic(), None
        accepted.close()                             # the opener, unread, is a request to a closed Conn
        assert peer.recv().error == "closed"
        while conn is None and time.monotonic() < begin + PATIENCE:
            received = link.stats().packets_received
            peer.send(2, REQUEST)
            until(lambda received=received: link.stats().packets_received > received)
            within_its_time = time.monotonic() < begin + 0.3
            if link.stats().conns:
                assert not within_its_time
                conn = link.accept(timeout=0)
            else:
                assert peer.recv().error == "closed"
        with conn:
            assert conn.recv(timeout=20).code == REQUEST
        at_rest(link)
