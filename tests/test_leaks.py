# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The leak checker itself: it must complain about each kind of leak, and about nothing else."""
import os
import threading
import time

import pytest
from leaks import Balance, at_rest, balanced, gauges  # noqa: F401
from scenario_kit import NOTIFY, REQUEST, stuff
from support import Background, poller_clock, until, waiting

import neolink

pytestmark = pytest.mark.usefixtures("balanced")
SHORT = 0.05


def complaint(check) -> str:
    with pytest.raises(pytest.fail.Exception) as caught:
        check()
    return str(caught.value)


def test_nothing_left(balanced):  # noqa: F811
    client, server = balanced.pair()
    client.notify(5)
    server.recv1(timeout=20).close()
    at_rest(client, server)
    client.close()
    server.close()


def test_a_descriptor_left():
    balance = Balance(SHORT)
    fd = os.open("/dev/null", os.O_RDONLY)
    assert "/dev/null" in complaint(balance.check)
    os.close(fd)
    balance.check()


def test_a_link_left_open():
    balance = Balance(SHORT)
    client, server = balance.pair()
    assert "socket:" in complaint(balance.check)
    client.close()
    server.close()
    balance.check()


def test_a_thread_left():
    balance = Balance(SHORT)
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="straggler")
    thread.start()
    assert "straggler" in complaint(balance.check)
    go.set()
    thread.join()
    balance.check()


@pytest.mark.parametrize("gauge", ["conns", "rx_bytes_queued", "waiters", "inside", "tx_bytes_queued"])
def test_each_gauge(balanced, gauge):  # noqa: F811
    # a small budget at the server: it soon stops reading
    client, server = balanced.pair(wire="N", limits=neolink.Limits(link_rx_bytes=100_000))
    blocked = conn = None
    if gauge == "conns":
        conn = client.new_conn()
    elif gauge == "rx_bytes_queued":
        server.notify(NOTIFY, b"x" * 100)
    elif gauge == "tx_bytes_queued":
        stuff(client)
    else:
        blocked = Background(client.ask, REQUEST)
        waiting(client)
    until(lambda: gauge in gauges(client))
    assert gauge in complaint(lambda: at_rest(client, patience=SHORT))
    client.abort()
    server.abort()
    if blocked:
        with pytest.raises(neolink.LinkClosed):
            blocked.result()
    del conn


def test_the_thread_of_the_core_is_found_among_threads_that_end(balanced):  # noqa: F811
    """One that was joined may still be listed by the kernel, and gone when it is asked for its name."""
    pair, stop = balanced.pair(), threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            batch = [threading.Thread(target=int) for _ in range(8)]
            for each in batch:
                each.start()
            for each in batch:
                each.join()

    coming = Background(come_and_go)
    try:
        clocks = {poller_clock() for _ in range(300)}
    finally:
        stop.set()
    coming.result()
    assert len(clocks) == 1 and time.clock_gettime(clocks.pop()) > 0
    for link in pair:
        link.close()
