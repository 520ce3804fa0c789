# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of the requirement table: what each compares, and its goal. README.rst says what limits them."""
from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from programs import HERE, program
from race import (
    ONE_CORE,
    PLACES,
    TWO_CORES,
    Contender,
    Place,
    Result,
    Server,
    Settings,
    micros,
    race,
    time_ratio,
)

SIZE = "64"                     # bytes of payload of a small packet


class Skipped(Exception):
    """A row that cannot run here, and why."""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    number: int
    title: str
    run: Callable[[Settings], Iterator[Result]]


ROWS: list[Row] = []


def row(number: int, title: str) -> Callable[[Callable[[Settings], Iterator[Result]]], object]:
    """Decorator: enter a function in the table."""
    def enter(run: Callable[[Settings], Iterator[Result]]) -> object:
        ROWS.append(Row(number, title, run))
        return run
    return enter


def need(*modules: str) -> None:
    """Skip the row unless these can be imported."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise Skipped(f"{module} is not installed")


def node(place: Place) -> Server:
    """The bare server of most rows."""
    return Server([program("peer"), "node"], place)


def in_c(source: str, what: str, server: Server, place: Place, *arguments: str, step: int = 1) -> Contender:
    """A contender of peer.c or core.c."""
    return Contender(f"{source} {what}", [program(source), what, server.port, *arguments], place, step)


def in_python(what: str, server: Server, place: Place, *arguments: str, step: int = 1) -> Contender:
    """A contender of contend.py."""
    command = [sys.executable, str(HERE / "contend.py"), what, server.port, *arguments]
    return Contender(f"python {what}", command, place, step)


@row(1, "C core: ask, one outstanding, against blocking C")
def core_ask(settings: Settings) -> Iterator[Result]:
    for place, goal in zip(PLACES, (1.06, 0.75)):
        with (node(place) as server, in_c("peer", "ask", server, place, SIZE) as bare,
              in_c("core", "ask", server, place, SIZE) as ours):
            race([bare, ours], settings)
            yield Result("time of nl_ask / blocking C", place.name, time_ratio(ours, bare), "x", goal,
                         notes={"ours": micros(ours), "C": micros(bare)})


@row(2, "Python: link.ask(code, payload), one outstanding")
def python_ask(settings: Settings) -> Iterator[Result]:
    need("neolink")
    for place, goal in zip(PLACES, (1.15, 0.80)):
        with (node(place) as server, in_c("peer", "ask", server, place, SIZE) as bare,
              in_python("socket_ask", server, place, SIZE) as python, in_python("link_ask", server, place, SIZE) as ours):
            race([bare, python, ours], settings)
            yield Result("time of link.ask / blocking C", place.name, time_ratio(ours, bare), "x", goal,
                         notes={"ours": micros(ours), "C": micros(bare)})
            yield Result("time of link.ask / bare Python socket", place.name, time_ratio(ours, python), "x", 0.8,
                         notes={"Python": micros(python)})
