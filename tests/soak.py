#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Full-rate traffic through chaos for as long as you like: does anything grow?

    python tests/soak.py --minutes 60

All wires run side by side, plain and TLS, as in chaos.py, whose books are kept throughout. Every few seconds a sample
is taken: memory, descriptors, threads, asks. At the end everything is closed, and the verdict says whether

    the heap        was flat: a line through the second half's samples rises by less than 512 KiB. It is what malloc has
                    given out, without Python's small objects: a leak shows here first
    Python blocks   were flat: the same line rises by less than 500. Small objects, garbage cycles collected
    memory          was flat: the same line rises by less than 2 % or 1 MiB. It is what the process occupies. (In the
                    first half the allocator's arenas come to the size that fifty threads need)
    descriptors     were flat: no higher peak in the last quarter than in the third, but for links that begin and end
    threads         the same; and both are back, to the last one, when all is closed
    the books       are exact: see chaos.py

The table is printed as it grows. The exit status is 1 if the verdict is bad.

Two things would look like a leak and are none. malloc counts as given out what each thread keeps in its cache, and
fifty threads take long to fill theirs; so the program starts itself again without those caches. An exception that
somebody holds in the frame that caught it is a cycle, which stays until the collector comes round, seldom in a large
process; so each sample is taken after a collection. Nor may the table count itself: it is kept in one array. The books
come to their size after some 260 thousand asks on each wire, a few minutes: a run of less than ten says little.
"""
from __future__ import annotations

import argparse
import ctypes
import gc
import os
import random
import sys
import threading
import time
from array import array
from collections import Counter
from typing import NamedTuple

from chaos import WIRES, BrokenBooks, Scene, contexts, line, quiet, scenes
from leaks import open_files
from scenario_kit import memory

import neolink

OPEN_PAGES = 8
"""Numbers of chaos.PAGE back of which deliveries are still expected: minutes of traffic."""
NO_CACHES = "glibc.malloc.tcache_count=0"
HEAP_RISE, BLOCKS_RISE = 512, 500
"""KiB, and small objects, by which the line of the second half may rise: buffers that are in use just then."""
COMING_AND_GOING = 24
"""Descriptors, or threads, of links that are just being made or unmade."""


class Sample(NamedTuple):
    """One row of the table."""

    seconds: float
    kib: float
    heap: float
    blocks: float
    descriptors: float
    threads: float
    asks: float
    links: float


class Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks",
                                                     "fsmblks", "uordblks", "fordblks", "keepcost")]


def without_caches() -> None:
    """Starts the program again with malloc's caches of threads switched off, if they are not. (A libc that is not
    glibc ignores the setting.)"""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if NO_CACHES not in tunables:
        os.environ["GLIBC_TUNABLES"] = f"{tunables}:{NO_CACHES}".lstrip(":")
        os.execv(sys.executable, sys.orig_argv)


def heap() -> int:
    """Bytes that malloc has given out, of all its arenas; 0 where it does not tell."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = Mallinfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def sample(began: float, running: list[Scene]) -> Sample:
    gc.collect()
    return Sample(time.monotonic() - began, memory() // 1024, heap() // 1024,
                  sys.getallocatedblocks(), len(open_files()), threading.active_count(),
                  sum(scene.books.begun for scene in running), sum(scene.books.faults["links"] for scene in running))


def slope(samples: list[Sample], field: str) -> float:
    """Of the line that fits best, per second."""
    times, values = [each.seconds for each in samples], [getattr(each, field) for each in samples]
    x, y = sum(times) / len(times), sum(values) / len(values)
    width = sum((time - x) ** 2 for time in times)
    return sum((time - x) * (value - y) for time, value in zip(times, values)) / width if width else 0.0


def peaks(samples: list[Sample], field: str) -> tuple[float, float]:
    """Of the first and the second half."""
    half = len(samples) // 2 or 1
    return max(getattr(each, field) for each in samples[:half]), max(getattr(each, field) for each in samples[half:])


def verdict(samples: list[Sample], left: dict[str, int]) -> list[str]:
    """What is wrong; nothing, if all is well. Prints what it looks at."""
    steady = samples[len(samples) // 2:]
    wrong = []
    for field, name, allowed in (("heap", "KiB of heap", HEAP_RISE), ("blocks", "Python blocks", BLOCKS_RISE),
                                 ("kib", "KiB of memory", max(1024, steady[0].kib / 50))):
        rise = slope(steady, field) * (steady[-1].seconds - steady[0].seconds)
        print(f"{name}: {getattr(steady[0], field):.0f}, then {slope(steady, field) * 60:+.1f} a minute, "
              f"{rise:+.0f} in all ({allowed:.0f} allowed)")
        if rise > allowed:
            wrong.append(f"{rise:.0f} {name} more")
    for field in ("descriptors", "threads"):
        first, second = peaks(steady, field)
        print(f"{field}: at most {first:.0f}, then {second:.0f}; {left[field]} left in the end")
        if second > first + COMING_AND_GOING:
            wrong.append(f"{field} grew from {first:.0f} to {second:.0f}")
        if left[field]:
            wrong.append(f"{left[field]} {field} left")
    return wrong


def watch(running: list[Scene], minutes: float, every: float) -> list[Sample]:
    """The table, row by row, until the time is over or something is wrong."""
    began = time.monotonic()
    last = sample(began, running)
    kept = array("d", last)
    print(f"{'s':>7} {'KiB':>8} {'heap':>7} {'blocks':>7} {'fds':>5} {'threads':>7} {'asks':>10} {'asks/s':>7} "
          f"{'links':>7}", flush=True)
    while last.seconds < minutes * 60 and not any(scene.books.wrong for scene in running):
        time.sleep(min(every, max(0.1, minutes * 60 - last.seconds)))
        for scene in running:
            scene.books.close_pages(OPEN_PAGES)
        now = sample(began, running)
        rate = (now.asks - last.asks) / (now.seconds - last.seconds)
        print(f"{now.seconds:7.0f} {now.kib:8} {now.heap:7} {now.blocks:7} {now.descriptors:5} {now.threads:7} "
              f"{now.asks:10} {rate:7.0f} {now.links:7}", flush=True)
        kept.extend(now)
        last = now
    width = len(Sample._fields)
    return [Sample(*kept[at:at + width]) for at in range(0, len(kept), width)]


def soak(seed: int, minutes: float, every: float) -> list[str]:
    """What went wrong."""
    files, threads = len(open_files()), threading.active_count()
    tls = contexts("both")
    running = list(scenes(seed, list(WIRES), tls, float("inf"), links=1, threads=3))
    for scene in running:
        scene.start()
    samples = watch(running, minutes, every)
    wrong: list[str] = []
    outcomes: Counter[str] = Counter()
    for scene in running:
        scene.books.asks = 0
    for scene in running:
        scene.finish()
        try:
            scene.books.check()
        except BrokenBooks as error:
            wrong.append(f"{scene.name}: {error}")
        outcomes.update(scene.books.outcomes)
        print(f"{scene.name}: {scene.books.begun} asks: {line(scene.books.outcomes)}; {line(scene.books.faults)}")
    gc.collect()
    left = {"descriptors": len(open_files()) - files, "threads": threading.active_count() - threads}
    print(f"outcomes: {line(outcomes)}")
    return wrong + verdict(samples, left)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=5, help="seconds between samples")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    without_caches()
    quiet()
    print(f"seed {options.seed}, process {os.getpid()}", flush=True)
    for link in neolink.pair():                 # starts what the process keeps: the core's thread and its descriptors
        link.close()
    wrong = soak(options.seed, options.minutes, options.every)
    print("verdict: " + ("; ".join(wrong) or "flat and exact"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
