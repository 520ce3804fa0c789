# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The lines that neoctl prints, letter by letter: there are scripts that parse them.

    print ids       last_oid = 0x12c
                    last_tid = 0x40d308f816478ee (2026-11-22 15:43:30.326360)
                    last_ptid = 1
    print node      S1 | STORAGE | 127.0.0.1:24421 | RUNNING | 2026-11-22 15:43:21.523793
    print pt        # ptid: 3, replicas: 1
                    S1 R UUUU
                    S2 D OOOO
    print pt 1 2    # ptid: 1, replicas: 1
                    001 | S1 - UP_TO_DATE | S2 - UP_TO_DATE |

In the chart of a partition table there is a line for each storage that has cells or runs, and a character for each
partition: the first letter of the cell's state, or a dot.
"""
from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone

from neolink import proto
from neolink.cluster import Ids, Node, PartitionTable, Row, Summary
from neolink.proto import NodeStates


def ids(value: Ids, wire: str | None = "M") -> str:
    """As the neoctl of this wire prints them."""
    tid = _tid_of_n if wire == "N" else _tid
    if value.backup_tid is not None:
        first = f"backup_tid = {tid(value.backup_tid)}"
    else:
        first = f"last_oid = {proto.id_short(value.last_oid or proto.ZERO_OID)}"
    return f"{first}\nlast_tid = {tid(value.last_tid)}\nlast_ptid = {value.ptid}"


def _tid(value: bytes) -> str:
    return f"{proto.id_short(value)} ({date(value)})"


def _tid_of_n(value: bytes) -> str:
    """The neoctl of 1.12 rounds where today's cuts, and prints six digits in any case."""
    seconds = (proto.id_to_int(value) & 0xffffffff) * 60 / 2**32
    return f"{proto.id_short(value)} ({date(value)[:17]}{seconds:09.6f})"


def date(value: bytes) -> str:
    """The date of a tid; of the few that are none, such as February 30, a question mark."""
    try:
        return str(proto.tid_to_datetime(value).replace(tzinfo=None))
    except ValueError:
        return "?"


def address(value: tuple[str, int] | None) -> str:
    if value is None:
        return ""
    host, port = value
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def time(value: float | None) -> str:
    return str(datetime.fromtimestamp(value, timezone.utc).replace(tzinfo=None)) if value else str(value)


def nodes(values: Iterable[Node]) -> str:
    rows = [(node.name or "None", str(node.type), address(node.address), str(node.state), time(node.id_timestamp))
            for node in values]
    if not rows:
        return "Empty list!"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    return "\n".join(" | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def head(table: PartitionTable) -> str:
    return f"# ptid: {table.ptid}, replicas: {table.num_replicas}\n"


def rows(table: PartitionTable) -> str:
    """One line for each partition."""
    return head(table) + "\n".join(
        f"{partition:03} |" + "".join(f" {proto.nid_str(nid)} - {state} |" for nid, state in row.items())
        for partition, row in enumerate(table.rows, table.first))


def chart(rows: list[Row], storages: Iterable[Node]) -> str:
    """One line for each storage."""
    states = {node.nid: node.state for node in storages if node.nid is not None}
    shown = {nid for row in rows for nid in row} | {nid for nid, state in states.items() if state is NodeStates.RUNNING}
    nids = sorted(shown)
    if not nids:
        return ""
    width = len(proto.nid_str(nids[-1]))
    lines = []
    if len(rows) > 10:
        lines.append(" " * (width + 4) + "".join(f"{number:9}v" for number in range(10, len(rows), 10)))
    for nid in nids:
        cells = "".join(str(row[nid])[0] if nid in row else "." for row in rows)
        state = str(states[nid])[0] if nid in states else "?"
        lines.append(f"{proto.nid_str(nid):{width}} {state} {cells}")
    return "\n".join(lines)


def summary(value: Summary) -> str:
    import json

    severities = {name: names for name, names in (("warning", value.warning), ("problem", value.problem)) if names}
    return f"# {json.dumps(severities)}\n{value.summary}"
