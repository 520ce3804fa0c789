#!/usr/bin/env python3
"""Knocks out each line that hands a token on or wakes somebody, and shows which test notices.

Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later

    make -C csrc knockouts                      every site
    make -C csrc knockouts SITES="rx_wait_give rx_give_idle"

The programs given are built with -DNL_KNOCKOUTS (core/hand_on.h). Each is run whole once, to see that it passes and
how long it takes; then for each site the programs are run in turn, first those whose text names it, until a test
fails, or hangs beyond several times that. Exits with 1 when a site goes unnoticed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

TESTS = Path(__file__).parent
CORE = TESTS.parent / "core"
SITE = re.compile(r"\bHAND(?:ED)?_ON\((\w+), ")
BEGINS = re.compile(r"\[ RUN      \] (\w+)")      # as cmocka says it
FAILS = re.compile(r"\[  (?:FAILED|ERROR ) ")


def sites() -> list[str]:
    return sorted({site for source in CORE.glob("*.c") for site in SITE.findall(source.read_text())})


def names(program: Path, site: str) -> bool:
    """Does a comment of the program say that it is the one which notices?"""
    return re.search(rf"\b{site}\b", (TESTS / f"{program.name}.c").read_text()) is not None


def run(program: Path, site: str, seconds: float) -> str | None:
    """None: it passed. Else the test that failed first, or hung: the rest of the program is not waited for."""
    begun, how = "the start", "ends badly"
    end = time.monotonic() + seconds
    with subprocess.Popen(["stdbuf", "-oL", program], env=os.environ | {"NL_KNOCKOUT": site}, text=True,
                          start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as p:
        late = Timer(seconds, os.killpg, (p.pid, signal.SIGKILL))
        late.start()
        for line in p.stdout or ():
            if begins := BEGINS.match(line):
                begun = begins[1]
            elif FAILS.match(line):
                how = "fails"
                os.killpg(p.pid, signal.SIGKILL)
                break
        late.cancel()
    if p.returncode == 0:
        return None
    return f"{program.name}: {begun} {'hangs' if how != 'fails' and time.monotonic() >= end else how}"


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("programs", nargs="+", type=Path)
    p.add_argument("--sites", nargs="*", help="only these")
    p.add_argument("-j", type=int, default=min(2, os.cpu_count() or 1))
    a = p.parse_args()
    seconds: dict[Path, float] = {}
    for program in a.programs:
        start = time.monotonic()
        if wrong := run(program, "", 300):
            raise SystemExit(f"with nothing knocked out, {wrong}")
        seconds[program] = 15 + 6 * (time.monotonic() - start)

    def notice(site: str) -> str | None:
        programs = sorted(a.programs, key=lambda program: not names(program, site))
        return next(filter(None, (run(program, site, seconds[program]) for program in programs)), None)

    wanted = a.sites or sites()
    missed = 0
    with ThreadPoolExecutor(a.j) as pool:
        for site, who in zip(wanted, pool.map(notice, wanted)):
            print(f"{site:20} {who or 'NOT NOTICED'}", flush=True)
            missed += who is None
    print(f"{len(wanted) - missed} of {len(wanted)} knock-outs were noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
