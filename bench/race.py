# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Races: contenders that take short turns in one run, and what their times say about each other.

On a machine that others use too, two measurements made one after the other differ by more than what is compared. So the
contenders of a race are processes that all stay alive, connected and warm, and do rounds of some milliseconds in turn.
Each turn gives one ratio of neighbours in time; the race's result is the median of those, and its spread their
quartiles.

A contender speaks the protocol at the top of bench.h, whatever language it is written in.
"""
from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import IO, Self

CPUS = sorted(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Place:
    """Where the two sides of a race run."""

    name: str
    client: frozenset[int]      # what the contenders may use while they set up
    pin: int | None             # what their main thread is pinned to afterwards
    server: frozenset[int]


ONE_CORE = Place("one core", frozenset(CPUS[:1]), CPUS[0], frozenset(CPUS[:1]))
TWO_CORES = Place("two cores", frozenset(CPUS), CPUS[0], frozenset(CPUS[1:2])) if len(CPUS) > 1 else ONE_CORE
ANYWHERE = Place("anywhere", frozenset(CPUS), None, frozenset(CPUS))
PLACES = [ONE_CORE, TWO_CORES] if len(CPUS) > 1 else [ONE_CORE]


class Process:
    """A child process, its pipes, and the CPUs it may use. A context manager: leaving it ends the process."""

    def __init__(self, command: Sequence[str], cpus: frozenset[int], **environment: str) -> None:
        self.command = command
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                       env={**os.environ, **environment},
                                       preexec_fn=lambda: os.sched_setaffinity(0, cpus))

    def read(self) -> str:
        """The next line it prints."""
        line = self._stream(self._popen.stdout).readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.command)}: ended with status {self._popen.wait()}")
        return line.strip()

    def write(self, line: str) -> None:
        """Send it a line."""
        stream = self._stream(self._popen.stdin)
        stream.write(line + "\n")
        stream.flush()

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream(self._popen.stdin).close()         # the end of a contender's rounds
        try:
            self._popen.wait(0.5 if isinstance(self, Server) else 5)
        except subprocess.TimeoutExpired:
            self._popen.kill()                          # servers serve for ever
            self._popen.wait()
        self._stream(self._popen.stdout).close()


class Server(Process):
    """A server, which tells its port (or path) in its first line."""

    def __init__(self, command: Sequence[str], place: Place) -> None:
        super().__init__(command, place.server, BENCH_CPU="")
        self.port = self.read()

    def __exit__(self, *exc: object) -> None:
        self._popen.kill()
        super().__exit__(*exc)


class Contender(Process):
    """One side of a race. `step`: operations come in multiples of it."""

    def __init__(self, name: str, command: Sequence[str], place: Place, step: int = 1,
                 **environment: str) -> None:
        super().__init__(command, place.client, **environment, BENCH_CPU="" if place.pin is None else str(place.pin))
        self.name, self.step = name, step
        self.operations = step
        self._late: list[int] = []
        self.wall_ns: list[float] = []      # per operation, one per round
        self.cpu_ns: list[float] = []
        self.late_ns: list[list[float]] = []    # by schedule: the percentiles 50, 99, 99.9 of each round
        if self.read() != "ready":
            raise RuntimeError(f"{name} did not get ready")

    def round(self, operations: int) -> tuple[float, float]:
        """Let it work; wall and CPU time of one operation in nanoseconds."""
        self.write(str(operations))
        *self._late, wall, cpu = map(int, self.read().split())
        return wall / operations, cpu / operations

    def calibrate(self, round_seconds: float) -> None:
        """Find how many operations make a round of that length, and warm up meanwhile."""
        wall, _ = self.round(self.step)
        for _ in range(6):
            self.operations = max(1, round(round_seconds * 1e9 / wall / self.step)) * self.step
            if self.operations > 20 * self.step:        # nearer in steps: the first operations are slow
                self.operations = max(self.step, self.operations // 2 // self.step * self.step)
            wall, _ = self.round(self.operations)
        self.operations = max(1, round(round_seconds * 1e9 / wall / self.step)) * self.step

    def measure(self) -> None:
        """One round for the record."""
        wall, cpu = self.round(self.operations)
        self.wall_ns.append(wall)
        self.cpu_ns.append(cpu)
        self.late_ns.append([*self._late])

    def add(self, other: Contender) -> None:
        """Take the rounds of another process of the same kind for ours."""
        self.wall_ns += other.wall_ns
        self.cpu_ns += other.cpu_ns
        self.late_ns += other.late_ns


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of some values, or of a single one."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        def text(value: float) -> str:
            return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
        if self.low == self.high:
            return text(self.median)
        return f"{text(self.median)} [{text(self.low)} {text(self.high)}]"


@dataclass
class Settings:
    """How long to measure."""

    rounds: int = 41
    round_seconds: float = 0.02
    short: bool = False


@dataclass
class Result:
    """One line of the report: a value, its goal, and where it comes from."""

    title: str
    place: str
    value: Spread
    unit: str                   # "x" for a ratio
    goal: float | None          # None: for information
    at_least: bool = False      # the goal is a lower bound
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.value.median >= self.goal if self.at_least else self.value.median <= self.goal

    def line(self) -> str:
        """As text."""
        goal = "" if self.goal is None else f"goal {'>=' if self.at_least else '<='} {self.goal:g}"
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        notes = ", ".join(f"{name} {text}" for name, text in self.notes.items())
        value = f"{self.value!s:>22} {self.unit:4}"
        return f"  {self.title:46} {self.place:9} {value} {goal:10} {verdict:7} {notes}".rstrip()


def race(contenders: Sequence[Contender], settings: Settings) -> None:
    """Let them take their rounds in turn; each round begins with another one."""
    for contender in contenders:
        contender.calibrate(settings.round_seconds)
    for number in range(settings.rounds):
        first = number % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            contender.measure()


def recast(cast: Callable[[ExitStack], Sequence[Contender]], settings: Settings, times: int = 5) -> Sequence[Contender]:
    """The rounds of several races, each with new processes, which are over when this returns. What is bound by memory
    depends on which pages a process got, and more rounds of the same process do not tell that."""
    total: Sequence[Contender] = []
    for _ in range(1 if settings.short else times):
        with ExitStack() as stack:
            contenders = cast(stack)
            race(contenders, replace(settings, rounds=-(-settings.rounds // times)))
        for one, more in zip(total, contenders, strict=False):       # the first time there is nothing to add to
            one.add(more)
        total = total or contenders
    return total


def time_ratio(ours: Contender, theirs: Contender) -> Spread:
    """Our time over theirs, round by round."""
    return Spread.of([a / b for a, b in zip(ours.wall_ns, theirs.wall_ns, strict=True)])


def speed_ratio(ours: Contender, theirs: Contender) -> Spread:
    """Our speed over theirs, round by round."""
    return time_ratio(theirs, ours)


def cpu_ratio(ours: Contender, theirs: Contender) -> Spread:
    """CPU time of the process per operation, ours over theirs, round by round."""
    return Spread.of([a / b for a, b in zip(ours.cpu_ns, theirs.cpu_ns, strict=True)])


def million_per_second(contender: Contender, by_cpu: bool = False) -> Spread:
    """Operations per second of wall time, or of CPU time of the contender's process."""
    return Spread.of([1e3 / ns for ns in (contender.cpu_ns if by_cpu else contender.wall_ns)])


def micros(contender: Contender) -> str:
    """The median of an operation's time, for a note."""
    return f"{statistics.median(contender.wall_ns) / 1e3:.2f} us"
