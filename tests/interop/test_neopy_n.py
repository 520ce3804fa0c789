# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink and a live cluster of NEO 1.12, wire N. The cases are in neopy_cases; here are the bytes.

On N None is a value out of range: -1 for an enum, all bits set for a tid or a time, 0 for a nid, "" for an address.
"""
from .neopy_cases import NeoPyCases, NeoPyTlsCases, NodeBytes


class BytesN(NodeBytes):
    wire = "N"
    version = 6
    other_wire = "M"
    empty = b""
    identify_client = bytes.fromhex("02 00000000 00000000 0000000474657374 ffffffffffffffff 00000000 00000000")
    identify_stranger = bytes.fromhex("02 00000000 00000000 000000046e6f7065 ffffffffffffffff 00000000 00000000")
    accept_identification = bytes.fromhex("00 f0000001 d0000001")
    node_information = bytes.fromhex(
        "41d66b15517b469d 00000002"
        "   03 00000000 d0000001 02 41d66b15517b3d04"
        "   00 000000093132372e302e302e312710 f0000001 02 ffffffffffffffff")
    partition_table = bytes.fromhex("0000000000000000 00000000 00000002 00000000 00000000")
    cluster_running = bytes.fromhex("02")
    cluster_backing_up = bytes.fromhex("05")
    no_tid = bytes.fromhex("0000000000000000")
    recovery = bytes.fromhex("0000000000000005 ffffffffffffffff ffffffffffffffff")
    ask_storages = bytes.fromhex("01")
    ask_last_transaction = 0x38


class TestNeoPyN(BytesN, NeoPyCases):
    pass


class TestNeoPyNTls(BytesN, NeoPyTlsCases):
    pass
