# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What importing the package loads, and that what it leaves for later is all there.

Time is not measured here (bench/ does that): the modules that cost it are named, and must stay out.
"""
import pathlib
import subprocess
import sys

import pytest
from cluster_fakes import FakeAdmin

import neolink
from neolink import _core, _dial, _kinds, _link, _trace, errors

HEAVY = {"typing", "enum", "re", "logging", "threading", "socket", "ssl", "selectors", "collections", "functools",
         "contextlib", "importlib", "traceback", "inspect", "dataclasses", "datetime", "argparse", "asyncio",
         "concurrent.futures", "subprocess", "msgspec", "typing_extensions", "neolink.proto", "neolink.cluster",
         "neolink.testing", "neolink.cli"}


def loaded(program):
    """What a fresh interpreter, without the site packages' own start-up, has imported after `program`."""
    path = [str(pathlib.Path(neolink.__file__).parent.parent), *sys.path]
    program = f"import sys; sys.path[:0] = {path!r}; {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_import_loads_nothing_heavy():
    modules = loaded("import neolink")
    assert "neolink._core" in modules
    assert modules & HEAVY == set()


def test_a_link_to_an_address_in_numbers_loads_nothing_heavy():
    program = """
import neolink
with neolink.listen("127.0.0.1:0", wire="2016") as listener:
    with neolink.dial(listener.address, wire="2016") as link:
        link.notify(3, b"payload")
        with link.new_conn() as conn:
            conn.send(3)
"""
    assert loaded(f"exec({program!r})") & HEAVY == set()


def test_print_cluster_loads_nothing_heavy():
    with FakeAdmin() as admin:
        program = f"from neolink.cli import main; main(['ctl', '-a', {admin.address!r}, 'print', 'cluster'])"
        modules = loaded(program)
    assert "RUNNING" in modules         # what the command printed
    assert modules & HEAVY == {"neolink.cli"}


@pytest.mark.parametrize("name", neolink.__all__)
def test_each_public_name_is_there_and_the_one_of_its_home(name):
    value = getattr(neolink, name)
    homes = [home for home in (_core, _dial, _kinds, _link, _trace, errors) if hasattr(home, name)]
    assert name == "__version__" or any(getattr(home, name) is value for home in homes)
    assert name in dir(neolink)


def test_star_import_and_names_that_are_not_there():
    names = {}
    exec("from neolink import *", names)
    assert set(neolink.__all__) <= set(names)
    assert names["Role"] is neolink.Role
    with pytest.raises(AttributeError, match="'neolink' has no attribute 'Limit'"):
        neolink.Limit
    with pytest.raises(ImportError, match="cannot import name 'Limit'"):
        from neolink import Limit  # noqa: F401
