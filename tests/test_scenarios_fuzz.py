# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes that nobody meant: S62. A link is fed with damaged packets and with noise, and ends in one of the ways there
are.

These are quick and the same each time; libFuzzer does it for longer (docs/reliability.rst), and test_random_ends.py has
the random operations on two real ends.
"""
import random
import socket

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import ANSWER, NOTIFY, REQUEST, body, each_kind, each_wire, frame, raw_peer
from support import PATIENCE, Background

import neolink

pytestmark = pytest.mark.usefixtures("balanced")
LIMITS = neolink.Limits(packet_bytes=1 << 16, accept_backlog=None)


def good_stream(wire: str, rng: random.Random) -> bytes:
    """Some packets, as a peer might send them."""
    return b"".join(frame(wire, 2 * rng.randrange(1 << 20), rng.choice([REQUEST, NOTIFY, ANSWER, 0x8000]),
                          body(wire, rng.randbytes(rng.choice([0, 1, 10, 300]))))
                    for _ in range(rng.randrange(1, 8)))


def damage(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut out, doubled or put in, in one place or a few."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at:at + 1] = rng.randbytes(1)
            case 1:
                del changed[at:at + rng.randrange(1, 20)]
            case 2:
                changed[at:at] = changed[max(0, at - rng.randrange(1, 20)):at]
            case 3:
                changed[at:at] = rng.choice([rng.randbytes(5), b"\xff" * 4, b"\xdd\xff\xff\xff\xff", b"\0" * 10])
    return bytes(changed)


def feed(link: neolink.NodeLink, sock: socket.socket, data: bytes) -> type[neolink.Error]:
    """Take whatever these bytes make until the stream ends; by what it ended."""
    def send() -> None:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        except OSError:                         # it was cut off meanwhile
            pass

    sending = Background(send)
    asking = Background(link.ask, REQUEST, timeout=PATIENCE)
    with pytest.raises(neolink.LinkDown) as caught:
        while True:
            with link.recv1(timeout=PATIENCE) as request:
                assert len(request.packet.payload) <= LIMITS.packet_bytes
    sending.result()
    try:
        asking.result()                         # by chance there was an answer to it
    except (neolink.LinkDown, neolink.ConnError, neolink.LinkClosed):
        pass
    at_rest(link)
    return type(caught.value)


@each_kind
def test_s62_damaged_packets(wire, routing):
    seen = set()
    for seed in range(150):
        rng = random.Random(f"{wire} {seed}")
        with raw_peer(wire, routing, limits=LIMITS) as (link, peer):
            seen.add(feed(link, peer.sock, damage(good_stream(wire, rng), rng)))
    assert seen == {neolink.LinkDown, neolink.ProtocolError}    # both kinds of end came up


@each_wire
def test_s62_noise(wire):
    for seed in range(150):
        rng = random.Random(f"noise {wire} {seed}")
        with raw_peer(wire, limits=LIMITS) as (link, peer):
            feed(link, peer.sock, rng.randbytes(rng.choice([1, 9, 10, 11, 100, 5000])))


@pytest.mark.parametrize("wire", ["N", "M", "auto"])
def test_s62_noise_at_a_listener(wire, caplog):
    """Whoever they were, the next one is served."""
    strangers = 60
    with neolink.listen("127.0.0.1:0", wire=wire, limits=LIMITS) as listener:
        accepting = Background(lambda: [listener.accept(timeout=PATIENCE)])
        for seed in range(strangers):
            rng = random.Random(f"listener {wire} {seed}")
            with socket.create_connection(listener.address, PATIENCE) as sock:
                sock.sendall(b"\xff" + rng.randbytes(rng.choice([3, 20, 300])))     # never an opening
                sock.shutdown(socket.SHUT_WR)
                try:
                    while sock.recv(1000):
                        pass
                except ConnectionResetError:
                    pass
        with neolink.dial(listener.address, wire="M" if wire == "auto" else wire, timeout=PATIENCE) as link:
            with accepting.result()[0] as served:
                link.notify(NOTIFY)
                served.recv1(timeout=PATIENCE).close()
    assert 1 <= len(caplog.records) <= strangers
