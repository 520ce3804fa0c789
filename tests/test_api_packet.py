# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Packet: what it holds, what it refuses, how long its bytes live."""
import array
import copy
import functools
import gc
import pickle
import sys

import pytest

import neolink


def test_made_by_hand():
    packet = neolink.Packet(0x2E, bytearray(b"abc"), conn_id=7)
    assert (packet.code, bytes(packet.payload), packet.conn_id) == (0x2E, b"abc", 7)
    assert bytes(neolink.Packet(1).payload) == b""
    assert neolink.Packet(1).conn_id == 0


@pytest.mark.parametrize("make", [neolink.Packet, functools.partial(neolink.Packet.__new__, neolink.Packet),
                                  type.__call__.__get__(neolink.Packet)])
def test_arguments(make):
    """The same, called or made the long way."""
    for packet in (make(1, b"abc", 7), make(1, b"abc", conn_id=7), make(conn_id=7, payload=b"abc", code=1)):
        assert (packet.code, bytes(packet.payload), packet.conn_id) == (1, b"abc", 7)
    for args, named, said in [((), {}, "needs its argument 'code'"), ((1, b"", 2, 3), {}, "at most 3"),
                              ((1,), {"code": 1}, "'code' twice"), ((1,), {"id": 2}, "no argument 'id'"),
                              ((1, b"", "7"), {}, "conn_id must be an int, not str"),
                              ((1,), {"conn_id": 7.0}, "conn_id must be an int, not float")]:
        with pytest.raises(TypeError, match=said):
            make(*args, **named)


def test_payload_is_read_only_and_a_copy_of_what_may_change():
    source = bytearray(b"abc")
    packet = neolink.Packet(1, source)
    source[:] = b"xyz"
    assert bytes(packet.payload) == b"abc"
    assert packet.payload.readonly
    with pytest.raises(TypeError):
        packet.payload[0] = 0


def test_payload_outlives_packet_conn_and_link():
    client, server = neolink.pair()
    client.notify(0x2E, b"\x91\x07")
    payload = server.recv1(timeout=20).packet.payload
    client.close()
    server.close()
    del client, server
    gc.collect()
    assert bytes(payload) == b"\x91\x07"


@pytest.mark.skipif(not sys.getallocatedblocks(), reason="the interpreter does not count: not its own allocator")
def test_freed_packets_that_are_kept_for_the_next_are_bounded():
    del [neolink.Packet(1) for _ in range(1000)][:]
    before = sys.getallocatedblocks()
    packets = [neolink.Packet(1) for _ in range(5000)]
    assert sys.getallocatedblocks() - before > 4500
    del packets
    assert sys.getallocatedblocks() - before < 100
    assert [bytes(packet.payload) for packet in [neolink.Packet(1, bytes([n])) for n in range(200)]] == [
        bytes([n]) for n in range(200)]


def test_payload_takes_any_contiguous_buffer():
    assert bytes(neolink.Packet(1, memoryview(b"abcd")[1:3]).payload) == b"bc"
    assert bytes(neolink.Packet(1, array.array("H", [1])).payload) == array.array("H", [1]).tobytes()
    with pytest.raises(BufferError):
        neolink.Packet(1, memoryview(b"abcd")[::2])


@pytest.mark.parametrize("payload", ["text", 5, None, [1]])
def test_payload_of_wrong_type(payload):
    with pytest.raises(TypeError, match="payload must be bytes or another contiguous buffer, not"):
        neolink.Packet(1, payload)


@pytest.mark.parametrize("code", [-1, 0x10000, 1 << 70])
def test_code_out_of_range(code):
    with pytest.raises(ValueError, match=str(code)):
        neolink.Packet(code)


@pytest.mark.parametrize("code", ["1", 1.0, None])
def test_code_of_wrong_type(code):
    with pytest.raises(TypeError, match="code must be an int"):
        neolink.Packet(code)


@pytest.mark.parametrize("conn_id", [-1, 1 << 32, 1 << 70])
def test_conn_id_out_of_range(conn_id):
    with pytest.raises(ValueError, match="conn_id"):
        neolink.Packet(1, b"", conn_id)


def test_repr_shows_the_first_bytes():
    assert repr(neolink.Packet(0x2E, b"\x90", 3)) == r"<neolink.Packet conn_id=3 code=0x002e b'\x90'>"
    assert "100 bytes" in repr(neolink.Packet(1, b"x" * 100))


def test_not_picklable_and_attributes_fixed():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(neolink.Packet(1), protocol)
    with pytest.raises(TypeError):
        copy.copy(neolink.Packet(1))
    with pytest.raises(AttributeError):
        neolink.Packet(1).code = 5


def test_message_of_a_packet_made_by_hand_has_no_wire():
    with pytest.raises(neolink.DecodeError, match="proto.decode"):
        neolink.Packet(0x2E).message
