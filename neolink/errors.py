# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong, as a tree.

Every error derives from Error and from the standard exception people already catch::

    Error
    ├── LinkError               ConnectionError             it concerns the whole link
    │   ├── LinkClosed                                      closed by us
    │   ├── LinkDown                                        ended by the peer or the network
    │   │   └── ProtocolError                               … because the peer broke the protocol
    │   └── DialError                                       no address could be reached
    │       └── HandshakeError                              reached, but not a NEO node we can talk to
    ├── ConnError               ConnectionError             it concerns one Conn
    │   ├── ConnClosed                                      closed by us
    │   ├── ConnClosedByPeer    ConnectionResetError        "connection closed"
    │   └── ConnRefused         ConnectionRefusedError      "connection refused"
    ├── NotAccepting                                        accept() after close_accept()
    ├── Timeout                 TimeoutError
    ├── TooBig                  ValueError
    ├── TooManyConns            OSError
    ├── ForkedLink              RuntimeError                a parent's link used in a forked child
    ├── RemoteError                                         the peer answered with NEO's Error message
    ├── UnexpectedMessage                                   the peer sent a message nobody asked for
    ├── DecodeError             ValueError
    └── EncodeError             ValueError

The text of an error says what was attempted, where, what came in the way and what to do; `link`, `conn_id` and `op` say
the same to programs, and `__cause__` is the OSError behind it, if there is one.
"""
from __future__ import annotations

TYPE_CHECKING = False               # __init__.py says why
if TYPE_CHECKING:
    from typing import Any

    from neolink import NodeLink, Packet


class Error(Exception):
    """Whatever neolink raises by itself."""

    link: NodeLink | None = None
    """The link it happened on, if there was one."""
    conn_id: int | None = None
    """The id of the Conn it happened on, if there was one."""
    op: str | None = None
    """What was attempted: "send", "recv", "ask", "dial", …"""


class LinkError(Error, ConnectionError):
    """It concerns the whole link."""


class LinkClosed(LinkError):
    """The link was closed by us."""


class LinkDown(LinkError):
    """The link was ended by the peer or the network; `__cause__` has the OSError, if any."""

    clean: bool = False
    """It ended between two packets, as when the peer closes it."""


class ProtocolError(LinkDown):
    """The peer broke the protocol; the text says what was read, and at which byte."""


class DialError(LinkError):
    """No address could be reached; the text has the reason for each."""


class HandshakeError(DialError):
    """Somebody was reached, but not a NEO node we can talk to."""

    ours: Any = None
    """What we speak, in words."""
    theirs: Any = None
    """What the peer speaks, in words: "NEO N protocol 6", "HTTP", "TLS"."""


class ConnError(Error, ConnectionError):
    """It concerns one Conn; the link lives on."""


class ConnClosed(ConnError):
    """The Conn was closed by us."""


class ConnClosedByPeer(ConnError, ConnectionResetError):
    """The peer answered "connection closed": the Conn is closed there."""


class ConnRefused(ConnError, ConnectionRefusedError):
    """The peer answered "connection refused": nobody accepts there."""


class NotAccepting(Error):
    """accept() on an end that accepts no Conns."""


class Timeout(Error, TimeoutError):
    """The time given was over."""

    maybe_sent: bool = False
    """False: the packet surely did not leave."""


class TooBig(Error, ValueError):
    """A packet is larger than Limits.packet_bytes, or a Conn holds more than Limits.conn_rx_bytes."""


class TooManyConns(Error, OSError):
    """As many Conns are open as Limits.conns allows, or no id is free."""


class ForkedLink(Error, RuntimeError):
    """A parent's link was used in a forked child. Make a new link there."""


class RemoteError(Error):
    """The peer answered with NEO's Error message."""

    code: Any = None
    """The proto.ErrorCodes member, or the number where there is none."""
    message: str = ""
    """What the peer wrote."""


class UnexpectedMessage(Error):
    """A message came that is not among those expected."""

    packet: Packet
    """The packet it came in; packet.message is the message."""


class DecodeError(Error, ValueError):
    """A received payload is not the message its code names."""


class EncodeError(Error, ValueError):
    """A message or payload cannot be sent on this wire."""
