#!/usr/bin/env python3
"""Runs spin over link.pml: each configuration whole, then the model with each marked line taken out, which must be found.

Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later

    python3 csrc/model/check.py             the small configurations: what CI runs
    python3 csrc/model/check.py --large     the large ones, too: minutes, and gigabytes of memory
    python3 csrc/model/check.py --knock     without each marked line in turn; or --knock NAME ...
    python3 csrc/model/check.py --live      that the link never turns for ever without progress

Needs spin and a C compiler. Exits with 1 when a check of the whole model fails or a missing line goes unnoticed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("link.pml")

SMALL = {
    "close": "ASKERS=1 ENDERS=1",
    "unix": "ASKERS=1 ENDERS=1 UNIX=1",
    "asks": "ASKERS=2",
    "many": "ASKERS=1 NOTIFIERS=1 NOTES=2",
    "crowd": "ASKERS=2 CROWD=1",
    "ends": "ASKERS=1 RECEIVERS=1 PEER_MAY_END=1",
    "recv": "ASKERS=0 RECEIVERS=2 IMPATIENT=1",
    "strays": "ASKERS=0 RECEIVERS=1 RECVS=2 STRAYS=1",
    "blocks": "ASKERS=0 RECEIVERS=1 RECVS=4 SOCKET=2",
    "flush": "ASKERS=0 NOTIFIERS=1 NOTES=2 ENDERS=1 IMPATIENT=1",
    "mute": "ASKERS=1 ENDERS=1 UNIX=1 MUTE=1",
    "full": "ASKERS=0 NOTIFIERS=1 NOTES=4 ENDERS=1 MUTE=1",
    "two": "ASKERS=0 ENDERS=2 IMPATIENT=1 LEAVER=1",
}
LARGE = {
    "budget": "ASKERS=1 RECEIVERS=1 RECVS=2 STRAYS=1",
    "patience": "ASKERS=2 IMPATIENT=1",
    "mixed": "ASKERS=1 RECEIVERS=1 ENDERS=1",
    "writers": "ASKERS=0 NOTIFIERS=2 NOTES=2 PEER_MAY_END=1",
    "closers": "ASKERS=0 NOTIFIERS=1 ENDERS=2 IMPATIENT=1",
}
MARK = re.compile(r"/\* knock (\w+) \*/")


@dataclass
class Result:
    errors: int
    states: int
    depth: int
    seconds: float
    why: str


def names_of(text: str) -> list[str]:
    return sorted(set(MARK.findall(text)))


def knockable(text: str) -> str:
    """The model whose marked statements are passed over when NL_KNOCKOUT in the environment is their number: so one verifier
    serves for all of them. The guard in front of a statement, if there is one, stays."""
    names = names_of(text)
    lines = ["c_decl { static int knocked = -1; }"]
    for line in text.splitlines():
        if mark := MARK.search(line):
            guard, arrow, statement = line[: mark.start()].rstrip().rpartition("-> ")
            end = ";" if statement.endswith(";") else ""
            which = f"if :: c_expr {{ knocked == {names.index(mark[1])} }} :: else -> {statement.strip().rstrip(';')} fi{end}"
            line = guard + arrow + which
        elif line.startswith("init {"):
            line += ' c_code { knocked = getenv("NL_KNOCKOUT") ? atoi(getenv("NL_KNOCKOUT")) : -1; };'
        lines.append(line)
    return "\n".join(lines) + "\n"


def build(text: str, bounds: str, where: Path, *, live: bool = False, optimise: str = "-O0") -> None:
    """Compiles a verifier. It is one enormous function: optimising it takes longer than most runs."""
    where.mkdir()
    (where / "link.pml").write_text(text)
    kind = ["-DNP", "-DNFAIR=3"] if live else ["-DSAFETY"]
    run(["spin", *(f"-D{bound}" for bound in bounds.split()), "-a", "link.pml"], where)
    run(["cc", optimise, "-w", *kind, "-DCOLLAPSE", "-o", "pan", "pan.c"], where)


def verify(where: Path, *, live: bool = False, knock: int = -1) -> Result:
    """Runs a verifier to its end or its first error."""
    start = time.monotonic()
    said = run(["./pan", "-E", "-m2000000", *(["-l", "-f"] if live else [])], where, {"NL_KNOCKOUT": str(knock)})
    seconds = time.monotonic() - start
    if "max search depth too small" in said or "out of memory" in said:
        raise SystemExit(f"{where.name}: the search was cut short\n{said}")
    why = re.search(r"pan:1: (.*?) \(at depth", said)
    return Result(number(r"errors: (\d+)", said), number(r"(\d+) states, stored", said),
                  number(r"depth reached (\d+)", said), seconds, why[1] if why else "")


def run(command: list[str], where: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=os.environ | (environment or {}))
    if done.returncode and command[0] != "./pan":
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if not found:
        raise SystemExit(f"no {pattern!r} in what pan said:\n{text}")
    return int(found[1])


def check_whole(configurations: dict[str, str], where: Path, workers: int, live: bool = False) -> bool:
    text = MODEL.read_text()
    good = True

    def check(name: str) -> Result:
        build(text, configurations[name], where / name, live=live, optimise="-O2" if name in LARGE else "-O0")
        return verify(where / name, live=live)

    with ThreadPoolExecutor(workers) as pool:
        for (name, bounds), r in zip(configurations.items(), pool.map(check, configurations)):
            print(f"{name:9} {r.states:>10} states  depth {r.depth:>6}  {r.seconds:6.1f} s  {bounds}  {r.why or 'ok'}", flush=True)
            good = good and r.errors == 0
    return good


def check_knocks(only: list[str], where: Path, workers: int) -> bool:
    """Without each marked line in turn: some configuration must notice."""
    names = names_of(MODEL.read_text())
    missed = dict.fromkeys(only or names)
    looked_for = len(missed)
    text = knockable(MODEL.read_text())
    with ThreadPoolExecutor(workers) as pool:
        for configuration, bounds in SMALL.items():
            if not missed:
                break
            build(text, bounds, where / configuration)
            results = pool.map(lambda name: verify(where / configuration, knock=names.index(name)), list(missed))
            for name, r in zip(list(missed), results):
                if r.errors:
                    print(f"{name:20} {configuration:9} {r.why}", flush=True)
                    del missed[name]
    for name in missed:
        print(f"{name:20} NOT NOTICED")
    print(f"{looked_for - len(missed)} of {looked_for} missing lines were noticed")
    return not missed


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--large", action="store_true", help="the large configurations, too")
    p.add_argument("--knock", nargs="*", metavar="NAME", help="without each marked line in turn")
    p.add_argument("--live", action="store_true", help="no endless turning without progress")
    p.add_argument("-j", type=int, default=min(2, os.cpu_count() or 1), help="verifiers at once")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        if a.knock is not None:
            good = check_knocks(a.knock, where, a.j)
        elif a.live:
            good = check_whole({"close": SMALL["close"]}, where, a.j, live=True)
        else:
            good = check_whole(SMALL | (LARGE if a.large else {}), where, a.j)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
