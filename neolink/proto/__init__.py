# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The messages of NEO, typed: one class for each message of the wires M (protocol 5) and N (protocol 6).

    >>> from neolink import proto
    >>> proto.AskObject(oid=proto.id_from_int(1), at=None, before=None)
    AskObject(oid=b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01', at=None, before=None)
    >>> code, payload = proto.encode(proto.AnswerClusterState(proto.ClusterStates.RUNNING), "M")
    >>> proto.decode(code, payload, "M")
    AnswerClusterState(state=ClusterStates.RUNNING)

Ten names have other fields on N. `proto.X` is the class of M, `proto.n6.X` that of N, and `decode` returns the right
one. Six more exist on N only and are found in both places.

How to read this package: `messages` and `n6` declare the messages with what `base` offers; `kinds` says what fields are
made of, and checks them; `codec_m` and `codec_n` say how each kind travels; `coding` joins them; `enums` and `values`
are what the fields hold. Nothing here does input or output, or needs the C core.
"""
from . import messages, n6
from .base import CATALOGUE, Message
from .coding import decode, encode, message_class
from .enums import CellStates, ClusterStates, ErrorCodes, NodeStates, NodeTypes, WireEnum
from .messages import *
from .n6 import (AnswerPack, AnswerRebaseObject, AnswerRebaseTransaction, AskPack, AskRebaseObject,
                 AskRebaseTransaction)
from .values import (ALL_PARTITIONS, INVALID_OID, INVALID_TID, MAX_TID, ZERO_HASH, ZERO_OID, ZERO_TID,
                     datetime_to_tid, id_from_hex, id_from_int, id_hex, id_short, id_to_int, nid_parse, nid_str,
                     tid_to_datetime)

__all__ = [
    "ALL_PARTITIONS", "CATALOGUE", "INVALID_OID", "INVALID_TID", "MAX_TID", "ZERO_HASH", "ZERO_OID", "ZERO_TID",
    "AnswerPack", "AnswerRebaseObject", "AnswerRebaseTransaction", "AskPack", "AskRebaseObject",
    "AskRebaseTransaction", "CellStates", "ClusterStates", "ErrorCodes", "Message", "NodeStates", "NodeTypes",
    "WireEnum", "datetime_to_tid", "decode", "encode", "id_from_hex", "id_from_int", "id_hex", "id_short", "id_to_int",
    "message_class", "n6", "nid_parse", "nid_str", "tid_to_datetime",
]
__all__ += messages.__all__
