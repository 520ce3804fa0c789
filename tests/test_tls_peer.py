# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Links whose peer is Python's ssl module, in both roles and both versions: packets, ends (S17, S57), alerts."""
import contextlib
import socket
import ssl
import threading
import time

import pytest
from scenario_kit import ANSWER, NOTIFY, REQUEST, body, data_of, frame, split
from support import PATIENCE, Background, until, waiting
from tls_kit import link_and_peer

import neolink

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.parametrize("version", ["1.2", "1.3"]),
    pytest.mark.parametrize("role", ["client", "server"]),
]
SIZES = [0, 1, 16300, 16384, 16385, 1 << 20]


def test_packets_of_all_sizes_both_ways(role, version):
    with link_and_peer(role, version) as (link, peer):
        assert peer.session.version() == f"TLSv{version}"
        for size in SIZES:
            asking = Background(link.ask, REQUEST, body("M", bytes(size)), timeout=PATIENCE)
            seen = peer.recv()
            assert (seen.code, data_of("M", seen.payload)) == (REQUEST, bytes(size))
            peer.send(seen.conn_id, ANSWER, body("M", b"\xff" * size))
            assert data_of("M", asking.result().payload) == b"\xff" * size


def test_both_directions_at_once(role, version):
    """S57: reading is never in the way of writing, nor the other way round, however full the socket is."""
    count, load = 40, body("M", bytes(200_000))
    with link_and_peer(role, version) as (link, peer):
        sending = Background(lambda: [link.notify(NOTIFY, load, timeout=PATIENCE) for _ in range(count)])
        taking = Background(lambda: [len(link.recv1(timeout=PATIENCE).packet.payload) for _ in range(count)])
        for number in range(count):                             # the peer alternates, so both buffers fill
            peer.send(2 * number + (role == "client"), NOTIFY, load)
            assert peer.recv().payload == load
        assert taking.result() == [len(load)] * count
        sending.result()


@pytest.mark.parametrize("polite", [True, False])
def test_s17_all_that_came_before_the_end_is_read(role, version, polite):
    with link_and_peer(role, version) as (link, peer):
        for number in range(50):
            peer.send(2 * number + (role == "client"), REQUEST, body("M", bytes([number])))
        peer.say_close_notify() if polite else None
        peer.sock.close()
        until(lambda: link.closed, "the end")
        assert [data_of("M", link.recv1().packet.payload) for _ in range(50)] == [bytes([n]) for n in range(50)]
        with pytest.raises(neolink.LinkDown, match="the peer closed the link$"):
            link.recv1(timeout=PATIENCE)
        link.serve(lambda request: None)                        # returns: the end is a clean one


@pytest.mark.parametrize("polite", [True, False])
@pytest.mark.parametrize("cut", [1, 3, 30])
def test_s17_an_end_inside_a_packet_is_truncated(role, version, polite, cut):
    with link_and_peer(role, version) as (link, peer):
        peer.write(frame("M", 1, REQUEST, body("M", bytes(50)))[:cut])
        peer.say_close_notify() if polite else None
        peer.sock.close()
        with pytest.raises(neolink.LinkDown, match="truncated"):
            link.recv1(timeout=PATIENCE)
        with pytest.raises(neolink.LinkDown, match="truncated"):
            link.serve(lambda request: None)


@pytest.mark.parametrize("cut", [1, 5, 20, -1])
def test_s17_an_end_inside_a_record_is_truncated(role, version, cut):
    """Even when all packets before it were whole."""
    with link_and_peer(role, version) as (link, peer):
        peer.send(int(role == "client"), REQUEST)
        peer.session.write(frame("M", 5, REQUEST))
        peer.sock.sendall(peer.records()[:cut])
        peer.sock.close()
        assert link.recv1(timeout=PATIENCE).packet.code == REQUEST
        with pytest.raises(neolink.LinkDown, match="truncated"):
            link.recv1(timeout=PATIENCE)


def test_our_close_says_so_behind_what_was_sent(role, version):
    """The peer begins to read only when close has begun: what waits in the queue is not lost; close_notify is last."""
    with link_and_peer(role, version) as (link, peer):
        for _ in range(7):
            link.notify(NOTIFY, body("M", bytes(1 << 20)), timeout=PATIENCE)
        assert link.stats().tx_bytes_queued > 1 << 20
        closing = Background(link.close, PATIENCE)
        until(lambda: link.closed, "the begin of close")
        packets, left = split("M", peer.rest())
        assert ([len(packet.payload) for packet in packets], left) == ([6 + (1 << 20)] * 7, b"")
        closing.result()


def test_no_close_notify_where_nodes_hang_on_it(role, version):
    """Before wire M a node's TLS loops for ever on one; the bare end is what it knows."""
    with link_and_peer(role, version, wire="N") as (link, peer):
        link.close()
        with pytest.raises(ssl.SSLEOFError):
            peer.read()


def test_abort_says_nothing(role, version):
    with link_and_peer(role, version) as (link, peer):
        link.abort()
        with pytest.raises((ssl.SSLEOFError, ConnectionError)):
            peer.read()


def test_close_within_its_budget_of_a_peer_that_does_not_read(role, version):
    with link_and_peer(role, version) as (link, peer):
        for _ in range(7):
            link.notify(NOTIFY, body("M", bytes(1 << 20)), timeout=PATIENCE)
        begin = time.monotonic()
        link.close(0.05)
        assert time.monotonic() - begin < 5 and link.closed
        until(lambda: link.fileno() == -1, "the end")           # if the poller was writing, it is the last one out
        with pytest.raises((ssl.SSLEOFError, ConnectionError)):
            peer.rest()                                         # no close_notify: it does not pass for all there was


def test_a_peer_that_does_not_read_stops_a_large_packet(role, version):
    """What is encrypted ahead is bounded: the rest of the packet stays in the budget, where a deadline finds it."""
    load = body("M", bytes(32 << 20))
    with link_and_peer(role, version) as (link, peer):
        with contextlib.suppress(neolink.Timeout):
            link.notify(NOTIFY, load, timeout=0.2)
        assert link.stats().tx_bytes_queued > len(load) - (1 << 20)


def test_s57_the_peer_that_waits_for_our_close_notify_gets_it(role, version):
    with link_and_peer(role, version) as (link, peer):
        receiving = Background(link.recv1)
        waiting(link)
        peer.unwrap()
        with pytest.raises(neolink.LinkDown, match="the peer closed the link$"):
            receiving.result()


@pytest.mark.parametrize("end", ["close_notify", "damaged record"])
def test_an_end_right_behind_an_answer_is_seen_by_a_link_at_rest(role, version, end):
    """Both come in one segment, and the socket stays open: no event of it will tell of the end, and who asked is gone."""
    with link_and_peer(role, version) as (link, peer):
        asking = Background(link.ask, REQUEST, timeout=PATIENCE)
        waiting(link)
        peer.session.write(frame("M", peer.recv().conn_id, ANSWER))
        records = peer.records()
        if end == "close_notify":
            with contextlib.suppress(ssl.SSLError):
                peer.session.unwrap()
            records += peer.records()
        else:
            peer.session.write(b"\x90")
            records += peer.records()[:-1] + b"?"
        peer.sock.sendall(records)
        assert asking.result().code == ANSWER
        until(lambda: link.closed, "the end")


def test_s57_both_close_at_once(role, version):
    for _ in range(20):
        with link_and_peer(role, version) as (link, peer):
            start = threading.Barrier(2)
            closing = Background(lambda link=link, start=start: (start.wait(PATIENCE), link.close(PATIENCE)))
            start.wait(PATIENCE)
            peer.say_close_notify()
            assert peer.rest() == b""
            closing.result()
            assert link.closed


def test_a_damaged_record_is_told_to_both(role, version):
    with link_and_peer(role, version) as (link, peer):
        peer.session.write(frame("M", 1, REQUEST))
        damaged = bytearray(peer.records())
        damaged[-1] ^= 1
        peer.sock.sendall(damaged)
        with pytest.raises(neolink.LinkDown, match="TLS: .*bad record mac"):
            link.recv1(timeout=PATIENCE)
        with pytest.raises(ssl.SSLError, match="(?i)bad.record.mac"):
            peer.read()


def test_a_record_in_crumbs_keeps_nobody_from_a_deadline(role, version):
    """The peer sends one byte whenever the kernel has had the last; the record is never whole."""
    with link_and_peer(role, version) as (link, peer):
        peer.write(frame("M", 1, REQUEST))
        link.recv1(timeout=PATIENCE)
        over = threading.Event()
        peer.session.write(frame("M", 3, REQUEST, body("M", bytes(16000))))
        crumbs = iter(peer.records()[:-1])

        def feed():
            while not over.wait(0.002):
                peer.sock.sendall(bytes([next(crumbs)]))

        feeding = Background(feed)
        with pytest.raises(neolink.Timeout):
            link.recv1(timeout=0.3)
        with pytest.raises(neolink.Timeout):
            link.ask(REQUEST, timeout=0.1)
        over.set()
        feeding.result()


def test_reset(role, version):
    """S54"""
    with link_and_peer(role, version) as (link, peer):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.sock.close()
        with pytest.raises(neolink.LinkDown) as caught:
            link.recv1(timeout=PATIENCE)
        assert isinstance(caught.value.__cause__, OSError)
