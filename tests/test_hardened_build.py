# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The extension is built with what setup.py asks for: a library that a mistake of its own turns against less easily."""
import os
import re
import shutil
import subprocess

import pytest

import neolink._core

EXTENSION = neolink._core.__file__


def readelf(*options: str) -> str:
    """What readelf says of the extension."""
    tool = shutil.which("readelf")
    if tool is None:
        pytest.skip("no readelf (binutils)")
    return subprocess.run([tool, "-W", *options, EXTENSION], capture_output=True, text=True, check=True,
                          env={**os.environ, "LC_ALL": "C", "LD_PRELOAD": ""}).stdout


def test_relocations_are_read_only():
    assert "GNU_RELRO" in readelf("-l")
    assert re.search(r"\(FLAGS\).*BIND_NOW|\(FLAGS_1\).*NOW|\(BIND_NOW\)", readelf("-d"))


def test_the_stack_is_not_executable():
    stack = re.search(r"GNU_STACK.*", readelf("-l"))
    assert stack and "RWE" not in stack.group()


@pytest.mark.no_asan
def test_stack_protector_and_checked_functions():
    symbols = readelf("--dyn-syms")
    assert "__stack_chk_fail" in symbols
    assert "__vsnprintf_chk" in symbols


def test_only_the_module_is_exported():
    exported = {line.split()[7] for line in readelf("--dyn-syms").splitlines()
                if re.search(r"\b(FUNC|OBJECT)\s+GLOBAL\s+DEFAULT\s+\d", line)}
    assert "PyInit__core" in exported
    assert not {name for name in exported if name.startswith(("nl_", "py_"))}
