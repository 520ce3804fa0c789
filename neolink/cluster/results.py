# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What the questions to a cluster are answered with: plain tuples with a few words of their own.

Nids are ints, tids and oids 8 bytes, as in neolink.proto; a Node has its `name` ("S1"), and a Row takes either.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import NamedTuple

from neolink.cluster.values import NodeId, nid as nid_of
from neolink.proto import (CellStates, ClusterStates, NodeStates, NodeTypes, id_to_int, nid_str)

READABLE = (CellStates.UP_TO_DATE, CellStates.FEEDING)


class Ids(NamedTuple):
    """How far the database has come."""
    ptid: int | None                # None: no partition table yet
    backup_tid: bytes | None        # of a backup: how far it has followed
    truncate_tid: bytes | None      # a truncation that is not finished
    last_oid: bytes | None          # None on a backup
    last_tid: bytes
    first_tid: bytes | None         # None: no transaction yet, a backup, or a cluster of wire N, which cannot tell


class Node(NamedTuple):
    """A node, as the admin knows it."""
    type: NodeTypes
    address: tuple[str, int] | None
    nid: int | None
    state: NodeStates
    id_timestamp: float | None      # when the primary master identified it

    @property
    def name(self) -> str:
        """ "S1"; "" for a node that was never identified"""
        return "" if self.nid is None else nid_str(self.nid)

    @property
    def identified(self) -> datetime | None:
        """id_timestamp as a date, in UTC."""
        return None if self.id_timestamp is None else datetime.fromtimestamp(self.id_timestamp, timezone.utc)


class Cell(NamedTuple):
    """One storage's copy of one partition."""
    partition: int
    nid: int
    state: CellStates


class Row(dict[int, CellStates]):
    """The cells of a partition, by nid; row["S1"] works too."""

    def __missing__(self, key: NodeId) -> CellStates:
        if isinstance(key, str):
            return self[nid_of(key)]
        raise KeyError(key)

    @property
    def readable(self) -> list[int]:
        """The nids of the storages that have all data of this partition."""
        return [nid for nid, state in self.items() if state in READABLE]


class PartitionTable(NamedTuple):
    """Who has what. `rows[i]` are the cells of partition `first + i`; before there is a table, ptid is None."""
    ptid: int | None
    num_replicas: int
    rows: list[Row]
    first: int = 0

    def cells(self) -> Iterator[Cell]:
        """All cells, partition by partition."""
        for partition, row in enumerate(self.rows, self.first):
            for nid, state in row.items():
                yield Cell(partition, nid, state)

    def by_node(self, *states: CellStates) -> dict[int, list[int]]:
        """The partitions that each storage has in one of these states (none given: in any)."""
        found: dict[int, list[int]] = {}
        for partition, nid, state in self.cells():
            if not states or state in states:
                found.setdefault(nid, []).append(partition)
        return {nid: found[nid] for nid in sorted(found)}

    @property
    def up_to_date(self) -> dict[int, list[int]]:
        """nid: the partitions of which it has everything."""
        return self.by_node(CellStates.UP_TO_DATE)

    @property
    def out_of_date(self) -> dict[int, list[int]]:
        """nid: the partitions that it is being filled with."""
        return self.by_node(CellStates.OUT_OF_DATE)

    @property
    def feeding(self) -> dict[int, list[int]]:
        """nid: the partitions that it gives away and drops when another has them."""
        return self.by_node(CellStates.FEEDING)

    @property
    def corrupted(self) -> dict[int, list[int]]:
        """nid: the partitions that differ from their replicas."""
        return self.by_node(CellStates.CORRUPTED)

    @property
    def settled(self) -> bool:
        """Nothing moves: every cell is up to date, or known to be corrupted."""
        return not any(state in (CellStates.OUT_OF_DATE, CellStates.FEEDING) for _, _, state in self.cells())

    def row_of(self, oid_or_tid: bytes) -> Row:
        """The row of the partition that an object, or a transaction, is in."""
        return self.rows[id_to_int(oid_or_tid) % len(self.rows)]


class Summary(NamedTuple):
    """The health of the cluster and of its backups. In the lists, None is this cluster."""
    warning: list[str | None]
    problem: list[str | None]
    summary: str


class Snapshot(NamedTuple):
    """The state, the table and the nodes; of the same moment if `consistent`, else the table changed meanwhile."""
    state: ClusterStates | None
    table: PartitionTable
    nodes: list[Node]
    consistent: bool

    def node(self, nid: NodeId) -> Node | None:
        number = nid_of(nid)
        return next((node for node in self.nodes if node.nid == number), None)

    @property
    def unreadable(self) -> list[int]:
        """The partitions without a readable cell on a running storage."""
        running = {node.nid for node in self.nodes if node.state is NodeStates.RUNNING}
        return [partition for partition, row in enumerate(self.table.rows, self.table.first)
                if not running.intersection(row.readable)]

    @property
    def operational(self) -> bool:
        """Every partition can be read."""
        return self.table.ptid is not None and not self.unreadable


class Outcome(NamedTuple):
    """What a command did. `changed` is True, False (there was nothing to do), or None: NEO does not tell."""
    changed: bool | None
    message: str = ""               # the master's words
    nids: tuple[int, ...] = ()      # add: the storages that were added


class Tweak(NamedTuple):
    """What a tweak did, or would do; `rows` is the table that comes out."""
    changed: bool
    rows: list[Row]
    dry_run: bool = False


class Progress(NamedTuple):
    """How far something that takes time has come: `done` of `total` cells (or partitions), and what is left."""
    what: str                       # "replication", "tweak", "retire", "check"
    done: int
    total: int
    pending: list[Cell]             # the cells that are not there yet
    ptid: int | None

    @property
    def finished(self) -> bool:
        return self.done >= self.total

    @property
    def fraction(self) -> float:
        return self.done / self.total if self.total else 1.0


def rows_of(rows: Iterable[Iterable[tuple[int, CellStates]]]) -> list[Row]:
    """Rows as they travel, by nid."""
    return [Row(cells) for cells in rows]
