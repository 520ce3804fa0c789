# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The C core's own tests, which need no Python: built by csrc/Makefile into a folder of their own, one program a test."""
from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"
PROGRAMS = sorted(path.stem for path in CSRC.glob("test/test_*.c"))
CMOCKA_H = "#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>\n#include <cmocka.h>\n"


def name_of(program: str) -> str:
    """The program and the scenarios that it carries (docs/reliability.rst): `-k s07` runs those with S7."""
    source = (CSRC / "test" / f"{program}.c").read_text()
    numbers = sorted({int(number) for comment in re.findall(r"/\*.*?\*/", source, re.S)
                      for number in re.findall(r"\bS(\d+)\b", comment)})
    return "_".join([program, *(f"s{number:02}" for number in numbers)])


def lacks() -> str | None:
    """What is missing to build them, or None."""
    compiler = os.environ.get("CC", "cc").split()
    for tool in (compiler[0], "make"):
        if shutil.which(tool) is None:
            return f"no {tool}"
    found = subprocess.run([*compiler, "-E", "-"], input=CMOCKA_H, text=True, capture_output=True)
    return None if found.returncode == 0 else "no cmocka.h (libcmocka-dev, libcmocka-devel)"


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder to build in, or a skip that says what to install."""
    reason = lacks()
    if reason:
        pytest.skip(f"the C tests cannot be built: {reason}")
    return tmp_path_factory.mktemp("core")


def test_there_are_programs() -> None:
    """The list below is not empty by mistake."""
    assert "test_wire" in PROGRAMS


@pytest.mark.no_asan
@pytest.mark.parametrize("program", PROGRAMS, ids=name_of)
def test_core(program: str, build: Path) -> None:
    """One cmocka program passes, every test of it."""
    done = subprocess.run(["make", "-s", "-C", str(CSRC), f"check-{program}", f"BUILD={build}"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
                          env=os.environ | {"FAULTS_FEW": "1"})      # `make check` runs them all
    assert done.returncode == 0, done.stdout[-8000:]
