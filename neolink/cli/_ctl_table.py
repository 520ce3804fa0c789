# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What `neolink ctl` prints on a terminal: tables that are aligned, and coloured where rich is installed.

A View is a title, the names of the columns and rows of text; colours go by the text itself, so that nothing but `show`
knows of them.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

from neolink import proto
from neolink.cli import _ctl_lines
from neolink.cluster import Ids, Node, PartitionTable, Row, Snapshot
from neolink.proto import CellStates

COLOURS = {
    "RUNNING": "green", "UP_TO_DATE": "green", "BACKINGUP": "green", "yes": "green",
    "PENDING": "yellow", "OUT_OF_DATE": "yellow", "FEEDING": "cyan", "RECOVERING": "yellow", "VERIFYING": "yellow",
    "STARTING_BACKUP": "yellow", "STOPPING_BACKUP": "yellow", "STOPPING": "yellow",
    "DOWN": "red", "UNKNOWN": "red", "CORRUPTED": "red", "no": "red",
}


class View(NamedTuple):
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def ids(value: Ids) -> list[View]:
    rows = [("last tid", value.last_tid.hex(), _ctl_lines.date(value.last_tid))]
    for name, tid in (("first tid", value.first_tid), ("backup tid", value.backup_tid),
                      ("truncate tid", value.truncate_tid)):
        if tid is not None:
            rows.append((name, tid.hex(), _ctl_lines.date(tid)))
    if value.last_oid is not None:
        rows.append(("last oid", value.last_oid.hex(), ""))
    rows.append(("partition table", "none yet" if value.ptid is None else str(value.ptid), ""))
    return [View("", ("", "id", "date (UTC)"), rows)]


def nodes(values: Iterable[Node]) -> list[View]:
    rows = [(node.name, str(node.type), _ctl_lines.address(node.address), str(node.state),
             "" if node.identified is None else f"{node.identified:%Y-%m-%d %H:%M:%S}") for node in values]
    return [View("", ("node", "type", "address", "state", "since (UTC)"), rows)]


def table(value: PartitionTable, storages: Iterable[Node]) -> list[View]:
    """For each storage, how many partitions it has in which state; then the chart."""
    title = "no partition table yet" if value.ptid is None else \
        f"partition table {value.ptid}: {len(value.rows)} partitions, {value.num_replicas} replicas"
    return charted(title, value.rows, value.first, storages)


def charted(title: str, rows: list[Row], first: int, storages: Iterable[Node]) -> list[View]:
    states = {node.nid: str(node.state) for node in storages if node.nid is not None}
    shown = [CellStates.UP_TO_DATE, CellStates.OUT_OF_DATE, CellStates.FEEDING, CellStates.CORRUPTED]
    lines = []
    for nid in sorted({nid for row in rows for nid in row} | set(states)):
        counts = [sum(row.get(nid) is state for row in rows) for state in shown]
        cells = "".join(str(row[nid])[0] if nid in row else "." for row in rows)
        lines.append((proto.nid_str(nid), states.get(nid, "UNKNOWN"), *(str(count or "") for count in counts), cells))
    columns = ("node", "state", "up to date", "out of date", "feeding", "corrupted", f"partitions from {first}")
    return [View(title, columns, lines)]


def snapshot(value: Snapshot) -> list[View]:
    facts = [("state", str(value.state)), ("operational", "yes" if value.operational else "no"),
             ("of one moment", "yes" if value.consistent else "no")]
    storages = [node for node in value.nodes if node.type is proto.NodeTypes.STORAGE]
    return [View("", ("", ""), facts), *nodes(value.nodes), *table(value.table, storages)]


def show(views: Sequence[View | str], out: IO[str]) -> None:
    """With rich in colours, without it plain."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        print("\n\n".join(view if isinstance(view, str) else plain(view) for view in views), file=out)
        return
    console = Console(file=out, highlight=False)
    for view in views:
        if isinstance(view, str):
            console.print(Text(view, style=COLOURS.get(view, "")))
            continue
        grid = Table(title=view.title or None, title_justify="left", box=None, pad_edge=False,
                     show_header=any(view.columns))
        for name in view.columns:
            grid.add_column(name, overflow="fold")
        for row in view.rows:
            grid.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
        console.print(grid)


def plain(view: View) -> str:
    """A View in columns."""
    rows = [view.columns, *view.rows] if any(view.columns) else list(view.rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([view.title, *lines] if view.title else lines)
