#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Run the benchmarks: `python bench/run.py [--row N]... [--short] [--json FILE]`.

Each row runs neolink and its peers side by side and prints what comes out, the goal, and whether it is met. A goal that
is missed is a line in the report, never a failure: the exit status is 1 only when a row could not be measured at all.
"""
from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from typing import Any

import rows
from race import CPUS, Result, Settings

SHORT = Settings(rounds=3, round_seconds=0.003, short=True)


def is_editable(name: str) -> bool:
    """Whether a distribution is installed by a start-up hook that leads to its sources; rows 12 and 14 feel it."""
    origin = importlib.metadata.distribution(name).read_text("direct_url.json")
    return origin is not None and bool(json.loads(origin).get("dir_info", {}).get("editable"))


def conditions() -> dict[str, Any]:
    """What a reader must know to compare numbers."""
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "?")
    versions = {}
    for name in ("neolink", "msgspec", "pyzmq", "pynng", "grpcio", "uvloop"):
        try:
            versions[name] = importlib.metadata.version(name)
            if is_editable(name):
                versions[name] += " (editable)"
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return {"cpu": model, "cpus": len(CPUS), "kernel": platform.release(), "python": platform.python_version(),
            "load": os.getloadavg()[0], "time": time.strftime("%Y-%m-%d %H:%M:%S"), **versions}


def run_row(row: rows.Row, settings: Settings) -> dict[str, Any]:
    """Run one row and print it; what happened, for the JSON file."""
    print(f"{row.number}. {row.title}", flush=True)
    record: dict[str, Any] = {"row": row.number, "title": row.title, "results": []}
    try:
        for result in row.run(settings):
            print(result.line(), flush=True)
            record["results"].append(as_json(result))
    except rows.Skipped as reason:
        print(f"  skipped: {reason}")
        record["skipped"] = str(reason)
    except Exception as error:
        print(f"  FAILED: {type(error).__name__}: {error}", flush=True)
        record["failed"] = f"{type(error).__name__}: {error}"
    return record


def as_json(result: Result) -> dict[str, Any]:
    """A result with its verdict."""
    return {**asdict(result), "met": result.met}


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="neolink beside its peers")
    parser.add_argument("--row", type=int, action="append", metavar="N", help="only this row (may be repeated)")
    parser.add_argument("--short", action="store_true", help="seconds in all: checks that everything works")
    parser.add_argument("--rounds", type=int, help="rounds of each contender")
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
    options = parser.parse_args()
    settings = SHORT if options.short else Settings()
    if options.rounds:
        settings.rounds = options.rounds
    unknown = set(options.row or ()) - {row.number for row in rows.ROWS}
    if unknown:
        parser.error(f"no such row: {', '.join(map(str, sorted(unknown)))}")
    facts = conditions()
    print(", ".join(f"{name} {fact}" for name, fact in facts.items()))
    records = [run_row(row, settings) for row in rows.ROWS if not options.row or row.number in options.row]
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"conditions": facts, "rows": records}, file, indent=1)
    missed = sum(result["met"] is False for record in records for result in record["results"])
    failed = sum("failed" in record for record in records)
    print(f"{missed} goals missed, {failed} rows failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
