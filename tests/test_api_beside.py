# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""An ask on a link on which another thread waits already: it is made without the GIL from its begin to its end, which
nobody should notice otherwise."""
import signal
import threading

import pytest
from support import Background, kick, until, waiting

import neolink

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def beside():
    """(client end, server end) on wire N; a thread of the client waits for its answer as long as the test lasts."""
    client, server = neolink.pair(wire="N")
    with client, server:
        first = Background(client.ask, 1, b"first", timeout=60)
        waiting(client)
        request = server.recv1(timeout=20)
        yield client, server
        request.reply(0x8001, b"first")
        assert first.result().payload == b"first"
        until(lambda: client.stats().waiters == client.stats().inside == 0, "everybody to leave")


def test_answer(beside):
    client, server = beside
    second = Background(client.ask, neolink.Packet(3, b"second"), timeout=20)
    request = server.recv1(timeout=20)
    assert (request.packet.code, request.packet.payload) == (3, b"second")
    request.reply(0x8003, b"answer")
    assert (second.result().code, second.result().payload) == (0x8003, b"answer")


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_timeout(beside, timeout):
    client, server = beside
    with pytest.raises(neolink.Timeout) as caught:
        client.ask(3, b"second", timeout=timeout)
    request = server.recv1(timeout=20)
    assert caught.value.maybe_sent and caught.value.op == "ask" and caught.value.link is client
    assert caught.value.conn_id == request.packet.conn_id
    request.reply(0x8003)
    until(lambda: client.stats().late_answers == 1, "the late answer")


def test_packet_that_cannot_be_begun(beside):
    client, server = beside
    with pytest.raises(neolink.TooBig) as caught:
        client.ask(3, bytes((64 << 20) + 1), timeout=20)
    assert caught.value.op == "ask" and caught.value.conn_id is None
    assert client.stats().packets_sent == 1


def test_signal_does_not_send_it_twice(beside):
    client, server = beside

    def answer():
        request = server.recv1(timeout=20)
        handled.wait(20)
        request.reply(0x8003, b"answer")

    handled = threading.Event()
    old = signal.signal(signal.SIGALRM, lambda *_: handled.set())
    try:
        helpers = [Background(kick, client, handled.is_set, 2), Background(answer)]
        assert client.ask(3, b"second", timeout=20).payload == b"answer"
    finally:
        signal.signal(signal.SIGALRM, old)
    for helper in helpers:
        helper.result()
    assert handled.is_set() and client.stats().packets_sent == 2 and client.stats().conns == 1


def test_signal_handler_that_raises(beside):
    client, server = beside

    class Stop(Exception):
        pass

    def handler(*_):
        raised.append(True)
        raise Stop

    raised = []

    old = signal.signal(signal.SIGALRM, handler)
    try:
        helper = Background(kick, client, lambda: raised, 2)
        with pytest.raises(Stop):
            client.ask(3, b"second", timeout=20)
    finally:
        signal.signal(signal.SIGALRM, old)
    helper.result()
    assert client.stats().conns == 1
    server.recv1(timeout=20).reply(0x8003)
    until(lambda: client.stats().late_answers == 1, "the late answer")


def test_buffer_is_the_callers_again_when_the_request_has_left(beside):
    client, server = beside
    buffer = bytearray(b"a" * 1000)
    second = Background(client.ask, 3, buffer, timeout=20)
    request = server.recv1(timeout=20)
    waiting(client, 2)
    buffer.clear()                      # no export is left, though the answer is still to come
    assert request.packet.payload == b"a" * 1000
    request.reply(0x8003)
    assert second.result().code == 0x8003


def test_link_that_ends():
    client, server = neolink.pair(wire="N")
    with client, server:
        first = Background(client.ask, 1, timeout=60)
        waiting(client)
        second = Background(client.ask, 3, timeout=60)
        waiting(client, 2)
        server.abort()
        for ask in first, second:
            with pytest.raises(neolink.LinkDown):
                ask.result()
