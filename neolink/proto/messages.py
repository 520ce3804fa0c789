# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The messages of wire M, protocol 5, in the order of their codes, each request followed by its answer.

Most of them exist on wire N, protocol 6, too, with the same fields: then they have a code for each. Those that differ
there, or exist only there, are in `n6`.

The decorator gives the codes and what answers what; the class its fields, in their order on the wire; the last words of
the sentence say who sends it to whom: M master, S storage, C client, A admin, ctl the control tool. A ttid is the
temporary id of a transaction that is not committed yet; a nid is a node id, a ptid the number of a partition table.
"""
from typing import Annotated, Any, NamedTuple

from .base import Message, answer, notify, request
from .enums import CellStates, ClusterStates, NodeStates, NodeTypes
from .kinds import (PTID, Addr, Compression, Count, ErrorCodeOrInt, Float, Index, Mismatch, Nid, Nullable, Oid, Ptid,
                    Sha1, StorageNid, Tid, U32, U64, Zip, describe)


class Node(NamedTuple):
    """A node, as the master describes it."""
    type: NodeTypes
    address: Addr | None
    nid: Nid | None
    state: NodeStates
    id_timestamp: float | None      # when the master identified it; what it has to show to storages


class Cell(NamedTuple):
    """One storage's copy of a partition."""
    nid: Nid
    state: CellStates


class CellChange(NamedTuple):
    """A cell that is new, changed or, if DISCARDED, removed."""
    offset: U32         # the partition
    nid: Nid
    state: CellStates


class Revision(NamedTuple):
    """A revision of an object."""
    serial: Tid
    size: U32           # as stored; 0: the object was deleted


class UndoSerial(NamedTuple):
    """What undoing a transaction does to one object."""
    current_serial: Tid
    undo_serial: Tid | None     # None: the object did not exist before
    is_current: bool


class StoredData(NamedTuple):
    """Object data as it was sent with AskStoreObject."""
    compression: Zip
    checksum: Sha1
    data: bytes


class Conflict(NamedTuple):
    """Why an object could not be locked again."""
    serial: Tid
    conflict_serial: Tid
    data: StoredData | None


class PackRequest(NamedTuple):
    """A pack order that travels with a transaction."""
    oids: list[Oid] | None      # None: all objects
    tid: Tid                    # pack up to here


class PackState(NamedTuple):
    """A pack order and what became of it."""
    approved: bool | None       # None: not decided yet
    partial: bool
    oids: list[Oid] | None
    tid: Tid


class PackOrder(NamedTuple):
    """The same with the transaction that ordered it in front."""
    order: Tid
    approved: bool | None
    partial: bool
    oids: list[Oid] | None
    tid: Tid


class Source(NamedTuple):
    """Where good data of a partition is."""
    upstream_name: str          # empty: in the same cluster
    address: Addr | None        # None: the storage itself


@answer(None, M=0x8000, N=0x8000)
class Error(Message):
    """What a request met instead of its answer; with ACK, the success of a request that has no answer of its own.
    [any to any]"""
    code: ErrorCodeOrInt
    message: str


@request(M=0x0001)
class RequestIdentification(Message):
    """The first message on every connection between nodes: who dials, and to which cluster. `extra` depends on the
    role: devpath and new_nid of a storage, read_only or backup of a client, backup of an admin.
    [* to M, S; A to A]"""
    node_type: NodeTypes
    nid: Nid | None
    address: Addr | None
    cluster: str
    id_timestamp: float | None
    extra: dict[str, Any]


@answer(RequestIdentification, M=0x8001, N=0x8001)
class AcceptIdentification(Message):
    """Welcome: the role and nid of the node that accepts, and the nid that the dialer has from now on.
    [M, S to *; A to A]"""
    node_type: NodeTypes
    my_nid: Nid | None
    your_nid: Nid | None


@request(M=0x0002, N=0x0002)
class Ping(Message):
    """Are you there, and done with what I asked before? Answered at any time, identified or not. [any to any]"""


@answer(Ping, M=0x8002, N=0x8002)
class Pong(Message):
    """Yes. [any to any]"""


@notify(M=0x0003, N=0x0003)
class CloseClient(Message):
    """I no longer need this connection as its user: close it if you do not either. [S to S]"""


@request(M=0x0004, N=0x0004)
class AskPrimary(Message):
    """Which node is the primary master? [ctl to A]"""


@answer(AskPrimary, M=0x8004, N=0x8004)
class AnswerPrimary(Message):
    """The nid of the primary master. [A to ctl]"""
    nid: Nid


@notify(M=0x0005, N=0x0005)
class NotPrimaryMaster(Message):
    """I am a secondary; `primary` is the index of the primary among `known_masters`, None if unknown. On N index 0
    cannot be told from None.
    [secondary M to *]"""
    primary: Index | None
    known_masters: list[Addr]

    def verify(self) -> None:
        if self.primary is not None and self.primary >= len(self.known_masters):
            raise Mismatch("an index into known_masters", describe(self.primary)).within(".primary")


@notify(M=0x0006, N=0x0006)
class NotifyNodeInformation(Message):
    """The list of nodes, the receiver's own entry first; later only what changed. `timestamp` grows strictly; only
    a NEO/go master sends None.
    [M to *]"""
    timestamp: Annotated[float | None, Nullable(Float(), "N")]
    nodes: list[Node]


@request(M=0x0007, N=0x0007)
class AskRecovery(Message):
    """How far does your database know the cluster? [M to S; ctl to A to M; A to A]"""


@answer(AskRecovery, M=0x8007, N=0x8007)
class AnswerRecovery(Message):
    """The newest partition table known, and whether the database is a backup or to be truncated.
    [S to M; M to A to ctl; A to A]"""
    ptid: Ptid | None
    backup_tid: Tid | None
    truncate_tid: Tid | None


@request(M=0x0008, N=0x0008)
class AskLastIDs(Message):
    """What are the greatest ids in the database? [M to S; ctl to A to M]"""


@answer(AskLastIDs, M=0x8008)
class AnswerLastIDs(Message):
    """The greatest ids, and the first tid; both None for an empty database. [S to M; M to A to ctl]"""
    last_tid: Tid | None
    last_oid: Oid | None
    first_tid: Tid


@request(M=0x0009, N=0x0009)
class AskPartitionTable(Message):
    """Send me the partition table you have stored. [M to S]"""


@answer(AskPartitionTable, M=0x8009, N=0x8009)
class AnswerPartitionTable(Message):
    """The stored partition table; rows[i] are the cells of partition i. Only a NEO/go storage has None for ptid.
    [S to M]"""
    ptid: Annotated[int | None, Nullable(PTID, "N")]
    num_replicas: U32
    rows: list[list[Cell]]


@notify(M=0x000a, N=0x000a)
class SendPartitionTable(Message):
    """The whole partition table; rows[i] are the cells of partition i, ptid is None before there is one.
    [M to A, C, S]"""
    ptid: Ptid | None
    num_replicas: U32
    rows: list[list[Cell]]


@notify(M=0x000b, N=0x000b)
class NotifyPartitionChanges(Message):
    """The cells that changed; ptid is the previous one + 1. [M to A, C, S]"""
    ptid: Ptid
    num_replicas: U32
    cells: list[CellChange]


@notify(M=0x000c, N=0x000c)
class StartOperation(Message):
    """Begin to serve clients; `backup`: as a backup, read-only. [M to S]"""
    backup: bool


@notify(M=0x000d, N=0x000d)
class StopOperation(Message):
    """The cluster is no longer operational: stop serving. [M to S, C]"""


@request(M=0x000e, N=0x000e)
class AskUnfinishedTransactions(Message):
    """Which transactions that touch these partitions are not finished yet? [S to M]"""
    offsets: list[U32]


@answer(AskUnfinishedTransactions, M=0x800e, N=0x800e)
class AnswerUnfinishedTransactions(Message):
    """The last tid, and the transactions that a replication has to wait for. [M to S]"""
    max_tid: Tid
    ttids: list[Tid]


@request(M=0x000f, N=0x000f)
class AskLockedTransactions(Message):
    """Which transactions have you voted for or locked? [M to S]"""


@answer(AskLockedTransactions, M=0x800f, N=0x800f)
class AnswerLockedTransactions(Message):
    """The tid of each ttid; None for those that are voted only. [S to M]"""
    tids: dict[Tid, Tid | None]


@request(M=0x0010, N=0x0010)
class AskFinalTID(Message):
    """Was this transaction committed? [M to S; C to M, S]"""
    ttid: Tid


@answer(AskFinalTID, M=0x8010, N=0x8010)
class AnswerFinalTID(Message):
    """Its tid; None if it was not committed, the largest tid if the storages have to be asked. [S to M; M, S to C]"""
    tid: Tid | None


@notify(M=0x0011, N=0x0011)
class ValidateTransaction(Message):
    """Commit this transaction, which an earlier run of the cluster left locked. [M to S]"""
    ttid: Tid
    tid: Tid


@request(M=0x0012, N=0x0012)
class AskBeginTransaction(Message):
    """Begin a transaction, with a given tid or with any. [C to M]"""
    tid: Tid | None


@answer(AskBeginTransaction, M=0x8012, N=0x8012)
class AnswerBeginTransaction(Message):
    """The temporary id of the new transaction. [M to C]"""
    ttid: Tid


@request(M=0x0013, N=0x0013, answer=Error)
class FailedVote(Message):
    """These storages did not vote for the transaction: can it still be finished? [C to M]"""
    ttid: Tid
    nids: list[Nid]


@request(M=0x0014, ignored_on_close=False)
class AskFinishTransaction(Message):
    """Commit: what the transaction wrote, the partitions where it only deleted or checked, and a pack order.
    [C to M]"""
    ttid: Tid
    oids: list[Oid]
    deleted: list[U32]
    checked: list[U32]
    pack: PackRequest | None


@answer(AskFinishTransaction, M=0x8014, N=0x8014)
class AnswerTransactionFinished(Message):
    """The transaction is committed as `tid`. [M to C]"""
    ttid: Tid
    tid: Tid


@request(M=0x0015, ignored_on_close=False)
class AskLockInformation(Message):
    """The transaction becomes `tid`: make it durable, keep it locked; `pack`: its pack order is approved. [M to S]"""
    ttid: Tid
    tid: Tid
    pack: bool


@answer(AskLockInformation, M=0x8015, N=0x8015)
class AnswerInformationLocked(Message):
    """The transaction will survive whatever happens. [S to M]"""
    ttid: Tid


@notify(M=0x0016, N=0x0016)
class InvalidateObjects(Message):
    """Another client's transaction changed these objects. [M to C]"""
    tid: Tid
    oids: list[Oid]


@notify(M=0x0017)
class InvalidatePartitions(Message):
    """A transaction changed these partitions; for a backup cluster. [M to backup M]"""
    tid: Tid
    partitions: list[U32]


@notify(M=0x0018, N=0x0017)
class NotifyUnlockInformation(Message):
    """The transaction is committed everywhere: let it be read. [M to S]"""
    ttid: Tid


@request(M=0x0019, N=0x0018)
class AskNewOIDs(Message):
    """Reserve this many oids for new objects. [C to M]"""
    count: Count


@answer(AskNewOIDs, M=0x8019, N=0x8018)
class AnswerNewOIDs(Message):
    """Oids that nobody else will get. [M to C]"""
    oids: list[Oid]


@notify(M=0x001a)
class NotifyDeadlock(Message):
    """The transaction stands in the way of another one: relock this object. [S to C]"""
    ttid: Tid
    oid: Oid


@request(M=0x001b)
class AskRelockObject(Message):
    """Give up the lock on an object and take it again, behind whoever waits for it. [C to S]"""
    ttid: Tid
    oid: Oid


@answer(AskRelockObject, M=0x801b)
class AnswerRelockObject(Message):
    """None when locked again, else the conflict and what had been stored. [S to C]"""
    conflict: Conflict | None


@request(M=0x001c, N=0x001c)
class AskStoreObject(Message):
    """Store a new revision of an object; `serial` is the one it is based on. No data and a zero checksum delete it,
    or repeat the revision `data_serial`.
    [C to S]"""
    oid: Oid
    serial: Tid
    compression: Zip
    checksum: Sha1
    data: bytes
    data_serial: Tid | None
    ttid: Tid


@answer(AskStoreObject, M=0x801c, N=0x801c)
class AnswerStoreObject(Message):
    """None: stored and locked; eight zero bytes: stored without lock, or ignored; else the tid of the revision in
    conflict.
    [S to C]"""
    conflict: Tid | None


@notify(M=0x001d, N=0x001d)
class AbortTransaction(Message):
    """Forget the transaction; `nids` are the storages it touched. [C to S; C to M to S]"""
    ttid: Tid
    nids: list[Nid]


@request(M=0x001e)
class AskStoreTransaction(Message):
    """Store the transaction's own data and vote for it, at the storages of its partition. [C to S]"""
    ttid: Tid
    user: bytes
    description: bytes
    extension: bytes
    oids: list[Oid]
    pack: PackRequest | None


@answer(AskStoreTransaction, M=0x801e, N=0x801e)
class AnswerStoreTransaction(Message):
    """Stored, and voted for. [S to C]"""


@request(M=0x001f, N=0x001f)
class AskVoteTransaction(Message):
    """Vote for the transaction, at a storage that has objects of it but not its own data. [C to S]"""
    ttid: Tid


@answer(AskVoteTransaction, M=0x801f, N=0x801f)
class AnswerVoteTransaction(Message):
    """Voted. [S to C]"""


@request(M=0x0020, N=0x0020)
class AskObject(Message):
    """Load an object: as it was at a tid, as it was before one, or the latest revision if both are None. [C to S]"""
    oid: Oid
    at: Tid | None
    before: Tid | None


@answer(AskObject, M=0x8020, N=0x8020)
class AnswerObject(Message):
    """One revision of an object, and the serial of the next. After a deletion: no data, a zero checksum, and
    compression None on M, 0 on N.
    [S to C]"""
    oid: Oid
    serial: Tid
    next_serial: Tid | None
    compression: Annotated[int | None, Nullable(Compression(), "M")]
    checksum: Sha1
    data: bytes
    data_serial: Tid | None


@request(M=0x0021, N=0x0021)
class AskTIDs(Message):
    """The tids of the transactions number `first` to `last` - 1, counted from the newest. [C to S]"""
    first: U64
    last: U64
    partition: U32


@answer(AskTIDs, M=0x8021, N=0x8021)
class AnswerTIDs(Message):
    """The tids, newest first. [S to C]"""
    tids: list[Tid]


@request(M=0x0022, N=0x0022)
class AskTransactionInformation(Message):
    """The metadata of a transaction. [C to S]"""
    tid: Tid


@answer(AskTransactionInformation, M=0x8022, N=0x8022)
class AnswerTransactionInformation(Message):
    """The metadata of a transaction and the oids that it wrote; `packed`: whether it was packed. [S to C]"""
    tid: Tid
    user: bytes
    description: bytes
    extension: bytes
    packed: bool
    oids: list[Oid]


@request(M=0x0023, N=0x0023)
class AskObjectHistory(Message):
    """The revisions number `first` to `last` - 1 of an object, counted from the newest. [C to S]"""
    oid: Oid
    first: U64
    last: U64


@answer(AskObjectHistory, M=0x8023, N=0x8023)
class AnswerObjectHistory(Message):
    """The revisions, newest first. [S to C]"""
    oid: Oid
    history: list[Revision]


@request(M=0x0024, N=0x0024)
class AskPartitionList(Message):
    """The partition table from `min_offset` up to, not including, `max_offset` (0: to the end); `nid` is ignored.
    [ctl to A]"""
    min_offset: U32
    max_offset: U32
    nid: Nid | None


@answer(AskPartitionList, M=0x8024, N=0x8024)
class AnswerPartitionList(Message):
    """The part of the partition table that was asked for. [A to ctl]"""
    ptid: Ptid | None
    num_replicas: U32
    rows: list[list[Cell]]


@request(M=0x0025, N=0x0025)
class AskNodeList(Message):
    """The nodes of a type, or all. [ctl to A]"""
    node_type: NodeTypes | None


@answer(AskNodeList, M=0x8025, N=0x8025)
class AnswerNodeList(Message):
    """The nodes as the admin knows them. [A to ctl]"""
    nodes: list[Node]


@request(M=0x0026, N=0x0026, answer=Error, ignored_on_close=False)
class SetNodeState(Message):
    """Stop a node (DOWN) or drop a storage from the cluster (UNKNOWN). [ctl to A to M]"""
    nid: Nid
    state: NodeStates


@request(M=0x0027, N=0x0027, answer=Error, ignored_on_close=False)
class AddPendingNodes(Message):
    """Take these waiting storages into the cluster. [ctl to A to M]"""
    nids: list[Nid]


@request(M=0x0028, N=0x0028)
class TweakPartitionTable(Message):
    """Spread the data anew over the storages, without those listed; `dry_run`: only tell how. [ctl to A to M]"""
    dry_run: bool
    nids: list[Nid]


@answer(TweakPartitionTable, M=0x8028, N=0x8028)
class AnswerTweakPartitionTable(Message):
    """Whether that changes the partition table, and the table that comes out. [M to A to ctl]"""
    changed: bool
    rows: list[list[Cell]]


@request(M=0x0029, N=0x0029, answer=Error, ignored_on_close=False)
class SetNumReplicas(Message):
    """Keep this many copies of everything beyond the first. [ctl to A to M]"""
    num_replicas: U32


@request(M=0x002a, N=0x002a, answer=Error, ignored_on_close=False)
class SetClusterState(Message):
    """Make the cluster start, stop, or begin or end to be a backup. [ctl to A to M]"""
    state: ClusterStates


@request(M=0x002b, N=0x002b, answer=Error)
class Repair(Message):
    """Prune orphan data from these storages; `dry_run`: only log what would go. [ctl to A to M]"""
    nids: list[Nid]
    dry_run: bool


@notify(M=0x002c, N=0x002c)
class NotifyRepair(Message):
    """The same, for the storage that receives it. [M to S]"""
    dry_run: bool


@notify(M=0x002d, N=0x002d)
class NotifyClusterInformation(Message):
    """The cluster has changed its state. [M to *]"""
    state: ClusterStates


@request(M=0x002e, N=0x002e)
class AskClusterState(Message):
    """What state is the cluster in? [ctl to A; A to M]"""


@answer(AskClusterState, M=0x802e, N=0x802e)
class AnswerClusterState(Message):
    """The state of the cluster; None if the admin does not know it. [A to ctl; M to A]"""
    state: ClusterStates | None


@request(M=0x002f, N=0x002f)
class AskObjectUndoSerial(Message):
    """What would undoing `undone_tid` do to these objects? [C to S]"""
    ttid: Tid
    ltid: Tid
    undone_tid: Tid
    oids: list[Oid]


@answer(AskObjectUndoSerial, M=0x802f, N=0x802f)
class AnswerObjectUndoSerial(Message):
    """By object: its current revision, the one to go back to, and whether nothing came in between. [S to C]"""
    objects: dict[Oid, UndoSerial]


@request(M=0x0030, N=0x0030)
class AskTIDsFrom(Message):
    """The first `length` tids of a partition between two tids, bounds included. [C to S]"""
    min_tid: Tid
    max_tid: Tid
    length: U32
    partition: U32


@answer(AskTIDsFrom, M=0x8030, N=0x8030)
class AnswerTIDsFrom(Message):
    """The tids, oldest first. [S to C]"""
    tids: list[Tid]


@request(M=0x0031)
class AskOIDsFrom(Message):
    """The first `length` oids of a partition, from `min_oid` on, that exist at `tid`. [C to S]"""
    partition: U32
    length: U32
    min_oid: Oid
    tid: Tid


@answer(AskOIDsFrom, M=0x8031)
class AnswerOIDsFrom(Message):
    """The oids, and where to go on; None at the end. [S to C]"""
    next_oid: Oid | None
    oids: list[Oid]


@request(M=0x0032)
class WaitForPack(Message):
    """Answer when the pack ordered in transaction `tid` is done. [C to M]"""
    tid: Tid


@answer(WaitForPack, M=0x8032)
class WaitedForPack(Message):
    """It is done. [M to C]"""


@request(M=0x0033)
class AskPackOrders(Message):
    """The pack orders from `min_tid` on. [M to S; C, S to M]"""
    min_tid: Tid


@answer(AskPackOrders, M=0x8033)
class AnswerPackOrders(Message):
    """The pack orders. [S to M; M to C, S]"""
    orders: list[PackOrder]


@notify(M=0x0034)
class NotifyPackSigned(Message):
    """Pack orders that were approved, and those that were rejected. [M to S, backup M]"""
    approved: list[Tid]
    rejected: list[Tid]


@notify(M=0x0035)
class NotifyPackCompleted(Message):
    """All packs up to `tid` are done here. [S to M]"""
    tid: Tid


@request(M=0x0036, N=0x0032, answer=Error)
class CheckReplicas(Message):
    """Compare the replicas of these partitions with a source, or with any if it is None, between two tids.
    [ctl to A to M]"""
    partitions: dict[U32, StorageNid | None]
    min_tid: Tid
    max_tid: Tid | None


@notify(M=0x0037, N=0x0033)
class CheckPartition(Message):
    """Compare your data of a partition with that of `source`. [M to S]"""
    partition: U32
    source: Source
    min_tid: Tid
    max_tid: Tid


@request(M=0x0038, N=0x0034)
class AskCheckTIDRange(Message):
    """The checksum of the first `length` tids of a partition between two tids. [S to S]"""
    partition: U32
    length: U32
    min_tid: Tid
    max_tid: Tid


@answer(AskCheckTIDRange, M=0x8038, N=0x8034)
class AnswerCheckTIDRange(Message):
    """How many tids were found, their checksum, and the last of them. [S to S]"""
    count: U32
    checksum: Sha1
    max_tid: Tid


@request(M=0x0039, N=0x0035)
class AskCheckSerialRange(Message):
    """The checksum of the first `length` records of a partition, from a tid and oid on. [S to S]"""
    partition: U32
    length: U32
    min_tid: Tid
    max_tid: Tid
    min_oid: Oid


@answer(AskCheckSerialRange, M=0x8039, N=0x8035)
class AnswerCheckSerialRange(Message):
    """How many records were found, the checksums of their tids and oids, and the last of both. [S to S]"""
    count: U32
    tid_checksum: Sha1
    max_tid: Tid
    oid_checksum: Sha1
    max_oid: Oid


@notify(M=0x003a, N=0x0036)
class NotifyPartitionCorrupted(Message):
    """These storages differ in this partition. [S to M]"""
    partition: U32
    nids: list[Nid]


@notify(M=0x003b, N=0x0037)
class NotifyReady(Message):
    """The storage is ready to serve. [S to M]"""


@request(M=0x003c, N=0x0038)
class AskLastTransaction(Message):
    """What is the last committed transaction? [C to M; ctl to A to M; A to A]"""


@answer(AskLastTransaction, M=0x803c, N=0x8038)
class AnswerLastTransaction(Message):
    """The last tid; eight zero bytes for an empty database. [M to C; M to A to ctl; A to A]"""
    tid: Tid


@request(M=0x003d, N=0x0039)
class AskCheckCurrentSerial(Message):
    """Make sure that an object the transaction only read does not change; `serial` is what it read. [C to S]"""
    ttid: Tid
    oid: Oid
    serial: Tid


@answer(AskCheckCurrentSerial, M=0x803d, N=0x8039)
class AnswerCheckCurrentSerial(Message):
    """As in AnswerStoreObject. [S to C]"""
    conflict: Tid | None


@notify(M=0x003e, N=0x003a)
class NotifyTransactionFinished(Message):
    """A transaction that a replication waits for is finished. [M to S]"""
    ttid: Tid
    max_tid: Tid


@notify(M=0x003f, N=0x003b)
class Replicate(Message):
    """Copy from these storages up to `tid`, in a backup cluster; an address of None is one's own cluster. [M to S]"""
    tid: Tid
    upstream_name: str
    sources: dict[U32, Addr | None]


@notify(M=0x0040, N=0x003c)
class NotifyReplicationDone(Message):
    """The partition is complete up to `tid`. [S to M]"""
    offset: U32
    tid: Tid


@request(M=0x0041)
class AskFetchTransactions(Message):
    """Send me the transactions of a partition between two tids, without those that I have: `tids`. [S to S]"""
    partition: U32
    length: U32
    min_tid: Tid
    max_tid: Tid
    tids: list[Tid]
    ask_pack_info: bool


@answer(AskFetchTransactions, M=0x8041)
class AnswerFetchTransactions(Message):
    """That was all, pushed as AddTransaction before; where to go on, and what to delete. [S to S]"""
    next_tid: Tid | None
    tids: list[Tid]
    completed_pack: Tid | None


@request(M=0x0042, N=0x003e)
class AskFetchObjects(Message):
    """Send me the records of a partition, from a tid and oid on, without those that I have: `objects`. [S to S]"""
    partition: U32
    length: U32
    min_tid: Tid
    max_tid: Tid
    min_oid: Oid
    objects: dict[Tid, list[Oid]]


@answer(AskFetchObjects, M=0x8042)
class AnswerFetchObjects(Message):
    """That was all, pushed as AddObject before; where to go on, and what to delete. [S to S]"""
    next_tid: Tid | None
    next_oid: Oid | None
    objects: dict[Tid, list[Oid]]


@notify(M=0x0043)
class AddTransaction(Message):
    """A transaction for the replica that asked with AskFetchTransactions; travels under the id of the question.
    [S to S]"""
    tid: Tid
    user: bytes
    description: bytes
    extension: bytes
    packed: bool
    ttid: Tid
    oids: list[Oid]
    pack: PackState | None


@notify(M=0x0044, N=0x0040)
class AddObject(Message):
    """A record for the replica that asked with AskFetchObjects; travels under the id of the question. [S to S]"""
    oid: Oid
    serial: Tid
    compression: Zip
    checksum: Sha1
    data: bytes
    data_serial: Tid | None


@request(M=0x0045, N=0x0041, answer=Error)
class Truncate(Message):
    """Forget all transactions after `tid`. Answered unless a master sends it to a storage. [ctl to A to M; M to S]"""
    tid: Tid


@notify(M=0x0046, N=0x0042)
class FlushLog(Message):
    """Write the buffered debug log to disk, on every node. [ctl to A to M to *]"""


@request(M=0x0047)
class AskMonitorInformation(Message):
    """How are this cluster and its backups? [ctl to A]"""


@answer(AskMonitorInformation, M=0x8047)
class AnswerMonitorInformation(Message):
    """The names of clusters with warnings and with problems, None being the admin's own, and a line for people.
    [A to ctl]"""
    warning: list[str | None]
    problem: list[str | None]
    summary: str


@notify(M=0x0048)
class NotifyMonitorInformation(Message):
    """How a backup cluster is; later only what changed: cluster_state, down, pt_summary. [A to A]"""
    info: dict[str, Any]


@notify(M=0x0049)
class NotifyUpstreamAdmin(Message):
    """Where the admin of the upstream cluster is: report to it. [M to A]"""
    address: Addr


__all__ = [
    "Node", "Cell", "CellChange", "Revision", "UndoSerial", "StoredData", "Conflict", "PackRequest", "PackState",
    "PackOrder", "Source", "Error", "RequestIdentification", "AcceptIdentification", "Ping", "Pong", "CloseClient",
    "AskPrimary", "AnswerPrimary", "NotPrimaryMaster", "NotifyNodeInformation", "AskRecovery", "AnswerRecovery",
    "AskLastIDs", "AnswerLastIDs", "AskPartitionTable", "AnswerPartitionTable", "SendPartitionTable",
    "NotifyPartitionChanges", "StartOperation", "StopOperation", "AskUnfinishedTransactions",
    "AnswerUnfinishedTransactions", "AskLockedTransactions", "AnswerLockedTransactions", "AskFinalTID",
    "AnswerFinalTID", "ValidateTransaction", "AskBeginTransaction", "AnswerBeginTransaction", "FailedVote",
    "AskFinishTransaction", "AnswerTransactionFinished", "AskLockInformation", "AnswerInformationLocked",
    "InvalidateObjects", "InvalidatePartitions", "NotifyUnlockInformation", "AskNewOIDs", "AnswerNewOIDs",
    "NotifyDeadlock", "AskRelockObject", "AnswerRelockObject", "AskStoreObject", "AnswerStoreObject",
    "AbortTransaction", "AskStoreTransaction", "AnswerStoreTransaction", "AskVoteTransaction",
    "AnswerVoteTransaction", "AskObject", "AnswerObject", "AskTIDs", "AnswerTIDs", "AskTransactionInformation",
    "AnswerTransactionInformation", "AskObjectHistory", "AnswerObjectHistory", "AskPartitionList",
    "AnswerPartitionList", "AskNodeList", "AnswerNodeList", "SetNodeState", "AddPendingNodes",
    "TweakPartitionTable", "AnswerTweakPartitionTable", "SetNumReplicas", "SetClusterState", "Repair",
    "NotifyRepair", "NotifyClusterInformation", "AskClusterState", "AnswerClusterState", "AskObjectUndoSerial",
    "AnswerObjectUndoSerial", "AskTIDsFrom", "AnswerTIDsFrom", "AskOIDsFrom", "AnswerOIDsFrom", "WaitForPack",
    "WaitedForPack", "AskPackOrders", "AnswerPackOrders", "NotifyPackSigned", "NotifyPackCompleted",
    "CheckReplicas", "CheckPartition", "AskCheckTIDRange", "AnswerCheckTIDRange", "AskCheckSerialRange",
    "AnswerCheckSerialRange", "NotifyPartitionCorrupted", "NotifyReady", "AskLastTransaction",
    "AnswerLastTransaction", "AskCheckCurrentSerial", "AnswerCheckCurrentSerial", "NotifyTransactionFinished",
    "Replicate", "NotifyReplicationDone", "AskFetchTransactions", "AnswerFetchTransactions", "AskFetchObjects",
    "AnswerFetchObjects", "AddTransaction", "AddObject", "Truncate", "FlushLog", "AskMonitorInformation",
    "AnswerMonitorInformation", "NotifyMonitorInformation", "NotifyUpstreamAdmin",
]
