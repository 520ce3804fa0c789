# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""How links come to be: dial(), listen(), pair().

An address may name several nodes, and a name may have several addresses; they are tried one after the other within one
deadline. Each gets an equal share of the time that is left, so the first one's silence does not cost the others theirs.
"""
from __future__ import annotations

from neolink import _address, _core, errors
from neolink._link import NodeLink
from neolink._typed import Deadline

TYPE_CHECKING = False               # __init__.py says why
if TYPE_CHECKING:
    from typing import Literal

    from neolink._kinds import AcceptMode, Address, KeepAlive, Limits, Routing, WireName

DIAL_SECONDS = 30.0
"""A dial that takes longer is not going to succeed, and a script should say so."""
HANDSHAKE_SECONDS = 10.0
"""A peer that has connected has its opening ready; this is for a slow network, not for a slow peer."""
BACKLOG = 128


def dial(address: Address, *, timeout: float | None = DIAL_SECONDS, tls: _core.TLS | None = None,
         wire: WireName | Literal["auto"] = "auto", version: int | None = None, routing: Routing | None = None,
         accept: AcceptMode = "queue", keepalive: KeepAlive = (60, 10, 3), limits: Limits | None = None) -> NodeLink:
    """Connect to a node and shake hands.

    `address` is "host:port", "[::1]:port", "unix:/path" or a socket address tuple; of several ("a:1 b:1" or
    "a:1,b:1") the first that answers is taken. On `wire` "auto" it finds out what the node speaks, and may connect up to
    three times for that: a node that says nothing, for 500 ms not even to an opening of wire M, may be one of NEO/go,
    which wants another connection. Who knows the wire gives it.

    Raises Timeout when the time is over, HandshakeError when somebody was reached who is no NEO node we can talk to,
    DialError when nobody was reached.
    """
    deadline = Deadline(_checked(timeout))
    failures: list[tuple[str, Exception]] = []
    targets = _address.split(address)
    for place, target in enumerate(targets):
        try:
            endpoints = _address.resolve(target)
        except OSError as error:
            failures.append((str(target), error.with_traceback(None)))
            continue
        for nth, endpoint in enumerate(endpoints):
            to_try = len(endpoints) - nth + len(targets) - place - 1
            try:
                return _core.Dialer(endpoint, tls=tls, wire=wire, version=version, routing=routing, accept=accept,
                                    keepalive=keepalive, limits=limits).wait(_share(deadline.left(), to_try))
            except (errors.Timeout, errors.HandshakeError, OSError) as error:
                # without its traceback, which would refer to this frame, and this frame to it
                failures.append((_address.text(endpoint), error.with_traceback(None)))
    raise _failure(address, failures, deadline)


def listen(address: Address, *, backlog: int = BACKLOG, tls: _core.TLS | None = None,
           wire: WireName | Literal["auto"] = "auto", version: int | None = None, routing: Routing | None = None,
           accept: AcceptMode = "queue", keepalive: KeepAlive = (60, 10, 3),
           handshake_timeout: float | None = HANDSHAKE_SECONDS, limits: Limits | None = None) -> _core.Listener:
    """Listen for nodes. `address` as for dial(), but one; no host, or "*", is every interface, port 0 any free port.

    An address that is in use is an OSError that names it.
    """
    targets = _address.split(address)
    if len(targets) > 1:
        raise ValueError(f"address {address!r}: a listener has one address")
    failure: OSError | None = None
    for endpoint in _address.resolve(targets[0], passive=True):
        try:
            return _core.Listener(endpoint, backlog=backlog, tls=tls, wire=wire, version=version, routing=routing,
                                  accept=accept, keepalive=keepalive, handshake_timeout=handshake_timeout,
                                  limits=limits)
        except OSError as error:
            if failure is None:
                failure = OSError(error.errno, f"cannot listen on {_address.text(endpoint)}: {error.strerror}")
                failure.__cause__ = error
    assert failure is not None
    raise failure


def pair(*, wire: WireName = "M", routing: Routing | None = None, limits: Limits | None = None,
         accept: AcceptMode = "queue", raw: bool = False) -> tuple[NodeLink, NodeLink]:
    """Two connected ends in this process, (client, server): for tests, and to see how it works."""
    import socket

    ends = socket.socketpair()
    links: list[NodeLink] = []
    try:
        for end, role in zip(ends, ("client", "server"), strict=True):
            links.append(NodeLink(end, role, wire=wire, routing=routing, limits=limits, accept=accept, raw=raw))
    except BaseException:
        for link in links:
            link.abort()
        for end in ends:
            end.close()
        raise
    return links[0], links[1]


def _checked(timeout: float | None) -> float | None:
    """Complain about a bad timeout before anything is looked up."""
    _core.check_timeout(timeout)
    return timeout


def _share(left: float | None, to_try: int) -> float | None:
    return None if left is None else left / to_try


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _failure(address: Address, failures: list[tuple[str, Exception]], deadline: Deadline) -> errors.Error:
    """What a dial raises that reached nobody: the story of each try, and the last OSError as its cause."""
    story = "; ".join(f"{where}: {_reason(error)}" for where, error in failures)
    handshakes = [error for _, error in failures if isinstance(error, errors.HandshakeError)]
    failure: errors.Error
    if deadline.left() == 0 and isinstance(failures[-1][1], errors.Timeout):
        failure = errors.Timeout(f"dial {address}: timed out ({story})")
    elif handshakes:
        failure = errors.HandshakeError(f"dial {address}: {story}")
        failure.ours, failure.theirs = handshakes[-1].ours, handshakes[-1].theirs
    else:
        failure = errors.DialError(f"dial {address}: no address could be reached ({story})")
    failure.op = "dial"
    causes = [error for _, error in failures if isinstance(error, OSError) and not isinstance(error, errors.Error)]
    causes += [error.__cause__ for error in handshakes if isinstance(error.__cause__, OSError)]
    failure.__cause__ = causes[-1] if causes else None
    return failure
