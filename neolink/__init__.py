# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The NEO link layer for Python.

    import neolink
    from neolink import proto

    with neolink.dial("127.0.0.1:24210") as link:            # handshake done, wire detected
        answer = link.ask(proto.AskClusterState())           # a typed message, and its answer
        with link.new_conn() as conn:                        # or packets
            conn.send(code, payload)
            packet = conn.recv(timeout=5)                    # .conn_id .code .payload

A NodeLink is a socket to another node, on which many Conns are multiplexed. Every blocking call takes `timeout` in
seconds: None waits for ever, 0 polls. Every method is safe from any thread.
"""
import atexit

from neolink import _core, _typed
from neolink._core import TLS, Conn, Listener, Packet, Request
from neolink._dial import dial, listen, pair
from neolink._kinds import Address, Limits, LinkStats, Role, WireName
from neolink._link import NodeLink
from neolink._trace import Trace, TraceEvent
from neolink.errors import (
    ConnClosed,
    ConnClosedByPeer,
    ConnError,
    ConnRefused,
    DecodeError,
    DialError,
    EncodeError,
    Error,
    ForkedLink,
    HandshakeError,
    LinkClosed,
    LinkDown,
    LinkError,
    NotAccepting,
    ProtocolError,
    RemoteError,
    Timeout,
    TooBig,
    TooManyConns,
    UnexpectedMessage,
)

__version__ = "0.1.0"

__all__ = [
    "TLS", "Address", "Conn", "ConnClosed", "ConnClosedByPeer", "ConnError", "ConnRefused", "DecodeError",
    "DialError", "EncodeError", "Error", "ForkedLink", "HandshakeError", "Limits", "LinkClosed", "LinkDown",
    "LinkError", "LinkStats", "Listener", "NodeLink", "NotAccepting", "Packet", "ProtocolError", "RemoteError",
    "Request", "Role", "Timeout", "TooBig", "TooManyConns", "Trace", "TraceEvent", "UnexpectedMessage",
    "WireName", "__version__", "dial", "listen", "pair",
]

NodeLink.__module__ = __name__      # where users find it, as the compiled types say of themselves
_core._install(NodeLink, _typed)
atexit.register(_core._shutdown)
