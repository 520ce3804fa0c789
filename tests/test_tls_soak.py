# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Eight threads on one TLS link that is closed at a random moment, again and again; and a fork in the midst of traffic.

NEOLINK_SOAK_SECONDS says how long the soak lasts (default: 3; beyond 50, pass pytest -o faulthandler_timeout=0).
A failure names the seed of its random numbers; NEOLINK_SOAK_SEED runs them again.
"""
import os
import random
import threading
import time

import pytest
from scenario_kit import ANSWER, NOTIFY, REQUEST, body
from support import PATIENCE, Background, until
from test_api_process import in_child
from tls_kit import link_and_peer, two_ends

import neolink

pytestmark = pytest.mark.usefixtures("no_leaks")
SECONDS = float(os.environ.get("NEOLINK_SOAK_SECONDS", "3"))
SEED = int(os.environ.get("NEOLINK_SOAK_SEED", random.SystemRandom().randrange(1 << 32)))
LAST = NOTIFY + 1
END = (neolink.LinkClosed, neolink.LinkDown)
"""What the end of the link may look like. A ProtocolError is a LinkDown, too, but never the right one."""


def load(number: int) -> bytes:
    """Sizes on both sides of a record's 16 KiB."""
    return body("M", bytes([number % 251]) * (number * 977 % 40_000))


def ask(link: neolink.NodeLink) -> int:
    """Asks until the end; every answer is the one to its question."""
    for number in range(1 << 30):
        try:
            answer = link.ask(REQUEST, load(number), timeout=PATIENCE)
        except END as error:
            assert not isinstance(error, neolink.ProtocolError), error
            return number
        assert answer.code == ANSWER and bytes(answer.payload) == load(number)
    raise AssertionError


def notify(link: neolink.NodeLink) -> int:
    for number in range(1 << 30):
        try:
            link.notify(NOTIFY, load(number), timeout=PATIENCE)
        except END as error:
            assert not isinstance(error, neolink.ProtocolError), error
            return number
    raise AssertionError


def receive(link: neolink.NodeLink) -> int:
    for number in range(1 << 30):
        try:
            link.recv1(timeout=PATIENCE)
        except END as error:
            assert not isinstance(error, neolink.ProtocolError), error
            return number
    raise AssertionError


def serve(link: neolink.NodeLink) -> int:
    """Answers what is asked, and notifies in between, until the end."""
    for number in range(1 << 30):
        try:
            with link.recv1(timeout=PATIENCE) as request:
                if request.packet.code == REQUEST:
                    request.reply(ANSWER, request.packet.payload)
            if number % 3 == 0:
                link.notify(NOTIFY, load(number), timeout=PATIENCE)
        except (*END, neolink.ConnClosed) as error:
            assert not isinstance(error, neolink.ProtocolError), error
            return number
    raise AssertionError


def one_life(numbers: random.Random) -> int:
    """From the handshake to the last thread's end; how much was done."""
    with two_ends(limits=neolink.Limits(accept_backlog=1 << 20)) as (client, server):       # nobody is refused
        work = [Background(ask, client) for _ in range(4)] + [Background(notify, client) for _ in range(2)]
        work += [Background(receive, client) for _ in range(2)] + [Background(serve, server) for _ in range(3)]
        goal = numbers.randrange(2000)
        until(lambda: client.stats().packets_received >= goal or client.closed, f"{goal} packets")
        one = numbers.choice([client, server])
        end = numbers.choice([one.close, one.abort, lambda: one.close(0), lambda: one.close(0.01)])
        closing = [Background(end) for _ in range(numbers.choice([1, 2]))]
        if numbers.random() < 0.3:                                  # both at once
            closing.append(Background((server if one is client else client).close))
        for each in closing:
            each.result()
        return sum(each.result() for each in work)


def test_closed_at_random_moments():
    numbers, end, lives, done = random.Random(SEED), time.monotonic() + SECONDS, 0, 0
    while lives < 3 or time.monotonic() < end:
        try:
            done += one_life(numbers)
        except BaseException as error:
            error.add_note(f"NEOLINK_SOAK_SEED={SEED}, life {lives}")
            raise
        lives += 1
    assert done > lives


# ---- S58


@pytest.mark.no_asan
@pytest.mark.filterwarnings("ignore::DeprecationWarning")           # from 3.12 on: fork with threads
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_s58_a_forked_child_sends_nothing(version):
    """Not by using the link, nor by letting go of it, nor by its own end; and its parent's session goes on."""
    with link_and_peer("client", version) as (link, peer):
        over = threading.Event()

        def chat():
            number = 0
            while not over.is_set():
                link.notify(NOTIFY, load(number), timeout=PATIENCE)
                number += 1
            link.notify(LAST, body("M"), timeout=PATIENCE)
            return number

        chatting = Background(chat)
        for number in range(20):
            if number % 5 == 0:
                assert in_child(lambda: child(link)) == 0
            assert peer.recv().payload == load(number)
        over.set()
        count = 20                                                  # every record is in its place
        while (packet := peer.recv()).code != LAST:
            assert packet.payload == load(count)
            count += 1
        assert chatting.result() == count
        link.close()
        assert peer.rest() == b""                                   # close_notify, from the parent


def child(link: neolink.NodeLink) -> None:
    """Everything that could write."""
    for use in (lambda: link.notify(NOTIFY), lambda: link.ask(REQUEST, timeout=1), link.new_conn):
        with pytest.raises(neolink.ForkedLink):
            use()
    link.close()
    link.abort()
