#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Cost as work grows: `python bench/curves.py [NAME]... [--short] [--json FILE]`.

NAME is one of payload, conns, links, threads; without one it is all of them.
Each point of a curve is a race of its own, of neolink against the bare sockets that do the same work: what counts is how
the ratio between the two changes along the curve. docs/measurements.rst explains each knee.
"""
from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from race import ANYWHERE, ONE_CORE, Contender, Settings, Spread, race, time_ratio
from rows import SIZE, for_crowds, in_c, in_python, installed, node, state

LARGEST = 0x4000000 - 10        # the payload of the largest packet that NEO allows


@dataclass(frozen=True)
class Point:
    """A point of a curve."""

    curve: str
    series: str                 # what was measured
    x: int
    value: float
    unit: str
    ratio: Spread | None = None     # its time over that of the bare sockets, in the same race

    def line(self) -> str:
        """As text."""
        ratio = "" if self.ratio is None else f"   {self.ratio} x bare"
        return f"  {self.x:>9,}  {self.series:28} {self.value:>12.2f} {self.unit}{ratio}"


def points(curve: str, x: int, bare: Contender, *others: Contender) -> Iterator[Point]:
    """What a race says: the bare sockets, and the others by them."""
    yield Point(curve, bare.name, x, statistics.median(bare.wall_ns) / 1e3, "us")
    for other in others:
        yield Point(curve, other.name, x, statistics.median(other.wall_ns) / 1e3, "us", time_ratio(other, bare))


def payload(settings: Settings) -> Iterator[Point]:
    """An ask whose request and answer have so many bytes; one core."""
    sizes = [0, 64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, LARGEST]
    for size in sizes[::4] if settings.short else sizes:
        with (node(ONE_CORE) as server, in_c("peer", "ask", server, ONE_CORE, str(size)) as bare,
              in_c("peer", "apart", server, ONE_CORE, str(size)) as apart,
              in_c("core", "ask", server, ONE_CORE, str(size)) as core, ExitStack() as stack):
            ours = [apart, core]
            if installed("neolink"):
                ours.append(stack.enter_context(in_python("link_ask", server, ONE_CORE, str(size))))
            race([bare, *ours], settings)
            yield from points("payload", size, bare, *ours)


def conns(settings: Settings) -> Iterator[Point]:
    """An ask on a link with so many open Conns; one core. And what it costs to make and end one more, and memory."""
    for number in (1, 100, 10_000) if settings.short else (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000):
        with (node(ONE_CORE) as server, in_c("peer", "ask", server, ONE_CORE, SIZE) as bare,
              in_c("core", "crowd", server, ONE_CORE, SIZE, str(number)) as ours):
            race([bare, ours], settings)
            yield from points("conns", number, bare, ours)
        found = state("conns", number)
        yield Point("conns", "make and end one more", number, found["ns_per_conn_beside_many"] / 1e3, "us")
        if number >= 1_000:     # fewer are within what a table has anyway
            yield Point("conns", "memory of each", number, found["bytes_per_conn"], "B")


def links(settings: Settings) -> Iterator[Point]:
    """Asks on so many links in turn, so that each has been idle since all the others had theirs; one core."""
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100      # a process has a descriptor for each
    numbers = (1, 10, 100) if settings.short else (1, 10, 100, 1_000, 3_000, 10_000)
    for number in [n for n in numbers if n <= room]:
        with (node(ONE_CORE) as server, in_c("peer", "robin", server, ONE_CORE, SIZE, str(number)) as bare,
              node(ONE_CORE) as other, in_c("core", "robin", other, ONE_CORE, SIZE, str(number)) as ours):
            race([bare, ours], settings)
            yield from points("links", number, bare, ours)


def threads(settings: Settings) -> Iterator[Point]:
    """Asks of so many Python threads on one link, against as many threads with a bare socket each; anywhere."""
    for number in (1, 8) if settings.short else (1, 2, 4, 8, 16, 32, 64, 128, 256):
        with (node(ANYWHERE) as server,
              in_python("socket_threads", server, ANYWHERE, SIZE, str(number), step=number) as bare,
              in_python("link_threads", server, ANYWHERE, SIZE, str(number), step=number) as ours):
            race([bare, ours], for_crowds(settings))
            yield from points("threads", number, bare, ours)


CURVES: dict[str, Callable[[Settings], Iterator[Point]]] = {
    function.__name__: function for function in (payload, conns, links, threads)
}


def main() -> int:
    """Measure and print what the command line asks for."""
    parser = argparse.ArgumentParser(description="cost as work grows")
    parser.add_argument("curve", nargs="*", metavar="NAME", choices=[*CURVES, []], help=", ".join(CURVES))
    parser.add_argument("--short", action="store_true", help="few points, short: checks that everything works")
    parser.add_argument("--json", metavar="FILE", help="write the points there too")
    options = parser.parse_args()
    settings = Settings(rounds=3, round_seconds=0.003, short=True) if options.short else Settings(rounds=15)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    found = []
    for name in options.curve or CURVES:
        print(f"{name}: {CURVES[name].__doc__}")
        for point in CURVES[name](settings):
            print(point.line(), flush=True)
            found.append(asdict(point))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(found, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
