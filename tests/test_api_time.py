# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Timeouts and signals: every blocking call, every way to give the time. (S36, S37, S39, S40, S41)"""
import decimal
import math
import signal
import socket
import time

import pytest
from support import PATIENCE, Background, alarm, kick

import neolink

pytestmark = pytest.mark.usefixtures("no_leaks")


def calls(link):
    """Every blocking call, as function(timeout). None of them ever gets what it waits for."""
    conn = link.new_conn()
    return {
        "recv": lambda t: conn.recv(timeout=t),
        "expect": lambda t: conn.expect(int, timeout=t),
        "accept": lambda t: link.accept(timeout=t),
        "recv1": lambda t: link.recv1(timeout=t),
        "ask": lambda t: link.ask(0x2E, timeout=t),
        "ask_many": lambda t: link.ask_many([neolink.Packet(0x2E)], timeout=t),
    }


KINDS = ["recv", "expect", "accept", "recv1", "ask", "ask_many"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, False, 1e-9, 0.01])
def test_runs_out(links, kind, timeout):
    with pytest.raises(neolink.Timeout) as caught:
        calls(links[0])[kind](timeout)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.link is links[0] and caught.value.op == ("recv" if kind == "expect" else kind)
    assert caught.value.maybe_sent == (kind in ("ask", "ask_many"))
    links[0].notify(1)                                          # the link is as usable as before


@pytest.mark.parametrize("kind", [*KINDS, "close", "dial", "listener"])
@pytest.mark.parametrize("timeout, error", [
    (-1, ValueError), (-0.001, ValueError), (math.nan, ValueError), (-math.inf, ValueError), (-(10**400), ValueError),
    ("1", TypeError), (decimal.Decimal(1), TypeError), ([], TypeError), (1j, TypeError),
])
def test_refused(links, kind, timeout, error):
    with neolink.listen("127.0.0.1:0") as listener:
        more = {"close": lambda t: links[0].close(timeout=t),
                "dial": lambda t: neolink.dial(listener.address, timeout=t),
                "listener": lambda t: listener.accept(timeout=t)}
        with pytest.raises(error, match="timeout"):
            {**calls(links[0]), **more}[kind](timeout)
    assert not links[0].closed


@pytest.mark.parametrize("timeout", [None, math.inf, 1e300, 10**400, True, 2**63, 9.3e9])
def test_long_enough(links, timeout):
    client, server = links
    with client.new_conn() as conn:
        conn.send(1, timeout=timeout)
        peer = server.accept(timeout=timeout)
        assert peer.recv(timeout=timeout).code == 1
        peer.send(0x802E, timeout=timeout)
        assert conn.recv(timeout=timeout).code == 0x802E


def test_late_answer_is_counted(links):
    """S28"""
    client, server = links
    with pytest.raises(neolink.Timeout):
        client.ask(0x2E, timeout=0)
    with server.recv1(timeout=20) as request:
        request.reply(0x802E)
    with pytest.raises(neolink.Timeout):
        client.accept(timeout=0.05)                             # it opens no Conn
    assert client.stats().late_answers == 1


def test_send_that_runs_out_says_whether_it_may_have_left():
    """S35, S36"""
    small = neolink.Limits(link_tx_bytes=1 << 20, link_rx_bytes=1 << 20)     # full before the backlog of accept is
    client, server = neolink.pair(wire="N", limits=small)
    with client, server:
        sent = 0
        with pytest.raises(neolink.Timeout) as caught:
            while True:
                client.notify(5, sent.to_bytes(4, "big") * 10_000, timeout=0)
                sent += 1
        assert caught.value.maybe_sent is False
        for n in range(sent):
            assert server.recv1(timeout=20).packet.payload[:4] == n.to_bytes(4, "big")
        with pytest.raises(neolink.Timeout):
            server.recv1(timeout=0.05)


@pytest.fixture
def on_alarm():
    """Call handler() on SIGALRM, for the time of a test."""
    old = signal.getsignal(signal.SIGALRM)
    yield lambda handler: signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


class Stop(Exception):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_signal_handler_that_raises(links, on_alarm, kind):
    """S40"""
    def handler():
        raised.append(time.monotonic())
        raise Stop

    raised = []
    on_alarm(handler)
    Background(kick, links[0], lambda: raised)
    with pytest.raises(Stop):
        calls(links[0])[kind](20)
    assert time.monotonic() - raised[0] < 10            # of 20
    links[0].notify(1)
    assert links[0].stats().inside == links[0].stats().waiters == 0


@pytest.mark.parametrize("kind", KINDS)
def test_signal_handler_that_returns(links, on_alarm, kind):
    """S41"""
    handled, call = [], calls(links[0])[kind]
    on_alarm(lambda: handled.append(1))
    helper = Background(kick, links[0], lambda: handled)
    while not handled:                                          # one without processor time misses the first wait
        begin = time.monotonic()
        with pytest.raises(neolink.Timeout):
            call(0.3)
        assert time.monotonic() - begin >= 0.3
    helper.result()


def test_storm_of_signals_keeps_the_deadline(links, on_alarm):
    """S39"""
    handled = []
    on_alarm(lambda: handled.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    while len(handled) <= 5:                # a process that gets no processor has many signals as one
        begin = time.monotonic()
        with pytest.raises(neolink.Timeout):
            links[0].ask(0x2E, timeout=0.2)
        assert 0.19 <= time.monotonic() - begin < 10
    signal.setitimer(signal.ITIMER_REAL, 0)


def test_signal_while_listening_and_dialing():
    def handler():
        raise Stop

    with neolink.listen("127.0.0.1:0") as listener, alarm(handler), pytest.raises(Stop):
        listener.accept(timeout=PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as silent:      # connects, and never says a word
        with alarm(handler), pytest.raises(Stop):
            neolink.dial(silent.getsockname(), timeout=PATIENCE)


def test_close_in_a_signal_handler(links, on_alarm):
    """S9"""
    on_alarm(links[0].close)
    Background(kick, links[0], lambda: links[0].closed)
    with pytest.raises(neolink.LinkClosed):
        links[0].accept(timeout=20)
