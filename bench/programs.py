# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Compiling the C programs of the benchmarks, into $BENCH_BUILD or a folder that is gone afterwards."""
from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent / "csrc"
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-pthread"]

_temporary: tempfile.TemporaryDirectory[str] | None = None


def folder() -> Path:
    """Where programs are built, and other files that a run needs are made."""
    global _temporary
    if "BENCH_BUILD" in os.environ:
        path = Path(os.environ["BENCH_BUILD"])
        path.mkdir(parents=True, exist_ok=True)
        return path
    if _temporary is None:
        _temporary = tempfile.TemporaryDirectory(prefix="neolink-bench-")
    return Path(_temporary.name)


def _compile(arguments: list[str]) -> bool:
    command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE).returncode == 0


@cache
def have_openssl() -> bool:
    """Whether OpenSSL's headers and libraries are there."""
    source = folder() / "openssl.c"
    source.write_text("#include <openssl/ssl.h>\nint main(void) { return SSL_CTX_new(TLS_method()) == 0; }\n")
    return _compile([str(source), "-o", str(folder() / "openssl"), "-lssl", "-lcrypto"])


@cache
def as_one() -> list[str]:
    """How setup.py has the core optimized, where the compiler can."""
    source = folder() / "nothing.c"
    source.write_text("int main(void) { return 0; }\n")
    return ["-flto=auto"] if _compile(["-flto=auto", str(source), "-o", str(folder() / "nothing")]) else []


@cache
def program(name: str) -> str:
    """The path of bench/<name>.c, compiled; with the core if it includes neolink.h."""
    source, target = HERE / f"{name}.c", folder() / name
    text = source.read_text()
    arguments = [str(source), "-o", str(target)]
    if '"neolink.h"' in text:
        arguments += [*as_one(), f"-I{CSRC}/include", f"-I{CSRC}/core", *map(str, sorted((CSRC / "core").glob("*.c")))]
        if not have_openssl():
            arguments.append("-DNL_NO_TLS")
    if have_openssl():
        arguments += ["-lssl", "-lcrypto"]
    command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, *arguments, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stderr}")
    return str(target)


@cache
def library(name: str) -> str:
    """The path of bench/<name>.c, compiled to be preloaded, or imported by this Python."""
    target = folder() / f"{name}.so"
    include = f"-I{sysconfig.get_path('include')}"
    if not _compile(["-shared", "-fPIC", include, str(HERE / f"{name}.c"), "-o", str(target), "-lm"]):
        raise RuntimeError(f"{name}.c does not compile")
    return str(target)


@cache
def have_python_headers() -> bool:
    """Whether extensions of this Python can be compiled."""
    return Path(sysconfig.get_path("include"), "Python.h").exists()


@cache
def go_program(name: str) -> str | None:
    """The path of bench/<name>, built by Go; None without a Go compiler, or when its modules cannot be had."""
    target = folder() / name
    if not shutil.which("go"):
        return None
    done = subprocess.run(["go", "build", "-o", str(target), "."], cwd=HERE / name, capture_output=True, text=True)
    if done.returncode:
        print(f"  {name} left out: {done.stderr.strip().splitlines()[-1]}")
        return None
    return str(target)
