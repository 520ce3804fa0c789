# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""`neolink ctl print cluster` in a hurry.

It is what scripts ask in loops, and to import argparse and the typed messages costs more than to start Python, to dial
and to ask together. So the few words that such a command is made of are read here by hand, and the question goes out as
a raw packet. Whatever else is asked or answered is left to the long way, which asks again and knows what to make of it.
"""
from __future__ import annotations

import os
import sys

import neolink

TYPE_CHECKING = False               # neolink/__init__.py says why
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_ADMIN = "127.0.0.1:9999"        # neoctl's own
DEFAULT_PORT = 9999
CALL_SECONDS = 10.0

_OPTIONS = {"-a": ("address", 1), "--address": ("address", 1), "--timeout": ("timeout", 1), "--tls": ("tls", 3)}
"""The options that are known here, and how many words each takes."""

ASK_CLUSTER_STATE, ANSWER_CLUSTER_STATE = 0x2E, 0x802E      # on M and on N
STATES = ("RECOVERING", "VERIFYING", "RUNNING", "STOPPING", "STARTING_BACKUP", "BACKINGUP", "STOPPING_BACKUP")
"""proto.ClusterStates, by number."""
_NUMBERS = [bytes([number]) for number in range(len(STATES))]
_BEFORE = {"M": b"\x91\xd4\x01", "N": b""}
"""What stands before the number: on M an array of one, and an extension of one byte, of type 1 for this enum."""


def run(words: Sequence[str]) -> int | None:
    """Do what these words after `ctl` say. The exit status, or None for the long way."""
    options = _plain(words)
    if options is None or sys.stdout.isatty():
        return None
    files = options.get("tls")
    try:
        timeout = float(options["timeout"][0]) if "timeout" in options else CALL_SECONDS
    except ValueError:
        return None
    try:
        where = address(options["address"][0] if "address" in options else None)
        state = _cluster_state(where, neolink.TLS(*files) if files else None, timeout)
    except Exception as error:
        from argparse import Namespace

        from neolink.cli import ctl

        return ctl.failed(error, Namespace(json=False, watch=False, tls=files))
    if state is None:
        return None
    print(state)
    return 0


def _plain(words: Sequence[str]) -> dict[str, list[str]] | None:
    """The options of a `print cluster` that has no others than these, or None."""
    options: dict[str, list[str]] = {}
    command: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, count = _OPTIONS.get(word, ("", 0))
        values, left = left[:count], left[count:]
        if len(values) < count or any(value.startswith("-") for value in values):
            return None
        if count:
            options[name] = values
        else:
            command.append(word)
    return options if command == ["print", "cluster"] else None


def address(given: str | None) -> str:
    """The admin's address(es): as given, of the environment, or the usual. As with neoctl, the port may be left out."""
    given = given or os.environ.get("NEOLINK_ADMIN") or DEFAULT_ADMIN
    if given.startswith("unix:"):
        return given
    return " ".join(_with_port(one) for one in given.replace(",", " ").split())


def _with_port(one: str) -> str:
    host = one.rpartition("]")[2] if one.startswith("[") else one
    return one if ":" in host else f"{one}:{DEFAULT_PORT}"


def _cluster_state(address: str, tls: neolink.TLS | None, timeout: float) -> str | None:
    """The state, or None for the long way. What happens to the link raises as it does there."""
    with neolink.dial(address, tls=tls, timeout=timeout, accept="ignore") as link:
        if link.wire not in _BEFORE:
            return None
        packet = link.ask(ASK_CLUSTER_STATE, timeout=timeout)
        before, number = bytes(packet.payload[:-1]), bytes(packet.payload[-1:])
        if packet.code != ANSWER_CLUSTER_STATE or before != _BEFORE[link.wire] or number not in _NUMBERS:
            return None
        return STATES[number[0]]
