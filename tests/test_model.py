"""The model of the token protocol (docs/model.rst): spin finds nothing wrong, but does without a line of it.

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


@pytest.mark.no_asan        # it runs nothing of the library's, but a compiler
@needs_spin
def test_every_order_of_the_quick_configurations() -> None:
    """Whole, and without some of the marked lines; check.py has more configurations, and takes out each line."""
    knocked = "rx_wait_give", "end_wake_rx", "tx_run_give", "waiter_wake"
    command = [sys.executable, str(CSRC / "model" / "check.py"), "--quick", "--knock", *knocked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    *found, last = done.stdout.splitlines()
    assert last == "4 of 4 missing lines were noticed"
    assert len([line for line in found if line.endswith("  ok")]) == 4, found


def test_the_model_bears_the_names_of_the_code() -> None:
    core = "".join(source.read_text() for source in (CSRC / "core").glob("*.c"))
    sites = set(re.findall(r"\bHAND(?:ED)?_ON\((\w+), ", core))
    marks = set(re.findall(r"/\* knock (\w+) \*/", (CSRC / "model" / "link.pml").read_text()))
    assert len(marks) > 40
    assert marks - sites == {"link_watch", "poll_look"}     # these have no call of their own in the code
