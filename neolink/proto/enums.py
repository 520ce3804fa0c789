# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The five enums of NEO.

Members are plain `enum.Enum` members, not ints: `ClusterStates.RUNNING == 2` is False, and a 2 where a ClusterStates is
expected is an EncodeError. NEO nodes treat an int in place of a member wrongly in places, and pass it on to others.
`ClusterStates(2)` and `ClusterStates["RUNNING"]` are the explicit ways from a number and from a name.

The numbers are those of M protocol 5 and N protocol 6, which agree, except that N has no UNDO_PACK_ERROR.
"""
from enum import Enum


class WireEnum(Enum):
    """An enum that travels; prints by name alone, as NEO does."""

    __hash__ = object.__hash__      # one object per member; the Enum's own hash is slow

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class CellStates(WireEnum):
    """What a storage holds of one partition."""
    OUT_OF_DATE = 0     # being filled
    UP_TO_DATE = 1      # complete
    FEEDING = 2         # complete; dropped once another node has copied it
    CORRUPTED = 3       # differs from its replicas
    DISCARDED = 4       # only in NotifyPartitionChanges: the cell is removed


class ClusterStates(WireEnum):
    """What the cluster as a whole is doing."""
    RECOVERING = 0      # waits for storages and for the operator's go
    VERIFYING = 1       # settles what was being committed when it stopped
    RUNNING = 2         # serves clients
    STOPPING = 3
    STARTING_BACKUP = 4
    BACKINGUP = 5       # follows another cluster, read-only
    STOPPING_BACKUP = 6


class ErrorCodes(WireEnum):
    """Why a request was refused; ACK says that it was not."""
    ACK = 0             # success of a request that has no answer of its own
    DENIED = 1          # refused, nothing changed
    NOT_READY = 2       # try later
    OID_NOT_FOUND = 3   # the object exists, but not at that time
    TID_NOT_FOUND = 4
    OID_DOES_NOT_EXIST = 5
    PROTOCOL_ERROR = 6  # the sender usually closes after it
    REPLICATION_ERROR = 7
    CHECKING_ERROR = 8
    BACKEND_NOT_IMPLEMENTED = 9
    NON_READABLE_CELL = 10      # the asker's partition table is stale: ask another storage
    READ_ONLY_ACCESS = 11
    INCOMPLETE_TRANSACTION = 12
    UNDO_PACK_ERROR = 13        # M only: what was to be undone has been packed


class NodeStates(WireEnum):
    """What the master thinks of a node."""
    UNKNOWN = 0         # forget it
    DOWN = 1
    RUNNING = 2
    PENDING = 3         # a storage that is connected but not in use


class NodeTypes(WireEnum):
    """The four roles of a node."""
    MASTER = 0
    STORAGE = 1
    CLIENT = 2
    ADMIN = 3
