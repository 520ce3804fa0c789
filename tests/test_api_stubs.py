# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The stub says what the built module does."""
import os
import pathlib
import subprocess
import sys

import pytest

import neolink

pytest.importorskip("mypy")


def test_stubtest(tmp_path):
    allowlist = pathlib.Path(__file__).with_name("stubtest.allow")
    package = pathlib.Path(neolink.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(package), "MYPYPATH": str(package)}
    done = subprocess.run([sys.executable, "-P", "-m", "mypy.stubtest", "neolink._core", "--allowlist",
                           str(allowlist)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
