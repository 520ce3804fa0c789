# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The partition table: which storage has which part of the data.

A row for each partition, fixed in number; in a row a cell for each storage that has the partition, or is to get it.
An oid or tid belongs to the partition that is its value modulo the number of rows. Every change has the number (ptid)
of the one before it plus 1, and is described by the cells that became different, which is what the master tells the
others.
"""
from collections.abc import Collection, Iterable

from neolink.proto import Cell, CellChange, CellStates, id_to_int

READABLE = (CellStates.UP_TO_DATE, CellStates.FEEDING)


class TableError(Exception):
    """A change that would lose data; the text is NEO's."""


class PartitionTable:
    """Rows of cells. Nothing here knows the nodes: whoever asks says which storages run."""

    def __init__(self, partitions: int, num_replicas: int) -> None:
        self.ptid: int | None = None
        self.num_replicas = num_replicas
        self.rows: list[dict[int, CellStates]] = [{} for _ in range(partitions)]

    # ---- looking

    def partition(self, id_: bytes) -> int:
        """The partition of an oid or tid."""
        return id_to_int(id_) % len(self.rows)

    def cells(self) -> list[list[Cell]]:
        """The rows as the messages have them."""
        return [[Cell(nid, state) for nid, state in row.items()] for row in self.rows]

    def readable(self, nid: int) -> list[int]:
        """The partitions that a storage can be read for."""
        return [offset for offset, row in enumerate(self.rows) if row.get(nid) in READABLE]

    def storages(self) -> set[int]:
        """The storages that have cells."""
        return {nid for row in self.rows for nid in row}

    def operational(self, running: Collection[int]) -> bool:
        """Whether every partition has a readable cell on one of the storages that run."""
        return all(any(state in READABLE and nid in running for nid, state in row.items()) for row in self.rows)

    # ---- changing

    def fill(self, nids: list[int]) -> None:
        """The first table: the storages in turn, as many for each partition as there are copies."""
        copies = min(self.num_replicas + 1, len(nids))
        self.ptid = 1
        self.rows = [{nids[(offset + nth) % len(nids)]: CellStates.UP_TO_DATE for nth in range(copies)}
                     for offset in range(len(self.rows))]

    def apply(self, changes: Iterable[CellChange]) -> None:
        """Make the changes, which together are one step of ptid."""
        self.ptid = (self.ptid or 0) + 1
        for offset, nid, state in changes:
            if state is CellStates.DISCARDED:
                self.rows[offset].pop(nid, None)
            else:
                self.rows[offset][nid] = state

    def outdated_without(self, nid: int, running: Collection[int]) -> list[CellChange]:
        """What becomes of a storage's cells when it stops. A last readable copy stays one: it has all there is."""
        changes = []
        for offset, row in enumerate(self.rows):
            others = any(state in READABLE and other in running for other, state in row.items() if other != nid)
            if row.get(nid) in READABLE and others:
                lost = CellStates.DISCARDED if row[nid] is CellStates.FEEDING else CellStates.OUT_OF_DATE
                changes.append(CellChange(offset, nid, lost))
        return changes

    def dropped(self, nid: int) -> list[CellChange]:
        """The cells of a storage that is removed for good. TableError if a partition has no other copy."""
        changes = []
        for offset, row in enumerate(self.rows):
            if nid not in row:
                continue
            if row[nid] in READABLE and not any(row[other] in READABLE for other in row if other != nid):
                raise TableError("Refuse to drop nodes that contain the only readable"
                                 f" copies of partition {offset}")
            changes.append(CellChange(offset, nid, CellStates.DISCARDED))
        return changes

    def tweaked(self, nids: list[int]) -> list[CellChange]:
        """What would spread the data evenly over `nids` and no others, num_replicas + 1 copies of each partition.

        New cells begin OUT_OF_DATE. A copy that has to go stays FEEDING as long as it may be needed to fill them.
        """
        if not nids:
            raise TableError("Can't remove all nodes.")
        copies = min(self.num_replicas + 1, len(nids))
        quota = -(-len(self.rows) * copies // len(nids))
        load = dict.fromkeys(nids, 0)
        kept: list[list[int]] = []
        for row in self.rows:
            best = sorted((nid for nid in row if nid in load and load[nid] < quota),
                          key=lambda nid: (row[nid] not in READABLE, load[nid]))[:copies]
            kept.append(best)
            for nid in best:
                load[nid] += 1
        changes = []
        for offset, (row, chosen) in enumerate(zip(self.rows, kept)):
            while len(chosen) < copies:
                nid = min((nid for nid in nids if nid not in chosen), key=lambda nid: load[nid])
                chosen.append(nid)
                load[nid] += 1
            changes += self._row_changes(offset, row, chosen)
        return changes

    def _row_changes(self, offset: int, row: dict[int, CellStates], chosen: list[int]) -> list[CellChange]:
        incomplete = any(row.get(nid) not in READABLE for nid in chosen)
        changes = []
        for nid, state in row.items():
            wanted: CellStates
            if nid in chosen:
                wanted = CellStates.UP_TO_DATE if state is CellStates.FEEDING else state
            else:
                wanted = CellStates.FEEDING if incomplete and state in READABLE else CellStates.DISCARDED
            if wanted is not state:
                changes.append(CellChange(offset, nid, wanted))
        changes += [CellChange(offset, nid, CellStates.OUT_OF_DATE) for nid in chosen if nid not in row]
        return changes

    def replicated(self, running: Collection[int]) -> list[CellChange]:
        """What becomes of the cells once the storages that run have copied what they lack."""
        changes = []
        for offset, row in enumerate(self.rows):
            if not any(state in READABLE and nid in running for nid, state in row.items()):
                continue
            late = [nid for nid, state in row.items() if state is CellStates.OUT_OF_DATE]
            changes += [CellChange(offset, nid, CellStates.UP_TO_DATE) for nid in late if nid in running]
            if all(nid in running for nid in late):
                changes += [CellChange(offset, nid, CellStates.DISCARDED) for nid, state in row.items()
                            if state is CellStates.FEEDING]
        return changes
