# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What the prototype of 2016 could do, in its words: a NodeLink over a bare socket, on wire 2016 unless said otherwise."""
import threading

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import ANSWER, NOTIFY, REQUEST, both_ends, each_kind, raw_peer, stuff
from support import PATIENCE, Background, until, waiting

import neolink

pytestmark = pytest.mark.usefixtures("balanced")


@each_kind
def test_role_and_parity(wire, routing):
    with both_ends(wire, routing) as (client, server):
        assert (client.role, server.role) == (neolink.Role.CLIENT, neolink.Role.SERVER)
        assert [client.new_conn().conn_id % 2 for _ in range(3)] == [1, 1, 1]
        assert [server.new_conn().conn_id % 2 for _ in range(3)] == [0, 0, 0]


def test_new_conn_fails_on_a_link_that_is_not_open():
    with both_ends("2016") as (client, server):
        client.close()
        with pytest.raises(neolink.LinkClosed):
            client.new_conn()
        until(lambda: server.closed)
        with pytest.raises(neolink.LinkDown):
            server.new_conn()


@each_kind
def test_send_and_recv_from_many_threads(wire, routing):
    """Eight threads send on one Conn, eight others receive on its other end: nothing is lost or doubled."""
    each, threads = 100, 8
    with both_ends(wire, routing) as (client, server):
        conn = client.new_conn()
        conn.send(REQUEST)
        peer = server.accept(timeout=20)
        peer.recv(timeout=20)

        def send(me):
            for n in range(each):
                peer.send(ANSWER + me * each + n)

        senders = [Background(send, me) for me in range(threads)]
        receivers = [Background(lambda: [conn.recv(timeout=PATIENCE).code for _ in range(each)]) for _ in range(threads)]
        for sender in senders:
            sender.result()
        got = [code - ANSWER for receiver in receivers for code in receiver.result()]
        assert sorted(got) == list(range(each * threads))
        conn.close()
        peer.close()
        at_rest(client, server)


def test_closing_a_conn_wakes_its_calls_and_a_begun_send_completes():
    with raw_peer("2016") as (link, peer):
        begun, conn = link.new_conn(), link.new_conn()
        begun.send(REQUEST, bytes(1_000_000))           # more than the socket takes
        stuffed = stuff(link)
        waits = [Background(conn.recv), Background(conn.send, REQUEST, bytes(100_000))]
        waiting(link, 2)
        conn.close()
        begun.close()
        for wait in waits:
            with pytest.raises(neolink.ConnClosed):
                wait.result()
        reading = Background(peer.rest)
        link.close()
        packets = reading.result()                      # whole packets only: rest() checks it
        assert len(packets[0].payload) == 1_000_000 and len(packets) == 1 + stuffed


def test_closing_a_link_interrupts_everything_and_waits():
    with both_ends("2016") as (client, _):
        conn = client.new_conn()
        left = threading.Semaphore(0)

        def until_interrupted(call):
            try:
                call()
            finally:
                left.release()

        waits = [Background(until_interrupted, call) for call in (conn.recv, client.accept, client.recv1, client.accept)]
        waiting(client, len(waits))
        client.close()
        assert client.stats().inside == client.stats().waiters == 0
        for wait in waits:
            with pytest.raises(neolink.LinkClosed):
                wait.result()


def test_without_a_handler_the_peers_packets_can_be_ignored():
    with raw_peer("2016", accept="ignore") as (link, peer):
        for n in range(20):
            peer.send(2 * n, REQUEST)
        until(lambda: link.stats().ignored_packets == 20)
        with pytest.raises(neolink.NotAccepting):
            link.accept()
        asking = Background(link.ask, REQUEST)
        assert (asked := peer.recv()).code == REQUEST   # nothing was said before it
        peer.send(asked.conn_id, ANSWER)
        asking.result()
        at_rest(link)


@pytest.mark.parametrize("wire", ["2016", "N", "M"])
def test_raw_mode(wire):
    """Packets as they are, any id and code in any order; the link routes nothing."""
    with raw_peer(wire, raw=True) as (link, peer):
        for conn_id, code in ((7, REQUEST), (7, 0x8000), (0xFFFFFFFF, ANSWER), (0, NOTIFY)):
            link.send_packet(neolink.Packet(code, conn_id=conn_id))
            assert peer.recv()[:2] == (conn_id, code)
            peer.send(conn_id, code)
            packet = link.recv_packet(timeout=20)
            assert (packet.conn_id, packet.code) == (conn_id, code)
        receiving = Background(link.recv_packet)
        waiting(link)
        link.close()
        with pytest.raises(neolink.LinkClosed):
            receiving.result()


@each_kind
def test_conversations_of_several_replies(wire, routing):
    with both_ends(wire, routing) as (client, server):
        def serve(conn):
            asked = conn.recv()
            for n in range(5):
                conn.send(asked.code + 0x8000 + n)

        server.handle_new_conn(serve)
        for _ in range(3):
            with client.new_conn() as conn:
                conn.send(REQUEST)
                assert [conn.recv(timeout=20).code for _ in range(5)] == [ANSWER + n for n in range(5)]


@each_kind
def test_replies_in_reversed_order_over_two_conns(wire, routing):
    with both_ends(wire, routing) as (client, server):
        first, second = client.new_conn(), client.new_conn()
        first.send(REQUEST)
        second.send(REQUEST + 1)
        waits = [Background(first.recv), Background(second.recv)]
        requests = [server.recv1(timeout=20) for _ in range(2)]
        for request in reversed(requests):
            with request:
                request.reply(request.packet.code + 0x8000)
        assert [wait.result().code for wait in waits] == [ANSWER, ANSWER + 1]


def test_the_handler_changes_while_traffic_runs():
    with both_ends("2016") as (client, server):
        for turn in range(20):
            def handler(conn, turn=turn):
                conn.send(conn.recv().code + 0x8000 + turn)

            server.handle_new_conn(handler)
            assert client.ask(REQUEST, timeout=PATIENCE).code - ANSWER == turn
        server.handle_new_conn(None)
        asking = Background(client.ask, REQUEST)
        with server.recv1(timeout=20) as request:
            request.reply(ANSWER)
        asking.result()
        until(lambda: server.stats().inside == 0)
