#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Print what was measured as tables of reStructuredText: `python bench/tables.py [--run|--latency|...] FILE ...`."""
from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from race import Spread
from where import COLUMNS, cell

UNITS = {"payload": "bytes", "conns": "Conns", "links": "links", "threads": "threads"}


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A simple table."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    bar = "  ".join("=" * width for width in widths)
    body = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
            for line in (head, *lines)]
    return "\n".join([bar, body[0], bar, *body[1:], bar, ""])


def run_table(found: dict[str, Any]) -> str:
    """The rows of run.py."""
    lines = []
    for row in found["rows"]:
        for result in row["results"]:
            goal = ""
            if result["goal"] is not None:
                goal = f"at {'least' if result['at_least'] else 'most'} {result['goal']:g}"
                goal += "" if result["met"] else ", missed"
            value = f"{Spread(**result['value'])} {result['unit']}".strip()
            lines.append([str(row["row"]), result["title"], result["place"] or "-", value, goal or "-"])
    return table(("row", "what", "where", "value", "goal"), lines)


def latency_table(found: dict[str, Any]) -> str:
    """Row 15 in microseconds: a line for each contender and place. They are the notes of some of its results."""
    lines: dict[tuple[str, str], list[str]] = {}
    for result in next((row["results"] for row in found["rows"] if row["row"] == 15), []):
        for name, value in result["notes"].items():
            lines.setdefault((result["place"], name), []).append(value.removesuffix(" us"))
    return table(("where", "what", "p50", "p99", "p99.9", "CPU time"), [[*key, *cells] for key, cells in lines.items()])


def curves_table(found: list[dict[str, Any]]) -> str:
    """A table for each curve: a line for each number, a column for each series."""
    parts = []
    for curve, unit in UNITS.items():
        points = [point for point in found if point["curve"] == curve]
        series = list(dict.fromkeys(point["series"] for point in points))
        by_x: dict[int, dict[str, str]] = {}
        for point in points:
            ratio = f" ({point['ratio']['median']:.2f}x)" if point["ratio"] else ""
            by_x.setdefault(point["x"], {})[point["series"]] = f"{point['value']:.5g} {point['unit']}{ratio}"
        if points:
            parts.append(table((unit, *series), [[f"{x:,}", *(cells.get(name, "-") for name in series)]
                                                 for x, cells in by_x.items()]))
    return "\n".join(parts)


def where_table(found: list[dict[str, Any]]) -> str:
    """The table of where.py."""
    return table(("per operation", *COLUMNS), [[line["path"], *(cell(line[column]) for column in COLUMNS)]
                                               for line in found])


def main() -> None:
    """Print the tables of the files that are named."""
    parser = argparse.ArgumentParser(description="tables of what was measured")
    for name, source in (("run", "run"), ("latency", "run"), ("curves", "curves"), ("where", "where")):
        parser.add_argument(f"--{name}", metavar="FILE", help=f"what {source}.py --json wrote")
    tables = {"run": run_table, "latency": latency_table, "curves": curves_table, "where": where_table}
    for name, file in vars(parser.parse_args()).items():
        if file:
            with open(file) as opened:
                print(tables[name](json.load(opened)))


if __name__ == "__main__":
    main()
