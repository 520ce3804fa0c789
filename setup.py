# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The one part of the build that pyproject.toml cannot say: how the C core and its bindings become neolink._core.

TLS needs OpenSSL's headers. Whether they are there is found out by compiling a line that includes them; without them
the core is built with NL_NO_TLS, and neolink.TLS says so when it is used. The flags that harden the library against its
own mistakes are found out in the same way, one by one, since compilers and processors differ. So is whether the core
and its bindings can be optimized as one program, which saves a round trip some fifty calls. NEOLINK_CFLAGS and
NEOLINK_LDFLAGS are appended to the flags, for sanitizers and the like.
"""
import glob
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CFLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"]
MORE_CFLAGS = shlex.split(os.environ.get("NEOLINK_CFLAGS", ""))
MORE_LDFLAGS = shlex.split(os.environ.get("NEOLINK_LDFLAGS", ""))

USES_OPENSSL = "#include <openssl/ssl.h>\nint main(void) { return SSL_CTX_new(TLS_method()) == 0; }\n"
USES_NOTHING = "#include <string.h>\nint main(int n, char **a) { char b[8]; strcpy(b, a[n - 1]); return b[0]; }\n"

HARDENING = ["-fstack-protector-strong", "-fstack-clash-protection", "-fcf-protection"]
HARDENING_LINKED = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]
AS_ONE = ["-flto=auto"]
FORTIFIED = [["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"], ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]]


def builds(compiler: list[str], program: str, flags: Sequence[str] = (), link: Sequence[str] = ()) -> bool:
    """Whether a program compiles and links with these flags, those of the environment behind them."""
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "probe.c")
        with open(source, "w") as file:
            file.write(program)
        command = [*compiler, *flags, *MORE_CFLAGS, source, "-o", source[:-2], *MORE_LDFLAGS, *link]
        return subprocess.run(command, capture_output=True).returncode == 0


def more_flags(compiler: list[str], given: str) -> tuple[list[str], list[str]]:
    """Those that this compiler takes without a word, for compiling and for linking.

    What is `given` by the distribution or the environment stands, level and all: two levels are a warning in each file.
    Sanitizers see more than checked library functions do, and miss what these intercept; what they tell of is easier
    to find in one file than in a program that was made of all.
    """
    def quiet(*flags: str) -> bool:
        return builds(compiler, USES_NOTHING, ["-O2", "-Werror", *flags])

    taken = [flag for flag in HARDENING if quiet(flag)]
    if "_FORTIFY_SOURCE" not in given and "-fsanitize" not in given:
        taken += next((flags for flags in FORTIFIED if quiet(*flags)), [])
    as_one = AS_ONE if "-flto" not in given and "-fsanitize" not in given and quiet(*AS_ONE) else []
    return taken + as_one, [flag for flag in HARDENING_LINKED if quiet(flag)] + as_one


class BuildExt(build_ext):
    """build_ext that decides about TLS and such flags when the compiler is known."""

    def build_extensions(self) -> None:
        compiler = shlex.split(os.environ.get("CC", "")) or list(self.compiler.compiler)
        tls = builds(compiler, USES_OPENSSL, link=["-lssl", "-lcrypto"])
        if not tls:
            print("neolink: no OpenSSL headers (libssl-dev, openssl-devel): building without TLS", file=sys.stderr)
        compiled, linked = more_flags(compiler, " ".join([*self.compiler.compiler_so, *MORE_CFLAGS]))
        for extension in self.extensions:
            extension.extra_compile_args = [*CFLAGS, *compiled, *MORE_CFLAGS]
            extension.extra_link_args = [*linked, *MORE_LDFLAGS]
            if tls:
                extension.libraries += ["ssl", "crypto"]
            else:
                extension.define_macros.append(("NL_NO_TLS", None))
        super().build_extensions()


setup(
    ext_modules=[
        Extension(
            "neolink._core",
            sources=sorted(glob.glob("csrc/py/*.c") + glob.glob("csrc/core/*.c")),
            depends=glob.glob("csrc/*/*.h"),
            include_dirs=["csrc/include", "csrc/core"],
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
