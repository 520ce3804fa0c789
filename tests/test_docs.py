# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The samples of docs/ are run, and what docs/cluster.rst says of exit statuses and data is what is.

Sessions (>>>) are run against an embedded cluster, whose addresses take the place of those in the text; samples of
testing.rst are tests, and pytest runs them; each sample of data is compared with what the command prints.
"""
from __future__ import annotations

import doctest
import importlib.metadata
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from neolink import testing
from neolink.cli import ctl, main
from neolink.cli._ctl_commands import COMMANDS

DOCS = Path(__file__).parent.parent / "docs"
README = DOCS.parent / "README.rst"


@pytest.fixture
def embedded() -> Iterator[testing.Cluster]:
    """What cluster.rst describes."""
    with testing.Cluster(storages=2, replicas=1) as cluster:
        for data in (b"first", b"second"):
            with cluster.transaction(description=b"one" if data == b"first" else b"two") as transaction:
                transaction.store(1, data)
        yield cluster


def placed(text: str, cluster: testing.Cluster) -> str:
    return text.replace("127.0.0.1:9999", cluster.admin_address).replace("127.0.0.1:24210", cluster.master_address)


def code_of(path: Path) -> list[str]:
    """The blocks that are marked as Python."""
    found = re.findall(r"^\.\. code:: python\n\n((?:    .*\n|\n)+)", path.read_text(), re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


def test_sessions_of_the_cluster_chapter(embedded: testing.Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    text = placed((DOCS / "cluster.rst").read_text(), embedded)
    sample = doctest.DocTestParser().get_doctest(text, {}, "cluster.rst", str(DOCS / "cluster.rst"), 0)
    assert len(sample.examples) == 30
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF | doctest.ELLIPSIS)
    assert runner.run(sample).failed == 0, capsys.readouterr().out


def test_samples_of_the_testing_chapter(tmp_path: Path) -> None:
    blocks = code_of(DOCS / "testing.rst")
    assert len(blocks) == 4
    for number, block in enumerate(blocks):
        (tmp_path / f"test_block_{number}.py").write_text(block)
    installed = importlib.metadata.entry_points(group="pytest11", name="neolink")
    plugin = [] if installed else ["-p", "neolink._pytest_plugin"]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--strict-markers", *plugin, "-p", "no:cacheprovider"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    expected = sum(block.count("\ndef test_") + block.startswith("def test_") for block in blocks) + 1  # one has two ends
    assert done.returncode == 0 and f"{expected} passed" in done.stdout, done.stdout + done.stderr


def test_the_clusters_of_the_readme(embedded: testing.Cluster) -> None:
    """Its second block; the first serves for ever."""
    block = placed(code_of(README)[1], embedded).replace("my cluster", embedded.name)
    program = "import neolink\n" + block
    done = subprocess.run([sys.executable, "-c", program], cwd=README.parent, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RUNNING\nRUNNING ") and "b'second'\n" in done.stdout


def test_the_session_for_a_live_cluster(embedded: testing.Cluster) -> None:
    """tests/interop runs it on one."""
    [block] = code_of(DOCS / "cluster.rst")
    embedded.add_storage()
    done = subprocess.run([sys.executable, "-c", placed(block, embedded)], cwd=README.parent, capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("RUNNING\n") and "b'hello, NEO' True\n" in done.stdout
    assert done.stdout.endswith("100%\n") and len(embedded.partition_table[0]) == 2


# ---- what the command line prints


def documented() -> dict[str, Any]:
    """Each sample of data in cluster.rst, by the commands that its line begins with; and the keys that may be null."""
    text = (DOCS / "cluster.rst").read_text().partition("\nData for scripts\n")[2]
    found: dict[str, Any] = {}
    for words, sample in re.findall(r"^((?:``|any command)(?:[^:]|:(?!:))*)::\n\n((?:    .*\n)+)", text, re.MULTILINE):
        for command in re.findall(r"``([a-z_ ]+)``", words.partition("(")[0]) or ["error"]:
            found[command] = json.loads(sample), set(re.findall(r"``(\w+)``", words.partition("(")[2]))
    return found


def fits(value: Any, sample: Any, optional: set[str], key: str = "") -> bool:
    """The same keys and types all the way down; None where it is allowed, and any number of elements in a list."""
    if value is None:
        return key in optional
    if isinstance(sample, dict) and key == "cells":
        return all(isinstance(nid, str) and isinstance(state, str) for nid, state in value.items())
    if isinstance(sample, dict):
        return isinstance(value, dict) and list(value) == list(sample) and all(
            fits(value[name], sample[name], optional, name) for name in sample)
    if isinstance(sample, list):
        return isinstance(value, list) and all(fits(one, sample[0], optional, key) for one in value)
    return type(value) is type(sample)


RUNS = {"print pt": ["print pt", "print pt 1 2", "print pt 0 0 S2"], "print node": ["print node", "print node master"],
        "wait": ["wait running"], "set cluster": ["set cluster verifying", "set cluster stopping"],
        "set replicas": ["set replicas 0", "set replicas 1"], "check": ["check :", "check 0:S1"],
        "add": ["add all", "add S3"], "tweak": ["tweak -n", "tweak"], "drop": ["kill S2", "drop S2"], "kill": ["kill S2"],
        "prune_orphan": ["prune_orphan 1 all"], "truncate": ["truncate tid:1"]}


@pytest.mark.parametrize("command", [" ".join(words) for words in COMMANDS])
def test_data_is_as_documented(command: str, embedded: testing.Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    embedded.add_storage()                              # one that waits to be added
    samples = documented()
    for run in RUNS.get(command, [command]):
        status = main(["ctl", "-a", embedded.admin_address, "--json", *run.split()])
        value = json.loads(capsys.readouterr().out)
        name = "error" if status else run if run in samples else command
        assert fits(value, *samples[name]), (run, value)


def test_every_command_has_its_data_documented() -> None:
    assert set(documented()) == {" ".join(words) for words in COMMANDS} | {"error"}


def test_the_table_of_exit_statuses() -> None:
    """In the documentation, and in --help, each status is listed with the same meaning."""
    table = dict(re.findall(r"^(\d) +(\w.*)$", (DOCS / "cluster.rst").read_text(), re.MULTILINE))
    helped = dict(re.findall(r"^  (\d)  (.*)$", ctl._EPILOG, re.MULTILINE))
    assert set(table) == set(helped) == {str(status) for status in range(9)}
    for status, meaning in table.items():
        assert status == "7" or meaning == helped[status]
    assert "--exit-code" in table["7"] and "--exit-code" in helped["7"]
