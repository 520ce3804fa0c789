# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Python's allocations fail, each once, in every operation of the bindings: tests/fail_memory.py in a process of its own.

A process that dies of it is reported with the number of the allocation, and with the command that repeats that run.
"""
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("_testcapi", reason="this Python comes without _testcapi, which makes allocations fail")

import fail_memory  # noqa: E402

PROGRAM = Path(fail_memory.__file__)
SECONDS = 60


def certificates() -> list[str]:
    """The program's words for TLS."""
    with contextlib.suppress(pytest.skip.Exception):
        from tls_kit import house

        return ["--tls", *house().good]
    return []


@pytest.mark.parametrize("operation", fail_memory.OPERATIONS)
def test_each_allocation_fails_once(operation):
    files = certificates() if operation in fail_memory.NEEDS_TLS else []
    if operation in fail_memory.NEEDS_TLS and not files:
        pytest.skip("certificates are made with trustme")
    command = [sys.executable, str(PROGRAM), *files, operation]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        n = [line for line in done.stdout.split() if line.isdigit()][-1:]
        pytest.fail(f"ended with {done.returncode}; repeat it with: {' '.join([*command, *n])}\n{done.stderr}")
