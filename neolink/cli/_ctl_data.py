# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What `neolink ctl --json` prints: one object for each command, its keys always the same.

    print cluster   {"state": "RUNNING"}
    print primary   {"nid": "M1", "address": "127.0.0.1:24410"}
    print ids       {"ptid": 1, "backup_tid": null, "truncate_tid": null, "last_oid": "000000000000012c",
                     "last_tid": "040d308f816478ee", "first_tid": …, "last_time": "2026-11-22T15:43:30.326360+00:00"}
    print node      {"nodes": [{"nid": "S1", "type": "STORAGE", "address": …, "state": …, "id_timestamp": …}]}
    print pt        {"ptid": 1, "num_replicas": 0, "partitions": [{"partition": 0, "cells": {"S1": "UP_TO_DATE"}}]}
    print summary   {"warning": [], "problem": [null], "summary": "RUNNING; …"}
    print snapshot  {"state": …, "consistent": true, "operational": true, "unreadable": [], "table": …, "nodes": []}
    tweak           {"changed": true, "dry_run": false, "partitions": …}
    wait            {"state": "RUNNING"}
    the others      {"changed": true, "message": "Nodes added: S3", "nids": ["S3"]}
    any, refused    {"error": {"kind": "refused", "message": "Can not switch to this state"}}

A tid or oid is 16 hex digits; "changed" is null where NEO does not tell.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neolink import proto
from neolink.cli import _ctl_lines
from neolink.cluster import Ids, Node, Outcome, PartitionTable, Row, Snapshot, Summary, Tweak

Data = dict[str, Any]


def ids(value: Ids) -> Data:
    data: Data = {name: one.hex() if isinstance(one, bytes) else one for name, one in value._asdict().items()}
    try:
        data["last_time"] = proto.tid_to_datetime(value.last_tid).isoformat()
    except ValueError:
        data["last_time"] = None
    return data


def node(value: Node) -> Data:
    return {"nid": value.name or None, "type": str(value.type), "address": _ctl_lines.address(value.address) or None,
            "state": str(value.state), "id_timestamp": value.id_timestamp}


def nodes(values: Iterable[Node]) -> list[Data]:
    return [node(value) for value in values]


def rows(values: Iterable[Row], first: int = 0) -> list[Data]:
    return [{"partition": partition, "cells": {proto.nid_str(nid): str(state) for nid, state in row.items()}}
            for partition, row in enumerate(values, first)]


def table(value: PartitionTable, nid: int | None = None) -> Data:
    """`nid`: only the partitions that this storage has a cell of."""
    partitions = rows(value.rows, value.first)
    if nid is not None:
        name = proto.nid_str(nid)
        partitions = [row for row in partitions if name in row["cells"]]
    return {"ptid": value.ptid, "num_replicas": value.num_replicas, "partitions": partitions}


def summary(value: Summary) -> Data:
    return value._asdict()


def snapshot(value: Snapshot) -> Data:
    return {"state": None if value.state is None else str(value.state), "consistent": value.consistent,
            "operational": value.operational, "unreadable": value.unreadable, "table": table(value.table),
            "nodes": nodes(value.nodes)}


def outcome(value: Outcome) -> Data:
    return {"changed": value.changed, "message": value.message, "nids": [proto.nid_str(nid) for nid in value.nids]}


def tweak(value: Tweak) -> Data:
    return {"changed": value.changed, "dry_run": value.dry_run, "partitions": rows(value.rows)}
