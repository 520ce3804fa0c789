# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Trace: what it sees, and that it ends."""
import threading
import time

import pytest

import neolink

pytestmark = pytest.mark.usefixtures("no_leaks")


def test_sees_both_ends(links):
    client, server = links
    events = []
    begin = time.monotonic_ns()
    with neolink.Trace(events.append):
        client.notify(6, b"\x91\x01")
        server.recv1(timeout=20)
    seen = [(event.kind, event.link, event.code, event.len) for event in events]
    assert ("send", client.serial, 6, 2) in seen and ("recv", server.serial, 6, 2) in seen
    assert all(begin <= event.time_ns <= time.monotonic_ns() and event.lost == 0 for event in events)
    before = len(events)
    client.notify(6)
    server.recv1(timeout=20)
    assert len(events) == before


def test_one_at_a_time():
    with neolink.Trace(print):
        with pytest.raises(RuntimeError, match="one at a time"):
            with neolink.Trace(print):
                pass
    with neolink.Trace(print):
        pass


def test_slow_reader_is_told_what_it_lost(links):
    events, hold = [], threading.Event()

    def slow(event):
        hold.wait(20)
        events.append(event)

    tracing = neolink.Trace(slow, events=8)
    with tracing:
        links[0].notify(6)
        links[0].notify_many([neolink.Packet(6)] * 1000)
        hold.set()
    assert len([event for event in events if event.kind == "send"]) < 1001
    assert len(events) + sum(event.lost for event in events) + tracing.lost >= 1001


def test_callback_that_raises(links, monkeypatch):
    seen = []
    monkeypatch.setattr(threading, "excepthook", seen.append)
    with neolink.Trace(lambda event: 1 / 0):
        links[0].notify(6)
    assert seen and seen[0].exc_type is ZeroDivisionError


def test_refused():
    with pytest.raises(TypeError):
        neolink.Trace(5)
    with pytest.raises(ValueError):
        neolink.Trace(print, events=0)
