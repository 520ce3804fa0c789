# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What demo and ping share: dialing as the options say, asking a node who it is, and telling times."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import neolink

PING = {"2016": 3, "N": 2, "M": 2}
"""The code of Ping on each wire: every node answers it, identified or not (Pong is the same with 0x8000)."""
ASK_CLUSTER_STATE = 0x2E
ERROR = 0x8000


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how to reach a node."""
    parser.add_argument("--wire", choices=["auto", "M", "N", "2016"], default="auto",
                        help="the generation the node speaks (default: found out; 2016 never says, so it must be given)")
    parser.add_argument("--protocol", type=int, metavar="N", help="the protocol number to announce (default: the newest)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds for each step (default: 10)")
    parser.add_argument("--tls", nargs=3, metavar=("CA", "CERT", "KEY"), help="speak TLS with these files")


def dial(args: argparse.Namespace) -> neolink.NodeLink:
    """Dial args.address as the options say."""
    tls = neolink.TLS(*args.tls) if args.tls else None
    return neolink.dial(args.address, wire=args.wire, version=args.protocol, timeout=args.timeout, tls=tls)


def address_text(address: Any) -> str:
    """A socket address as people write it."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"unix:{address}" if address else "an unnamed socket"


def wire_text(link: neolink.NodeLink) -> str:
    """ "wire M, protocol 5" """
    return f"wire {link.wire}" + (f", protocol {link.version}" if link.version is not None else "")


def times_text(seconds: Sequence[float]) -> str:
    """Percentiles of round trips, in microseconds."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e6

    return f"p50 {at(0.5):8.1f} µs   p90 {at(0.9):8.1f} µs   p99 {at(0.99):8.1f} µs   max {ordered[-1] * 1e6:8.1f} µs"
