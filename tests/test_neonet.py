# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What NEO/go's neonet does, in ours: accept and its end, refusals, errors that say where, addresses, repr, tracing."""
import socket
import threading

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import ANSWER, NOTIFY, REQUEST, both_ends, each_kind, raw_peer
from support import Background, until, waiting

import neolink
from neolink import proto

pytestmark = pytest.mark.usefixtures("balanced")


@each_kind
def test_accept(wire, routing):
    with both_ends(wire, routing) as (client, server):
        accepting = Background(server.accept)
        waiting(server)
        with client.new_conn() as conn:
            conn.send(REQUEST)
            with accepting.result() as peer:
                assert peer.conn_id == conn.conn_id and peer.link is server
                assert peer.recv(timeout=20).code == REQUEST
                peer.send(ANSWER)
            assert conn.recv(timeout=20).code == ANSWER


@each_kind
def test_close_accept_refuses_each_request_once(wire, routing):
    with both_ends(wire, routing) as (client, server):
        server.close_accept()
        server.close_accept()                           # once is enough
        conn = client.new_conn()
        conn.send(NOTIFY)
        conn.send(REQUEST)
        assert b"connection refused" in bytes(conn.recv(timeout=20).payload)
        until(lambda: server.stats().packets_received == 2)
        assert server.stats().packets_sent == 1
        with pytest.raises(neolink.NotAccepting):
            server.accept()
        asking = Background(server.ask, REQUEST)        # asking is another matter
        with client.recv1(timeout=20) as request:
            request.reply(ANSWER)
        assert asking.result().code == ANSWER
        conn.close()
        at_rest(client, server)


@pytest.mark.parametrize("wire", ["N", "M"])
def test_refused_and_closed_as_exceptions(wire):
    with both_ends(wire) as (client, server):
        with client.new_conn() as conn:
            conn.send(proto.AskClusterState())
            server.accept(timeout=20).close()
            with pytest.raises(neolink.ConnClosedByPeer) as caught:
                conn.expect(proto.AnswerClusterState, timeout=20)
            assert isinstance(caught.value, ConnectionResetError)
        server.close_accept()
        with pytest.raises(neolink.ConnRefused) as caught:
            client.ask(proto.AskClusterState(), timeout=20)
        assert isinstance(caught.value, ConnectionRefusedError)
        assert (caught.value.link, caught.value.op) == (client, "ask")


@each_kind
def test_two_ends_do_not_answer_errors_with_errors(wire, routing):
    with both_ends(wire, routing) as (client, server):
        client.close_accept()
        server.close_accept()
        for link in (client, server) * 3:
            link.ask(REQUEST, timeout=20)
        assert [link.stats().packets_sent for link in (client, server)] == [6, 6]
        at_rest(client, server)


def test_errors_name_link_conn_and_operation():
    with neolink.listen("127.0.0.1:0", wire="M") as listener, neolink.dial(listener.address, wire="M") as link, \
            listener.accept(timeout=20):
        conn = link.new_conn()
        near, far = (f"{host}:{port}" for host, port in (link.local_address, link.peer_address))
        for op, call in (("recv", lambda: conn.recv(timeout=0)), ("accept", lambda: link.accept(timeout=0)),
                         ("recv1", lambda: link.recv1(timeout=0)), ("ask", lambda: link.ask(REQUEST, timeout=0))):
            with pytest.raises(neolink.Timeout) as caught:
                call()
            error = caught.value
            assert str(error).startswith(op) and near in str(error) and far in str(error)
            assert (error.link, error.op) == (link, op)
            assert (error.conn_id is not None) == (op in ("recv", "ask"))
            if op == "recv":
                assert f"Conn {conn.conn_id}" in str(error) and error.conn_id == conn.conn_id
        conn.close()
        for op, call in (("recv", conn.recv), ("send", lambda: conn.send(REQUEST))):
            with pytest.raises(neolink.ConnClosed, match=f"^{op} on Conn {conn.conn_id} of link") as caught:
                call()
            assert caught.value.op == op


def test_addresses_and_repr(tmp_path):
    for address in ("127.0.0.1:0", f"unix:{tmp_path}/socket"):
        with neolink.listen(address, wire="N") as listener:
            where = listener.address if isinstance(listener.address, tuple) else f"unix:{listener.address}"
            with neolink.dial(where, wire="N") as link, listener.accept(timeout=20) as served:
                assert link.peer_address == served.local_address == listener.address
                assert link.local_address == served.peer_address
                before = link.local_address, link.peer_address
                assert "N client" in repr(link) and "N server" in repr(served) and "open" in repr(link)
                conn = link.new_conn()
                assert f"Conn {conn.conn_id}" in repr(conn)
                link.close()
                assert (link.local_address, link.peer_address) == before
                assert "closed" in repr(link)


def test_link_closed_before_or_after_the_conn():
    with both_ends("M") as (client, _):
        closed, other = client.new_conn(), client.new_conn()
        closed.close()
        client.close()
        with pytest.raises(neolink.ConnClosed):
            closed.recv()
        with pytest.raises(neolink.LinkClosed):
            other.recv()
        other.close()
        with pytest.raises(neolink.LinkClosed):
            other.send(REQUEST)


def test_reset_under_every_call():
    with raw_peer("N", tcp=True) as (link, peer):
        conn = link.new_conn()
        waits = [Background(call) for call in (conn.recv, link.accept, lambda: link.ask(REQUEST))]
        waiting(link, 3)
        peer.reset()
        for wait in waits:
            with pytest.raises(neolink.LinkDown):
                wait.result()
        assert isinstance(link.fault.__cause__, ConnectionResetError)


def test_tracing():
    """Each event once, in order, with the link's serial; off again, nothing more comes."""
    seen = []
    with neolink.Trace(seen.append):
        near, far = socket.socketpair()
        client = neolink.NodeLink(near, "client", wire="N")
        server = neolink.NodeLink(far, "server", wire="N")
        client.notify(NOTIFY, b"abc")
        with server.recv1(timeout=20) as request:
            assert request.packet.code == NOTIFY
        client.close()
        server.close()
    mine = [(event.kind, event.code, event.len) for event in seen if event.link == client.serial]
    assert mine == [("connect", 0, 0), ("send", NOTIFY, 3), ("close", 0, 0)]
    theirs = [event.kind for event in seen if event.link == server.serial]
    assert theirs == ["accept", "recv", "close"]
    assert [event.time_ns for event in seen] == sorted(event.time_ns for event in seen)
    assert all(event.lost == 0 for event in seen)
    count = len(seen)
    with both_ends("N") as (client, server):
        client.notify(NOTIFY)
        server.recv1(timeout=20).close()
    assert len(seen) == count


def test_tracing_once_at_a_time_and_what_a_callback_raises(monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_type))
    with neolink.Trace(lambda event: 1 / 0):
        with pytest.raises((RuntimeError, ValueError)):
            neolink.Trace(print).__enter__()
        for link in neolink.pair():
            link.close()
    assert raised and set(raised) == {ZeroDivisionError}
