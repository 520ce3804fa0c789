# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Blocking operations against close: S1 to S14. Whoever waits is woken, once, and told the truth."""
import contextlib
import gc
import signal
import socket
import threading
import time
import warnings

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import (
    ANSWER,
    KINDS,
    NOTIFY,
    REQUEST,
    RawPeer,
    body,
    both_ends,
    each_kind,
    each_wire,
    frame,
    raw_peer,
    stuff,
    tcp_pair,
)
from support import PATIENCE, Background, kick, until, waiting, within

import neolink

pytestmark = pytest.mark.usefixtures("balanced")


def ends_promptly(work: Background, error: type[Exception]) -> Exception:
    """It was woken: nothing else would end it before result() gives up."""
    with pytest.raises(error) as caught:
        work.result()
    assert type(caught.value) is error
    return caught.value


@each_kind
def test_s01_closing_a_conn_wakes_its_recv(wire, routing):
    with both_ends(wire, routing) as (client, server):
        conn, other = client.new_conn(), client.new_conn()
        waits = [Background(conn.recv) for _ in range(3)]
        bystander = Background(other.recv)
        waiting(client, 4)
        conn.close()
        for wait in waits:
            error = ends_promptly(wait, neolink.ConnClosed)
            assert (error.link, error.conn_id, error.op) == (client, conn.conn_id, "recv")
        assert not bystander.done()
        other.send(REQUEST)
        with server.recv1(timeout=20) as request:
            request.reply(ANSWER)
        assert bystander.result().code == ANSWER
        other.close()
        at_rest(client, server)


@each_wire
def test_s02_closing_a_conn_wakes_its_send_and_the_stream_stays_whole(wire):
    """The begun packet is completed or never begun: the peer reads whole packets only, and those of other Conns follow."""
    with raw_peer(wire) as (link, peer):
        sent = stuff(link)
        conn, other = link.new_conn(), link.new_conn()
        sending = Background(conn.send, REQUEST, body(wire, bytes(3_000_000)))
        waiting(link)
        conn.close()
        assert ends_promptly(sending, neolink.ConnClosed).op == "send"
        reading = Background(lambda: [peer.recv() for _ in range(sent + 1)])
        other.send(REQUEST, body(wire, b"after"), timeout=PATIENCE)
        packets = reading.result()
        assert [packet.code for packet in packets] == [NOTIFY] * sent + [REQUEST]
        assert packets[-1].conn_id == other.conn_id
        other.close()
        at_rest(link)


def test_s02_a_begun_send_completes_though_its_conn_is_closed():
    with raw_peer("N") as (link, peer):
        conn = link.new_conn()
        conn.send(REQUEST, b"x" * 5_000_000)        # more than the socket takes: the rest waits in the link
        assert link.stats().tx_bytes_queued > 0
        conn.close()
        packet = peer.recv()
        assert packet.payload == b"x" * 5_000_000
        at_rest(link)


ACCEPTS = {"accept": lambda link: link.accept(), "recv1": lambda link: link.recv1(), "next": next}


@pytest.mark.parametrize("how", ["accept", "recv1"])
def test_s03_accept_interrupted_in_three_ways(how):
    with both_ends("M") as (client, _):
        accepting = Background(ACCEPTS[how], client)
        waiting(client)
        client.close_accept()
        assert ends_promptly(accepting, neolink.NotAccepting).op == how
    with both_ends("M") as (client, _):
        accepting = Background(ACCEPTS[how], client)
        waiting(client)
        client.close()
        assert ends_promptly(accepting, neolink.LinkClosed).op == how
    with raw_peer("M", tcp=True) as (link, peer):
        accepting = Background(ACCEPTS[how], link)
        waiting(link)
        peer.reset()
        error = ends_promptly(accepting, neolink.LinkDown)
        assert isinstance(error.__cause__, ConnectionResetError) and error.op == how


@pytest.fixture
def black_hole():
    """An address that takes no more connections: a dial to it stays in connect()."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        fillers = []
        for _ in range(2):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
            fillers.append(sock)
        yield server.getsockname()
        for sock in fillers:
            sock.close()


def test_s04_dial_into_a_black_hole(black_hole):
    begin = time.monotonic()
    with pytest.raises(neolink.Timeout) as caught:
        neolink.dial(black_hole, timeout=0.2)
    assert 0.19 < time.monotonic() - begin < PATIENCE / 2
    assert caught.value.op == "dial" and not caught.value.maybe_sent


def test_s04_dial_cancelled(black_hole):
    dialer = neolink._core.Dialer((socket.AF_INET, black_hole))
    begun = threading.Event()
    dialing = Background(lambda: (begun.set(), dialer.wait(PATIENCE)))
    begun.wait(PATIENCE)
    dialer.cancel()
    with pytest.raises(neolink.LinkClosed):
        dialing.result()


@each_kind
def test_s05_ask_ended_by_us_by_the_peer_and_by_reset(wire, routing):
    """Three ends, three errors."""
    for end, error in (("us", neolink.LinkClosed), ("peer", neolink.LinkDown), ("reset", neolink.LinkDown)):
        with raw_peer(wire, routing, tcp=True) as (link, peer):
            asking = Background(link.ask, REQUEST)
            peer.recv()
            waiting(link)
            if end == "us":
                Background(link.close)
            elif end == "peer":
                peer.sock.close()
            else:
                peer.reset()
            caught = ends_promptly(asking, error)
            assert caught.op == "ask" and caught.link is link
            if end == "reset":
                assert isinstance(caught.__cause__, ConnectionResetError) and not caught.clean
            if end == "peer":
                assert caught.__cause__ is None and caught.clean


@pytest.mark.parametrize("wire, routing", [("2016", "stream"), ("M", "neo")])
def test_s06_close_at_any_point_of_recv(wire, routing):
    """No pauses are injected here (the core's own tests do that): many rounds, each with another delay of the closer."""
    with both_ends(wire, routing) as (client, server):
        for turn in range(400):
            conn = client.new_conn()
            barrier = threading.Barrier(2)

            def receive(conn=conn, barrier=barrier):
                barrier.wait()
                return conn.recv(timeout=PATIENCE)

            receiving = Background(receive)
            barrier.wait()
            for _ in range(turn % 40 * 10):         # a delay, not a wait
                pass
            conn.close()
            ends_promptly(receiving, neolink.ConnClosed)
        at_rest(client, server)


def waits_of_each_kind(link: neolink.NodeLink, each: int) -> list[Background]:
    """Threads that wait on the link: recv, accept, recv1, ask, ask_many, and senders over the budget."""
    conns = [link.new_conn() for _ in range(each)]
    kinds = [lambda: link.accept(), lambda: link.recv1(), lambda: link.ask(REQUEST),
             lambda: link.ask_many([neolink.Packet(REQUEST)] * 3),
             lambda: link.notify(NOTIFY, body(link.wire, bytes(1_000_000)))]
    return [Background(conn.recv) for conn in conns] + [Background(kind) for kind in kinds for _ in range(each)]


@each_wire
def test_s07_one_fault_wakes_a_hundred_waiters_of_mixed_kinds(wire):
    with raw_peer(wire, tcp=True) as (link, peer):
        stuff(link)
        waits = waits_of_each_kind(link, 17)
        waiting(link, len(waits))
        peer.reset()
        for wait in waits:
            with pytest.raises(neolink.LinkDown):
                wait.result()
        assert isinstance(link.fault, neolink.LinkDown)
        until(lambda: link.stats().waiters == link.stats().inside == 0)
        until(lambda: link.stats().rx_bytes_queued == link.stats().tx_bytes_queued == 0)    # the poller may be writing


def test_s08_a_write_error_wakes_readers():
    """The peer is gone in a way that only writing finds out: its end refuses to be written to."""
    near, far = socket.socketpair()
    with far, neolink.NodeLink(near, "client", wire="N") as link:
        receiving = Background(link.new_conn().recv)
        accepting = Background(link.accept)
        waiting(link, 2)
        far.shutdown(socket.SHUT_RD)                # EPIPE for us; nothing to read for us
        with pytest.raises(neolink.Error):
            for _ in range(100):
                link.notify(NOTIFY, timeout=20)
                time.sleep(0.001)
        for wait in (receiving, accepting):
            assert isinstance(ends_promptly(wait, neolink.LinkDown).__cause__, BrokenPipeError)


def test_s08_a_read_error_wakes_writers_and_openers():
    with raw_peer("N", limits=neolink.Limits(conns=1)) as (link, peer):
        stuff(link)
        sending = Background(link.notify, NOTIFY, b"x" * 1_000_000)
        waiting(link)
        peer.sock.sendall(b"\xff" * 20)             # a packet of 4 GiB
        ends_promptly(sending, neolink.ProtocolError)
        with pytest.raises(neolink.ProtocolError):
            link.new_conn()


@each_kind
def test_s09_close_twice_and_from_many_threads(wire, routing):
    with both_ends(wire, routing) as (client, server):
        asking = Background(client.ask, REQUEST)
        waiting(client)
        barrier = threading.Barrier(5)
        closers = [Background(lambda: (barrier.wait(), client.close())) for _ in range(5)]
        for closer in closers:
            closer.result()
        assert client.closed and client.fileno() == -1
        client.close()
        client.abort()
        ends_promptly(asking, neolink.LinkClosed)
        at_rest(client)
        server.close()


def test_s09_close_in_a_callback_a_finalizer_and_a_signal_handler():
    client, server = neolink.pair()
    handled = threading.Event()

    def handler(conn):
        server.close()                              # from a worker of the very link
        handled.set()

    server.handle_new_conn(handler)
    client.notify(NOTIFY)
    assert handled.wait(PATIENCE) and server.closed
    client.close()

    class Owner:
        def __init__(self):
            self.links = neolink.pair()
            self.me = self

        def __del__(self):
            for link in self.links:
                link.close()

    owner = Owner()
    client, server = owner.links
    del owner
    gc.collect()
    assert client.closed and server.closed

    client, server = neolink.pair()
    old = signal.signal(signal.SIGALRM, lambda *_: client.close())
    try:
        helper = Background(kick, client, lambda: client.closed)
        with pytest.raises(neolink.LinkClosed):
            client.recv1(timeout=PATIENCE)
        helper.result()
    finally:
        signal.signal(signal.SIGALRM, old)
        server.close()


@each_wire
@pytest.mark.parametrize("timeout", [0, 0.1, 0.5])
def test_s10_close_keeps_its_budget_with_a_peer_that_never_reads(wire, timeout):
    def close() -> float:
        with raw_peer(wire, tcp=True) as (link, peer):
            stuff(link)
            waits = waits_of_each_kind(link, 1)
            waiting(link, len(waits))
            begin = time.monotonic()
            link.close(timeout=timeout)
            took = time.monotonic() - begin
            for wait in waits:
                ends_promptly(wait, neolink.LinkClosed)
            until(lambda: link.fileno() == -1)      # if the poller was writing, it is the last one out
            assert link.stats().tx_bytes_queued == 0
        return took

    within(timeout + 0.5, close)


def test_s10_close_ends_at_once_when_the_peer_is_gone():
    with raw_peer("M", tcp=True) as (link, peer):
        stuff(link)
        peer.reset()
        Background(link.close, timeout=None).result()


@each_wire
def test_s11_nothing_is_written_and_nothing_runs_after_close(wire):
    near, far = socket.socketpair()
    peer = RawPeer(far, wire)
    limits = neolink.Limits(link_tx_bytes=1 << 16)      # what close has to deliver to a peer in Python, within its time
    link = neolink.NodeLink(near, "client", wire=wire, limits=limits)
    running = 0

    def handler(conn):
        nonlocal running
        running += 1
        conn.send(ANSWER)
        conn.recv()

    with far:
        link.handle_new_conn(handler)
        for conn_id in range(0, 20, 2):
            peer.send(conn_id, REQUEST)
        until(lambda: running == 10)
        stop = threading.Event()

        def send():
            while not stop.is_set():
                link.notify(NOTIFY)

        senders = [Background(send) for _ in range(4)]
        reading = Background(peer.rest)
        until(lambda: link.stats().packets_sent > 200)
        link.close()
        sent = link.stats().packets_sent
        for sender in senders:
            with pytest.raises(neolink.LinkClosed):
                sender.result()
        assert link.stats().packets_sent == sent
        assert len(reading.result()) == sent        # and the peer has them all, whole
        assert running == 10
        at_rest(link)


@pytest.mark.parametrize("wire, routing", KINDS)
def test_s13_the_reading_thread_itself_closes(wire, routing):
    with both_ends(wire, routing) as (client, server):
        conn = client.new_conn()
        conn.send(REQUEST)
        peer = server.accept(timeout=20)

        def read():
            for packet in conn:
                assert packet.code == ANSWER
                client.close()

        others = [Background(client.accept), Background(client.new_conn().recv)]
        waiting(client, 2)
        reading = Background(read)                  # iteration ends in silence: we closed it
        waiting(client, 3)
        peer.send(ANSWER)
        reading.result()
        for other in others:
            ends_promptly(other, neolink.LinkClosed)
        at_rest(client)


def test_s14_a_link_dropped_without_close(monkeypatch):
    """With Conns, unread packets and unsent bytes: the collector does not wait, and the peer sees the end."""
    def drop() -> float:
        told = []
        near, far = tcp_pair()
        with far:
            link = neolink.NodeLink(near, "client", wire="N")
            link.conn = link.new_conn()             # a cycle
            far.sendall(frame("N", 2, REQUEST) * 3)
            until(lambda: link.stats().rx_bytes_queued > 0)
            stuff(link)
            before = threading.active_count()
            begin = time.monotonic()
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                monkeypatch.setattr(warnings, "showwarning", lambda message, *_, **__: told.append(str(message)))
                del link
                gc.collect()
            took = time.monotonic() - begin
            assert len(told) == 1 and "dropped without close" in told[0]
            assert threading.active_count() <= before
            far.settimeout(PATIENCE)
            with pytest.raises((ConnectionResetError, EOFError)):
                while True:
                    if not far.recv(1 << 20):
                        raise EOFError
        return took

    within(1, drop)


def test_s14_a_link_with_a_handler_ends_with_its_last_user():
    client, server = neolink.pair()
    served = threading.Event()
    server.handle_new_conn(lambda conn: served.set())
    client.notify(NOTIFY)
    assert served.wait(PATIENCE)
    client.close()                                  # the workers see the end and leave
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == f"neolink-{server.serial}"])
    server.close()


@pytest.mark.parametrize("wire", ["M", "N", "auto"])
def test_s12_dial_cancelled_half_through_the_handshake(wire):
    """The other side has accepted and says nothing, or has said a part."""
    for said in (b"", b"\x92\xc4", b"\0\0"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            dialer = neolink._core.Dialer((socket.AF_INET, server.getsockname()), wire=wire)
            dialing = Background(dialer.wait, PATIENCE)
            sock, _ = server.accept()
            with sock:
                sock.sendall(said)
                dialer.cancel()
                with pytest.raises(neolink.LinkClosed):
                    dialing.result()


@pytest.mark.parametrize("wire", ["M", "N", "auto"])
def test_s12_listener_closed_with_handshakes_half_done(wire):
    """Those who shake hands are cut off, who waits in accept is told, and the address is free."""
    with contextlib.ExitStack() as stack:
        listener = neolink.listen("127.0.0.1:0", wire=wire)
        stack.callback(listener.close)
        address = listener.address
        accepting = Background(listener.accept)
        peers = [stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(9)]
        for n, peer in enumerate(peers):
            peer.sendall((b"", b"\x92\xc4", b"\0\0")[n % 3])
        Background(listener.close).result()
        with pytest.raises(neolink.LinkClosed):
            accepting.result()
        for peer in peers:
            with contextlib.suppress(ConnectionResetError):
                while peer.recv(1000):
                    pass
        with neolink.listen(address, wire=wire):
            pass
