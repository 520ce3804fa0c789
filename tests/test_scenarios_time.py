# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Timeouts, cancelling, signals: S33 to S43."""
import contextlib
import math
import os
import signal
import socket
import threading
import time

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import ANSWER, NOTIFY, REQUEST, body, both_ends, data_of, each_wire, raw_peer, stuff
from support import PATIENCE, Background, until, waiting, within

import neolink

pytestmark = pytest.mark.usefixtures("balanced")
CTRL_C_SECONDS = 0.1
"""Ctrl-C takes no longer than this."""


def echo_bodies(link: neolink.NodeLink) -> None:
    """Answer requests with what they brought, until the link ends."""
    link.serve(lambda request: neolink.Packet(ANSWER, request.packet.payload))


@pytest.mark.parametrize("wire, routing", [("2016", "stream"), ("N", "neo"), ("M", "neo")])
def test_s33_answer_and_deadline_meet(wire, routing):
    """10^4 asks whose time is about a round trip: each is answered or timed out, and every answer is accounted for."""
    turns = 10_000 // 3
    with both_ends(wire, routing) as (client, server):
        serving = Background(echo_bodies, server)
        answered = 0
        seconds = 50e-6
        for turn in range(turns):
            asked = body(wire, turn.to_bytes(4, "big"))
            try:
                answer = client.ask(REQUEST, asked, timeout=seconds)
            except neolink.Timeout as timeout:
                assert timeout.maybe_sent
                seconds *= 1.05                     # so that about half of them are answered
            else:
                assert answer.payload == asked      # its own, never the one before
                answered += 1
                seconds *= 0.95
        assert turns // 10 < answered < turns - turns // 10
        until(lambda: server.stats().packets_sent == server.stats().packets_received == client.stats().packets_sent)
        until(lambda: client.stats().packets_received == server.stats().packets_sent)
        stats = client.stats()
        assert answered + stats.late_answers == stats.packets_sent
        assert stats.ignored_packets == 0
        at_rest(client)
        client.close()
        serving.result()


@pytest.mark.parametrize("wire, routing", [("2016", "stream"), ("M", "neo")])
def test_s34_a_cancelled_recv_loses_nothing(wire, routing):
    """Receivers with tiny timeouts, on one Conn: every message goes to one of them, in order to each."""
    total = 3000
    with both_ends(wire, routing) as (client, server):
        conn = client.new_conn()
        conn.send(REQUEST)
        peer = server.accept(timeout=20)
        taken = threading.Semaphore(0)

        def receive(seconds):
            mine = []
            while not mine or mine[-1] >= 0:
                with contextlib.suppress(neolink.Timeout):
                    packet = conn.recv(timeout=seconds)
                    mine.append(int.from_bytes(data_of(wire, packet.payload), "big", signed=True))
                    taken.release()
            return mine[:-1]

        receivers = [Background(receive, seconds) for seconds in (1e-6, 2e-5, 1e-4, 1e-3)]
        for n in [*range(total), *[-1] * len(receivers)]:
            peer.send(ANSWER, body(wire, n.to_bytes(4, "big", signed=True)))
            if n % 3 == 0:
                taken.acquire(timeout=PATIENCE)     # let them wait again, to be cancelled
        got = [receiver.result() for receiver in receivers]
        assert all(mine == sorted(mine) for mine in got)
        assert sorted(n for mine in got for n in mine) == list(range(total))
        conn.close()
        peer.close()
        at_rest(client, server)


@each_wire
def test_s35_s36_a_send_that_timed_out(wire):
    """maybe_sent tells the truth, and the buffer is the caller's at once: what is on the wire does not change."""
    with raw_peer(wire) as (link, peer):
        sent, conn = 0, link.new_conn()
        buffer = bytearray(body(wire, bytes(70_000)))
        with pytest.raises(neolink.Timeout) as caught:
            while True:
                buffer[-4:] = sent.to_bytes(4, "big")
                conn.send(REQUEST, buffer, timeout=0.01)
                buffer[-4:] = b"\xff\xff\xff\xff"   # too late to matter
                sent += 1
        assert caught.value.maybe_sent is False and caught.value.op == "send"
        buffer.clear()                              # no export is left
        reading = Background(peer.rest)
        link.close()
        assert [packet.payload[-4:] for packet in reading.result()] == [n.to_bytes(4, "big") for n in range(sent)]


def test_s36_an_ask_that_could_not_leave_and_one_that_could():
    with raw_peer("M") as (link, peer):
        with pytest.raises(neolink.Timeout) as caught:
            link.ask(REQUEST, timeout=0.01)
        assert caught.value.maybe_sent is True and "may have been sent" in str(caught.value)
        stuff(link)
        stuff(link, 0)                              # to the last byte
        for use in (lambda: link.ask(REQUEST, timeout=0.01), lambda: link.notify(NOTIFY, timeout=0.01),
                    lambda: link.ask_many([neolink.Packet(REQUEST)], timeout=0.01)):
            with pytest.raises(neolink.Timeout) as caught:
                use()
            assert caught.value.maybe_sent is False and "was not sent" in str(caught.value)


@pytest.mark.parametrize("timeout", [None, 0, 0.0, math.inf, 1e300, 2**70, True])
def test_s37_odd_timeouts(timeout):
    with both_ends("M") as (client, server):
        for _ in range(3):
            client.notify(NOTIFY, timeout=timeout)
        until(lambda: server.stats().conns == 3)
        for _ in range(3):
            with server.accept(timeout=timeout) as conn:
                assert conn.recv(timeout=timeout).code == NOTIFY
        for bad in (-1, -math.inf, math.nan, -1e-9):
            with pytest.raises(ValueError, match="timeout"):
                server.accept(timeout=bad)


# ---- signals


@pytest.fixture
def on_signal():
    """on_signal(number, handler) for the time of a test."""
    old = {}

    def install(number, handler):
        old.setdefault(number, signal.getsignal(number))
        signal.signal(number, handler)

    yield install
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in old.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def blocking_calls():
    """Every call that can block, as name -> (function(timeout), link that counts its waiters or None, what must work later)."""
    with contextlib.ExitStack() as stack:
        link, peer = stack.enter_context(raw_peer("M"))
        full, _ = stack.enter_context(raw_peer("M"))
        stuff(full)
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener = stack.enter_context(neolink.listen("127.0.0.1:0"))
        conn, full_conn = link.new_conn(), full.new_conn()
        packet, big = neolink.Packet(NOTIFY, body("M", bytes(100_000))), body("M", bytes(100_000))
        request = neolink.Packet(REQUEST)
        calls = {
            "recv": (lambda t: conn.recv(timeout=t), link),
            "expect": (lambda t: conn.expect(int, timeout=t), link),
            "accept": (lambda t: link.accept(timeout=t), link),
            "recv1": (lambda t: link.recv1(timeout=t), link),
            "ask": (lambda t: link.ask(REQUEST, timeout=t), link),
            "ask_many": (lambda t: link.ask_many([request] * 3, timeout=t), link),
            "send": (lambda t: full_conn.send(NOTIFY, big, timeout=t), full),
            "notify": (lambda t: full.notify(NOTIFY, big, timeout=t), full),
            "notify_many": (lambda t: full.notify_many([packet] * 3, timeout=t), full),
            "ask_over_budget": (lambda t: full.ask(REQUEST, big, timeout=t), full),
            "ask_many_over_budget": (lambda t: full.ask_many([neolink.Packet(REQUEST, big)] * 3, timeout=t), full),
            "dial": (lambda t: neolink.dial(silent.getsockname(), wire="M", timeout=t), None),
            "listener": (lambda t: listener.accept(timeout=t), None),
        }
        endless = {                                 # these take no timeout
            "iterate_link": (lambda: next(link), link),
            "iterate_conn": (lambda: next(conn), link),
            "iterate_listener": (lambda: next(listener), None),
            "serve": (lambda: link.serve(lambda request: None), link),
            "serve_with_workers": (lambda: link.serve(lambda request: None, workers=3), link),
        }

        def check():
            peer.send(2, REQUEST)                   # it still accepts, answers and asks
            with link.recv1(timeout=20) as taken:
                taken.reply(ANSWER)
            while peer.recv().code != ANSWER:
                pass
            until(lambda: link.stats().inside == full.stats().inside == 0)
            assert link.stats().waiters == full.stats().waiters == 0

        yield calls, endless, check


WITH_TIMEOUT = ["recv", "expect", "accept", "recv1", "ask", "ask_many", "send", "notify", "notify_many", "ask_over_budget",
                "ask_many_over_budget", "dial", "listener"]
ENDLESS = ["iterate_link", "iterate_conn", "iterate_listener", "serve", "serve_with_workers"]


def is_asleep(thread_id: int) -> bool:
    """Whether the kernel has the thread sleeping."""
    with open(f"/proc/self/task/{thread_id}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


def kick(link: neolink.NodeLink | None, kicked: list[float], number: int = signal.SIGINT) -> Background:
    """A signal to the process once its main thread waits in the call."""
    main = threading.main_thread()

    def run():
        if link is not None:
            waiting(link)
        asleep = 0                                  # the counter counts who is about to sleep, too; a signal that comes
        while asleep < (20 if link else 100):       # then is noticed when the sleep ends, as in CPython's own calls
            asleep = asleep + 1 if is_asleep(main.native_id) else 0
            time.sleep(0.0005)
        kicked.append(time.monotonic())
        os.kill(os.getpid(), number)

    return Background(run)


@pytest.mark.parametrize("kind", [*WITH_TIMEOUT, *ENDLESS])
def test_s40_ctrl_c(on_signal, kind):
    on_signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> float:
        with blocking_calls() as (calls, endless, check):
            if kind in calls:
                call, link = calls[kind][0], calls[kind][1]
                run = lambda: call(PATIENCE)        # noqa: E731
            else:
                run, link = endless[kind]
            kicked = []
            kicker = kick(link, kicked)
            with pytest.raises(KeyboardInterrupt):
                run()
            took = time.monotonic() - kicked[0]
            kicker.result()
            check()
        return took

    within(CTRL_C_SECONDS, interrupt)


def test_s40_ctrl_c_in_close(on_signal):
    """close() with a peer that never reads can be interrupted, and called again."""
    on_signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> float:
        with raw_peer("M", tcp=True) as (link, _):
            stuff(link)
            kicked = []
            kicker = kick(None, kicked)
            with pytest.raises(KeyboardInterrupt):
                link.close(timeout=None)
            took = time.monotonic() - kicked[0]
            kicker.result()
            link.close(timeout=0)
            assert link.closed
            until(lambda: link.fileno() == -1)      # if the poller was writing, it is the last one out
        return took

    within(CTRL_C_SECONDS, interrupt)


@pytest.mark.parametrize("kind", WITH_TIMEOUT)
def test_s41_a_handler_that_returns(on_signal, kind):
    """PEP 475: the call goes on, and its deadline stays."""
    handled = []
    on_signal(signal.SIGUSR1, lambda *_: handled.append(time.monotonic()))
    with blocking_calls() as (calls, _, check):
        call, link = calls[kind]
        kicker = kick(link, [], signal.SIGUSR1)
        while not handled:                          # a thread that gets no processor time misses a wait
            begin = time.monotonic()
            with pytest.raises(neolink.Timeout):
                call(0.3)
            assert 0.299 <= time.monotonic() - begin < 0.3 + PATIENCE / 2
        kicker.result()
        assert len(handled) == 1
        check()


@pytest.mark.parametrize("kind", ["recv", "ask", "send", "accept", "dial", "listener"])
def test_s39_a_storm_of_signals(on_signal, kind):
    handled = []
    on_signal(signal.SIGALRM, lambda *_: handled.append(1))
    with blocking_calls() as (calls, _, check):
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        while len(handled) <= 5:                    # a process that gets no processor has many signals as one
            begin = time.monotonic()
            with pytest.raises(neolink.Timeout):
                calls[kind][0](0.2)
            assert 0.199 <= time.monotonic() - begin < 0.2 + PATIENCE / 2
        signal.setitimer(signal.ITIMER_REAL, 0)
        check()


def test_s39_traffic_under_a_storm(on_signal):
    on_signal(signal.SIGALRM, lambda *_: None)
    with both_ends("N") as (client, server):
        serving = Background(echo_bodies, server)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for n in range(500):
            payload = n.to_bytes(4, "big") * (1 + n % 50 * 500)
            assert client.ask(REQUEST, payload, timeout=PATIENCE).payload == payload
        signal.setitimer(signal.ITIMER_REAL, 0)
        client.close()
        serving.result()


def test_s43_the_clock_on_the_wall_is_not_looked_at(monkeypatch):
    """Python's own part; the core's source has no other clock than CLOCK_MONOTONIC."""
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, lambda: pytest.fail("the wall clock was asked"))
    with both_ends("M") as (client, server):
        for call in (lambda: client.ask(REQUEST, timeout=0.05), lambda: client.accept(timeout=0.05),
                     lambda: client.new_conn().ask(neolink.Packet(REQUEST), timeout=0.05)):
            begin = time.monotonic()
            with pytest.raises(neolink.Timeout):
                call()
            assert 0.049 <= time.monotonic() - begin < PATIENCE / 2
        server.close()


# ---- deadlines that change, calls that are given up

def test_s38_each_waiter_keeps_its_own_deadline():
    """Whoever reads for all leaves at its own time, and the others at theirs: the read token does not carry a deadline."""
    for order in ((0.1, 0.3, PATIENCE), (PATIENCE, 0.3, 0.1), (0.3, 0.1, PATIENCE)):
        with both_ends("M") as (client, server):
            conns = [client.new_conn() for _ in order]
            begin = time.monotonic()
            waits = []
            for n, seconds in enumerate(order):     # one after the other, if there is time for it
                waits.append(Background(conns[n].recv, timeout=seconds))
                until(lambda: client.stats().waiters >= len(waits) or any(wait.done() for wait in waits))
            for seconds, wait in sorted(zip(order, waits, strict=True), key=lambda each: each[0])[:2]:
                with pytest.raises(neolink.Timeout):
                    wait.result()
                assert seconds - 0.001 <= time.monotonic() - begin < seconds + PATIENCE / 4
            longest = order.index(PATIENCE)
            assert not waits[longest].done()
            conns[longest].send(REQUEST)
            with server.recv1(timeout=20) as request:
                request.reply(ANSWER)
            assert waits[longest].result().code == ANSWER


@pytest.mark.parametrize("kind", WITH_TIMEOUT)
def test_s38_a_deadline_cut_short_is_gone(on_signal, kind):
    """A call with much time, or with no end, is given up at once by a handler that raises; the next has its own time."""
    class Enough(Exception):
        pass

    def handler(*_: object) -> None:
        raise Enough

    on_signal(signal.SIGUSR1, handler)
    with blocking_calls() as (calls, _, check):
        call, link = calls[kind]
        for seconds in (PATIENCE, None):
            kicker = kick(link, [], signal.SIGUSR1)
            begin = time.monotonic()
            with pytest.raises(Enough):
                call(seconds)
            assert time.monotonic() - begin < PATIENCE / 2
            kicker.result()
            begin = time.monotonic()
            with pytest.raises(neolink.Timeout):
                call(0.1)
            assert 0.099 <= time.monotonic() - begin < PATIENCE / 2
        check()


@pytest.mark.parametrize("wire, routing", [("2016", "stream"), ("M", "neo")])
def test_s42_threads_share_a_link_and_some_give_up(wire, routing):
    """Who gives up takes nothing from the others: each who stays has its own answer."""
    with both_ends(wire, routing) as (client, server):
        serving = Background(echo_bodies, server)

        def ask(mine: int, timeout: float | None) -> int:
            answered = 0
            for n in range(300):
                asked = body(wire, (mine << 16 | n).to_bytes(4, "big"))
                with contextlib.suppress(neolink.Timeout):
                    assert client.ask(REQUEST, asked, timeout=timeout).payload == asked
                    answered += 1
            return answered

        asking = [Background(ask, mine, None if mine % 2 else 1e-5 * mine) for mine in range(8)]
        assert [each.result() for each in asking][1::2] == [300] * 4
        until(lambda: client.stats().packets_received == client.stats().packets_sent)
        at_rest(client)
        client.close()
        serving.result()


def test_s42_a_handler_that_raises_stops_nobody(monkeypatch):
    """Its Conn is closed and its exception told; the reader reads on, other Conns and other handlers work."""
    told = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_type))
    with both_ends("M") as (client, server):
        def fail(conn: neolink.Conn) -> None:
            raise ZeroDivisionError

        bystander = client.new_conn()
        bystander.send(REQUEST)
        with server.recv1(timeout=20) as waiting_request:
            server.handle_new_conn(fail)
            for _ in range(50):
                with client.new_conn() as conn:
                    conn.send(REQUEST)
            until(lambda: len(told) == 50)
            assert set(told) == {ZeroDivisionError}
            server.handle_new_conn(lambda conn: conn.send(ANSWER, conn.recv(timeout=20).payload))
            assert client.ask(REQUEST, body("M", b"x"), timeout=20).payload == body("M", b"x")
            waiting_request.reply(ANSWER)
        assert bystander.recv(timeout=20).code == ANSWER
        bystander.close()


def test_s42_a_link_that_closes_while_all_wait():
    """As the end of an event loop would find it: every call that waits ends, and the threads of the handlers go home."""
    with both_ends("M") as (client, server):
        server.handle_new_conn(lambda conn: list(conn))
        for _ in range(5):
            client.notify(NOTIFY)
        until(lambda: server.stats().waiters >= 5)
        waits = [Background(client.ask, REQUEST) for _ in range(5)] + [Background(client.accept)]
        waiting(client, 6)
        server.close()
        for wait in waits:
            with pytest.raises(neolink.LinkDown):
                wait.result()
