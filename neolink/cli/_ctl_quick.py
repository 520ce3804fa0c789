# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""`print cluster` in a hurry.

It is what scripts ask in loops, and to import the typed messages costs more than to start, dial and ask together. So
this one question goes out as a raw packet. Only the plain answer is understood here; all else, an Error for one, is
left to the long way, which asks again and knows what to make of it.
"""
from __future__ import annotations

import neolink

ASK_CLUSTER_STATE, ANSWER_CLUSTER_STATE = 0x2E, 0x802E      # on M and on N
STATES = ("RECOVERING", "VERIFYING", "RUNNING", "STOPPING", "STARTING_BACKUP", "BACKINGUP", "STOPPING_BACKUP")
"""proto.ClusterStates, by number."""
_NUMBERS = [bytes([number]) for number in range(len(STATES))]
_BEFORE = {"M": b"\x91\xd4\x01", "N": b""}
"""What stands before the number: on M an array of one, and an extension of one byte, of type 1 for this enum."""


def cluster_state(address: str, tls: neolink.TLS | None, timeout: float) -> str | None:
    """The state, or None for the long way. What happens to the link raises as it does there."""
    with neolink.dial(address, tls=tls, timeout=timeout, accept="ignore") as link:
        if link.wire not in _BEFORE:
            return None
        packet = link.ask(ASK_CLUSTER_STATE, timeout=timeout)
        before, number = bytes(packet.payload[:-1]), bytes(packet.payload[-1:])
        if packet.code != ANSWER_CLUSTER_STATE or before != _BEFORE[link.wire] or number not in _NUMBERS:
            return None
        return STATES[number[0]]
