# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The one part of the build that pyproject.toml cannot say: how the C core and its bindings become neolink._core.

TLS needs OpenSSL's headers. Whether they are there is found out by compiling a line that includes them; without them
the core is built with NL_NO_TLS, and neolink.TLS says so when it is used. NEOLINK_CFLAGS and NEOLINK_LDFLAGS are
appended to the flags, for sanitizers and the like.
"""
import glob
import os
import shlex
import subprocess
import sys
import tempfile

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CFLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"]


def has_openssl(compiler: list[str]) -> bool:
    """Whether a program that includes OpenSSL's headers compiles and links."""
    program = "#include <openssl/ssl.h>\nint main(void) { return SSL_CTX_new(TLS_method()) == 0; }\n"
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "openssl.c")
        with open(source, "w") as file:
            file.write(program)
        command = [*compiler, *shlex.split(os.environ.get("NEOLINK_CFLAGS", "")), source, "-o", source[:-2],
                   *shlex.split(os.environ.get("NEOLINK_LDFLAGS", "")), "-lssl", "-lcrypto"]
        return subprocess.run(command, capture_output=True).returncode == 0


class BuildExt(build_ext):
    """build_ext that decides about TLS when the compiler is known."""

    def build_extensions(self) -> None:
        tls = has_openssl(shlex.split(os.environ.get("CC", "")) or list(self.compiler.compiler))
        if not tls:
            print("neolink: no OpenSSL headers (libssl-dev, openssl-devel): building without TLS", file=sys.stderr)
        for extension in self.extensions:
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
            extra_compile_args=CFLAGS + shlex.split(os.environ.get("NEOLINK_CFLAGS", "")),
            extra_link_args=shlex.split(os.environ.get("NEOLINK_LDFLAGS", "")),
        )
    ],
    cmdclass={"build_ext": BuildExt},
)
