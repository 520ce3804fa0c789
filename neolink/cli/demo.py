# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""`neolink demo`: links at work.

Without an address both ends are in this process, over loopback TCP: listen, dial, shake hands, then one conversation after
the other, many at once from threads, many at once from one call, and notifications; then a scripted session with a
cluster in this process. With an address the same questions go to a running NEO master or admin: Ping, which every
node answers.
"""
from __future__ import annotations

import argparse
import threading
import time
from typing import Any

import neolink
from neolink.cli import _peer, _session

THREADS = 16
BATCH = 2000


def register(commands: Any) -> None:
    """Add the parser of `neolink demo`."""
    parser = commands.add_parser("demo", help="links at work", description=__doc__.partition("\n\n")[2])
    parser.add_argument("address", nargs="?", metavar="HOST:PORT", help="a running NEO node (default: our own, on loopback)")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="how long each part runs (default: 1)")
    _peer.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show it."""
    if args.address:
        with _peer.dial(args) as link:
            say("dialed", f"{_peer.address_text(link.peer_address)} answered: {_peer.wire_text(link)}")
            show(link, _peer.PING[link.wire], args)
            say("state", cluster_state(link, args.timeout))
        say("closed", "by us")
        return 0
    return on_loopback(args)


def on_loopback(args: argparse.Namespace) -> int:
    """Both ends here."""
    tls = neolink.TLS(*args.tls) if args.tls else None
    wire: neolink.WireName = "M" if args.wire == "auto" else args.wire
    with neolink.listen("127.0.0.1:0", wire=wire, version=args.protocol, tls=tls) as listener:
        say("listening", _peer.address_text(listener.address))
        args.address = listener.address
        args.wire = wire            # on auto the dialer might leave one connection for another, and accept would give that
        with _peer.dial(args) as link, listener.accept(timeout=args.timeout) as served:
            say("linked", f"{_peer.address_text(link.local_address)} to {_peer.address_text(link.peer_address)}: "
                          f"{_peer.wire_text(link)}, handshake done" + (", TLS" if tls else ""))
            server = threading.Thread(target=served.serve, args=(echo,))
            server.start()
            show(link, _peer.PING[link.wire], args)
            notifications(link, args.seconds)
            link.close()
            stats = link.stats()
            server.join()
    say("closed", f"cleanly: {stats.packets_sent:,} packets sent, {stats.packets_received:,} received, "
                  f"{stats.bytes_sent:,} bytes out, nothing left queued ({stats.rx_bytes_queued + stats.tx_bytes_queued})")
    _session.run(say)
    return 0


def echo(request: neolink.Request) -> neolink.Packet | None:
    """Answer a request with what it brought; a notification wants no answer."""
    code = request.packet.code
    return neolink.Packet(code | 0x8000, request.packet.payload) if code in _peer.PING.values() else None


def show(link: neolink.NodeLink, code: int, args: argparse.Namespace) -> None:
    """The three ways to ask, each for args.seconds."""
    one_by_one(link, code, args)
    from_threads(link, code, args)
    in_batches(link, code, args)


def asks_until(link: neolink.NodeLink, code: int, end: float, timeout: float, times: list[float]) -> None:
    """Ask one thing after the other, at least one, keeping the time of each."""
    clock = time.perf_counter
    before = clock()
    while True:
        link.ask(code, timeout=timeout)
        after = clock()
        times.append(after - before)
        before = after
        if after >= end:
            return


def one_by_one(link: neolink.NodeLink, code: int, args: argparse.Namespace) -> None:
    """Latency."""
    times: list[float] = []
    start = time.perf_counter()
    asks_until(link, code, start + args.seconds, args.timeout, times)
    say("one by one", f"{rate(len(times), start)}   {_peer.times_text(times)}")


def from_threads(link: neolink.NodeLink, code: int, args: argparse.Namespace) -> None:
    """Many connections at once on the one socket, each with a thread that waits for its own answer."""
    times: list[list[float]] = [[] for _ in range(THREADS)]
    failures: list[BaseException] = []
    start = time.perf_counter()

    def work(mine: list[float]) -> None:
        try:
            asks_until(link, code, start + args.seconds, args.timeout, mine)
        except neolink.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    together = [seconds for mine in times for seconds in mine]
    say(f"{THREADS} threads", f"{rate(len(together), start)}   {_peer.times_text(together)}")


def in_batches(link: neolink.NodeLink, code: int, args: argparse.Namespace) -> None:
    """Throughput: pipelined, gathered into few system calls."""
    batch = [neolink.Packet(code)] * BATCH
    start = time.perf_counter()
    done = 0
    while time.perf_counter() < start + args.seconds:
        done += len(link.ask_many(batch, timeout=args.timeout))
    say("ask_many", f"{rate(done, start)}   {BATCH} at a time")


def notifications(link: neolink.NodeLink, seconds: float) -> None:
    """One way; the ask behind them returns when the other end has had them all."""
    batch = [neolink.Packet(5, b"\x90" if link.wire == "M" else b"")] * BATCH       # CloseClient on all wires: unserved
    start = time.perf_counter()
    done = 0
    while time.perf_counter() < start + seconds:
        link.notify_many(batch)
        done += BATCH
        link.ask(_peer.PING[link.wire])
    say("notify_many", f"{rate(done, start)}   {BATCH} at a time, then one ask")


def cluster_state(link: neolink.NodeLink, timeout: float) -> str:
    """What an admin says; anybody else refuses, and then it is no admin."""
    if link.wire == "2016":
        return "not asked on wire 2016"
    try:
        answer = link.ask(_peer.ASK_CLUSTER_STATE, timeout=timeout)
    except neolink.LinkError:
        return "no admin: it closed the link when asked for the cluster's state"
    if answer.code == _peer.ERROR:
        return f"not told, so it is no admin with a master: {answer.message.message}"
    if answer.code != _peer.ASK_CLUSTER_STATE | 0x8000 or not answer.payload:
        return f"not told: it answers with {answer!r}"
    state = answer.payload[-1]              # the enum's value is the last byte on both wires
    names = ("RECOVERING", "VERIFYING", "RUNNING", "STOPPING", "STARTING_BACKUP", "BACKINGUP", "STOPPING_BACKUP")
    return f"cluster {names[state]}" if state < len(names) else f"cluster state {state}"


def rate(count: int, start: float) -> str:
    """ "123,456 a second" """
    return f"{count / (time.perf_counter() - start):12,.0f} a second"


def say(what: str, text: str) -> None:
    """A line now, not when a buffer is full."""
    print(f"{what:12} {text}", flush=True)
