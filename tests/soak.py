#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Full-rate traffic through chaos for as long as you like: does anything grow?

    python tests/soak.py --minutes 60

All wires run side by side, plain and TLS, as in chaos.py, whose books are kept throughout. Every few seconds a sample
is taken: memory, descriptors, threads, asks. At the end everything is closed, and the verdict says whether

    memory          was flat: a line through the second half's samples rises by less than 2 % or 1 MiB. (In the first
                    the allocator's arenas come to the size that fifty threads and thousands of links a minute need.)
                    The heap column says how much of it is in use, without Python's own: a leak shows there first
    descriptors     were flat: no higher peak in the last quarter than in the third, but for links that begin and end
    threads         the same; and both are back, to the last one, when all is closed
    the books       are exact: see chaos.py

The table is printed as it grows. The exit status is 1 if the verdict is bad.
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
from collections import Counter
from typing import NamedTuple

from chaos import WIRES, BrokenBooks, Scene, contexts, line, quiet, scenes
from leaks import open_files
from scenario_kit import memory

import neolink

OPEN_PAGES = 8
"""Numbers of chaos.PAGE back of which deliveries are still expected: minutes of traffic."""
COMING_AND_GOING = 24
"""Descriptors, or threads, of links that are just being made or unmade."""


class Sample(NamedTuple):
    """One row of the table."""

    seconds: float
    kib: int
    heap: int
    blocks: int
    descriptors: int
    threads: int
    asks: int
    links: int


class Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks",
                                                     "fsmblks", "uordblks", "fordblks", "keepcost")]


def heap() -> int:
    """Bytes that malloc has given out, of all its arenas; 0 where it does not tell."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return 0
    mallinfo.restype = Mallinfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def sample(began: float, running: list[Scene]) -> Sample:
    return Sample(time.monotonic() - began, memory() // 1024, heap() // 1024,
                  sys.getallocatedblocks(), len(open_files()), threading.active_count(),
                  sum(scene.books.begun for scene in running), sum(scene.books.faults["links"] for scene in running))


def slope(samples: list[Sample]) -> float:
    """KiB per second, of the line that fits best."""
    n = len(samples)
    x, y = sum(each.seconds for each in samples) / n, sum(each.kib for each in samples) / n
    width = sum((each.seconds - x) ** 2 for each in samples)
    return sum((each.seconds - x) * (each.kib - y) for each in samples) / width if width else 0.0


def peaks(samples: list[Sample], field: str) -> tuple[int, int]:
    """Of the first and the second half."""
    half = len(samples) // 2 or 1
    return max(getattr(each, field) for each in samples[:half]), max(getattr(each, field) for each in samples[half:])


def verdict(samples: list[Sample], left: dict[str, int]) -> list[str]:
    """What is wrong; nothing, if all is well. Prints what it looks at."""
    steady = samples[len(samples) // 2:]
    rise, allowed = slope(steady) * (steady[-1].seconds - steady[0].seconds), max(1024, steady[0].kib // 50)
    print(f"memory: {steady[0].kib} KiB, then {slope(steady) * 60:+.1f} KiB/min, {rise:+.0f} KiB in all "
          f"({allowed} allowed)")
    wrong = [f"memory grew by {rise:.0f} KiB"] if rise > allowed else []
    for field in ("descriptors", "threads"):
        first, second = peaks(steady, field)
        print(f"{field}: at most {first}, then {second}; {left[field]} left in the end")
        if second > first + COMING_AND_GOING:
            wrong.append(f"{field} grew from {first} to {second}")
        if left[field]:
            wrong.append(f"{left[field]} {field} left")
    return wrong


def watch(running: list[Scene], minutes: float, every: float) -> list[Sample]:
    """The table, row by row, until the time is over or something is wrong."""
    began = time.monotonic()
    samples = [sample(began, running)]
    print(f"{'s':>7} {'KiB':>8} {'heap':>7} {'blocks':>7} {'fds':>5} {'threads':>7} {'asks':>10} {'asks/s':>7} "
          f"{'links':>7}", flush=True)
    while samples[-1].seconds < minutes * 60 and not any(scene.books.wrong for scene in running):
        time.sleep(min(every, max(0.1, minutes * 60 - samples[-1].seconds)))
        for scene in running:
            scene.books.close_pages(OPEN_PAGES)
        now, last = sample(began, running), samples[-1]
        rate = (now.asks - last.asks) / (now.seconds - last.seconds)
        print(f"{now.seconds:7.0f} {now.kib:8} {now.heap:7} {now.blocks:7} {now.descriptors:5} {now.threads:7} "
              f"{now.asks:10} {rate:7.0f} {now.links:7}", flush=True)
        samples.append(now)
    return samples


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
    quiet()
    print(f"seed {options.seed}, process {os.getpid()}", flush=True)
    for link in neolink.pair():                 # starts what the process keeps: the core's thread and its descriptors
        link.close()
    wrong = soak(options.seed, options.minutes, options.every)
    print("verdict: " + ("; ".join(wrong) or "flat and exact"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
