# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Networks that fail, and keepalive: S52, S53.

What is promised is idle + interval * probes seconds: by then a peer that is gone is found, whatever the link does
meanwhile. The network is made here (network_kit.py); these tests are skipped where that is not permitted.
"""
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from leaks import balanced  # noqa: F401
from network_kit import Network, network
from scenario_kit import ANSWER, NOTIFY, REQUEST, stuff, tcp_pair
from support import PATIENCE, Background, until, waiting

import neolink

pytestmark = pytest.mark.usefixtures("balanced")
KEEPALIVE = (1, 1, 1)
PROMISE = 2.0
"""Seconds, of that keepalive."""
GRACE = 8.0
"""What a busy machine and the kernel's timers may add."""
LAST = 6
"""A notification, too."""
LITTLE = neolink.Limits(link_rx_bytes=100_000, accept_backlog=None)


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@contextlib.contextmanager
def over(net: Network, keepalive: tuple[float, float, int] = KEEPALIVE, links: int = 1) \
        -> Iterator[list[tuple[neolink.NodeLink, neolink.NodeLink]]]:
    """So many links (dialed, accepted) over the network. The accepted ends hold little that nobody takes."""
    with contextlib.ExitStack() as stack:
        listener = net.far.run(neolink.listen, (net.far.address, 0), wire="N", keepalive=keepalive, limits=LITTLE)
        stack.callback(listener.close)
        pairs = []
        for _ in range(links):
            dialing = net.near.start(neolink.dial, listener.address, wire="N", keepalive=keepalive, timeout=PATIENCE)
            served = listener.accept(timeout=PATIENCE)
            stack.callback(served.abort)
            pairs.append((dialing.result(), served))
            stack.callback(pairs[-1][0].abort)
        yield pairs


def options(link: neolink.NodeLink) -> tuple[int, ...]:
    """keepalive as the kernel has it: on, idle, interval, probes, and what a send may wait, in ms."""
    with socket.socket(fileno=os.dup(link.fileno())) as sock:
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        return (sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                *(sock.getsockopt(socket.IPPROTO_TCP, name) for name in names))


@pytest.mark.parametrize("given, seconds", [({}, (60, 10, 3)), ({"keepalive": (5, 2.5, 4)}, (5, 3, 4))])
def test_keepalive_is_set_on_all_links(given, seconds):
    idle, interval, probes = seconds
    wanted = (1, idle, interval, probes, 1000 * (idle + interval * probes))
    near, far = tcp_pair()
    with neolink.NodeLink(near, "client", **given) as client, neolink.NodeLink(far, "server", **given) as server:
        assert options(client) == options(server) == wanted
    with neolink.listen("127.0.0.1:0", wire="M", **given) as listener, \
            neolink.dial(listener.address, wire="M", **given) as client, listener.accept(timeout=PATIENCE) as server:
        assert options(client) == options(server) == wanted


def test_without_keepalive_the_socket_keeps_its_own():
    near, far = tcp_pair()
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
    with far, neolink.NodeLink(near, "client", keepalive=None) as link:
        assert options(link)[:2] == (0, 77)


@pytest.mark.parametrize("bad, error", [((0, 1, 1), ValueError), ((1, 0, 1), ValueError), ((1, 1, 0), ValueError),
                                        ((1, 1, 128), ValueError), ((1, 1), TypeError), (60, TypeError),
                                        ((float("nan"), 1, 1), ValueError), (("1", 1, 1), TypeError)])
def test_bad_keepalive(bad, error):
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(error):
            neolink.NodeLink(near, "client", keepalive=bad)
        assert near.fileno() >= 0               # still the caller's


def found_in(waits: list[Background], begin: float) -> None:
    """Each of these calls ends with LinkDown, within the promise, and not at once."""
    for wait in waits:
        with pytest.raises(neolink.LinkDown) as caught:
            wait.result()
        assert isinstance(caught.value.__cause__, OSError) and not caught.value.clean, caught.value
    took = time.monotonic() - begin
    assert took < PROMISE + GRACE, took


@pytest.mark.parametrize("how", ["black hole", "link down"])
def test_s52_a_peer_that_cannot_be_reached(net, how):
    """Found by links that only wait, that ask, and whose sends are stuck; and at the other end as well."""
    with over(net, links=3) as [(idle, idle_far), (asking, asking_far), (sending, _)]:
        waits = [Background(idle.accept), Background(idle_far.accept), Background(asking.new_conn().recv),
                 Background(asking_far.accept), Background(notify_on, sending, [])]
        for link in (idle, idle_far, asking, asking_far, sending):
            waiting(link)
        begin = time.monotonic()
        if how == "black hole":
            net.cable.cut = True
        else:
            net.near.link_down()
        waits.append(Background(asking.ask, REQUEST))       # its packet is on the way, and nobody says that it came
        found_in(waits, begin)


def notify_on(link: neolink.NodeLink, stop: list[int]) -> int:
    """Notify until there is something in `stop`; how many were taken."""
    sent = 0
    while not stop:
        link.notify(NOTIFY, bytes(50_000), timeout=None)
        sent += 1
    return sent


STOPPED = """
import sys, neolink
listener = neolink.listen("127.0.0.1:0", wire="N")
print(listener.address[1], flush=True)
link = listener.accept()
print("linked", flush=True)
link.recv1()
"""


def test_s52_a_stopped_peer_with_a_send_stuck():
    """Its kernel answers, so that it is dead shows only in that it takes nothing: found by the send, in the promise."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(neolink.__file__)))
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": root}) as process:
        try:
            link = neolink.dial(("127.0.0.1", int(process.stdout.readline())), wire="N", keepalive=KEEPALIVE)
            assert process.stdout.readline() == "linked\n"
            process.send_signal(signal.SIGSTOP)
            stuff(link)
            begin = time.monotonic()
            # More than one: what the kernel has on its way yet makes room for some.
            found_in([Background(notify_on, link, []), Background(link.accept)], begin)
            link.close()
        finally:
            process.send_signal(signal.SIGKILL)


def test_s53_a_busy_link_lives_on_a_bad_network(net):
    """5 % of the packets lost and 100 ms each way, for longer than the promise: asks are answered, and a link that only
    sends is not thought dead."""
    net.cable.delay = 0.1
    net.cable.lose_each = 20
    with over(net, (1, 1, 2), links=2) as [(asking, serving), (sending, receiving)]:
        replies = Background(serving.serve, lambda request: neolink.Packet(ANSWER, request.packet.payload))
        counting = Background(lambda: sum(1 for request in iter(receiving.recv1, None) if request.close() is None))
        begin, asked, sent = time.monotonic(), 0, 0
        while time.monotonic() - begin < 2 * PROMISE or asked < 20 or net.cable.lost < 5:
            payload = asked.to_bytes(4, "big") * 300
            assert asking.ask(REQUEST, payload, timeout=PATIENCE).payload == payload
            sending.notify(NOTIFY, payload, timeout=PATIENCE)
            asked, sent = asked + 1, sent + 1
        until(lambda: receiving.stats().packets_received == sent)
        for link in (asking, serving, sending, receiving):
            assert not link.closed and link.fault is None
        asking.close()
        sending.close()
        replies.result()
        with pytest.raises(neolink.LinkDown):
            counting.result()


def test_s53_a_slow_reader_is_alive():
    """Its socket is full for most of the time, longer than the promise in all; it takes a little now and then."""
    near, far = tcp_pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    with far, neolink.NodeLink(near, "client", wire="N", keepalive=KEEPALIVE) as link:
        begin = time.monotonic()
        sending = Background(link.notify, NOTIFY, bytes(4 << 20))
        far.settimeout(PATIENCE)
        while time.monotonic() - begin < 2 * PROMISE:
            assert far.recv(1 << 17)
            time.sleep(0.05)                                # how slow it is, not a wait for something
        assert not link.closed
        reading = Background(lambda: [None for _ in iter(lambda: far.recv(1 << 20), b"")])
        sending.result()
        link.close()
        reading.result()


def test_s46_keepalive_passes_while_both_only_send():
    """Both sockets are full and nobody reads: probes come and go for several intervals, the links live, and all arrives
    when somebody reads. That may last as long as keepalive promises; a peer that takes nothing may be dead (S52)."""
    near, far = tcp_pair()
    keepalive = (1, 1, 30)
    with neolink.NodeLink(near, "client", wire="N", keepalive=keepalive, limits=LITTLE) as client, \
            neolink.NodeLink(far, "server", wire="N", keepalive=keepalive, limits=LITTLE) as server:
        stop: list[int] = []
        sending = [Background(notify_on, link, stop) for link in (client, server)]
        waiting(client)
        waiting(server)
        begin = time.monotonic()
        until(lambda: time.monotonic() - begin > 3.5)
        assert not client.closed and not server.closed
        stop.append(1)
        taking = [Background(take_on, link) for link in (server, client)]
        sent = [each.result() for each in sending]
        client.notify(LAST)
        server.notify(LAST)
        assert [each.result() for each in taking] == sent


def take_on(link: neolink.NodeLink) -> int:
    """Take notifications until the last one; how many came before it."""
    taken = 0
    while True:
        with link.recv1(timeout=PATIENCE) as request:
            if request.packet.code == LAST:
                return taken
            taken += 1


def test_an_injected_reset(net):
    """It is an end like another: who waits is told, the other end finds out when it next sends."""
    with over(net) as [(link, far)]:
        waits = [Background(link.new_conn().recv), Background(link.accept)]
        waiting(link, 2)
        link.notify(NOTIFY)
        far.recv1(timeout=PATIENCE).close()
        until(lambda: net.near.tun in net.cable._last)
        net.cable.cut = True
        net.cable.reset(net.near)
        for wait in waits:
            with pytest.raises(neolink.LinkDown) as caught:
                wait.result()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
        net.cable.cut = False
        with pytest.raises(neolink.LinkDown):
            while True:
                far.ask(REQUEST, timeout=PATIENCE)


def test_a_cable_that_comes_back(net):
    """A second's gap is no death where two are promised: what was asked meanwhile is answered."""
    with over(net, (2, 1, 3)) as [(link, far)]:
        serving = Background(far.serve, lambda request: neolink.Packet(ANSWER))
        link.ask(REQUEST, timeout=PATIENCE)
        net.cable.cut = True
        asking = Background(link.ask, REQUEST, timeout=PATIENCE)
        until(lambda: net.cable.lost >= 2)                  # sent, and sent again
        net.cable.cut = False
        assert asking.result().code == ANSWER
        link.close()
        serving.result()
