# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink and a live cluster of today's NEO/py, wire M. The cases are in neopy_cases; here are the bytes.

On M a payload is the msgpack array of the message's fields.
"""
from .neopy_cases import NeoPyCases, NeoPyTlsCases, NodeBytes


class BytesM(NodeBytes):
    wire = "M"
    version = 5
    other_wire = "N"
    empty = b"\x90"
    identify_client = bytes.fromhex("96 d40402 c0 c0 c40474657374 c0 80")
    identify_stranger = bytes.fromhex("96 d40402 c0 c0 c4046e6f7065 c0 80")
    accept_identification = bytes.fromhex("93 d40400 d2f0000001 d2d0000001")
    node_information = bytes.fromhex(
        "92 cb41d66b15517b469d 92"
        "   95 d40403 c0 d2d0000001 d40302 cb41d66b15517b3d04"
        "   95 d40400 92 c4093132372e302e302e31 cd2710 d2f0000001 d40302 c0")
    partition_table = bytes.fromhex("93 c0 00 92 90 90")
    cluster_running = bytes.fromhex("91 d40102")
    cluster_backing_up = bytes.fromhex("91 d40105")
    no_tid = bytes.fromhex("91 c408 0000000000000000")
    recovery = bytes.fromhex("93 05 c0 c0")
    ask_storages = bytes.fromhex("91 d40401")
    ask_last_transaction = 0x3C


class TestNeoPyM(BytesM, NeoPyCases):
    pass


class TestNeoPyMOnPython2(BytesM, NeoPyCases):
    peers = "M2"


class TestNeoPyMTls(BytesM, NeoPyTlsCases):
    pass
