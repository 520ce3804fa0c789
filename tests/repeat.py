#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the whole suite again and again, and says what failed: a test that fails once in a thousand runs is a bug, too.

    python tests/repeat.py --times 100                      every C program and all of pytest, 100 times
    python tests/repeat.py --times 10 --mode starved        on one processor, which busy processes want as well
    python tests/repeat.py --times 10 --mode valgrind       the C programs by valgrind's scheduler: one thread at a time,
                                                            a fair turn for each
    python tests/repeat.py --only test_races --times 1000   one C program
    python tests/repeat.py --only tests/test_api_link.py    one file of Python tests

The C programs are built once. Each run's output is kept under --logs if it failed, and thrown away if not; the table is
printed after each round, and at the end or Ctrl-C. The exit status is 1 if anything failed.
"""
from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUSY = "while True: pass"
MODES = ("plain", "starved", "valgrind")


class Job(NamedTuple):
    """Something that passes or fails."""

    name: str
    command: list[str]


class Tally:
    """What became of the runs of each job."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.failures: Counter[str] = Counter()
        self.tests: Counter[str] = Counter()

    def add(self, job: Job, seconds: float, failed: bool, output: str) -> None:
        self.seconds.setdefault(job.name, []).append(seconds)
        if failed:
            self.failures[job.name] += 1
            self.tests.update(re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M))
            self.tests.update(f"{job.name}: {name}" for name in set(re.findall(r"^\[  FAILED  \] (\w+)$", output, re.M)))

    def table(self) -> str:
        lines = [f"{'':40} {'runs':>6} {'failed':>6} {'median s':>9} {'longest s':>9}"]
        for name, taken in self.seconds.items():
            median = sorted(taken)[len(taken) // 2]
            lines.append(f"{name:40} {len(taken):6} {self.failures[name]:6} {median:9.2f} {max(taken):9.2f}")
        return "\n".join(lines + [f"failed {count} times: {name}" for name, count in self.tests.most_common()])


def build(folder: Path) -> list[Job]:
    """The C core's test programs."""
    subprocess.run(["make", "-s", "-C", ROOT / "csrc", "all", f"BUILD={folder}"], check=True)
    vectors = folder / "cc" / "vectors.txt"
    subprocess.run(["make", "-s", "-C", ROOT / "csrc", vectors, f"BUILD={folder}"], check=True)
    names = sorted(path.stem for path in (ROOT / "csrc" / "test").glob("test_*.c"))
    return [Job(name, [str(folder / "cc" / name)]) for name in names]


def jobs(only: list[str], mode: str, folder: Path) -> list[Job]:
    """What one round runs."""
    files = [name for name in only if name.endswith(".py")]
    programs = [job for job in build(folder) if not only or job.name in only]
    if mode == "valgrind":
        return [Job(name, ["valgrind", "-q", "--tool=none", "--fair-sched=yes", *command]) for name, command in programs]
    python = Job("pytest", [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=long", "-rfE",
                            *(files or ["tests", "--ignore=tests/test_core_c.py"])])
    return programs + ([python] if files or not only else [])


@contextlib.contextmanager
def circumstances(mode: str) -> Iterator[None]:
    """Of the runs: `starved` has one processor, and two processes beside that want all of it."""
    if mode != "starved":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
        os.sched_setaffinity(0, before)


def run(job: Job, patience: float) -> tuple[bool, str]:
    """(did it fail, what it said)."""
    process = subprocess.Popen(job.command, cwd=ROOT, text=True, errors="replace", start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = process.communicate(timeout=patience)
        return process.returncode != 0, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)      # Python says where it was
        output, _ = process.communicate()
        return True, output + f"\ndid not end within {patience:g} s\n"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def repeat(todo: list[Job], options: argparse.Namespace, tally: Tally) -> None:
    end = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
    for number in range(options.times):
        for job in todo:
            if time.monotonic() > end:
                return
            began = time.monotonic()
            failed, output = run(job, options.patience)
            tally.add(job, time.monotonic() - began, failed, output)
            if failed:
                log = options.logs / f"{options.mode}-{job.name}-{number}.log"
                log.write_text(output)
                print(f"round {number}: {job.name} failed, see {log}", flush=True)
        print(f"--- {options.mode}, {number + 1} rounds\n{tally.table()}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--minutes", type=float, help="begin nothing after so long")
    parser.add_argument("--mode", choices=MODES, default="plain")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="C programs by name, files of Python tests")
    parser.add_argument("--patience", type=float, default=3600, help="seconds until a run counts as hung")
    parser.add_argument("--logs", type=Path, help="a folder (default: a new one)")
    parser.add_argument("--build", type=Path, help="a folder for the C programs (default: a new one)")
    options = parser.parse_args()
    options.logs = options.logs or Path(tempfile.mkdtemp(prefix="neolink-repeat-"))
    options.logs.mkdir(parents=True, exist_ok=True)
    # A shell's background jobs ignore SIGINT, and so would the tests. SIGTERM ends the run under way, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tally = Tally()
    with tempfile.TemporaryDirectory() as scratch, circumstances(options.mode):
        try:
            repeat(jobs(options.only, options.mode, (options.build or Path(scratch)).absolute()), options, tally)
        except KeyboardInterrupt:
            print("interrupted")
    print(f"=== {options.mode}\n{tally.table()}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
