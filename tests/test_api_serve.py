# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""handle_new_conn and serve: who runs a handler, and what becomes of what it raises."""
import threading

import pytest
from support import Background, until, waiting

import neolink
from neolink import Packet, _serve, proto

pytestmark = pytest.mark.usefixtures("no_leaks")

ASK, ANSWER = 0x2E, 0x802E


def answer_all(conn):
    for packet in conn:
        conn.send(ANSWER, packet.payload)


@pytest.fixture
def hook(monkeypatch):
    """What went to threading.excepthook."""
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    return seen


def test_serves(links):
    client, server = links
    server.handle_new_conn(answer_all)
    for n in range(20):
        assert client.ask(ASK, bytes([0x91, n]), timeout=20).payload[1] == n


def test_conns_that_wait_already_are_served(links):
    client, server = links
    asked = Background(client.ask, ASK, timeout=20)
    until(lambda: server.stats().packets_received == 1)
    server.handle_new_conn(answer_all)
    assert asked.result().code == ANSWER


def test_handlers_run_at_once_and_workers_bounds_them(links):
    client, server = links
    together, running, most = threading.Barrier(3), [], []

    def handler(conn):
        running.append(1)
        most.append(len(running))
        together.wait(20)
        running.pop()
        answer_all(conn)

    server.handle_new_conn(handler, workers=3)
    asked = [Background(client.ask, ASK, timeout=20) for _ in range(3)]
    for one in asked:
        assert one.result().code == ANSWER
    assert max(most) <= 3
    extra = client.new_conn()
    extra.send(ASK)                                     # all three still iterate their Conns
    with pytest.raises(neolink.Timeout):
        extra.recv(timeout=0.05)


def test_conn_is_closed_when_the_handler_returns(links):
    client, server = links
    served = []
    server.handle_new_conn(served.append)
    client.notify(6)
    until(lambda: served and served[0].closed)
    with pytest.raises(neolink.ConnClosed):
        served[0].recv()


def test_handler_changes_while_traffic_runs(links):
    client, server = links
    for n in range(10):
        def handler(conn, n=n):
            conn.recv()
            conn.send(ANSWER, bytes([0x91, n]))
        server.handle_new_conn(handler)
        assert client.ask(ASK, timeout=20).payload[1] == n


def test_removed_handler_lets_conns_queue_again(links):
    client, server = links
    server.handle_new_conn(answer_all)
    assert client.ask(ASK, timeout=20).code == ANSWER
    server.handle_new_conn(None)
    for _ in range(20):
        client.notify(6)
        assert server.accept(timeout=20).recv(timeout=20).code == 6
    server.handle_new_conn(answer_all)
    assert client.ask(ASK, timeout=20).code == ANSWER
    server.handle_new_conn(None)
    server.handle_new_conn(None)


def test_handler_removes_itself(links):
    client, server = links

    def handler(conn):
        server.handle_new_conn(None)
        conn.send(ANSWER)

    server.handle_new_conn(handler)
    assert client.ask(ASK, timeout=20).code == ANSWER
    client.notify(6)
    assert server.accept(timeout=20).recv(timeout=20).code == 6


def test_exceptions_go_to_the_hook_and_the_link_lives(links, hook):
    client, server = links

    def handler(conn):
        if conn.recv().code == 6:
            raise KeyError("mine")
        conn.send(ANSWER)

    server.handle_new_conn(handler)
    client.notify(6)
    until(lambda: hook)
    assert hook[0].exc_type is KeyError and hook[0].thread is not threading.main_thread()
    assert client.ask(ASK, timeout=20).code == ANSWER


def test_own_ends_are_silent_and_those_of_others_are_not(links, hook):
    client, server = links
    foreign, other = neolink.pair()
    foreign.close()
    other.close()

    def handler(conn):
        packet = conn.recv()
        if packet.payload[1] == 1:
            conn.close()
            conn.recv()                     # ConnClosed, its own
        if packet.payload[1] == 2:
            foreign.new_conn()              # LinkClosed of another link
        conn.recv()                         # LinkClosed or LinkDown, its own

    server.handle_new_conn(handler)
    for n in (1, 2, 3):
        client.notify(6, bytes([0x91, n]))
    until(lambda: hook)
    waiting(server, 2)
    server.close()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("neolink-")])
    assert [seen.exc_type for seen in hook] == [neolink.LinkClosed]
    assert hook[0].exc_value.link is foreign


def test_few_threads_for_many_short_handlers(links):
    client, server = links
    names = set()

    def handler(conn):
        names.add(threading.current_thread())
        conn.send(ANSWER)

    server.handle_new_conn(handler)
    for _ in range(200):
        client.ask(ASK, timeout=20)
    assert len(names) < 20


@pytest.mark.parametrize("bad, error", [((5,), TypeError), ((print, 0), ValueError), ((print, "x"), TypeError)])
def test_bad_arguments(links, bad, error):
    handler, *workers = bad
    with pytest.raises(error):
        links[0].handle_new_conn(handler, **({"workers": workers[0]} if workers else {}))
    with pytest.raises(error):
        links[0].serve(handler, **({"workers": workers[0]} if workers else {}))


@pytest.mark.parametrize("workers", [1, 4])
def test_serve(links, workers):
    client, server = links
    state = proto.ClusterStates.RUNNING
    serving = Background(server.serve, lambda request: proto.AnswerClusterState(state), workers=workers)
    answers = [Background(client.ask, proto.AskClusterState(), timeout=20) for _ in range(8)]
    assert {answer.result().state for answer in answers} == {state}
    client.close()
    serving.result()


def test_serve_replies_what_the_handler_returns(links, hook):
    client, server = links

    def handler(request):
        if request.packet.payload[0] == 0x90:
            raise KeyError("mine")
        if request.packet.payload[1] == 1:
            return Packet(ANSWER, b"\x91\x05")
        request.reply(ANSWER, b"\x91\x06")
        return None

    serving = Background(server.serve, handler)
    assert bytes(client.ask(ASK, b"\x91\x01", timeout=20).payload) == b"\x91\x05"
    assert bytes(client.ask(ASK, b"\x91\x02", timeout=20).payload) == b"\x91\x06"
    client.notify(6)
    until(lambda: hook)
    assert hook[0].exc_type is KeyError
    server.close_accept()
    serving.result()


def test_serve_ends_when_we_close(links):
    serving = Background(links[1].serve, print, workers=2)
    waiting(links[1], 2)
    links[1].close()
    serving.result()


class OnTheWay:
    """A link whose workers are held up between seeing that the pool goes on and taking, until they were woken."""

    def __init__(self, link):
        self._link = link
        self.serial = link.serial
        self.there, self.woken = threading.Event(), threading.Event()
        self.wakes = 0

    def _wakes(self):
        return self._link._wakes()

    def _take(self, *args):
        self.there.set()
        assert self.woken.wait(20)
        return self._link._take(*args)

    def _wake_accept(self):
        self.wakes += 1
        self._link._wake_accept()
        self.woken.set()


def test_stop_reaches_a_worker_on_its_way(links):
    link = OnTheWay(links[1])
    pool = _serve.Workers(link, False, lambda conn: None)
    pool.grow(1)
    assert link.there.wait(20)
    Background(pool.stop).result()
    assert link.wakes == 1


def test_the_conn_of_a_request(links):
    """It is one and the same object, and outlives the request that it was asked of."""
    client, server = links
    asked = Background(client.ask, ASK, timeout=20)
    request = server.recv1(timeout=20)
    conn = request.conn
    assert conn is request.conn and conn.link is server and f"on {conn!r}>" in repr(request)
    del request
    assert not conn.closed
    conn.send(ANSWER)
    assert asked.result().conn_id == conn.conn_id
    conn.close()


def test_a_request_that_is_let_go_of_closes_its_conn(links):
    client, server = links
    conn = client.new_conn()
    conn.send(ASK)
    server.recv1(timeout=20)
    assert server.stats().conns == 0
    conn.close()
