# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""`neolink ping`: who is it, and how far away."""
from __future__ import annotations

import argparse
import time
from typing import Any

import neolink
from neolink.cli import _peer


def register(commands: Any) -> None:
    """Add the parser of `neolink ping`."""
    parser = commands.add_parser("ping", help="who is it, and how far away",
                                 description="Dial a node, say what it speaks, and time its answers to Ping.")
    parser.add_argument("address", metavar="ADDRESS", help="HOST:PORT, [HOST]:PORT or unix:PATH")
    parser.add_argument("-c", "--count", type=int, default=10, metavar="N", help="how many round trips (default: 10)")
    _peer.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Dial, ask, tell."""
    if args.count < 1:
        raise ValueError(f"--count must be 1 or more, not {args.count}")
    start = time.perf_counter()
    with _peer.dial(args) as link:
        took = time.perf_counter() - start
        print(f"{_peer.address_text(link.peer_address)}: {_peer.wire_text(link)}, {'TLS' if args.tls else 'plain'}, "
              f"link up in {took * 1e3:.1f} ms", flush=True)
        times = []
        for _ in range(args.count):
            start = time.perf_counter()
            answer = link.ask(_peer.PING[link.wire], timeout=args.timeout)
            times.append(time.perf_counter() - start)
            if answer.code != _peer.PING[link.wire] | 0x8000:
                raise neolink.UnexpectedMessage(f"{args.address} answers Ping with {answer!r}")
        print(f"{args.count} round trips: {_peer.times_text(times)}")
        print(f"node: {node_type(link, args.timeout)}")
    return 0


def node_type(link: neolink.NodeLink, timeout: float) -> str:
    """An admin answers AskClusterState to anybody. Others refuse and close; who they are they say to identified nodes only."""
    if link.wire == "2016":
        return "not known (2016 nodes tell identified nodes only)"
    try:
        answer = link.ask(_peer.ASK_CLUSTER_STATE, timeout=timeout)
    except neolink.LinkError:
        return "not an admin (it refuses questions of nodes that are not identified)"
    if answer.code == _peer.ASK_CLUSTER_STATE | 0x8000:
        return "an admin"
    return "an admin without a primary master" if b"primary master" in bytes(answer.payload) else "not an admin"
