#!/usr/bin/env python3
"""Runs spin over link.pml: each configuration whole, and with each marked line taken out, which must be found.

Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later

    python3 csrc/model/check.py             the small configurations
    python3 csrc/model/check.py --quick     the smallest of them: what CI runs
    python3 csrc/model/check.py --large     the large ones: minutes, and gigabytes of memory
    python3 csrc/model/check.py --live      that the link never turns for ever without progress
    python3 csrc/model/check.py --knock     without each marked line in turn; or --knock NAME ...
    python3 csrc/model/check.py close asks  only these; with --live or --knock, too

Needs spin and a C compiler. Exits with 1 when a check of the whole model fails or a missing line goes unnoticed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

MODEL = Path(__file__).with_name("link.pml")

QUICK = {
    "close": "ASKERS=1 ENDERS=1",
    "rest": "ASKERS=0 RECEIVERS=1 RECVS=2 PUSHES=3 SOCKET=3",
    "two": "ASKERS=0 ENDERS=2 IMPATIENT=1 LEAVER=1 PUSHES=1",
    "over": "ASKERS=0 NOTIFIERS=2 PUSHES=2 TX_LIMIT=1 FAILS=1",
}
SMALL = QUICK | {
    "strays": "ASKERS=0 RECEIVERS=1 RECVS=2 STRAYS=1",
    "flood": "ASKERS=0 RECEIVERS=1 NOTIFIERS=1 STRAYS=1 CROWD=1",
    "blocks": "ASKERS=0 RECEIVERS=1 RECVS=4 SOCKET=2",
    "mute": "ASKERS=1 ENDERS=1 UNIX=1 MUTE=1",
    "silent": "ASKERS=1 ENDERS=1 MUTE=1",
    "unix": "ASKERS=1 ENDERS=1 UNIX=1",
    "asks": "ASKERS=2",
    "many": "ASKERS=1 NOTIFIERS=1 NOTES=2",
    "crowd": "ASKERS=2 CROWD=1",
    "ends": "ASKERS=1 RECEIVERS=1 PEER_MAY_END=1",
    "recv": "ASKERS=0 RECEIVERS=2 IMPATIENT=1",
    "flush": "ASKERS=0 NOTIFIERS=1 NOTES=2 ENDERS=1 IMPATIENT=1",
    "leave": "ASKERS=0 NOTIFIERS=1 NOTES=2 ENDERS=1 IMPATIENT=1 LEAVER=1",
    "full": "ASKERS=0 NOTIFIERS=1 NOTES=4 ENDERS=1 MUTE=1",
    "broken": "ASKERS=1 NOTIFIERS=1 FAILS=1",
    "waits": "ASKERS=1 ENDERS=1 PUSHES=2",
    "turns": "ASKERS=2 IN_TURN=1",
    "herd": "ASKERS=0 RECEIVERS=2 IMPATIENT=1 IN_TURN=1",
}
LARGE = {
    "pours": "ASKERS=0 RECEIVERS=1 NOTIFIERS=1 STRAYS=2 SOCKET=2 CROWD=1",
    "budget": "ASKERS=1 RECEIVERS=1 RECVS=2 STRAYS=1",
    "patience": "ASKERS=2 IMPATIENT=1",
    "mixed": "ASKERS=1 RECEIVERS=1 ENDERS=1",
    "writers": "ASKERS=0 NOTIFIERS=2 NOTES=2 PEER_MAY_END=1",
    "closers": "ASKERS=0 NOTIFIERS=1 ENDERS=2 IMPATIENT=1",
    "queue": "ASKERS=0 RECEIVERS=3 PEER_MAY_END=1 IN_TURN=1",
    "rows": "ASKERS=1 RECEIVERS=1 ENDERS=1 IN_TURN=1",
}
ALL = SMALL | LARGE
LIVE = ["close", "strays", "blocks", "rest", "mute", "silent", "two", "over", "unix", "asks", "recv", "turns", "herd"]
# What is not needed for that nothing stands still or turns for ever, but saves time: docs/model.rst says why.
SPARED = ["rx_give_hand_over"]
HASH_BITS = 22
MEGABYTES = 6000            # a search that needs more ends with an error
MARK = re.compile(r"/\* knock (\w+) \*/")


@dataclass
class Result:
    errors: int
    states: int
    depth: int
    seconds: float
    megabytes: float
    why: str


def names_of(text: str) -> list[str]:
    return sorted(set(MARK.findall(text)))


def knockable(text: str) -> str:
    """The model whose marked statements are passed over when NL_KNOCKOUT in the environment is their number: so one
    verifier serves for all of them. The guard in front of a statement, if there is one, stays."""
    names = names_of(text)
    lines = ["c_decl { static int knocked = -1; }"]
    for line in text.splitlines():
        if mark := MARK.search(line):
            guard, arrow, statement = line[: mark.start()].rstrip().rpartition("-> ")
            end = ";" if statement.endswith(";") else ""
            is_out, statement = f"c_expr {{ knocked == {names.index(mark[1])} }}", statement.strip().rstrip(";")
            line = f"{guard}{arrow}if :: {is_out} :: else -> {statement} fi{end}"
        elif line.startswith("init {"):
            line += ' c_code { knocked = getenv("NL_KNOCKOUT") ? atoi(getenv("NL_KNOCKOUT")) : -1; };'
        lines.append(line)
    return "\n".join(lines) + "\n"


def build(text: str, bounds: str, where: Path, *, live: bool = False) -> None:
    """Compiles a verifier. It is one enormous function: optimising it takes longer than most runs. A live one looks for
    cycles: each is an error, however unfair to some thread, since the threads of the model have only so much to do."""
    where.mkdir()
    (where / "link.pml").write_text(text)
    kind = ["-DNP"] if live else ["-DSAFETY"]
    run(["spin", *(f"-D{bound}" for bound in bounds.split()), "-a", "link.pml"], where)
    run(["cc", "-O0", "-w", *kind, "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}", "-o", "pan", "pan.c"], where)


def verify(where: Path, *, live: bool = False, knock: int = -1) -> Result:
    """Runs a verifier to its end or its first error."""
    start = time.monotonic()
    command = ["./pan", "-E", "-m20000", f"-w{HASH_BITS}", *(["-l"] if live else [])]
    said = run(command, where, {"NL_KNOCKOUT": str(knock)})
    seconds = time.monotonic() - start
    if "max search depth too small" in said or "out of memory" in said or "memory limit" in said:
        raise SystemExit(f"{where.name}: the search was cut short\n{said}")
    why = re.search(r"pan:1: (.*?) \(at depth", said)
    return Result(number(r"errors: (\d+)", said), number(r"(\d+) states, stored", said),
                  number(r"depth reached (\d+)", said), seconds,
                  float(re.findall(r"([\d.]+)\ttotal actual memory", said)[-1]), why[1] if why else "")


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
        build(text, configurations[name], where / name, live=live)
        return verify(where / name, live=live)

    with ThreadPoolExecutor(workers) as pool:
        for (name, bounds), r in zip(configurations.items(), pool.map(check, configurations)):
            print(said_of(name, bounds, r), flush=True)
            good = good and r.errors == 0
    return good


def said_of(name: str, bounds: str, r: Result) -> str:
    return (f"{name:9} {r.states:>10} states  depth {r.depth:>4}  {r.seconds:6.1f} s  {r.megabytes:5.0f} MB  {bounds}  "
            f"{r.why or 'ok'}")


def verify_without(verifier: Path, names: list[str], live: bool, name: str) -> Result:
    return verify(verifier, live=live, knock=names.index(name))


def check_knocks(only: list[str], configurations: dict[str, str], where: Path, workers: int) -> bool:
    """The model whole, and without each marked line in turn: some configuration must notice, by a claim or, at the
    last, by turning for ever."""
    names = names_of(MODEL.read_text())
    missed = dict.fromkeys(only or names)
    looked_for, good = len(missed), True
    text = knockable(MODEL.read_text())
    with ThreadPoolExecutor(workers) as builders, ThreadPoolExecutor(workers) as verifiers:
        built = {c: builders.submit(build, text, bounds, where / c) for c, bounds in configurations.items()}
        for live, (configuration, bounds) in itertools.product((False, True), configurations.items()):
            verifier = where / f"{configuration}{'-live' * live}"
            if not live:
                built[configuration].result()
            elif configuration in LIVE and missed.keys() - set([] if only else SPARED):
                build(text, bounds, verifier, live=True)
            else:
                continue
            whole = verify(verifier, live=live)
            print(said_of(configuration, bounds, whole), flush=True)
            good = good and whole.errors == 0
            results = verifiers.map(partial(verify_without, verifier, names, live), list(missed))
            for name, r in zip(list(missed), results):
                if r.errors:
                    print(f"{name:20} {configuration:9} {r.why}", flush=True)
                    del missed[name]
    for name in missed:
        print(f"{name:20} {'not needed' if name in SPARED else 'NOT NOTICED'}")
    print(f"{looked_for - len(missed)} of {looked_for} missing lines were noticed")
    return good and not missed.keys() - set(SPARED)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("configurations", nargs="*", metavar="CONFIGURATION", help="only these: " + " ".join(ALL))
    p.add_argument("--quick", action="store_true", help="the smallest configurations")
    p.add_argument("--large", action="store_true", help="the large ones")
    p.add_argument("--live", action="store_true", help="no endless turning without progress")
    p.add_argument("--knock", nargs="*", metavar="NAME", help="without each marked line in turn")
    p.add_argument("-j", type=int, default=min(2, os.cpu_count() or 1), help="verifiers at once")
    a = p.parse_args()
    names = a.configurations or list(QUICK if a.quick else LARGE if a.large else LIVE if a.live else SMALL)
    wanted = {name: ALL[name] for name in names}
    with tempfile.TemporaryDirectory() as name:
        if a.knock is not None:
            good = check_knocks(a.knock, wanted, Path(name), a.j)
        else:
            good = check_whole(wanted, Path(name), a.j, a.live)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
