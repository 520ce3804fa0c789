# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The small public types that carry values: roles, wires, limits, counters."""
from __future__ import annotations

import enum
from typing import Any, Literal, NamedTuple, TypeAlias

from neolink import _core

WireName: TypeAlias = Literal["2016", "N", "M"]
Routing: TypeAlias = Literal["stream", "neo"]
AcceptMode: TypeAlias = Literal["queue", "refuse", "ignore"]
Address: TypeAlias = str | tuple[Any, ...]
KeepAlive: TypeAlias = tuple[float, float, int] | None


class Role(enum.Enum):
    """Which end of the link: it decides the ids this end gives to its Conns."""

    SERVER = "server"
    """Allocates even ids: 0, 2, 4, …"""
    CLIENT = "client"
    """Allocates odd ids: 1, 3, 5, …"""


_default = _core.default_limits()


class Limits(NamedTuple):
    """Every bound of a link in one place; None means unlimited. The defaults are the core's."""

    packet_bytes: int | None = _default[0]
    """A larger packet is ProtocolError when received and TooBig when sent."""
    conn_rx_bytes: int | None = _default[1]
    """Unread bytes one Conn may hold."""
    link_rx_bytes: int | None = _default[2]
    """Unread bytes all Conns of a link may hold; then the link stops reading."""
    link_tx_bytes: int | None = _default[3]
    """Queued, unsent bytes above which send blocks."""
    conns: int | None = _default[4]
    """Open Conns, ours and the peer's."""
    accept_backlog: int | None = _default[5]
    """Conns opened by the peer that wait for accept()."""
    rx_policy: Literal["hold", "fail"] = _default[6]
    """A Conn over conn_rx_bytes: its packets wait in the link's budget ("hold"), or it fails with TooBig ("fail")."""
    closed_seconds: float | None = _default[7]
    """How long the id of a closed Conn still answers "connection closed"."""
    spin_seconds: float | None = _default[8]
    """How long a thread that waits tries the socket before it sleeps, if it may run on two processors, and not on that of a
    peer of the same host; 0 is never."""
    stray_share: float | None = _default[9]
    """The share of a processor's time, above 0 and up to 1, that packets nobody wants (requests that are refused, packets
    for closed or unknown Conns) may take, all links of the process together. A link that brings more is read more
    slowly, so that its peer waits."""


class LinkStats(NamedTuple):
    """A consistent snapshot of a link's counters, which only grow, and gauges, which do not."""

    packets_sent: int
    packets_received: int
    bytes_sent: int
    bytes_received: int
    conns: int
    """Gauge: open Conns."""
    rx_bytes_queued: int
    """Gauge: received and not yet taken."""
    tx_bytes_queued: int
    """Gauge: sent and not yet on the wire."""
    late_answers: int
    """Answers to asks that had timed out or were cancelled."""
    ignored_packets: int
    refused_conns: int
    # How the work was shared among the threads: for tests and benchmarks.
    rx_takes: int
    rx_handovers: int
    rx_arms: int
    poller_reads: int
    poller_idle_wakeups: int
    tx_turns: int
    tx_handoffs: int
    tx_for_others: int
    spins: int
    spin_hits: int
    waiters: int
    """Gauge: threads that wait on the link."""
    inside: int
    """Gauge: calls that are in the link."""
    throttles: int
    """How often reading paused because packets nobody wants took more than Limits.stray_share."""
    wakes_left: int
    """How often threads that were to be woken were left to one that was on its way, to be woken by it: they come one
    after the other where the process may use two processors, since they would only meet again at the GIL."""
    turn_waits: int
    """How often one of them was there before its turn, and waited for it with its processor, for 5 microseconds at most and
    no longer than Limits.spin_seconds."""
