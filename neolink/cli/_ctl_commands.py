# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The commands of `neolink ctl`: their words, and what each asks of a cluster.

COMMANDS is the table: its keys are the words of the command, each entry knows its arguments and a function that reads
them. That function complains about words that make no sense (Usage) before anything is dialed, and returns another,
which asks a cluster.Admin and returns a Reply. A Reply can be printed as neoctl's lines, as JSON data, or as tables.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any, NamedTuple

import neolink
from neolink import proto
from neolink.cli import _ctl_data, _ctl_lines
from neolink.cluster import Admin, NotReady, Outcome, Progress
from neolink.proto import ClusterStates, NodeStates, NodeTypes

Words = list[str]
Wait = Callable[[Admin, float | None], Iterable[Progress]]


class Usage(Exception):
    """The words of the command line make no command."""


class Reply(NamedTuple):
    """What came of a command, in each of the forms that it can be printed in."""
    lines: str | None               # as neoctl prints it; None: nothing
    data: dict[str, Any]            # for --json
    views: Callable[[], list[Any]] | None = None    # for terminals; None: the lines are good enough
    changed: bool | None = True     # False: there was nothing to do
    wait: Wait | None = None        # until what was begun is done; yields how far it is


Run = Callable[[Admin], Reply]


class Command(NamedTuple):
    arguments: str
    summary: str
    read: Callable[[Words, bool], Run]      # of the words after the command, and -n
    waits: bool = False             # --wait makes sense
    watches: bool = False           # --watch makes sense


# ---- reading words


def _expect(words: Words, least: int, most: int | None = None) -> None:
    if len(words) < least or most is not None and len(words) > most:
        wanted = f"{least}" if most == least else f"at least {least}" if most is None else f"{least} to {most}"
        raise Usage(f"{wanted} arguments expected, not {len(words)}")


def _int(word: str, what: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise Usage(f"{what} must be a number, not {word!r}") from None


def _nid(word: str) -> int:
    try:
        return proto.nid_parse(word)
    except ValueError as error:
        raise Usage(str(error)) from None


def _storages(words: Words) -> list[Any]:
    return ["all"] if words == ["all"] else [_nid(word) for word in words]


def _enum(enum: type[Any], word: str) -> Any:
    try:
        return enum[word.upper()]
    except KeyError:
        raise Usage(f"{word!r} is none of: {', '.join(one.name.lower() for one in enum)}") from None


def _tid(word: str) -> Callable[[Admin], bytes]:
    """`tid:` and a number, or a Unix time. To the neoctl of 1.12 a number without a dot is a tid, so it is for a
    cluster of wire N: hence the tid is known only when the cluster is."""
    prefixed = word.lower().startswith("tid:")
    number, at = _tid_by_number(word[4:] if prefixed else word), None if prefixed else _tid_by_time(word)
    if number is None and at is None:
        raise Usage(f"{word!r} is no TID: give tid: and a number, as in tid:0x3937af2eeeeeeee, or a Unix time")

    def choose(c: Admin) -> bytes:
        found = number if prefixed or c.wire == "N" and "." not in word else at
        if found is None:
            raise Usage(f"{word!r} is no TID on this cluster: write tid:{word}")
        return found

    return choose


def _tid_by_number(word: str) -> bytes | None:
    try:
        return proto.id_from_int(int(word, 0))
    except ValueError:
        return None


def _tid_by_time(word: str) -> bytes | None:
    try:
        return proto.datetime_to_tid(datetime.fromtimestamp(float(word), timezone.utc))
    except (ValueError, OverflowError, OSError):
        return None


# ---- print


def print_ids(words: Words, dry_run: bool) -> Run:
    _expect(words, 0, 0)

    def run(c: Admin) -> Reply:
        ids = c.ids()
        return Reply(_ctl_lines.ids(ids, c.wire), _ctl_data.ids(ids), lambda: _tables().ids(ids))

    return run


def print_pt(words: Words, dry_run: bool) -> Run:
    """As in neoctl, MAX is the row after the last one, 0 stands for no limit, and its lines heed no NODE."""
    _expect(words, 0, 3)
    first = _int(words[0], "MIN") if words else 0
    last = _int(words[1], "MAX") if len(words) > 1 else 0
    nid = _nid(words[2]) if len(words) > 2 else None

    def run(c: Admin) -> Reply:
        table = c.partitions(first, last or None)
        storages = c.nodes(NodeTypes.STORAGE)
        lines = _ctl_lines.rows(table) if first or last else \
            _ctl_lines.head(table) + _ctl_lines.chart(table.rows, storages)
        return Reply(lines, _ctl_data.table(table, nid), lambda: _tables().table(table, storages))

    return run


def print_node(words: Words, dry_run: bool) -> Run:
    _expect(words, 0, 1)
    kind = _enum(NodeTypes, words[0]) if words else None

    def run(c: Admin) -> Reply:
        nodes = c.nodes(kind)
        return Reply(_ctl_lines.nodes(nodes), {"nodes": _ctl_data.nodes(nodes)}, lambda: _tables().nodes(nodes))

    return run


def print_cluster(words: Words, dry_run: bool) -> Run:
    _expect(words, 0, 0)

    def run(c: Admin) -> Reply:
        state = str(c.state())
        return Reply(state, {"state": state}, lambda: [state])

    return run


def print_primary(words: Words, dry_run: bool) -> Run:
    _expect(words, 0, 0)

    def run(c: Admin) -> Reply:
        node = c.primary_node()
        data = {"nid": node.name, "address": _ctl_lines.address(node.address) or None}
        return Reply(node.name, data, lambda: [f"{node.name} at {_ctl_lines.address(node.address)}"])

    return run


def print_summary(words: Words, dry_run: bool) -> Run:
    _expect(words, 0, 0)

    def run(c: Admin) -> Reply:
        if c.wire == "N":
            raise Usage("a cluster of wire N (NEO 1.12) knows no summary: see print snapshot")
        summary = c.summary()
        return Reply(_ctl_lines.summary(summary), _ctl_data.summary(summary))

    return run


def print_snapshot(words: Words, dry_run: bool) -> Run:
    _expect(words, 0, 0)

    def run(c: Admin) -> Reply:
        now = c.snapshot()
        storages = [node for node in now.nodes if node.type is NodeTypes.STORAGE]
        lines = [f"# state: {now.state}, consistent: {now.consistent}, operational: {now.operational}",
                 _ctl_lines.head(now.table) + _ctl_lines.chart(now.table.rows, storages), _ctl_lines.nodes(now.nodes)]
        return Reply("\n".join(lines), _ctl_data.snapshot(now), lambda: _tables().snapshot(now))

    return run


def _tables() -> Any:
    from neolink.cli import _ctl_table

    return _ctl_table


# ---- commands that change something


def _done(outcome: Outcome, wait: Wait | None = None) -> Reply:
    return Reply(outcome.message, _ctl_data.outcome(outcome), changed=outcome.changed, wait=wait)


def _silent(outcome: Outcome, wait: Wait | None = None) -> Reply:
    """Commands of which neoctl prints nothing, whatever the master says."""
    return _done(outcome, wait)._replace(lines=None)


def set_cluster(words: Words, dry_run: bool) -> Run:
    _expect(words, 1, 1)
    return _set_cluster(_enum(ClusterStates, words[0]))


def start(words: Words, dry_run: bool) -> Run:
    _expect(words, 0, 0)
    return _set_cluster(ClusterStates.VERIFYING)


def _set_cluster(state: ClusterStates) -> Run:
    reached = {ClusterStates.VERIFYING: (ClusterStates.RUNNING, ClusterStates.BACKINGUP),
               ClusterStates.STARTING_BACKUP: (ClusterStates.BACKINGUP,),
               ClusterStates.STOPPING_BACKUP: (ClusterStates.RUNNING,)}

    def wait(c: Admin, timeout: float | None) -> Iterable[Progress]:
        if state is ClusterStates.STOPPING:
            c.wait(_gone, timeout=timeout)
        else:
            c.wait_state(*reached.get(state, (state,)), timeout=timeout)
        return ()

    return lambda c: _done(c.set_state(state), wait)


def _gone(c: Admin) -> bool:
    try:
        c.state(timeout=0.5)
    except (NotReady, neolink.LinkError):
        return True
    return False


def set_replicas(words: Words, dry_run: bool) -> Run:
    _expect(words, 1, 1)
    number = _int(words[0], "NR")
    if number < 0:
        raise Usage("invalid number of replicas")
    return lambda c: _done(c.set_replicas(number))


def add(words: Words, dry_run: bool) -> Run:
    _expect(words, 1)
    nids = _storages(words)

    def run(c: Admin) -> Reply:
        outcome = c.add(*nids)
        return _done(outcome, lambda c, timeout: _until_running(c, outcome.nids, timeout))

    return run


def _until_running(c: Admin, nids: Iterable[int], timeout: float | None) -> Iterable[Progress]:
    wanted = set(nids)

    def running(c: Admin) -> bool:
        return wanted <= {node.nid for node in c.nodes(NodeTypes.STORAGE) if node.state is NodeStates.RUNNING}

    c.wait(running, timeout=timeout)
    return ()


def tweak(words: Words, dry_run: bool) -> Run:
    nids = [_nid(word) for word in words]

    def run(c: Admin) -> Reply:
        result = c.tweak(*nids, dry_run=dry_run)
        wait: Wait | None = None if dry_run else lambda c, timeout: c.replicating(what="tweak", timeout=timeout)
        if not result.changed:
            return Reply("No change done.", _ctl_data.tweak(result), changed=False, wait=wait)
        storages = c.nodes(NodeTypes.STORAGE)
        title = "would become" if dry_run else "becomes"
        return Reply(_ctl_lines.chart(result.rows, storages), _ctl_data.tweak(result),
                     lambda: _tables().charted(title, result.rows, 0, storages), wait=wait)

    return run


def drop(words: Words, dry_run: bool) -> Run:
    _expect(words, 1, 1)
    nid = _nid(words[0])
    return lambda c: _done(c.drop(nid), lambda c, timeout: _until(
        c, lambda c: all(node.nid != nid for node in c.nodes()), timeout))


def kill(words: Words, dry_run: bool) -> Run:
    _expect(words, 1, 1)
    nid = _nid(words[0])
    return lambda c: _done(c.kill(nid), lambda c, timeout: _until(
        c, lambda c: all(node.nid != nid or node.state is not NodeStates.RUNNING for node in c.nodes()), timeout))


def _until(c: Admin, predicate: Callable[[Admin], bool], timeout: float | None) -> Iterable[Progress]:
    c.wait(predicate, timeout=timeout)
    return ()


def prune_orphan(words: Words, dry_run: bool) -> Run:
    _expect(words, 2)
    if words[0] not in ("0", "1"):
        raise Usage(f"DRY_RUN must be 0 or 1, not {words[0]!r}")
    nids = _storages(words[1:])
    return lambda c: _done(c.prune_orphan(*nids, dry_run=words[0] == "1"))


def truncate(words: Words, dry_run: bool) -> Run:
    _expect(words, 1, 1)
    read = _tid(words[0])

    def run(c: Admin) -> Reply:
        tid = read(c)
        return _silent(c.truncate(tid), lambda c, timeout: _until(
            c, lambda c: c.state() is ClusterStates.RUNNING and c.ids().last_tid <= tid, timeout))

    return run


def check(words: Words, dry_run: bool) -> Run:
    """[PARTITION]:[SOURCE] … and then up to two TIDs. No partition means all."""
    pairs = [word.split(":") for word in words if _is_pair(word)]
    tids = [_tid(word) for word in words[len(pairs):]]
    if any(_is_pair(word) for word in words[len(pairs):]) or len(tids) > 2:
        raise Usage("expected [PARTITION]:[SOURCE] … and then at most MIN_TID and MAX_TID")
    wanted: dict[int, int | None] = {}
    every = [source for partition, source in pairs if not partition]
    if not pairs or every and len(pairs) > 1:
        raise Usage("give partitions as 0: 1:S1 …, or : alone for all of them")
    for partition, source in pairs:
        if partition:
            wanted[_int(partition, "PARTITION")] = _nid(source) if source else None
    for_all = _nid(every[0]) if every and every[0] else None

    def run(c: Admin) -> Reply:
        partitions = dict.fromkeys(range(len(c.partitions().rows)), for_all) if every else wanted
        return _silent(c.check(partitions, *(read(c) for read in tids)))

    return run


def _is_pair(word: str) -> bool:
    return word.count(":") == 1 and not word.lower().startswith("tid:")


def flush_log(words: Words, dry_run: bool) -> Run:
    _expect(words, 0, 0)

    def run(c: Admin) -> Reply:
        c.flush_log()
        return _silent(Outcome(None))

    return run


def wait(words: Words, dry_run: bool) -> Run:
    _expect(words, 1)
    states = [_enum(ClusterStates, word) for word in words]

    def run(c: Admin) -> Reply:
        state = str(c.wait_state(*states))
        return Reply(state, {"state": state}, lambda: [state])

    return run


COMMANDS: dict[tuple[str, ...], Command] = {
    ("print", "ids"): Command("", "the last oid, tid and partition table id", print_ids, watches=True),
    ("print", "pt"): Command("[MIN [MAX [NODE]]]", "the partition table: who has what", print_pt, watches=True),
    ("print", "node"): Command("[TYPE]", "the nodes, or those of a type", print_node, watches=True),
    ("print", "cluster"): Command("", "the state of the cluster", print_cluster, watches=True),
    ("print", "primary"): Command("", "the primary master", print_primary, watches=True),
    ("print", "summary"): Command("", "the health of the cluster and its backups", print_summary, watches=True),
    ("print", "snapshot"): Command("", "state, partition table and nodes of one moment", print_snapshot, watches=True),
    ("set", "cluster"): Command("STATE", "put the cluster in a state", set_cluster, waits=True),
    ("set", "replicas"): Command("NR", "keep NR copies beyond the first; tweak to take effect", set_replicas),
    ("check",): Command("[PARTITION]:[SOURCE] … [MIN_TID [MAX_TID]]", "compare replicas", check),
    ("start",): Command("", "leave recovery: set cluster verifying", start, waits=True),
    ("add",): Command("all | NODE …", "take pending storages into the cluster", add, waits=True),
    ("tweak",): Command("[-n] [NODE …]", "spread the data anew, without these storages; -n: tell how only", tweak,
                        waits=True),
    ("drop",): Command("NODE", "remove a storage that is down, for ever", drop, waits=True),
    ("kill",): Command("NODE", "make a storage or a secondary master exit", kill, waits=True),
    ("prune_orphan",): Command("DRY_RUN all | NODE …", "delete raw data that nothing refers to; DRY_RUN is 0 or 1",
                               prune_orphan),
    ("truncate",): Command("TID", "forget all transactions after TID", truncate, waits=True),
    ("flush_log",): Command("", "let all nodes write their debug log", flush_log),
    ("wait",): Command("STATE …", "until the cluster is in (one of) the state(s)", wait),
}


def find(words: Words, dry_run: bool) -> tuple[Command, Run]:
    """The command that the words begin with, and what it does with the rest."""
    for length in (2, 1):
        command = COMMANDS.get(tuple(words[:length]))
        if command is not None and len(words) >= length:
            name = " ".join(words[:length])
            if dry_run and name != "tweak":
                raise Usage(f"{name}: -n is for tweak only")
            try:
                return command, command.read(words[length:], dry_run)
            except Usage as error:
                raise Usage(f"{error}\nusage: {name} {command.arguments}".rstrip()) from None
    raise Usage(f"invalid command: {' '.join(words)}")


def listing() -> str:
    """All commands, for the help."""
    names = [f"{' '.join(words)} {command.arguments}".rstrip() for words, command in COMMANDS.items()]
    lines = ["commands:"]
    for name, command in zip(names, COMMANDS.values(), strict=True):
        lines.append(f"  {name:32} {command.summary}" if len(name) <= 32 else f"  {name}\n{'':35}{command.summary}")
    lines.append("\nA TID is tid: and a number, as in tid:0x3937af2eeeeeeee, or a Unix time. A NODE is S1, M2, …")
    return "\n".join(lines)
