# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink and the Go implementations: NEO/go's package neonet (wire N), and the prototype of 2016 it grew from.

Both route by the parity of ids alone, and their answers have no fixed relation to the ids NEO/py would use; so this is
where our allocation by role is proved. The programs are described in peers.GoProgram.

The silence of NEO/go's node programs is also played here by a plain socket: that part needs no peer at all.
"""
from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest

import neolink

from .neopy_cases import ANSWER, ERROR, PING, SECONDS, accept_nobody, dial, in_threads, listen
from .peers import Address, Process, join

CLOSE_CLIENT = 0x03
ASK_OBJECT = 0x20
ASK_LAST_TRANSACTION = 0x38
LAST_TRANSACTION = bytes.fromhex("0123456789abcdef")

M_OPENING = bytes.fromhex("92a34e454f05")
N_OPENING = bytes.fromhex("00000006")

GoListen = Callable[..., tuple[Process, Address]]


def ask_object(oid: int) -> bytes:
    """AskObject(oid, at=oid, before=oid + 1)."""
    return struct.pack(">QQQ", oid, oid, oid + 1)


def answer_object(oid: int) -> bytes:
    """What neonet-echo answers to ask_object(oid): no compression, no checksum, the oid in hex as data."""
    data = b"%016x" % oid
    return struct.pack(">QQQ?20xL", oid, oid, oid + 1, False, len(data)) + data + bytes(8)


def run(program: str, address: Address, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([program, join(address), str(count)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def result(child: subprocess.Popen[str]) -> tuple[str, str]:
    """What the program printed, once it has ended."""
    try:
        return child.communicate(timeout=2 * SECONDS)
    finally:
        child.kill()


# ---- dialing NEO/go --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags", [(), ("-node",)], ids=["neonet", "node-program"])
def test_auto_dial_finds_n(go_listen: GoListen, flags: tuple[str, ...]) -> None:
    """A node program is silent until the dialer spoke N: auto offers M, then dials once more."""
    _, address = go_listen("neonet-echo", *flags)
    with dial(address) as link:
        assert (link.wire, link.version) == ("N", 6)
        packet = link.ask(PING, timeout=SECONDS)
        assert (packet.code, bytes(packet.payload)) == (PING | ANSWER, b"")


@pytest.mark.parametrize("routing", ["neo", "stream"])
def test_ask(go_listen: GoListen, routing: str) -> None:
    _, address = go_listen("neonet-echo")
    with dial(address, routing=routing) as link:
        packet = link.ask(ASK_LAST_TRANSACTION, timeout=SECONDS)
        assert (packet.code, bytes(packet.payload)) == (ASK_LAST_TRANSACTION | ANSWER, LAST_TRANSACTION)
        packet = link.ask(ASK_OBJECT, ask_object(7), timeout=SECONDS)
        assert (packet.code, bytes(packet.payload)) == (ASK_OBJECT | ANSWER, answer_object(7))


@pytest.mark.parametrize("routing", ["neo", "stream"])
def test_threads_ask_at_once(go_listen: GoListen, routing: str) -> None:
    """The echo answers each request on a goroutine of its own: answers come in any order."""
    threads, rounds = 8, 100
    _, address = go_listen("neonet-echo")
    with dial(address, routing=routing) as link:
        def ask(index: int) -> None:
            for oid in range(index * rounds, (index + 1) * rounds):
                packet = link.ask(ASK_OBJECT, ask_object(oid), timeout=SECONDS)
                assert bytes(packet.payload) == answer_object(oid)

        in_threads(threads, ask)
        stats = link.stats()
        assert stats.packets_sent == stats.packets_received == threads * rounds
        assert (stats.conns, stats.ignored_packets, stats.late_answers) == (0, 0, 0)


def test_many_asks_pipelined(go_listen: GoListen) -> None:
    _, address = go_listen("neonet-echo")
    with dial(address) as link:
        answers = link.ask_many([neolink.Packet(ASK_OBJECT, ask_object(i)) for i in range(500)], timeout=SECONDS)
        assert [bytes(packet.payload) for packet in answers] == [answer_object(i) for i in range(500)]


@pytest.mark.parametrize("routing", ["neo", "stream"])
def test_refused_by_neonet(go_listen: GoListen, routing: str) -> None:
    """A raw ask returns the Error packet, and the link lives on."""
    _, address = go_listen("neonet-echo", "-refuse")
    with dial(address, routing=routing) as link:
        # neonet shuts accepting after its link is up: an ask that is earlier waits there for ever, so it gets no long
        # time, and the next one is refused.
        packet = ask_until_answered(link)
        assert packet.code == ERROR
        assert b"connection refused" in bytes(packet.payload)
        assert link.ask(PING, timeout=SECONDS).code == ERROR
        assert not link.closed


def ask_until_answered(link: neolink.NodeLink) -> neolink.Packet:
    for _ in range(int(SECONDS)):
        try:
            return link.ask(PING, timeout=1)
        except neolink.Timeout:
            continue
    raise AssertionError("not one ask was answered")


def test_close_by_neonet_is_a_clean_end(go_listen: GoListen) -> None:
    process, address = go_listen("neonet-echo")
    with dial(address) as link:
        assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER
        link.notify(CLOSE_CLIENT, timeout=SECONDS)
        with pytest.raises(neolink.LinkDown) as caught:
            link.accept(SECONDS)
        assert not isinstance(caught.value, neolink.ProtocolError)
        assert list(link) == []
    process.wait_output("closing")
    process.check_alive()


def test_our_close_is_an_end_for_neonet(go_listen: GoListen) -> None:
    process, address = go_listen("neonet-echo")
    with dial(address) as link:
        assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER
    process.wait_output("link down")


def test_wrong_version_names_both(go_listen: GoListen) -> None:
    """neonet always sends its word before it closes."""
    _, address = go_listen("neonet-echo")
    with pytest.raises(neolink.HandshakeError) as caught:
        dial(address, wire="N", version=5)
    assert "N protocol 5" in str(caught.value.ours)
    assert "N protocol 6" in str(caught.value.theirs)
    with dial(address) as link:
        assert link.version == 6


# ---- NEO/go dials us -------------------------------------------------------------------------------------------------

def serve_objects(request: neolink.Request) -> None:
    oid, _, _ = struct.unpack(">QQQ", request.packet.payload)
    request.reply(ASK_OBJECT | ANSWER, answer_object(oid), timeout=SECONDS)


@pytest.mark.parametrize("routing", ["neo", "stream"])
def test_neonet_asks_us(go_program: Callable[[str], str], routing: str) -> None:
    with listen(routing=routing) as listener:
        child = run(go_program("neonet-ask"), listener.address, 500)
        with listener.accept(SECONDS) as link:
            assert (link.wire, link.version, link.role) == ("N", 6, neolink.Role.SERVER)
            link.serve(serve_objects)
            assert link.stats().packets_received == link.stats().packets_sent == 500
        assert result(child) == ("ok 500\n", "")


def test_neonet_is_served_by_a_pool(go_program: Callable[[str], str]) -> None:
    def serve(conn: neolink.Conn) -> None:
        oid, _, _ = struct.unpack(">QQQ", conn.recv(SECONDS).payload)
        conn.send(ASK_OBJECT | ANSWER, answer_object(oid), timeout=SECONDS)

    with listen() as listener:
        child = run(go_program("neonet-ask"), listener.address, 500)
        with listener.accept(SECONDS) as link:
            link.handle_new_conn(serve, workers=8)
            assert result(child) == ("ok 500\n", "")


def test_neonet_is_refused_in_its_own_words(go_program: Callable[[str], str]) -> None:
    with listen(accept="refuse") as listener:
        child = run(go_program("neonet-ask"), listener.address, 1)
        with listener.accept(SECONDS) as link:
            _, err = result(child)
            assert "connection refused" in err
            assert link.stats().refused_conns == 1


def test_neonet_hears_our_version_on_a_mismatch(go_program: Callable[[str], str]) -> None:
    """Our word leaves before we close: the Go end can say what was wrong, not just that the stream ended."""
    with listen(version=7) as listener:
        child = run(go_program("neonet-ask"), listener.address, 1)
        accepting = threading.Thread(target=accept_nobody, args=(listener,))
        accepting.start()
        _, err = result(child)
        assert "peer = 00000007" in err
        listener.close()
        accepting.join(SECONDS)
        assert not accepting.is_alive()


# ---- the silence of a node program, played ---------------------------------------------------------------------------

def test_auto_dial_speaks_m_then_redials_with_n() -> None:
    """The first stream gets the M opening and stays silent; the second begins with the N word and is answered."""
    heard: list[bytes] = []

    def play(server: socket.socket) -> None:
        with server.accept()[0] as first, server.accept()[0] as second:
            heard.append(first.recv(6, socket.MSG_WAITALL))
            heard.append(second.recv(4, socket.MSG_WAITALL))
            second.sendall(N_OPENING)
            heard.append(first.recv(1))                     # the dialer gave this stream up: end of file
            second.recv(1)

    link, player = played(play)
    with link:
        assert (link.wire, link.version) == ("N", 6)
    player.join(SECONDS)
    assert heard == [M_OPENING, N_OPENING, b""]


def played(play: Callable[[socket.socket], None]) -> tuple[neolink.NodeLink, threading.Thread]:
    """Dial a listener that behaves as `play`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SECONDS)
        thread = threading.Thread(target=play, args=(server,), daemon=True)
        thread.start()
        return dial(server.getsockname()), thread


def test_silence_for_ever_is_bounded() -> None:
    """Nobody answers on any stream: the dial ends with its timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises((neolink.Timeout, neolink.HandshakeError)):
        neolink.dial(server.getsockname(), timeout=3)


# ---- the prototype of 2016 -------------------------------------------------------------------------------------------

PROTOTYPE: dict[str, Any] = {"wire": "2016", "routing": "stream"}


def test_prototype_answers_us(go_listen: GoListen) -> None:
    """One at a time: the prototype loses what follows the first packet of a read."""
    _, address = go_listen("proto2016-echo")
    with dial(address, **PROTOTYPE) as link:
        assert (link.wire, link.version) == ("2016", None)
        for i in range(100):
            packet = link.ask(3, struct.pack(">L", i), timeout=SECONDS)
            assert (packet.code, bytes(packet.payload)) == (3 | ANSWER, struct.pack(">L", i))


def test_prototype_keeps_a_conn(go_listen: GoListen) -> None:
    _, address = go_listen("proto2016-echo")
    with dial(address, **PROTOTYPE) as link, link.new_conn() as first, link.new_conn() as second:
        for i in range(20):
            for conn in first, second:
                conn.send(9, bytes(i), timeout=SECONDS)
                packet = conn.recv(SECONDS)
                assert (packet.conn_id, packet.code, bytes(packet.payload)) == (conn.conn_id, 9 | ANSWER, bytes(i))


def test_prototype_takes_a_large_packet(go_listen: GoListen) -> None:
    _, address = go_listen("proto2016-echo")
    payload = bytes(range(256)) * 4096
    with dial(address, **PROTOTYPE) as link:
        assert bytes(link.ask(3, payload, timeout=SECONDS).payload) == payload


def test_prototype_asks_us(go_program: Callable[[str], str]) -> None:
    with listen(**PROTOTYPE) as listener:
        child = run(go_program("proto2016-ask"), listener.address, 100)
        with listener.accept(SECONDS) as link:
            assert link.wire == "2016"

            def echo(conn: neolink.Conn) -> None:
                packet = conn.recv(SECONDS)
                conn.send(packet.code | ANSWER, packet.payload, timeout=SECONDS)

            link.handle_new_conn(echo)
            assert result(child) == ("ok 100\n", "")
