# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""NodeLink: what it takes over, what it tells, how it ends. Conn: sending, receiving, closing. Raw links."""
import gc
import pickle
import socket
import warnings

import pytest
from support import Background, waiting

import neolink
from neolink import Role

pytestmark = pytest.mark.usefixtures("no_leaks")


# ---- taking over a socket

@pytest.mark.parametrize("wire", ["2016", "N", "M"])
@pytest.mark.parametrize("role", [Role.CLIENT, "client"])
def test_socket_is_detached(wire, role):
    ours, theirs = socket.socketpair()
    with neolink.NodeLink(ours, role, wire=wire) as link, neolink.NodeLink(theirs, "server", wire=wire) as peer:
        assert ours.fileno() == -1
        assert (link.role, peer.role, link.wire, link.version) == (Role.CLIENT, Role.SERVER, wire, None)
        link.notify(1, b"" if wire == "M" else b"hello")
        assert peer.recv1(timeout=20).packet.code == 1


def test_descriptor_belongs_to_the_link():
    ours, theirs = socket.socketpair()
    fd = ours.detach()
    link = neolink.NodeLink(fd, "client")
    assert link.fileno() == fd
    link.close()
    assert link.fileno() == -1
    assert theirs.recv(1) == b""
    theirs.close()


@pytest.mark.parametrize("bad, error", [
    ({"role": "king"}, ValueError), ({"role": None}, ValueError), ({"wire": "X"}, ValueError), ({"wire": "auto"}, ValueError),
    ({"routing": "x"}, ValueError), ({"accept": "x"}, ValueError), ({"tls": 5}, TypeError), ({"limits": 5}, TypeError),
    ({"limits": neolink.Limits(conns=-1)}, ValueError), ({"limits": neolink.Limits(conns=1.5)}, TypeError),
    ({"limits": neolink.Limits(rx_policy="x")}, ValueError),
    ({"limits": neolink.Limits(closed_seconds=-1)}, ValueError),
])
def test_socket_stays_the_callers_when_the_constructor_raises(bad, error):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(error):
            neolink.NodeLink(ours, **{"role": "client", **bad})
        ours.send(b"x")
        assert theirs.recv(1) == b"x"


def test_not_a_stream_socket():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="stream"):
            neolink.NodeLink(sock, "client")
        assert sock.fileno() >= 0
    with pytest.raises(ValueError, match="closed"):
        neolink.NodeLink(sock, "client")
    with pytest.raises(TypeError):
        neolink.NodeLink("sock", "client")


# ---- what it tells

def test_one_python_object_per_link(links):
    client, server = links
    conn = client.new_conn()
    assert conn.link is client
    conn.send(1)
    request = server.recv1(timeout=20)
    assert request.conn.link is server
    with pytest.raises(neolink.Timeout) as caught:
        request.conn.recv(timeout=0)
    assert caught.value.link is server


def test_ids_by_role(links):
    client, server = links
    assert [client.new_conn().conn_id for _ in range(3)] == [1, 3, 5]
    assert [server.new_conn().conn_id for _ in range(3)] == [0, 2, 4]


def test_repr_is_readable(links):
    client, _ = links
    conn = client.new_conn()
    assert "M client" in repr(client) and "open" in repr(client)
    assert "Conn 1 open" in repr(conn)
    client.close()
    assert "closed" in repr(client) and "Conn 1 closed" in repr(conn)


def test_not_picklable(links):
    client, server = links
    conn = client.new_conn()
    conn.send(1)
    for thing in (client, conn, server.recv1(timeout=20)):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="cannot pickle"):
                pickle.dumps(thing, protocol)


def test_stats_count(links):
    client, server = links
    before = client.stats()
    assert isinstance(before, neolink.LinkStats)
    client.notify(1)
    server.recv1(timeout=20)
    after = client.stats()
    assert after.packets_sent == before.packets_sent + 1
    assert after.bytes_sent > before.bytes_sent
    assert server.stats().packets_received == 1


def test_constructed_once_and_never_half(links):
    client, _ = links
    with pytest.raises(RuntimeError):
        neolink._core.NodeLink.__init__(client, 0, "client")
    empty = neolink.NodeLink.__new__(neolink.NodeLink)
    assert empty.closed and empty.fileno() == -1
    empty.close()
    for use in (empty.new_conn, empty.accept, empty.stats, lambda: empty.ask(1), lambda: empty.wire):
        with pytest.raises(ValueError, match="__init__"):
            use()


def test_subclass():
    class Mine(neolink.NodeLink):
        pass

    ours, theirs = socket.socketpair()
    with theirs, Mine(ours, "client") as link:
        assert link.new_conn().link is link


# ---- asking, sending, receiving

def test_ask_and_reply(links):
    client, server = links
    asked = Background(client.ask, 0x2E, b"\x91\x01", timeout=20)
    with server.recv1(timeout=20) as request:
        assert (request.packet.code, bytes(request.packet.payload)) == (0x2E, b"\x91\x01")
        request.reply(0x802E, b"\x91\x02")
    answer = asked.result()
    assert (answer.code, bytes(answer.payload)) == (0x802E, b"\x91\x02")


def test_keywords(links):
    client, server = links
    client.notify(code=1, payload=b"\x91\x01", timeout=1)
    with client.new_conn() as conn:
        conn.send(code=2, payload=b"\x91\x02")
        assert [server.recv1(timeout=20).packet.code for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("call", [
    lambda link: link.ask(), lambda link: link.ask(1, b"", 5), lambda link: link.ask(1, nothing=2),
    lambda link: link.ask(1, code=1), lambda link: link.ask("x"), lambda link: link.ask(1, "x"),
    lambda link: link.ask("x", b""), lambda link: link.accept(1, 2), lambda link: link.notify(object()),
    lambda link: link.new_conn().send(None), lambda link: link.new_conn().recv(1, 2),
])
def test_wrong_arguments(links, call):
    with pytest.raises(TypeError):
        call(links[0])


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 3_000_000])
def test_payload_sizes(size):
    client, server = neolink.pair(wire="N")
    with client, server:
        payload = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
        sent = Background(client.notify, 5, bytearray(payload))
        assert server.recv1(timeout=20).packet.payload == payload
        sent.result()


def test_buffer_is_the_callers_again_when_send_returns():
    client, server = neolink.pair(wire="N")
    with client, server:
        buffer = bytearray(b"a" * 1000)
        client.notify(5, buffer)
        buffer[:] = b"b" * 1000
        buffer.clear()                      # no export is left
        assert server.recv1(timeout=20).packet.payload == b"a" * 1000


def test_on_m_nothing_stands_for_the_empty_array(links):
    client, server = links
    client.notify(1)
    assert bytes(server.recv1(timeout=20).packet.payload) == b"\x90"
    for bad in (b"\x01", b"\x91", b"\x90\x90"):
        with pytest.raises(neolink.EncodeError) as caught:
            client.notify(1, bad)
        assert caught.value.op == "notify" and caught.value.link is client


def test_too_big():
    limits = neolink.Limits(packet_bytes=1000)
    client, server = neolink.pair(wire="N", limits=limits)
    with client, server:
        with pytest.raises(neolink.TooBig, match="1001 bytes"):
            client.notify(1, b"x" * 1001)
        client.notify(1, b"x" * 1000)
        assert len(server.recv1(timeout=20).packet.payload) == 1000


def test_too_many_conns():
    client, server = neolink.pair(limits=neolink.Limits(conns=2))
    with client, server:
        kept = [client.new_conn(), client.new_conn()]
        with pytest.raises(neolink.TooManyConns) as caught:
            client.new_conn()
        assert isinstance(caught.value, OSError) and caught.value.op == "new_conn"
        kept.pop().close()
        client.new_conn()


def test_a_packet_larger_than_the_budget_leaves_once():
    """A small budget must not make the two tries of a send into two packets."""
    client, server = neolink.pair(wire="N", limits=neolink.Limits(link_tx_bytes=1000))
    with client, server:
        sent = Background(client.notify, 1, b"x" * 50_000, timeout=20)
        assert len(server.recv1(timeout=20).packet.payload) == 50_000
        sent.result()
        client.notify(2, timeout=20)
        assert server.recv1(timeout=20).packet.code == 2


def test_dropped_conn_is_closed(links):
    client, _ = links
    client.new_conn()
    gc.collect()
    assert client.stats().conns == 0


def test_ask_many_packets(links):
    client, server = links

    def serve():
        for _ in range(5):
            with server.recv1(timeout=20) as request:
                request.reply(request.packet.code | 0x8000, request.packet.payload)

    served = Background(serve)
    asked = [neolink.Packet(0x2E, bytes([0x91, n]), conn_id=99) for n in range(5)]
    answers = client.ask_many(iter(asked), timeout=20)
    assert [bytes(a.payload) for a in answers] == [bytes(a.payload) for a in asked]
    served.result()
    assert client.ask_many([]) == []


def test_ask_many_failures(links):
    client, server = links
    asked = Background(client.ask_many, [neolink.Packet(0x2E)] * 2, timeout=20, return_exceptions=True)
    with server.recv1(timeout=20) as request:
        request.reply(0x802E)
        server.recv1(timeout=20)
    server.close()
    answer, failure = asked.result()
    assert answer.code == 0x802E
    assert isinstance(failure, neolink.LinkDown) and failure.op == "ask_many"
    with pytest.raises(neolink.LinkDown):
        client.ask_many([neolink.Packet(0x2E)])
    with pytest.raises(TypeError):
        client.ask_many([neolink.Packet(0x2E), 5])


def test_notify_many(links):
    client, server = links
    payloads = [b"\x91\xcd" + n.to_bytes(2, "big") for n in range(1000)]
    client.notify_many(neolink.Packet(6, payload) for payload in payloads)
    assert [bytes(server.recv1(timeout=20).packet.payload) for _ in payloads] == payloads
    client.notify_many([])


def test_raw_link():
    client, server = neolink.pair(raw=True)
    with client, server:
        client.send_packet(neolink.Packet(0x802E, b"\x91\x01", conn_id=12345))
        packet = server.recv_packet(timeout=20)
        assert (packet.conn_id, packet.code, bytes(packet.payload)) == (12345, 0x802E, b"\x91\x01")
        with pytest.raises(TypeError):
            client.send_packet(5)
        for not_raw in (client.new_conn, lambda: client.ask(1), client.accept):
            with pytest.raises(ValueError, match="raw=True"):
                not_raw()


def test_send_packet_needs_a_raw_link(links):
    client, _ = links
    with pytest.raises(ValueError, match="raw=True"):
        client.send_packet(neolink.Packet(1))
    with pytest.raises(ValueError, match="raw=True"):
        client.recv_packet(timeout=0)


# ---- ends

def test_close_wakes_each_kind_of_wait_with_link_closed(links):
    """S1, S3, S5"""
    client, _ = links
    conn = client.new_conn()
    waits = [Background(wait) for wait in (conn.recv, client.accept, client.recv1, lambda: client.ask(0x2E))]
    waiting(client, len(waits))
    client.close()
    for wait in waits:
        with pytest.raises(neolink.LinkClosed) as caught:
            wait.result()
        assert caught.value.link is client and caught.value.op in ("recv", "accept", "recv1", "ask")
    client.close()
    for use in (client.new_conn, client.accept, lambda: client.notify(1), lambda: conn.send(1), conn.recv):
        with pytest.raises(neolink.LinkClosed):
            use()


def test_closed_conn(links):
    client, server = links
    conn, other = client.new_conn(), client.new_conn()
    receiving = Background(conn.recv)
    waiting(client)
    conn.close()
    with pytest.raises(neolink.ConnClosed) as caught:
        receiving.result()
    assert (caught.value.conn_id, caught.value.op) == (conn.conn_id, "recv")
    assert conn.closed and not other.closed
    with pytest.raises(neolink.ConnClosed):
        conn.send(1)
    client.close()
    with pytest.raises(neolink.ConnClosed):
        conn.send(1)
    with pytest.raises(neolink.LinkClosed):
        other.send(1)


def test_peer_closes_after_its_last_data(links):
    """S16"""
    client, server = links
    with client.new_conn() as conn:
        conn.send(1)
        peer = server.accept(timeout=20)
        peer.recv(timeout=20)
        for n in range(10):
            peer.send(0x8001, bytes([0x91, n]))
        server.close()
        assert [packet.payload[1] for packet in conn] == list(range(10))
        with pytest.raises(neolink.LinkDown) as caught:
            conn.recv()
    assert caught.value.clean
    assert isinstance(client.fault, neolink.LinkDown) and client.fault.clean
    assert client.closed and "down" in repr(client)
    client.close()
    with pytest.raises(neolink.LinkDown):       # our close after a fault does not change what ops raise
        client.new_conn()


def test_reset_in_the_middle_raises_with_its_cause():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        peer, _ = server.accept()
        with neolink.NodeLink(sock, "client") as link:
            conn = link.new_conn()
            receiving = Background(next, conn)
            waiting(link)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            peer.close()
            with pytest.raises(neolink.LinkDown) as caught:
                receiving.result()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
            assert link.local_address == link.local_address and link.peer_address == server.getsockname()


def test_end_of_file_inside_a_packet_raises():
    ours, theirs = socket.socketpair()
    with neolink.NodeLink(ours, "client", wire="N") as link:
        theirs.send(b"\0\0\0\x02\0\x01")
        theirs.close()
        with pytest.raises(neolink.LinkDown):
            next(iter(link))


def test_protocol_error():
    ours, theirs = socket.socketpair()
    with theirs, neolink.NodeLink(ours, "client", wire="M") as link:
        theirs.send(b"\xc1\xc1\xc1")
        with pytest.raises(neolink.ProtocolError) as caught:
            link.accept(timeout=20)
        assert isinstance(link.fault, neolink.ProtocolError)
        assert str(link.fault).split(": ", 1)[1] in str(caught.value)


def test_close_accept(links):
    client, server = links
    accepting = Background(server.accept)
    waiting(server)
    server.close_accept()
    with pytest.raises(neolink.NotAccepting):
        accepting.result()
    assert list(server) == []
    answer = client.ask(0x2E, timeout=20)
    assert answer.code == 0x8000 and b"connection refused" in bytes(answer.payload)
    assert server.stats().refused_conns == 1


@pytest.mark.parametrize("mode", ["refuse", "ignore"])
def test_accept_modes(mode):
    client, server = neolink.pair(accept=mode)
    with client, server, pytest.raises(neolink.NotAccepting):
        server.accept()


def test_iterating_a_link_accepts_until_it_closes(links):
    client, server = links
    conns = [client.new_conn() for _ in range(3)]
    for conn in conns:
        conn.send(1)
    accepted = []
    iterating = Background(lambda: accepted.extend(server))
    waiting(server)
    server.close()
    iterating.result()
    assert [conn.conn_id for conn in accepted] == [conn.conn_id for conn in conns]


def test_close_recv(links):
    client, server = links
    with client.new_conn() as conn:
        conn.send(1)
        peer = server.accept(timeout=20)
        peer.recv(timeout=20)
        peer.close_recv()
        conn.send(0x2E)
        answer = conn.recv(timeout=20)
        assert answer.code == 0x8000 and b"connection closed" in bytes(answer.payload)
        peer.send(0x8001)
        assert conn.recv(timeout=20).code == 0x8001


def test_close_delivers_what_was_sent():
    """S18"""
    client, server = neolink.pair(wire="N")
    for n in range(100):
        client.notify(6, bytes([n]) * 1000)
    closing = Background(client.close)
    with server:
        assert [server.recv1(timeout=20).packet.payload[0] for _ in range(100)] == list(range(100))
    closing.result()


def test_close_within_its_budget_when_the_peer_does_not_read():
    """S10"""
    client, server = neolink.pair(wire="N", limits=neolink.Limits(link_tx_bytes=1 << 20, link_rx_bytes=1 << 20))
    with server:
        with pytest.raises(neolink.Timeout):
            while True:
                client.notify(1, b"x" * 65000, timeout=0)
        client.close(timeout=0)
        assert client.closed


def test_abort(links):
    client, server = links
    client.abort()
    client.abort()
    assert client.closed
    with pytest.raises(neolink.LinkClosed):
        client.new_conn()


def test_dropped_without_close_warns():
    """S14"""
    client, server = neolink.pair()
    with server:
        with pytest.warns(ResourceWarning, match="dropped without close"):
            del client
            gc.collect()
        assert list(server) == []               # it was aborted: the peer sees the end
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        closed, other = neolink.pair()
        closed.close()
        other.close()
        del closed, other
        gc.collect()


def test_cycle_through_a_link_is_collected():
    client, server = neolink.pair()
    client.conn = client.new_conn()
    server.abort()
    client.abort()
    serial = client.serial
    del client
    gc.collect()
    assert not any(isinstance(o, neolink.NodeLink) and o.serial == serial for o in gc.get_objects())
