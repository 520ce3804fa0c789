# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin "neolink": the test doubles of neolink.testing as fixtures.

    def test_ping(neolink_pair):
        client, server = neolink_pair

    @pytest.mark.neolink_cluster(storages=2, wire="N")
    def test_status(neolink_cluster):
        ...

pytest loads this module with every run where neolink is installed, so it imports the rest only when a fixture is used.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from neolink import NodeLink
    from neolink.testing import Cluster


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    config.addinivalue_line("markers", "neolink_cluster(**arguments): the arguments of neolink.testing.Cluster "
                                       "for the fixture neolink_cluster")
    config.addinivalue_line("markers", "neolink_pair(**arguments): the arguments of neolink.testing.pair "
                                       "for the fixture neolink_pair")


@pytest.fixture
def neolink_pair(request: pytest.FixtureRequest) -> Iterator[tuple[NodeLink, NodeLink]]:
    """Two connected links, (client end, server end)."""
    from neolink import testing

    client, server = testing.pair(**_arguments(request, "neolink_pair"))
    with client, server:
        yield client, server


@pytest.fixture
def neolink_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running cluster: master, storages and admin in this process."""
    from neolink import testing

    with testing.Cluster(**_arguments(request, "neolink_cluster")) as cluster:
        yield cluster


def _arguments(request: pytest.FixtureRequest, marker: str) -> dict[str, Any]:
    found = request.node.get_closest_marker(marker)
    return dict(found.kwargs) if found else {}
