# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The reference peer and the core understand each other on every wire, opening included, and mean the same bytes."""
import json
import socket
from pathlib import Path

import pytest
from leaks import balanced  # noqa: F401
from reference_peer import ERROR, VERSIONS, Packet, ReferencePeer, error_payload, error_text, unwrap, wrap
from scenario_kit import ANSWER, REQUEST, each_wire, raw_peer
from support import PATIENCE, Background

import neolink

pytestmark = pytest.mark.usefixtures("balanced")
SIZES = (0, 1, 31, 255, 256, 65_535, 65_536, 300_000)
VECTORS = json.loads((Path(__file__).parent / "data" / "neo-messages.json").read_text())


@each_wire
@pytest.mark.parametrize("role", ["client", "server"])
def test_asked_and_asking(wire, role):
    """Either end asks the other, payloads of every size class."""
    ours = "server" if role == "client" else "client"
    with raw_peer(wire, "stream", role=ours) as (link, raw):
        peer = ReferencePeer(raw.sock, wire, role)
        for size in SIZES:
            payload = wrap(wire, bytes(size))
            asking = Background(link.ask, REQUEST, payload, timeout=PATIENCE)
            asked = peer.recv()
            assert asked == (asked.id, REQUEST, payload) and asked.id % 2 == (ours == "client")
            peer.reply(asked, payload)
            assert bytes(asking.result().payload) == payload

            serving = Background(link.recv1, PATIENCE)
            packet = Packet(peer.new_id(), REQUEST, payload)
            peer.send(packet)
            with serving.result() as request:
                assert (request.conn.conn_id, unwrap(wire, request.packet.payload)) == (packet.id, bytes(size))
                request.reply(ANSWER, payload)
            assert peer.recv() == (packet.id, ANSWER, payload)


@each_wire
def test_errors_are_the_same_bytes(wire):
    with raw_peer(wire, "stream", role="server", accept="refuse") as (link, raw):
        peer = ReferencePeer(raw.sock, wire, "client")
        refused = peer.ask(REQUEST)
        assert refused.code == ERROR and error_text(wire, refused.payload) == "connection refused"
        assert refused.payload == error_payload(wire, "connection refused")
        assert link.stats().refused_conns == 1


@pytest.mark.parametrize("wire", ["N", "M"])
def test_openings(wire):
    with neolink.listen("127.0.0.1:0") as listener, socket.create_connection(listener.address) as sock:
        sock.settimeout(PATIENCE)
        peer = ReferencePeer(sock, wire, "client")
        version = peer.shake()
        assert version == VERSIONS[wire]
        with listener.accept(PATIENCE) as link:
            assert (link.wire, link.version) == (wire, version)


@pytest.mark.parametrize("wire, catalogue", [("N", "N6"), ("M", "M5"), ("2016", "G2016")])
def test_recorded_packets_are_framed_to_the_same_bytes(wire, catalogue):
    """Packets that NEO's own encoder made, read and written again."""
    near, far = socket.socketpair()
    with near, far:
        peer = ReferencePeer(near, wire, "client")
        for vector in VECTORS[catalogue]["vectors"]:
            data = bytes.fromhex(vector["hex"].replace(" ", ""))
            far.sendall(data)
            packet = peer.recv()
            assert packet.id == vector["id"] and peer.frame(packet) == data
