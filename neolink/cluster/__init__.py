# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""NEO clusters, from Python: what neoctl does, as objects, and reading as a client does.

    from neolink import cluster

    with cluster.connect("127.0.0.1:9999") as c:                   # an admin's address
        c.start()
        c.wait_state("running", timeout=60)
        print(c.partitions().out_of_date)

    with cluster.client("127.0.0.1:24210", "test") as client:      # the masters' addresses, and the cluster's name
        print(client.load(1).data)

Nids are ints or names ("S1"), tids and oids 8 bytes or ints; results have ints and bytes.

How to read this package: `admin` is what connect() returns, `asker` how it asks; `reader` is what client() returns,
`membership` how it follows the master; `results`, `errors` and `values` are what both give, raise and take.
"""
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neolink.cluster.reader import Client, Object, Transaction, client
from neolink.cluster.admin import Admin, connect
from neolink.cluster.errors import (MasterLost, NoReadableCell, NoSuchNode, NoSuchObject, NoSuchPartition,
                                    NoSuchTransaction, NotAnAdmin, NotReady, Refused, Unsafe)
from neolink.cluster.results import (Cell, Ids, Node, Outcome, PartitionTable, Progress, Row, Snapshot, Summary, Tweak)

__all__ = [
    "Admin", "Cell", "Client", "Ids", "MasterLost", "NoReadableCell", "NoSuchNode", "NoSuchObject", "NoSuchPartition",
    "NoSuchTransaction", "Node", "NotAnAdmin", "NotReady", "Object", "Outcome", "PartitionTable", "Progress", "Refused",
    "Row", "Snapshot", "Summary", "Transaction", "Tweak", "Unsafe", "client", "connect",
]


def __getattr__(name: str) -> Any:
    """The client is imported when it is asked for: the command line does without."""
    if name in ("Client", "Object", "Transaction", "client"):
        from importlib import import_module

        return getattr(import_module("neolink.cluster.reader"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
