#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of each hot path goes: `python bench/where.py [--short] [--json FILE]`.

Per operation: microseconds in user space and in the kernel, context switches, and what the process asks for: system
calls by kind, locks, allocations, calls of memcpy and the bytes they copy. The numbers come from two runs of one
contender with different numbers of operations, of which the second minus the first is taken, so that setting up and
ending fall out. Counts come from count.c, which is preloaded; times from a third pair of runs without it.

Everything is on one core, where nothing overlaps and no try of the socket hides a system call.
"""
from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from programs import HERE, folder, library, program
from race import ONE_CORE, Server
from rows import SIZE, node

KINDS = ("send", "recv", "poll", "futex", "other", "lock", "alloc", "copy", "copied")
COLUMNS = ("user", "kernel", "switches", *KINDS)


@dataclass(frozen=True)
class HotPath:
    """A hot path: its name, the contender that walks it, and how many operations to do."""

    name: str
    command: Sequence[str]
    operations: int


def in_c(*arguments: str) -> list[str]:
    return [program(arguments[0]), *arguments[1:]]


def in_python(*arguments: str) -> list[str]:
    return [sys.executable, str(HERE / "contend.py"), *arguments]


def paths(port: str) -> list[HotPath]:
    """What is looked at, the bare peers first."""
    bulk = str(1 << 20)
    return [
        HotPath("ask: blocking C", in_c("peer", "ask", port, SIZE), 80_000),
        HotPath("ask: nl_ask", in_c("core", "ask", port, SIZE), 80_000),
        HotPath("ask: bare Python socket", in_python("socket_ask", port, SIZE), 80_000),
        HotPath("ask: link.ask", in_python("link_ask", port, SIZE), 80_000),
        HotPath("64 asks: nl_ask_many", in_c("core", "many", port, SIZE, "64"), 640_000),
        HotPath("64 asks: link.ask_many", in_python("link_many", port, SIZE, "64"), 640_000),
        HotPath("64 threads: bare Python sockets", in_python("socket_threads", port, SIZE, "64"), 256_000),
        HotPath("64 threads: link.ask", in_python("link_threads", port, SIZE, "64"), 256_000),
        HotPath("notification: nl_link_notify", in_c("core", "notes", port, SIZE), 1_000_000),
        HotPath("notification: link.notify", in_python("link_notes", port, SIZE), 1_000_000),
        HotPath("notification: link.notify_many", in_python("link_notes_many", port, SIZE, "1000"), 2_000_000),
        HotPath("1 MiB out: C sendmsg", in_c("peer", "bulk", port), 1_000),
        HotPath("1 MiB out: link.notify", in_python("link_notes", port, bulk), 1_000),
        HotPath("1 MiB in: C recv", in_c("peer", "take", port), 1_000),
        HotPath("1 MiB in: conn.recv", in_python("link_take", port), 1_000),
    ]


def walk(path: HotPath, operations: int, **environment: str) -> resource.struct_rusage:
    """Run the contender for so many operations; what it used from its start to its end."""
    popen = subprocess.Popen(path.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                             env={**os.environ, **environment},
                             preexec_fn=lambda: os.sched_setaffinity(0, ONE_CORE.client))
    assert popen.stdin is not None
    with popen.stdin as stdin:
        stdin.write(f"{operations}\n")
    _, status, used = os.wait4(popen.pid, 0)
    popen.returncode = os.waitstatus_to_exitcode(status)
    if popen.returncode:
        raise RuntimeError(f"{' '.join(path.command)}: ended with status {popen.returncode}")
    return used


def times(path: HotPath, operations: int) -> dict[str, float]:
    """Microseconds and context switches of an operation."""
    few, many = walk(path, operations // 10), walk(path, operations + operations // 10)
    return {"user": (many.ru_utime - few.ru_utime) * 1e6 / operations,
            "kernel": (many.ru_stime - few.ru_stime) * 1e6 / operations,
            "switches": (many.ru_nvcsw + many.ru_nivcsw - few.ru_nvcsw - few.ru_nivcsw) / operations}


def counts(path: HotPath, operations: int) -> dict[str, float]:
    """What count.c counts of an operation."""
    found = []
    for n in (operations // 10, operations + operations // 10):
        file = folder() / "counts"
        walk(path, n, LD_PRELOAD=library("count"), PYTHONMALLOC="malloc", BENCH_COUNTS=str(file))
        found.append({name: int(number) for name, number in map(str.split, Path(file).read_text().splitlines())})
    few, many = found
    return {kind: (many[kind] - few[kind]) / operations for kind in KINDS}


def cell(value: float) -> str:
    """A number as the table shows it."""
    if abs(value) < 0.005:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="where the time of each hot path goes")
    parser.add_argument("--short", action="store_true", help="few operations: checks that everything works")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    print(f"{'per operation':32}" + "".join(f"{column:>9}" for column in COLUMNS))
    table = []
    with node(ONE_CORE) as server:
        assert isinstance(server, Server)
        for path in paths(server.port):
            operations = path.operations // (10 if options.short else 1)
            line = {**times(path, operations), **counts(path, operations)}
            table.append({"path": path.name, **line})
            print(f"{path.name:32}" + "".join(f"{cell(line[column]):>9}" for column in COLUMNS), flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(table, file, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
