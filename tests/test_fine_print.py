# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The fine print of the contract, line by line: links, time, ends, handlers, strays, Error answers, payloads, listeners, files."""
import math
import os
import socket
import threading

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import (
    ANSWER,
    ERROR,
    NOTIFY,
    REQUEST,
    WIRES,
    body,
    both_ends,
    each_kind,
    each_wire,
    frame,
    raw_peer,
    stuff,
)
from support import PATIENCE, Background, until, waiting

import neolink
from neolink import proto

pytestmark = pytest.mark.usefixtures("balanced")


# ---- links

@each_wire
def test_no_opening_over_a_bare_socket(wire):
    with raw_peer(wire) as (link, peer):
        assert link.version is None
        link.notify(NOTIFY)
        assert peer.recv().code == NOTIFY           # the first bytes there are


def test_addresses_are_taken_once():
    with raw_peer("M", tcp=True) as (link, peer):
        near, far = peer.sock.getpeername(), peer.sock.getsockname()
        peer.reset()
        until(lambda: link.closed)
        link.close()
        assert (link.local_address, link.peer_address) == (near, far)


# ---- time

def test_a_dial_that_runs_out_while_shaking_hands():
    with socket.create_server(("127.0.0.1", 0)) as server:
        for wire in ("M", "N", "auto"):
            with pytest.raises(neolink.Timeout) as caught:
                neolink.dial(server.getsockname(), wire=wire, timeout=0.1)
            assert caught.value.op == "dial"


@pytest.mark.parametrize("reset", [False, True])
def test_the_end_in_the_handshake(reset):
    def hang_up():
        for _ in range(2):                          # the second time the dialer listens first: a node of Python 2 wants it
            sock, _ = server.accept()
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            else:
                sock.recv(100)
            sock.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        hanging = Background(hang_up)
        with pytest.raises(neolink.HandshakeError):
            neolink.dial(server.getsockname(), wire="M", timeout=PATIENCE)
        hanging.result()


@pytest.mark.parametrize("timeout, error", [("1", TypeError), (b"1", TypeError), ([1], TypeError), (math.nan, ValueError),
                                            (-1, ValueError)])
def test_timeouts_of_every_call(timeout, error):
    with both_ends("M") as (client, _), neolink.listen("127.0.0.1:0") as listener:
        conn, packet = client.new_conn(), neolink.Packet(REQUEST)
        for call in (lambda: conn.send(REQUEST, timeout=timeout), lambda: conn.recv(timeout=timeout),
                     lambda: conn.expect(proto.Error, timeout=timeout), lambda: conn.ask(packet, timeout=timeout),
                     lambda: conn.send(proto.AskClusterState(), timeout=timeout),
                     lambda: client.ask(proto.AskClusterState(), timeout=timeout),
                     lambda: client.ask_many([packet], timeout=timeout), lambda: client.notify(NOTIFY, timeout=timeout),
                     lambda: client.notify_many([packet], timeout=timeout), lambda: client.close(timeout=timeout),
                     lambda: listener.accept(timeout=timeout), lambda: neolink.dial(listener.address, timeout=timeout)):
            with pytest.raises(error, match="timeout"):
                call()
        assert not client.closed and client.stats().packets_sent == 0


# ---- ends

@each_kind
def test_what_ops_raise_on_a_link_we_closed(wire, routing):
    with both_ends(wire, routing) as (client, _):
        before, after = client.new_conn(), client.new_conn()
        before.close()
        client.close()
        after.close()                               # too late to matter
        for op in (lambda conn: conn.send(REQUEST), lambda conn: conn.recv()):
            with pytest.raises(neolink.ConnClosed):
                op(before)
            with pytest.raises(neolink.LinkClosed):
                op(after)


def test_our_close_after_a_fault_changes_nothing():
    with raw_peer("N") as (link, peer):
        conn = link.new_conn()
        peer.sock.sendall(b"\xff" * 10)
        with pytest.raises(neolink.ProtocolError) as first:
            link.accept()
        link.close()
        for call in (link.accept, link.new_conn, lambda: link.ask(REQUEST), lambda: link.notify(NOTIFY), conn.recv):
            with pytest.raises(neolink.ProtocolError) as caught:
                call()
            assert str(caught.value).partition(": ")[2] == str(first.value).partition(": ")[2]


@pytest.mark.parametrize("how", ["close conn", "close link", "end of file"])
def test_iterating_ends(how):
    with raw_peer("M") as (link, peer):
        conn = link.new_conn()
        iterating = Background(list, conn)
        waiting(link)
        if how == "close conn":
            conn.close()
        elif how == "close link":
            link.close()
        else:
            peer.sock.close()
        assert iterating.result() == []


@pytest.mark.parametrize("how", ["inside a packet", "reset", "nonsense"])
def test_iterating_raises(how):
    with raw_peer("N", tcp=True) as (link, peer):
        iterating = [Background(list, link.new_conn()), Background(list, link)]
        waiting(link, 2)
        if how == "inside a packet":
            peer.sock.sendall(b"\0" * 5)
            peer.sock.close()
        elif how == "reset":
            peer.reset()
        else:
            peer.sock.sendall(b"\xff" * 10)
        for each in iterating:
            with pytest.raises(neolink.ProtocolError if how == "nonsense" else neolink.LinkDown):
                each.result()


# ---- handlers

def test_a_handler_takes_those_that_wait_and_leaves_them_when_removed():
    with both_ends("M") as (client, server):
        asking = Background(client.ask, REQUEST)
        until(lambda: server.stats().conns == 1)
        server.handle_new_conn(lambda conn: conn.send(conn.recv().code | 0x8000))
        assert asking.result().code == ANSWER
        server.handle_new_conn(None)
        client.notify(NOTIFY)
        with server.accept(timeout=20) as conn:
            assert conn.recv(timeout=20).code == NOTIFY


def test_errors_that_end_a_handler_silently_and_others(monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    served = threading.Semaphore(0)

    def handler(conn):
        try:
            code = conn.recv().code
            if code == REQUEST:
                conn.close()
                conn.recv()                         # ConnClosed, of its own Conn
            elif code == REQUEST + 1:
                raise neolink.ConnClosed("of nobody")
            elif code == REQUEST + 2:
                raise KeyError
            else:
                conn.recv()                         # until the link ends: LinkDown, of its own link
        finally:
            served.release()

    with both_ends("M") as (client, server):
        server.handle_new_conn(handler)
        for code in range(REQUEST, REQUEST + 3):
            client.notify(code)
            assert served.acquire(timeout=PATIENCE)
        client.notify(REQUEST + 3)
        until(lambda: len(told) == 2)
        client.close()
        assert served.acquire(timeout=PATIENCE)
        until(lambda: server.stats().inside == 0)
    assert told == [neolink.ConnClosed, KeyError]


# ---- strays

def test_accept_only_in_queue_mode():
    for mode in ("refuse", "ignore"):
        with raw_peer("M", accept=mode) as (link, peer):
            for call in (link.accept, link.recv1):
                with pytest.raises(neolink.NotAccepting):
                    call()


@each_wire
def test_ignore_means_packets_for_closed_conns_too(wire):
    with raw_peer(wire, "stream", accept="ignore") as (link, peer):
        with link.new_conn() as conn:
            pass
        peer.send(conn.conn_id, REQUEST)
        peer.send(2, REQUEST)
        until(lambda: link.stats().ignored_packets == 2)
        link.notify(NOTIFY)
        assert peer.recv().code == NOTIFY


@pytest.mark.parametrize("full", ["backlog", "table"])
@each_wire
def test_full_means_refused_for_requests_and_counted_for_notifications(wire, full):
    limits = neolink.Limits(accept_backlog=2) if full == "backlog" else neolink.Limits(conns=2)
    with raw_peer(wire, limits=limits) as (link, peer):
        for n in range(4):
            peer.send(2 * n, REQUEST)
        for n in range(4, 7):
            peer.send(2 * n, NOTIFY)
        assert [(packet.conn_id, packet.error) for packet in (peer.recv(), peer.recv())] == [(4, "refused"), (6, "refused")]
        until(lambda: link.stats().packets_received == 7)
        assert (link.stats().refused_conns, link.stats().ignored_packets) == (2, 3)


@pytest.mark.parametrize("wire, code, request_", [
    ("2016", 5, False), ("2016", 6, False), ("2016", 8, True), ("2016", 0x7FFF, True), ("N", 3, False), ("N", 0x7FFF, True),
    ("M", 3, False), ("M", 0x7FFF, True), *[(wire, ERROR, False) for wire in WIRES],
    *[(wire, 0xFFFF, False) for wire in WIRES],
])
def test_what_a_request_is(wire, code, request_):
    with raw_peer(wire, accept="refuse") as (link, peer):
        peer.send(2, code)
        until(lambda: link.stats().packets_received == 1)
        assert (link.stats().refused_conns, link.stats().ignored_packets) == (int(request_), int(not request_))


# ---- Error answers

@pytest.mark.parametrize("wire", ["N", "M"])
def test_error_answers(wire):
    with both_ends(wire) as (client, server):
        def ask(message, answer):
            asking = Background(client.ask, message, timeout=PATIENCE)
            with server.recv1(timeout=20) as request:
                request.reply(answer)
            return asking.result

        broken = proto.Error(proto.ErrorCodes.NOT_READY, "not yet")
        with pytest.raises(neolink.RemoteError, match="not yet") as caught:
            ask(proto.AskClusterState(), broken)()
        assert caught.value.code == proto.ErrorCodes.NOT_READY and caught.value.message == "not yet"
        done = proto.Error(proto.ErrorCodes.ACK, "done")
        set_state = proto.SetClusterState(proto.ClusterStates.RUNNING)
        assert ask(set_state, done)() == done
        with pytest.raises(neolink.RemoteError):
            ask(set_state, broken)()
        with pytest.raises(neolink.UnexpectedMessage) as caught:
            ask(proto.AskClusterState(), proto.AnswerPrimary(5))()
        assert caught.value.packet.message == caught.value.packet.message
        raw = Background(client.ask, REQUEST, timeout=PATIENCE)
        with server.recv1(timeout=20) as request:
            request.reply(broken)
        assert raw.result().code == ERROR           # a packet is what was asked for


# ---- payloads

def test_payloads_on_m():
    with raw_peer("M") as (link, peer):
        for payload, sent in ((b"", b"\x90"), (b"\x90", b"\x90"), (memoryview(bytearray(b"\x91\x05")), b"\x91\x05")):
            link.notify(NOTIFY, payload)
            assert peer.recv().payload == sent
        for bad in (b"\x05", b"\x91", b"\x90\x90", b"\x80", b"\xc1"):
            for call in (lambda bad=bad: link.notify(NOTIFY, bad), lambda bad=bad: link.ask(REQUEST, bad),
                         lambda bad=bad: link.new_conn().send(REQUEST, bad),
                         lambda bad=bad: link.notify_many([neolink.Packet(NOTIFY), neolink.Packet(NOTIFY, bad)])):
                with pytest.raises(neolink.EncodeError):
                    call()
        assert link.stats().packets_sent == 3       # of a bad batch nothing leaves


@each_wire
def test_what_packet_bytes_counts(wire):
    """The whole packet on 2016 and M, the payload on N."""
    limit = 1000
    with raw_peer(wire, limits=neolink.Limits(packet_bytes=limit)) as (link, peer):
        head = {"2016": 10, "N": 0, "M": 5}[wire]   # M, as we write it: 93 01 cd 12 34
        fits = body(wire, bytes(limit - head - (6 if wire == "M" else 0)))
        with link.new_conn() as conn:
            conn.send(REQUEST, fits)
            assert peer.recv().payload == fits
            with pytest.raises(neolink.TooBig, match="packet_bytes"):
                conn.send(REQUEST, body(wire, bytes(limit - head - (6 if wire == "M" else 0) + 1)))


@each_wire
def test_a_packet_larger_than_the_budget_leaves_when_the_queue_is_empty(wire):
    with raw_peer(wire, limits=neolink.Limits(link_tx_bytes=10_000)) as (link, peer):
        sent = stuff(link, 5000)
        large = body(wire, bytes(1_000_000))
        sending = Background(link.notify, NOTIFY, large)
        waiting(link)
        packets = [peer.recv() for _ in range(sent + 1)]
        assert packets[-1].payload == large
        sending.result()
        at_rest(link)


def test_no_typed_messages_on_2016():
    with both_ends("2016") as (client, _):
        conn = client.new_conn()
        message = proto.AskClusterState()
        for call in (lambda: client.ask(message), lambda: client.notify(message), lambda: conn.send(message),
                     lambda: conn.ask(message), lambda: client.ask_many([message]), lambda: client.notify_many([message])):
            with pytest.raises(neolink.EncodeError):
                call()


# ---- listeners

def test_accept_during_and_after_close():
    listener = neolink.listen("127.0.0.1:0")
    accepting, iterating = Background(listener.accept), Background(list, listener)
    listener.close()
    with pytest.raises(neolink.LinkClosed):
        accepting.result()
    assert iterating.result() == []
    with pytest.raises(neolink.LinkClosed):
        listener.accept()
    assert list(listener) == []


def test_an_address_in_use():
    with neolink.listen("127.0.0.1:0") as listener:
        host, port = listener.address
        with pytest.raises(OSError, match=f"{host}:{port}") as caught:
            neolink.listen((host, port))
        assert not isinstance(caught.value, neolink.Error)


def test_auto_takes_four_bytes_for_n():
    """NEO/go sends no more until it is answered."""
    with neolink.listen("127.0.0.1:0") as listener, socket.create_connection(listener.address) as sock:
        sock.settimeout(PATIENCE)
        accepting = Background(listener.accept, timeout=PATIENCE)
        sock.sendall(b"\0\0\0\6")
        assert sock.recv(4, socket.MSG_WAITALL) == b"\0\0\0\6"
        with accepting.result() as link:
            assert (link.wire, link.version) == ("N", 6)
            sock.sendall(frame("N", 1, REQUEST))
            assert link.accept(timeout=20).conn_id == 1


# ---- files of TLS

@pytest.mark.skipif(not neolink._core.have_tls, reason="built without OpenSSL")
def test_bad_files_are_named(tmp_path):
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate\n")
    missing = os.fspath(tmp_path / "missing.pem")
    with pytest.raises(OSError, match="missing.pem"):
        neolink.TLS(missing, missing, missing)
    with pytest.raises(ValueError, match="junk.pem"):
        neolink.TLS(os.fspath(junk), os.fspath(junk), os.fspath(junk))
