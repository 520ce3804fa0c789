# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: one running cluster per kind of NEO/py, plain and with TLS, for the whole session; Go programs per test.

A peer that dies or hangs belongs to the test during which it did: that test fails, with what the peer printed, and the
next one gets a new cluster.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from .peers import Address, Cluster, GoProgram, NeoPy, PeerFailure, Process, TlsFiles, find_neopy

pytest.register_assert_rewrite(f"{__package__}.neopy_cases")

_HINTS = {
    "M": "no NEO/py of wire M: set NEOLINK_NEOPY to a checkout and NEOLINK_NEOPY_PYTHON to an interpreter for it",
    "M2": "no NEO/py of wire M on Python 2: set NEOLINK_NEOPY to a checkout and NEOLINK_NEOPY_PYTHON2 to a Python 2.7",
    "N": "no NEO/py of wire N: set NEOLINK_NEO112_PYTHON to a Python 2.7 with neoppod 1.12",
}


@cache
def _neopy(wire: str) -> NeoPy | None:
    return find_neopy(wire)


def neopy_or_skip(wire: str) -> NeoPy:
    """The NEO/py of a wire on this machine; skips without it."""
    software = _neopy(wire)
    if software is None:
        pytest.skip(_HINTS[wire])
    return software


class ClusterHouse:
    """Keeps the session's cluster of one wire, and builds a new one when the last one was lost."""

    def __init__(self, wire: str, tls: TlsFiles | None, new_directory: Callable[[], Path]) -> None:
        self.wire = wire
        self.tls = tls
        self.new_directory = new_directory
        self.current: Cluster | None = None

    def cluster(self) -> Cluster:
        software = neopy_or_skip(self.wire)
        if self.current is None:
            cluster = Cluster(software, self.new_directory(), self.tls)
            cluster.start()
            self.current = cluster
        return self.current

    def check(self) -> None:
        """Fails the test after which a node is missing or hangs."""
        assert self.current is not None
        try:
            self.current.check_well()
        except PeerFailure:
            self.drop()
            raise

    def drop(self) -> None:
        if self.current is not None:
            self.current.stop()
            self.current = None


def issue_tls_files(directory: Path) -> TlsFiles:
    """A new CA and one certificate of it that serves both ends, as NEO wants it. RSA: what NEO/py's ciphers are for."""
    trustme = pytest.importorskip("trustme", reason="TLS tests make their certificates with trustme")
    ca = trustme.CA(key_type=trustme.KeyType.RSA)
    leaf = ca.issue_cert("node.example", key_type=trustme.KeyType.RSA)
    files = TlsFiles(*(str(directory / name) for name in ("ca.pem", "cert.pem", "key.pem")))
    ca.cert_pem.write_to_path(files.ca)
    leaf.cert_chain_pems[0].write_to_path(files.cert)
    leaf.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """The files of the clusters with TLS."""
    return issue_tls_files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def foreign_tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A certificate that is as good, of another CA."""
    return issue_tls_files(tmp_path_factory.mktemp("foreign-tls"))


Houses = Callable[[str, TlsFiles | None], ClusterHouse]


@pytest.fixture(scope="session")
def cluster_houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    houses: dict[tuple[str, TlsFiles | None], ClusterHouse] = {}

    def house(wire: str, tls: TlsFiles | None) -> ClusterHouse:
        if (wire, tls) not in houses:
            houses[wire, tls] = ClusterHouse(wire, tls, lambda: tmp_path_factory.mktemp(f"cluster-{wire}"))
        return houses[wire, tls]

    yield house
    for one in houses.values():
        one.drop()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, cluster_houses: Houses) -> Iterator[Cluster]:
    """The running cluster of the test class's `wire` and `with_tls`. All its nodes must be well after the test."""
    tls = request.getfixturevalue("tls_files") if request.cls.with_tls else None
    house = cluster_houses(getattr(request.cls, "peers", request.cls.wire), tls)
    yield house.cluster()
    house.check()


@pytest.fixture
def go_program() -> Callable[[str], str]:
    """The path of a prebuilt Go program by name; skips without it."""
    def find(name: str) -> str:
        path = GoProgram.find(name)
        if path is None:
            pytest.skip(f"no {name}: set NEOLINK_NEOGO to a folder with the programs that peers.GoProgram describes")
        return path
    return find


@pytest.fixture
def go_listen(go_program: Callable[[str], str], tmp_path: Path) -> Iterator[Callable[..., tuple[Process, Address]]]:
    """Start an echo program: go_listen("neonet-echo", "-node") gives its process and address. Ended with the test."""
    with ExitStack() as started:
        def listen(name: str, *flags: str) -> tuple[Process, Address]:
            process, address = GoProgram.listen(tmp_path, go_program(name), *flags)
            started.callback(process.stop)
            return process, address
        yield listen
