# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The messages of wire N, protocol 6.

Declared here are the sixteen that wire M does not have: ten that have other fields there under the same name, and six
whose names exist on N only. All others are shared with M: they are imported, so that this module has the whole
catalogue of N.
"""
from .base import Message, answer, notify, request
from .enums import NodeTypes
from .kinds import Addr, Nid, Oid, Tid, U32
from .messages import (AbortTransaction, AcceptIdentification, AddObject, AddPendingNodes, AnswerBeginTransaction,
                       AnswerCheckCurrentSerial, AnswerCheckSerialRange, AnswerCheckTIDRange, AnswerClusterState,
                       AnswerFinalTID, AnswerInformationLocked, AnswerLastTransaction, AnswerLockedTransactions,
                       AnswerNewOIDs, AnswerNodeList, AnswerObject, AnswerObjectHistory, AnswerObjectUndoSerial,
                       AnswerPartitionList, AnswerPartitionTable, AnswerPrimary, AnswerRecovery, AnswerStoreObject,
                       AnswerStoreTransaction, AnswerTIDs, AnswerTIDsFrom, AnswerTransactionFinished,
                       AnswerTransactionInformation, AnswerTweakPartitionTable, AnswerUnfinishedTransactions,
                       AnswerVoteTransaction, AskBeginTransaction, AskCheckCurrentSerial, AskCheckSerialRange,
                       AskCheckTIDRange, AskClusterState, AskFetchObjects, AskFinalTID, AskLastIDs,
                       AskLastTransaction, AskLockedTransactions, AskNewOIDs, AskNodeList, AskObject,
                       AskObjectHistory, AskObjectUndoSerial, AskPartitionList, AskPartitionTable, AskPrimary,
                       AskRecovery, AskStoreObject, AskTIDs, AskTIDsFrom, AskTransactionInformation,
                       AskUnfinishedTransactions, AskVoteTransaction, CheckPartition, CheckReplicas, CloseClient,
                       Conflict, Error, FailedVote, FlushLog, InvalidateObjects, NotPrimaryMaster,
                       NotifyClusterInformation, NotifyNodeInformation, NotifyPartitionChanges,
                       NotifyPartitionCorrupted, NotifyReady, NotifyRepair, NotifyReplicationDone,
                       NotifyTransactionFinished, NotifyUnlockInformation, Ping, Pong, Repair, Replicate,
                       SendPartitionTable, SetClusterState, SetNodeState, SetNumReplicas, StartOperation,
                       StopOperation, Truncate, TweakPartitionTable, ValidateTransaction)


@request(N=0x0001, answer=AcceptIdentification)
class RequestIdentification(Message):
    """The first message on every connection between nodes; devpath and new_nid are empty for all but storages.
    [* to M, S]"""
    node_type: NodeTypes
    nid: Nid | None
    address: Addr | None
    cluster: str
    id_timestamp: float | None
    devpath: list[str]
    new_nid: list[U32]


@answer(AskLastIDs, N=0x8008)
class AnswerLastIDs(Message):
    """The greatest ids, the oid first; both None for an empty database. [S to M; M to A to ctl]"""
    last_oid: Oid | None
    last_tid: Tid | None


@request(N=0x0014, answer=AnswerTransactionFinished, ignored_on_close=False)
class AskFinishTransaction(Message):
    """Commit: the objects that the transaction wrote, and those that it only checked. [C to M]"""
    ttid: Tid
    oids: list[Oid]
    checked: list[Oid]


@request(N=0x0015, answer=AnswerInformationLocked, ignored_on_close=False)
class AskLockInformation(Message):
    """The transaction becomes `tid`: make it durable, keep it locked. [M to S]"""
    ttid: Tid
    tid: Tid


@notify(N=0x0019)
class NotifyDeadlock(Message):
    """The transaction stands in the way of another one: rebase it to `locking_tid`. [S to M to C]"""
    ttid: Tid
    locking_tid: Tid


@request(N=0x001a)
class AskRebaseTransaction(Message):
    """Move the transaction's locks behind those of the transaction it blocks. [C to S]"""
    ttid: Tid
    locking_tid: Tid


@answer(AskRebaseTransaction, N=0x801a)
class AnswerRebaseTransaction(Message):
    """The objects that have to be locked again, with AskRebaseObject. [S to C]"""
    oids: list[Oid]


@request(N=0x001b)
class AskRebaseObject(Message):
    """Lock an object again after a rebase. [C to S]"""
    ttid: Tid
    oid: Oid


@answer(AskRebaseObject, N=0x801b)
class AnswerRebaseObject(Message):
    """None when locked again, else the conflict and what had been stored. NEO/go writes this in another way.
    [S to C]"""
    conflict: Conflict | None


@request(N=0x001e, answer=AnswerStoreTransaction)
class AskStoreTransaction(Message):
    """Store the transaction's own data and vote for it, at the storages of its partition. [C to S]"""
    ttid: Tid
    user: bytes
    description: bytes
    extension: bytes
    oids: list[Oid]


@request(N=0x0031, ignored_on_close=False)
class AskPack(Message):
    """Pack the database up to `tid`. [C to M to S]"""
    tid: Tid


@answer(AskPack, N=0x8031)
class AnswerPack(Message):
    """Whether it was packed. [S to M to C]"""
    status: bool


@request(N=0x003d)
class AskFetchTransactions(Message):
    """Send me the transactions of a partition between two tids, without those that I have: `tids`. [S to S]"""
    partition: U32
    length: U32
    min_tid: Tid
    max_tid: Tid
    tids: list[Tid]


@answer(AskFetchTransactions, N=0x803d)
class AnswerFetchTransactions(Message):
    """That was all, pushed as AddTransaction before; the last pack, where to go on, and what to delete. [S to S]"""
    pack_tid: Tid | None
    next_tid: Tid | None
    tids: list[Tid]


@answer(AskFetchObjects, N=0x803e)
class AnswerFetchObjects(Message):
    """That was all, pushed as AddObject before; the last pack, where to go on, and what to delete. [S to S]"""
    pack_tid: Tid | None
    next_tid: Tid | None
    next_oid: Oid | None
    objects: dict[Tid, list[Oid]]


@notify(N=0x003f)
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


__all__ = [
    "AbortTransaction", "AcceptIdentification", "AddObject", "AddPendingNodes", "AddTransaction",
    "AnswerBeginTransaction", "AnswerCheckCurrentSerial", "AnswerCheckSerialRange", "AnswerCheckTIDRange",
    "AnswerClusterState", "AnswerFetchObjects", "AnswerFetchTransactions", "AnswerFinalTID",
    "AnswerInformationLocked", "AnswerLastIDs", "AnswerLastTransaction", "AnswerLockedTransactions",
    "AnswerNewOIDs", "AnswerNodeList", "AnswerObject", "AnswerObjectHistory", "AnswerObjectUndoSerial",
    "AnswerPack", "AnswerPartitionList", "AnswerPartitionTable", "AnswerPrimary", "AnswerRebaseObject",
    "AnswerRebaseTransaction", "AnswerRecovery", "AnswerStoreObject", "AnswerStoreTransaction", "AnswerTIDs",
    "AnswerTIDsFrom", "AnswerTransactionFinished", "AnswerTransactionInformation", "AnswerTweakPartitionTable",
    "AnswerUnfinishedTransactions", "AnswerVoteTransaction", "AskBeginTransaction", "AskCheckCurrentSerial",
    "AskCheckSerialRange", "AskCheckTIDRange", "AskClusterState", "AskFetchObjects", "AskFetchTransactions",
    "AskFinalTID", "AskFinishTransaction", "AskLastIDs", "AskLastTransaction", "AskLockInformation",
    "AskLockedTransactions", "AskNewOIDs", "AskNodeList", "AskObject", "AskObjectHistory", "AskObjectUndoSerial",
    "AskPack", "AskPartitionList", "AskPartitionTable", "AskPrimary", "AskRebaseObject", "AskRebaseTransaction",
    "AskRecovery", "AskStoreObject", "AskStoreTransaction", "AskTIDs", "AskTIDsFrom", "AskTransactionInformation",
    "AskUnfinishedTransactions", "AskVoteTransaction", "CheckPartition", "CheckReplicas", "CloseClient", "Error",
    "FailedVote", "FlushLog", "InvalidateObjects", "NotPrimaryMaster", "NotifyClusterInformation", "NotifyDeadlock",
    "NotifyNodeInformation", "NotifyPartitionChanges", "NotifyPartitionCorrupted", "NotifyReady", "NotifyRepair",
    "NotifyReplicationDone", "NotifyTransactionFinished", "NotifyUnlockInformation", "Ping", "Pong", "Repair",
    "Replicate", "RequestIdentification", "SendPartitionTable", "SetClusterState", "SetNodeState", "SetNumReplicas",
    "StartOperation", "StopOperation", "Truncate", "TweakPartitionTable", "ValidateTransaction",
]
