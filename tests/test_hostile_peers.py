# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile peers: packets without an end, peers that do not read, crowds, strangers. What they can take is bounded by
Limits, the links of others are served meanwhile and after, and the log has a line, not a flood. Floods have a file of
their own.
"""
import contextlib
import logging
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import ANSWER, REQUEST, body, both_ends, each_wire, frame, memory, raw_peer, run_program
from support import PATIENCE, Background, descriptors, poller_clock, until, within

import neolink
from neolink import _serve

pytestmark = pytest.mark.usefixtures("balanced")
MB = 1 << 20


@contextlib.contextmanager
def others() -> Iterator[neolink.NodeLink]:
    """A link that has nothing to do with the hostile one, and whose peer echoes."""
    with both_ends("N") as (client, server):
        serving = Background(server.serve, lambda request: neolink.Packet(ANSWER, request.packet.payload))
        yield client
        client.close()
        serving.result()


@each_wire
def test_packets_that_are_never_finished(wire):
    """Three hundred peers, each in the middle of a packet that says it is 60 MB: nobody's memory but what came."""
    begun = frame(wire, 2, REQUEST, body(wire, bytes(60 * MB)))[:1000]
    before = memory()
    with contextlib.ExitStack() as stack, others() as link_of_others:
        peers = [stack.enter_context(raw_peer(wire)) for _ in range(300)]
        for _, peer in peers:
            peer.sock.sendall(begun)
        for link, _ in peers:
            until(lambda link=link: link.stats().bytes_received == len(begun))
        assert memory() - before < 32 * MB                    # they say 18 GB
        link_of_others.ask(REQUEST, timeout=PATIENCE)
        assert not any(link.closed for link, _ in peers)


@each_wire
def test_a_peer_that_asks_and_never_reads(wire):
    """Its answers fill link_tx_bytes and no more; reply waits until its deadline, and others are served."""
    limits = neolink.Limits(link_tx_bytes=MB, link_rx_bytes=MB)
    before = memory()
    with raw_peer(wire, limits=limits) as (link, peer), others() as link_of_others:
        answers = 0
        asking = Background(peer.sock.sendall, b"".join(frame(wire, 2 * n, REQUEST) for n in range(1000)))
        with pytest.raises(neolink.Timeout):
            while True:
                with link.recv1(timeout=PATIENCE) as request:
                    request.reply(ANSWER, body(wire, bytes(20_000)), timeout=0)
                    answers += 1
        assert 10 <= answers < 200
        assert link.stats().tx_bytes_queued < 1.1 * MB and memory() - before < 16 * MB
        link_of_others.ask(REQUEST, timeout=PATIENCE)
        link.abort()
        with contextlib.suppress(OSError):
            asking.result()


def test_peers_that_write_a_byte_at_a_time():
    """A hundred of them: each byte is taken, no thread is, and others are served."""
    packet = frame("N", 2, REQUEST, bytes(20))
    with contextlib.ExitStack() as stack, others() as link_of_others:
        peers = [stack.enter_context(raw_peer("N")) for _ in range(100)]
        threads = threading.active_count()
        for n, byte in enumerate(packet, 1):
            for _, peer in peers:
                peer.sock.sendall(bytes([byte]))
            link_of_others.ask(REQUEST, timeout=PATIENCE)
            assert threading.active_count() == threads, n
        for link, _ in peers:
            with link.recv1(timeout=PATIENCE) as request:
                assert len(request.packet.payload) == 20


def stranger(address: tuple[str, int], says: bytes) -> None:
    with socket.create_connection(address, timeout=PATIENCE) as sock:
        sock.sendall(says)
        with contextlib.suppress(ConnectionError):
            while sock.recv(1000):
                pass


def test_a_flood_of_strangers_is_none_of_lines(caplog):
    """Five hundred peers that speak HTTP: a line a second, which counts the others; a friend is accepted among them."""
    caplog.set_level(logging.WARNING, "neolink")
    with neolink.listen(("127.0.0.1", 0), wire="M") as listener:
        accepting = Background(listener.accept, PATIENCE)
        begin = time.monotonic()
        for _ in range(500):
            stranger(listener.address, b"GET / HTTP/1.1\r\n\r\n")
        with neolink.dial(listener.address, wire="M", timeout=PATIENCE):
            accepting.result().close()
        seconds = time.monotonic() - begin
    assert 1 <= len(caplog.records) <= 1 + seconds
    assert "HTTP" in caplog.text


RAISING = """
import sys, threading, time, neolink

def answer(packet, send):
    if packet.code == 0x1234:
        send(0x9234)
    elif packet.payload == b"one":
        raise ValueError("of one kind")
    else:
        raise ValueError("of another")

client, server = neolink.pair(wire="N", limits=neolink.Limits(accept_backlog=None))
if sys.argv[1] == "serve":
    threading.Thread(target=server.serve, args=(lambda request: answer(request.packet, request.reply),)).start()
else:
    server.handle_new_conn(lambda conn: answer(conn.recv(), conn.send), workers=1)
begin = time.monotonic()
for n in range(500):
    client.notify(5, (b"one", b"two")[n % 2])
client.ask(0x1234, timeout=60)
print(time.monotonic() - begin)
client.close()
"""


@pytest.mark.parametrize("face", ["serve", "handle_new_conn"])
def test_handlers_that_raise_for_each_packet_print_a_traceback_a_second(face):
    """Five hundred packets that a handler does not understand, in two ways; the next one is answered."""
    done = run_program(RAISING, face)
    assert done.returncode == 0, done.stderr
    for kind in ("of one kind", "of another"):
        assert 1 <= done.stderr.count(f"ValueError: {kind}") <= 1 + float(done.stdout), done.stderr


def test_what_handlers_raise_is_told_once_a_second_and_none_is_uncounted():
    now, told = 0.0, []

    def error(text: str) -> ValueError:
        try:
            raise ValueError(text)
        except ValueError as raised:
            return raised

    reports = _serve.Reports(lambda: now)
    for n in range(10_001):
        now = n / 1000
        told.append(reports.others(error(f"whatever the peer sent: {n}")))
    assert [others for others in told if others is not None] == [0] + [999] * 10
    assert reports.others(KeyError()) == 0              # another kind


def test_a_hook_of_the_programs_own_is_told_each_time(monkeypatch):
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    for _ in range(100):
        _serve.report(ValueError())
    assert len(told) == 100


CROWD = """
import resource, sys, neolink
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
links = [neolink.dial(("127.0.0.1", int(sys.argv[1])), wire="2016", timeout=60) for _ in range(int(sys.argv[2]))]
print("all", flush=True)
sys.stdin.read()
for link in links:
    link.abort()
"""


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """Descriptors for so many links, where that is permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} descriptors are needed, {hard} are permitted")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


STRANGERS = """
import resource, socket, sys
port, count, says = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
socks = []
for _ in range(count):
    socks.append(socket.create_connection(("127.0.0.1", port), timeout=60))
    if says:
        socks[-1].sendall(says)
print("all", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def strangers(listener: neolink.Listener, count: int, says: bytes = b"") -> Iterator[None]:
    """So many connections of another process, which say no more than this."""
    command = [sys.executable, "-c", STRANGERS, str(listener.address[1]), str(count), says.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "all\n"
        yield
        process.stdin.close()


def friend(listener: neolink.Listener) -> float:
    """Dials, is accepted, and asks; the seconds it took until it was accepted."""
    begin = time.monotonic()
    with neolink.dial(listener.address, wire="N", timeout=PATIENCE) as link, listener.accept(PATIENCE) as accepted:
        seconds = time.monotonic() - begin
        asking = Background(link.ask, REQUEST, timeout=PATIENCE)
        with accepted.recv1(timeout=PATIENCE) as request:
            request.reply(ANSWER)
        assert asking.result().code == ANSWER
    return seconds


def patient_listener() -> neolink.Listener:
    """With all the room of the kernel: who finds none there comes again a second later."""
    return neolink.listen(("127.0.0.1", 0), wire="N", backlog=4096, handshake_timeout=600)


SHAKES = 1024
"""Handshakes that a listener has under way at once."""


@pytest.mark.no_asan        # it measures memory
@pytest.mark.parametrize("count", [2_000, 10_000])
def test_silent_strangers(count):
    """They connect and say nothing: so many descriptors, some kilobytes of each, no thread, no processor time, and who
    comes after them and speaks does not wait for the time that each has for its handshake."""
    with room_for(SHAKES + 100), patient_listener() as listener:
        friend(listener)
        threads, before, files = threading.active_count(), memory(), descriptors()
        clock = poller_clock()
        with strangers(listener, count):
            within(2, lambda: friend(listener))
            assert descriptors() <= files + SHAKES + 2          # the pipes of their process
            assert memory() - before < 8000 * SHAKES
            assert threading.active_count() == threads
            busy, begin = time.clock_gettime(clock), time.monotonic()
            until(lambda: time.monotonic() > begin + 0.3)
            assert time.clock_gettime(clock) - busy < 0.03
            friend(listener)


def test_strangers_that_begin_their_handshake_and_stop():
    """Fifteen hundred with a byte each: they have their second, and then give way."""
    with room_for(SHAKES + 100), patient_listener() as listener:
        files = descriptors()
        with strangers(listener, 1500, says=b"\0"):
            friend(listener)
            assert descriptors() <= files + SHAKES + 2


def test_handshakes_of_a_byte_at_a_time():
    """A hundred strangers, a byte of each in turn, until they are links; friends get in between."""
    opening = bytes.fromhex("00000006")                         # all that a node that speaks N says first
    with contextlib.ExitStack() as stack, neolink.listen(("127.0.0.1", 0), wire="N") as listener:
        socks = [stack.enter_context(socket.create_connection(listener.address)) for _ in range(100)]
        threads = threading.active_count()
        for byte in opening:
            friend(listener)
            for sock in socks:
                sock.sendall(bytes([byte]))
            assert threading.active_count() == threads
        for _ in socks:
            listener.accept(PATIENCE).abort()


@pytest.mark.no_asan        # it measures memory
@pytest.mark.parametrize("count", [2_000, 10_000])
def test_a_crowd_comes_and_ends_at_once(count):
    """No thread more, some kilobytes each; others are served while it is there, and each link learns of its end."""
    with room_for(count), others() as link_of_others, neolink.listen(("127.0.0.1", 0), wire="2016") as listener:
        threads, before = threading.active_count(), memory()
        command = [sys.executable, "-c", CROWD, str(listener.address[1]), str(count)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as crowd:
            links = [listener.accept(timeout=60) for _ in range(count)]
            assert crowd.stdout.readline() == "all\n"
            assert threading.active_count() == threads
            each = (memory() - before) / count
            link_of_others.ask(REQUEST, timeout=PATIENCE)
            crowd.stdin.close()
            until(lambda: all(link.closed for link in links), "the end of each link")
            link_of_others.ask(REQUEST, timeout=PATIENCE)
        assert threading.active_count() == threads
        for link in links:
            link.close()
        assert each < 16_000, f"{each:.0f} bytes each"
