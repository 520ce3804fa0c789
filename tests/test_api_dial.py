# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""dial, listen, pair: addresses, failures and what they say."""
import errno
import logging
import os
import socket

import pytest
from support import Background

import neolink
from neolink import _address

pytestmark = pytest.mark.usefixtures("no_leaks")


def connect(listener, address=None, **options):
    """Both ends. On auto a dialer that had to wait for the processor leaves one connection for another."""
    accepting = Background(listener.accept, timeout=20)
    dialed = neolink.dial(address or listener.address, timeout=20, **options)
    accepted = accepting.result()
    while accepted.peer_address != dialed.local_address:
        accepted.close()
        accepted = listener.accept(timeout=20)
    return dialed, accepted


@pytest.mark.parametrize("wire, version", [("auto", 5), ("M", 5), ("N", 6)])
def test_wires(wire, version):
    with neolink.listen("127.0.0.1:0") as listener:
        dialed, accepted = connect(listener, wire=wire)
        with dialed, accepted:
            assert dialed.wire == accepted.wire == ("M" if wire == "auto" else wire)
            assert dialed.version == accepted.version == version
            assert (dialed.role.value, accepted.role.value) == ("client", "server")
            assert (dialed.routing, accepted.routing) == ("neo", "neo")
            assert dialed.peer_address == accepted.local_address == listener.address
            assert type(dialed) is type(accepted) is neolink.NodeLink
            served = Background(accepted.recv1, timeout=20)
            dialed.notify(6)
            assert served.result().packet.code == 6


def test_2016():
    with neolink.listen("127.0.0.1:0", wire="2016") as listener:
        dialed, accepted = connect(listener, wire="2016")
        with dialed, accepted:
            assert (dialed.wire, dialed.version, dialed.routing) == ("2016", None, "stream")


def test_unix_socket(tmp_path):
    path = tmp_path / "a b.sock"
    with neolink.listen(f"unix:{path}") as listener:
        assert listener.address == str(path)
        dialed, accepted = connect(listener, f"unix:{path}")
        with dialed, accepted:
            assert dialed.peer_address == str(path)
            assert f"unix:{path}" in repr(dialed)


def test_ipv6():
    try:
        listener = neolink.listen("[::1]:0")
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with listener:
        dialed, accepted = connect(listener, f"[::1]:{listener.address[1]}")
        with dialed, accepted:
            assert len(dialed.peer_address) == 4 and "[::1]:" in repr(dialed)


@pytest.mark.parametrize("host", ["", "*"])
def test_listen_on_every_interface(host):
    with neolink.listen(f"{host}:0") as listener:
        dialed, accepted = connect(listener, f"127.0.0.1:{listener.address[1]}")
        dialed.close()
        accepted.close()


def closed_port():
    """A port of loopback that refuses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize("between", [" ", ",", ", "])
def test_the_first_master_that_answers(between):
    with neolink.listen("127.0.0.1:0") as listener:
        masters = f"127.0.0.1:{closed_port()}{between}127.0.0.1:{listener.address[1]}"
        dialed, accepted = connect(listener, masters)
        assert dialed.peer_address == listener.address
        dialed.close()
        accepted.close()


def test_nobody_there():
    ports = closed_port(), closed_port()
    with pytest.raises(neolink.DialError) as caught:
        neolink.dial(f"127.0.0.1:{ports[0]} 127.0.0.1:{ports[1]}")
    assert type(caught.value) is neolink.DialError and caught.value.op == "dial"
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    for port in ports:
        assert f"127.0.0.1:{port}: Connection refused" in str(caught.value)


def test_no_such_path_and_no_such_name(tmp_path):
    with pytest.raises(neolink.DialError) as caught:
        neolink.dial(f"unix:{tmp_path}/none")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(neolink.DialError) as caught:
        neolink.dial("name.invalid:1")
    assert isinstance(caught.value.__cause__, socket.gaierror)


@pytest.mark.parametrize("answer, theirs", [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"), (b"\0\0\0\x63", "63")])
def test_not_a_neo_node(answer, theirs):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def speak():
            peer, _ = server.accept()
            with peer:
                peer.sendall(answer)
                while peer.recv(100):
                    pass

        speaking = Background(speak)
        with pytest.raises(neolink.HandshakeError) as caught:
            neolink.dial(server.getsockname(), wire="M", timeout=20)
        assert caught.value.op == "dial" and "NEO M" in caught.value.ours
        assert theirs in caught.value.theirs or "protocol 99" in caught.value.theirs
        speaking.result()


@pytest.mark.parametrize("wire,connections", [("auto", 1), ("N", 1), ("M", 2)])
def test_end_of_file_in_the_handshake(wire, connections):
    """Who speaks M first dials once more: the peer may have wanted the other form of its opening."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        closing = Background(lambda: [server.accept()[0].close() for _ in range(connections)])
        with pytest.raises(neolink.HandshakeError, match="without a word"):
            neolink.dial(server.getsockname(), wire=wire, timeout=20)
        closing.result()


def test_m_of_python_2_nodes():
    """They pack "NEO" as bytes, and close on the other form, mostly without a word."""
    theirs = b"\x92\xc4\x03NEO\x05"
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            first, _ = server.accept()
            with first:
                assert first.recv(6, socket.MSG_WAITALL) == b"\x92\xa3NEO\x05"
            second, _ = server.accept()
            with second:
                second.sendall(theirs)
                assert second.recv(7, socket.MSG_WAITALL) == theirs
                second.recv(1)                  # until the link is closed

        serving = Background(serve)
        with neolink.dial(server.getsockname(), wire="M", timeout=20) as link:
            assert (link.wire, link.version) == ("M", 5)
        serving.result()


def test_silence_runs_out():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(neolink.Timeout) as caught:
            neolink.dial(server.getsockname(), timeout=0.1)
        assert caught.value.op == "dial"
        with pytest.raises(neolink.Timeout):
            neolink.dial(server.getsockname(), timeout=0)


@pytest.mark.parametrize("address", [
    "", " ", "localhost", "localhost:", ":80", "localhost:x", "localhost:65536", "localhost:-1", "::1:80", "[::1]",
    "[::1",     "[::1]80", "unix:", "a:1,b", "localhost:٣", ("localhost",), ("localhost", 70000), ("localhost", "80"), (1, 2),
])
def test_bad_address(address):
    with pytest.raises(ValueError, match="address"):
        neolink.dial(address)


@pytest.mark.parametrize("address", [None, 80, b"localhost:80", ["localhost", 80]])
def test_address_of_wrong_type(address):
    for function in (neolink.dial, neolink.listen):
        with pytest.raises(TypeError, match="address"):
            function(address)


def test_addresses():
    assert _address.split("a:1 b:2,c:3") == ["a:1", "b:2", "c:3"]
    assert _address.parse("[fe80::1]:80") == ("fe80::1", 80)
    assert _address.parse("unix:relative path") == "relative path"
    assert _address.resolve(("127.0.0.1", 80)) == [(socket.AF_INET, ("127.0.0.1", 80))]
    assert _address.resolve(("fe80::1", 80, 0, 1)) == [(socket.AF_INET6, ("fe80::1", 80, 0, 1))]
    assert _address.resolve("unix:/a b") == [(socket.AF_UNIX, "/a b")]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "255.255.255.255", "::1", "0:0::00A1", "::ffff:10.0.0.1"])
def test_addresses_in_numbers_need_no_resolver_and_come_out_as_from_it(host, monkeypatch):
    def normal(found):
        return [(family, sockaddr) for family, *_, sockaddr in found]

    by_resolver = normal(socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the resolver was asked"))
    assert _address.resolve((host, 80)) == by_resolver


@pytest.mark.parametrize("host", ["localhost", "127.1", "010.0.0.1", "127.0.0.1\0x", "fe80::1%lo", "256.0.0.1"])
def test_all_other_hosts_are_for_the_resolver(host, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: asked.append(host) or [])
    _address.resolve((host, 80))
    assert asked == [host]


def test_address_in_use_is_named():
    with neolink.listen("127.0.0.1:0") as listener:
        where = "{}:{}".format(*listener.address)
        with pytest.raises(OSError, match=where) as caught:
            neolink.listen(where)
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("options, error", [
    ({"backlog": 0}, ValueError), ({"wire": "x"}, ValueError), ({"version": -1}, ValueError),
    ({"version": "6"}, TypeError),     ({"keepalive": 5}, TypeError), ({"keepalive": (0, 1, 1)}, ValueError), ({"keepalive": (1, 1, 0)}, ValueError),
    ({"handshake_timeout": -1}, ValueError), ({"accept": None}, ValueError), ({"tls": object()}, TypeError),
])
def test_bad_options(options, error):
    with pytest.raises(error):
        neolink.listen("127.0.0.1:0", **options)


def test_listener_ends(links):
    listener = neolink.listen("127.0.0.1:0")
    assert os.fstat(listener.fileno())
    accepting, iterating = Background(listener.accept), Background(list, listener)
    listener.close()
    listener.close()
    with pytest.raises(neolink.LinkClosed):
        accepting.result()
    assert iterating.result() == []
    assert listener.fileno() == -1 and listener.closed and "closed" in repr(listener)
    with pytest.raises(neolink.LinkClosed):
        listener.accept()


def test_failed_handshake_is_logged_and_costs_nobody_else(caplog):
    with neolink.listen("127.0.0.1:0") as listener:
        with socket.create_connection(listener.address) as http:
            http.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while http.recv(100):
                pass
        with caplog.at_level(logging.WARNING, "neolink"):
            dialed, accepted = connect(listener)
        dialed.close()
        accepted.close()
    assert [record.name for record in caplog.records] == ["neolink"]
    assert "HTTP" in caplog.text and "127.0.0.1" in caplog.text


def test_pair():
    client, server = neolink.pair(wire="N", routing="neo", limits=neolink.Limits(conns=3))
    with client, server:
        assert (client.role.value, server.role.value) == ("client", "server")
        assert (client.wire, client.routing) == ("N", "neo")
    with pytest.raises(ValueError):
        neolink.pair(wire="X")
