# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Many threads at the same objects (S59): what the GIL would keep apart, where there is one.

Each test lets a crowd of threads loose on one link, Conn, listener, Request or Packet, all from a barrier on, and then
adds up: every answer belongs to its question, every packet came once, the counters of both ends agree. With a GIL the
threads change as often as it lets them; the same tests are run on a build of Python without one, where they are at it
at once. `at_once` makes the crowd.
"""
import gc
import importlib
import itertools
import logging
import random
import socket
import sys
import threading
import time
import types
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from leaks import balanced  # noqa: F401
from scenario_kit import ANSWER, NOTIFY, REQUEST, body, both_ends, each_wire
from support import PATIENCE, Background, until

import neolink
from neolink import _core, _typed, proto

pytestmark = pytest.mark.usefixtures("balanced")

CROWD = 8
TURNS = 150


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """Threads change as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def at_once(work: Callable[[int], Any], threads: int = CROWD) -> list[Any]:
    """What work(0), work(1), … returned, which have begun together, each on a thread."""
    barrier = threading.Barrier(threads)

    def begin(number: int) -> Any:
        barrier.wait(PATIENCE)
        return work(number)

    return [thread.result() for thread in [Background(begin, number) for number in range(threads)]]


def echo(request: neolink.Request) -> neolink.Packet:
    return neolink.Packet(ANSWER, request.packet)


# ---- a link, its Conns, and the handler


def ask_one(link: neolink.NodeLink, mark: bytes) -> None:
    assert bytes(link.ask(REQUEST, body(link.wire, mark), timeout=PATIENCE).payload) == body(link.wire, mark)


def ask_several(link: neolink.NodeLink, mark: bytes) -> None:
    sent = [body(link.wire, mark + bytes([nth])) for nth in range(5)]
    answers = link.ask_many([neolink.Packet(REQUEST, each) for each in sent], timeout=PATIENCE)
    assert [bytes(answer.payload) for answer in answers] == sent


def talk(link: neolink.NodeLink, mark: bytes) -> None:
    with link.new_conn() as conn:
        conn.send(REQUEST, body(link.wire, mark))
        assert bytes(conn.recv(timeout=PATIENCE)) == body(link.wire, mark)
        assert conn.link is link and not conn.closed and f"Conn {conn.conn_id}" in repr(conn)


def look(link: neolink.NodeLink, _: bytes) -> None:
    stats = link.stats()
    assert stats.conns <= 5 * CROWD and stats.waiters <= CROWD
    assert (link.closed, link.fault, link.role) == (False, None, neolink.Role.CLIENT)
    assert "open" in repr(link) and link.fileno() >= 0 and link.serial > 0
    assert link.local_address == link.peer_address == ""


@pytest.mark.thread_unsafe(reason="a process has one trace at a time")
@each_wire
def test_s59_many_threads_on_one_link(wire):
    """Asking, talking and looking at once; in the end both ends have counted the same."""
    seen: Counter[str] = Counter()
    with both_ends(wire) as (client, server), neolink.Trace(lambda event: seen.update([event.kind]), events=1 << 16):
        serving = Background(server.serve, echo, workers=4)

        def work(number: int) -> None:
            dice = random.Random(number)
            for turn in range(TURNS):
                dice.choice([ask_one, ask_several, talk, look])(client, bytes([number]) + turn.to_bytes(2, "big"))

        at_once(work)
        until(lambda: client.stats().conns == 0, "the Conns of the client")
        ours, theirs = client.stats(), server.stats()
        assert ours.packets_sent == theirs.packets_received > CROWD
        assert ours.packets_received == theirs.packets_sent
        client.close()
        serving.result()
    assert seen["send"] == seen["recv"] == ours.packets_sent + theirs.packets_sent


def test_s59_many_threads_on_one_conn():
    """All send on it, all receive on it: each packet arrives once, and those of one sender in their order."""
    with both_ends("N") as (client, server):
        near = client.new_conn()
        near.send(REQUEST)
        far = server.accept(timeout=PATIENCE)
        far.recv(timeout=PATIENCE)

        def work(number: int) -> list[tuple[int, int]]:
            found = []
            for turn in range(TURNS):
                if number % 2:
                    near.send(REQUEST, bytes([number]) + turn.to_bytes(2, "big"))
                else:
                    payload = far.recv(timeout=PATIENCE).payload
                    found.append((payload[0], int.from_bytes(payload[1:], "big")))
            return found

        lists = at_once(work)
        assert Counter(itertools.chain(*lists)) == Counter(
            (number, turn) for number in range(1, CROWD, 2) for turn in range(TURNS))
        for found, number in itertools.product(lists, range(CROWD)):
            turns = [turn for sender, turn in found if sender == number]
            assert turns == sorted(turns)


def test_s59_the_handler_changes_while_conns_come():
    """Set, set to another and taken away by all threads: each Conn is served once, or waits for accept()."""
    served: list[bytes] = []            # append is one step with and without a GIL

    def handler(conn: neolink.Conn) -> None:
        served.append(bytes(conn.recv(timeout=PATIENCE)))

    def other_handler(conn: neolink.Conn) -> None:
        served.append(bytes(next(conn)))

    with both_ends("N") as (client, server):

        def work(number: int) -> None:
            for turn in range(TURNS):
                if number % 2:
                    client.notify(NOTIFY, bytes([number]) + turn.to_bytes(2, "big"))
                elif turn % 5 == 0:
                    server.handle_new_conn([handler, other_handler, None][turn % 3], workers=1 + turn % 4)

        at_once(work)
        server.handle_new_conn(handler)
        sent = {bytes([number]) + turn.to_bytes(2, "big") for number in range(1, CROWD, 2) for turn in range(TURNS)}
        until(lambda: len(served) >= len(sent), "serving them all")
        assert sorted(served) == sorted(sent)
        server.handle_new_conn(None)


# ---- the other objects


def test_s59_many_threads_on_one_request():
    """Replying, closing, printing and dropping it: nothing but the answers that were sent, then ConnClosed."""
    with both_ends("N") as (client, server):
        for _ in range(20):
            conn = client.new_conn()
            conn.send(REQUEST)
            request = server.recv1(timeout=PATIENCE)

            def work(number: int, request: neolink.Request = request) -> int:
                sent = 0
                for turn in range(10):
                    try:
                        request.reply(ANSWER, bytes([number, turn]))
                        sent += 1
                    except neolink.ConnClosed:
                        pass
                    assert "Request" in repr(request) and request.packet.code == REQUEST
                    if turn == 5 + number:
                        request.close()
                return sent

            sent = sum(at_once(work, 4))
            for _ in range(sent):
                assert conn.recv(timeout=PATIENCE).code == ANSWER
            with pytest.raises(neolink.Timeout):
                conn.recv(timeout=0)
            conn.close()


def test_s59_packets_and_weak_references_go_on_any_thread():
    """The last reference to a payload goes where it likes, and so do weak references to a Conn that goes itself."""
    with both_ends("N") as (client, server):
        serving = Background(server.serve, echo)
        for turn in range(20):
            data = bytes([turn]) * (100 + 300 * turn)
            shared: list[Any] = [client.ask(REQUEST, data, timeout=PATIENCE), client.new_conn()]
            gone = weakref.finalize(shared[1], lambda: None)
            have_it = threading.Barrier(CROWD)

            def work(_: int, shared: list[Any] = shared, data: bytes = data, have_it: Any = have_it) -> None:
                payload, watch = shared[0].payload, weakref.ref(shared[1])
                have_it.wait(PATIENCE)
                shared.clear()
                for _ in range(50):
                    assert bytes(payload[-9:]) == data[-9:] and payload.obj.code == ANSWER
                    conn = watch()
                    assert conn is None or conn.link is client
                    del conn
                    weakref.ref(client)

            at_once(work)
            gc.collect()
            assert not gone.alive
        client.close()
        serving.result()


@pytest.mark.thread_unsafe(reason="all listeners share a log, whose lines are counted")
def test_s59_many_threads_accept_from_one_listener(caplog):
    """Each link is accepted once, beside strangers; of these the log has a line a second; who waits hears of the close."""
    caplog.set_level(logging.WARNING, "neolink")
    listener = neolink.listen("127.0.0.1:0", wire="N")
    began, found = time.monotonic(), []

    def accept() -> None:
        for link in listener:
            found.append(link.recv1(timeout=PATIENCE).packet.payload.tobytes())
            link.close()

    def dial(number: int) -> None:
        for turn in range(10):
            with socket.create_connection(listener.address) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
                stranger.settimeout(PATIENCE)
                try:
                    while stranger.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
            with neolink.dial(listener.address, wire="N", timeout=PATIENCE) as link:
                link.notify(NOTIFY, bytes([number, turn]))
                assert not listener.closed and "127.0.0.1" in repr(listener)

    accepting = [Background(accept) for _ in range(CROWD)]
    at_once(dial, 4)
    until(lambda: len(found) == 40)                 # the last of them may not be accepted yet
    at_once(lambda _: listener.close(), 4)
    for thread in accepting:
        thread.result()
    took = time.monotonic() - began
    assert sorted(found) == sorted(bytes([number, turn]) for number in range(4) for turn in range(10))
    assert listener.closed and listener.fileno() == -1
    lines = Counter(record.getMessage().partition(" failed its handshake")[2].partition(";")[0]
                    for record in caplog.records)
    assert lines and max(lines.values()) <= took + 1


# ---- what only one thread may do


def test_s59_a_dialer_has_one_waiting_thread():
    """A second one is told so; cancel() is for any."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dialer = _core.Dialer((socket.AF_INET, silent.getsockname()), wire="N")
        first = Background(dialer.wait)
        peer, _ = silent.accept()               # the first has begun
        with peer:
            with pytest.raises(RuntimeError, match="another thread"):
                dialer.wait(timeout=0)
            dialer.cancel()
            with pytest.raises(neolink.LinkClosed):
                first.result()
            with pytest.raises(neolink.LinkClosed):
                dialer.wait(timeout=0)


def test_s59_a_link_is_made_once():
    """Of the threads that call __init__ of one object, one makes the link; the sockets of the others stay theirs."""
    for _ in range(20):
        link = neolink.NodeLink.__new__(neolink.NodeLink)
        pairs = [socket.socketpair() for _ in range(CROWD)]

        def work(number: int, link: Any = link, pairs: Any = pairs) -> bool:
            try:
                link.__init__(pairs[number][0], "client", wire="N")
            except RuntimeError:
                return False
            link.notify(NOTIFY, bytes([number]))
            return True

        made = at_once(work)
        assert made.count(True) == 1
        for (near, far), ours in zip(pairs, made, strict=True):
            assert (near.fileno() == -1) == ours
            link.close() if ours else near.close()
            assert bool(far.recv(100)) == ours
            far.close()


def test_s59_the_package_is_reloaded_while_messages_go():
    """What the compiled part calls is replaced while others call it: they end with the old one or the new one."""
    done = threading.Event()
    names = [name for name in vars(_typed) if name.split("_")[0] in ("link", "conn", "request", "packet")]

    def passing_on(name: str) -> Callable[..., Any]:
        return lambda *args: getattr(_typed, name)(*args)

    def replace() -> None:
        for _ in range(100):
            known = {wire: dict(by_class) for wire, by_class in _typed.askings.items()}
            functions = {name: passing_on(name) for name in names}
            _core._install(neolink.NodeLink, types.SimpleNamespace(askings=known, **functions))
        importlib.reload(neolink)
        done.set()

    def answer(request: neolink.Request) -> proto.Message:
        assert isinstance(request.message, proto.AskClusterState)
        return proto.AnswerClusterState(proto.ClusterStates.RUNNING)

    def work(_: int) -> None:
        packet = client.ask(*proto.encode(proto.AskClusterState(), "M"), timeout=PATIENCE)
        while not done.is_set():
            assert client.ask(proto.AskClusterState(), timeout=PATIENCE).state is proto.ClusterStates.RUNNING
            for _ in range(20):
                assert packet.message.state is proto.ClusterStates.RUNNING

    with both_ends("M") as (client, server):
        serving = Background(server.serve, answer, workers=2)
        at_once(lambda number: work(number) if number else replace())
        client.close()
        serving.result()
