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
from neolink._link import NodeLink
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

# Short programs spend most of their time importing. So to import the package loads what a raw link needs, and no heavy
# module of the standard library: functions import those that they need, and names that only type checkers need are
# imported under TYPE_CHECKING, which type checkers take for true wherever it comes from; typing's own costs all of
# typing. The public names in _LATER are loaded when they are first asked for.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from neolink._kinds import Address, Limits, LinkStats, Role, WireName
    from neolink._trace import Trace, TraceEvent

__version__ = "0.1.0"

__all__ = [
    "TLS", "Address", "Conn", "ConnClosed", "ConnClosedByPeer", "ConnError", "ConnRefused", "DecodeError",
    "DialError", "EncodeError", "Error", "ForkedLink", "HandshakeError", "Limits", "LinkClosed", "LinkDown",
    "LinkError", "LinkStats", "Listener", "NodeLink", "NotAccepting", "Packet", "ProtocolError", "RemoteError",
    "Request", "Role", "Timeout", "TooBig", "TooManyConns", "Trace", "TraceEvent", "UnexpectedMessage",
    "WireName", "__version__", "dial", "listen", "pair",
]

_LATER = {"Address": "_kinds", "Limits": "_kinds", "LinkStats": "_kinds", "Role": "_kinds", "WireName": "_kinds",
          "Trace": "_trace", "TraceEvent": "_trace"}

if not TYPE_CHECKING:               # else any misspelled name would pass the type checker
    def __getattr__(name):
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


NodeLink.__module__ = __name__      # where users find it, as the compiled types say of themselves
_core._install(NodeLink, _typed)
atexit.register(_core._shutdown)
