#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the whole suite again and again, and says what failed: a test that fails once in a thousand runs is a bug, too.

    python tests/repeat.py --times 100                      every C program and all of pytest, 100 times
    python tests/repeat.py --times 100 --at-once 3          three rounds side by side
    python tests/repeat.py --times 10 --mode starved        on one processor, which busy processes want as well
    python tests/repeat.py --times 10 --mode valgrind       the C programs by valgrind's scheduler: one thread at a
                                                            time, a fair turn for each
    python tests/repeat.py --times 10 --mode stalled        the C programs with a core that holds its threads up by
                                                            chance; they sleep for most of it, so --at-once 12
    python tests/repeat.py --times 10 --mode frozen         each program stands still by chance, up to 0.3 s, while its
                                                            peers in other processes, and the clock, go on
    python tests/repeat.py --only test_races --times 1000   one C program
    python tests/repeat.py --only tests/test_api_link.py    one file of Python tests, or one test of it
    python tests/repeat.py --only pytest --leave-out tests/test_model.py
    python tests/repeat.py --times 0 --record runs.jsonl    the table of what is on record

The C programs are built once. Rounds side by side share nothing but the checkout and the machine: each has a temporary
folder, which is gone after it, ports are the kernel's choice, and no test counts what is not its process's own. Each
run's output is kept under --logs if it failed, and thrown away if not. The table is printed after each round, and at
the end or Ctrl-C; with --record it accumulates from one call to the next, by commit and mode. The exit status is 1 if
anything failed.
"""
from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUSY = "while True: pass"
MODES = ("plain", "starved", "valgrind", "stalled", "frozen")
PROGRAMS = sorted(path.stem for path in (ROOT / "csrc" / "test").glob("test_*.c"))
FAILED_PYTHON = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.M)
FAILED_C = re.compile(r"^\[  (?:FAILED|ERROR )  \] (\w+)$", re.M)


class Job(NamedTuple):
    """Something that passes or fails."""

    name: str
    command: list[str]


class Run(NamedTuple):
    """What became of a job once."""

    commit: str
    mode: str
    job: str
    seconds: float
    failed: bool
    tests: list[str]                # those that failed, as far as the output named them


class Tally:
    """All runs, of this call and of those before it that have the same record."""

    def __init__(self, record: Path | None) -> None:
        self.failures = 0           # of this call
        self._record = record
        self._runs: list[Run] = []
        if record and record.exists():
            self._runs = [Run(*json.loads(line)) for line in record.read_text().splitlines()]

    def add(self, run: Run) -> None:
        self._runs.append(run)
        self.failures += run.failed
        if self._record:
            with self._record.open("a") as file:
                file.write(json.dumps(run) + "\n")

    def table(self) -> str:
        groups = dict.fromkeys((run.commit, run.mode) for run in self._runs)
        return "\n".join(self._part([run for run in self._runs if (run.commit, run.mode) == group]) for group in groups)

    @staticmethod
    def _part(runs: list[Run]) -> str:
        title = f"{runs[0].commit}, {runs[0].mode}"
        lines = [f"{title:40} {'runs':>6} {'failed':>6} {'median s':>9} {'longest s':>9}"]
        for name in dict.fromkeys(run.job for run in runs):
            mine = [run for run in runs if run.job == name]
            failed, taken = sum(run.failed for run in mine), sorted(run.seconds for run in mine)
            lines.append(f"{name:40} {len(mine):6} {failed:6} {taken[len(taken) // 2]:9.2f} {taken[-1]:9.2f}")
        tests = Counter(test for run in runs for test in run.tests)
        return "\n".join(lines + [f"failed {count} times: {name}" for name, count in tests.most_common()])


def commit() -> str:
    """What is being run; with a `+` if it was edited since."""
    said = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--exclude=*", "--dirty=+"], text=True,
                          capture_output=True)
    return said.stdout.strip() or "no commit"


def failures(job: Job, output: str) -> list[str]:
    """The tests that the output says failed."""
    return sorted({*FAILED_PYTHON.findall(output), *(f"{job.name}: {name}" for name in FAILED_C.findall(output))})


def build(folder: Path, flags: str) -> list[Job]:
    """The C core's test programs."""
    make = ["make", "-s", "-C", ROOT / "csrc", f"BUILD={folder}", f"CFLAGS={flags}"]
    subprocess.run([*make, "all"], check=True)
    subprocess.run([*make, folder / "cc" / "vectors.txt"], check=True)
    return [Job(name, [str(folder / "cc" / name)]) for name in PROGRAMS]


def jobs(options: argparse.Namespace, folder: Path) -> list[Job]:
    """What one round runs."""
    only = options.only or [*PROGRAMS, "pytest"]
    wanted = [name for name in PROGRAMS if name in only and name not in options.leave_out]
    flags = "-DNL_STALLS" if options.mode == "stalled" else ""
    programs = [job for job in build(folder, flags) if job.name in wanted] if wanted else []
    if options.mode == "valgrind":
        valgrind = ["valgrind", "-q", "--tool=none", "--fair-sched=yes"]
        return [Job(name, valgrind + command) for name, command in programs]
    if options.mode == "stalled" and not options.only:
        return programs             # the extension is what was installed: see docs/reliability.rst
    less = [f"--deselect={name}" if "::" in name else f"--ignore={name}" for name in options.leave_out if ".py" in name]
    tests = [name for name in only if ".py" in name] or ["tests", "--ignore=tests/test_core_c.py"]
    python = Job("pytest", [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=long", "-rfE",
                            *tests, *less])
    return programs + ([python] if any(name == "pytest" or ".py" in name for name in only) else [])


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


@contextlib.contextmanager
def frozen(process: subprocess.Popen[str]) -> Iterator[None]:
    """Now and then it stands still, mostly for a few hundredths of a second."""
    ended = threading.Event()

    def freeze() -> None:
        while not ended.wait(random.uniform(0.02, 0.27)):
            process.send_signal(signal.SIGSTOP)
            ended.wait(0.3 * random.random() ** 2)
            process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=freeze)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Rounds:
    """As many as were asked for, some of them side by side; each is a thread's that runs job after job."""

    def __init__(self, todo: list[Job], options: argparse.Namespace, tally: Tally) -> None:
        self._todo, self._options, self._tally = todo, options, tally
        self._numbers = itertools.count()
        self._end = time.monotonic() + options.minutes * 60 if options.minutes else float("inf")
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self._commit = commit()

    def run(self) -> None:
        threads = [threading.Thread(target=self._one_after_the_other) for _ in range(self._options.at_once)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():        # a signal's exception comes between two of these, not after the join
                    thread.join(0.5)
        finally:
            with self._lock:
                self._stopped = True
                for process in self._running:
                    os.killpg(process.pid, signal.SIGKILL)
            for thread in threads:
                thread.join()

    def _one_after_the_other(self) -> None:
        while (number := next(self._numbers)) < self._options.times:
            with tempfile.TemporaryDirectory(prefix="neolink-", ignore_cleanup_errors=True) as scratch:
                for job in self._todo:
                    if self._stopped or time.monotonic() > self._end:
                        return
                    self._once(job, number, scratch)
            with self._lock:
                if self._stopped:
                    return
                print(f"--- after round {number}\n{self._tally.table()}", flush=True)

    def _once(self, job: Job, number: int, scratch: str) -> None:
        mode, began = self._options.mode, time.monotonic()
        failed, output = self._execute(job, scratch)
        tests = failures(job, output) if failed else []
        with self._lock:
            if self._stopped:
                return
            self._tally.add(Run(self._commit, mode, job.name, time.monotonic() - began, failed, tests))
            if failed:
                log = self._options.logs / f"{self._commit}-{mode}-{job.name}-{number}-{time.time_ns()}.log"
                log.write_text(output)
                print(f"round {number}: {job.name} failed, see {log}", flush=True)

    def _execute(self, job: Job, scratch: str) -> tuple[bool, str]:
        """(did it fail, what it said)."""
        own = {"TMPDIR": scratch, "HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/hypothesis"}
        with self._lock:
            if self._stopped:
                return True, "not begun"
            process = subprocess.Popen(job.command, cwd=ROOT, env=os.environ | own, text=True, errors="replace",
                                       start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self._running.add(process)
        try:
            with frozen(process) if self._options.mode == "frozen" else contextlib.nullcontext():
                output, _ = process.communicate(timeout=self._options.patience)
            return process.returncode != 0, output
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGABRT)      # Python says where it was
            output, _ = process.communicate()
            return True, output + f"\ndid not end within {self._options.patience:g} s\n"
        finally:
            with self._lock:
                self._running.discard(process)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="rounds side by side")
    parser.add_argument("--minutes", type=float, help="begin nothing after so long")
    parser.add_argument("--mode", choices=MODES, default="plain")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="C programs, pytest, files or tests")
    parser.add_argument("--leave-out", nargs="+", default=[], metavar="NAME", help="of the same")
    parser.add_argument("--patience", type=float, default=3600, help="seconds until a run counts as hung")
    parser.add_argument("--logs", type=Path, help="a folder (default: a new one)")
    parser.add_argument("--record", type=Path, help="a file that remembers all runs (default: none)")
    parser.add_argument("--build", type=Path, help="a folder for the C programs (default: a new one)")
    options = parser.parse_args()
    for name in options.only + options.leave_out:
        if name not in (*PROGRAMS, "pytest") and not (".py" in name and (ROOT / name.partition("::")[0]).exists()):
            parser.error(f"{name} is neither a C program nor a file of tests")
    return options


def main() -> int:
    options = arguments()
    options.logs = options.logs or Path(tempfile.mkdtemp(prefix="neolink-repeat-"))
    options.logs.mkdir(parents=True, exist_ok=True)
    # A shell's background jobs ignore SIGINT, and so would the tests. SIGTERM ends the runs under way, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tally = Tally(options.record)
    with tempfile.TemporaryDirectory() as scratch, circumstances(options.mode):
        try:
            if options.times > 0:
                Rounds(jobs(options, (options.build or Path(scratch)).absolute()), options, tally).run()
        except KeyboardInterrupt:
            print("interrupted")
    print(f"===\n{tally.table()}")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
