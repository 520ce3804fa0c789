"""The model of the token protocol (docs/model.rst): spin finds nothing in it, and does find what is wrong without a line of it.

Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CSRC = Path(__file__).parent.parent / "csrc"
needs_spin = pytest.mark.skipif(not (shutil.which("spin") and shutil.which("cc")), reason="needs spin and a C compiler")


def check(*arguments: str) -> str:
    done = subprocess.run([sys.executable, CSRC / "model" / "check.py", *arguments], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_spin
def test_every_order_of_the_small_configurations() -> None:
    lines = check().splitlines()
    assert lines and all(line.endswith("  ok") for line in lines), lines


@needs_spin
def test_missing_lines_are_found() -> None:
    """Some of them; check.py --knock takes out each."""
    assert "4 of 4 missing lines were noticed" in check("--knock", "rx_wait_give", "end_wake_rx", "tx_run_give", "waiter_wake")


def test_the_model_bears_the_names_of_the_code() -> None:
    sites = {site for source in (CSRC / "core").glob("*.c") for site in re.findall(r"\bHAND(?:ED)?_ON\((\w+), ", source.read_text())}
    marks = set(re.findall(r"/\* knock (\w+) \*/", (CSRC / "model" / "link.pml").read_text()))
    assert len(marks) > 40
    assert marks - sites == {"link_watch", "poll_look"}     # these have no call of their own in the code
