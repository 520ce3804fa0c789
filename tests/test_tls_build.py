# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Without OpenSSL's headers neolink builds, says so, and works but for TLS, which says what to install."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import neolink
client, server = neolink.pair()
client.notify(5)
assert server.recv1(timeout=20).packet.code == 5
client.close(), server.close()
try:
    neolink.TLS("ca.pem", "cert.pem", "key.pem")
except ValueError as error:
    print(error)
"""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, in that folder."""
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **environment})


@pytest.mark.no_asan
def test_build_without_headers(tmp_path):
    pytest.importorskip("setuptools", reason="builds the extension")
    if not (ROOT / "setup.py").exists():
        pytest.skip("not in a source tree")
    for name in "csrc", "neolink":
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("build", "*.so", "__pycache__"))
    for name in "setup.py", "pyproject.toml", "README.rst":
        shutil.copy(ROOT / name, tmp_path)
    absent = tmp_path / "absent" / "openssl"
    absent.mkdir(parents=True)
    (absent / "ssl.h").write_text("#error not installed\n")
    built = run(tmp_path, "setup.py", "build_ext", "--inplace", NEOLINK_LDFLAGS="",
                NEOLINK_CFLAGS=f"-O0 -I{absent.parent}")
    assert built.returncode == 0, built.stderr
    assert "no OpenSSL headers (libssl-dev, openssl-devel): building without TLS" in built.stderr
    used = run(tmp_path, "-P", "-c", SCRIPT, PYTHONPATH=str(tmp_path))
    assert used.returncode == 0, used.stderr
    assert "built without OpenSSL" in used.stdout
    assert "install OpenSSL's headers (libssl-dev, openssl-devel)" in used.stdout
