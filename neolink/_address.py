# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses as people write them, made into (family, socket address) pairs for the core.

A string is "host:port", "[::1]:port" or "unix:/path"; several, apart by spaces or commas (NEO's notation for a
cluster's masters), are tried in turn. A tuple is a socket address as the socket module has it: (host, port), or the
four of IPv6.
"""
from __future__ import annotations

from neolink import _core

TYPE_CHECKING = False               # __init__.py says why
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Endpoint: TypeAlias = tuple[int, Any]
    """(family, socket address), the second as the socket module has it."""

_FORMS = '"host:port", "[::1]:port", "unix:/path" or a socket address tuple'


def split(address: str | tuple[Any, ...]) -> list[str | tuple[Any, ...]]:
    """The single addresses in `address`, each checked for its form. ValueError or TypeError says what is wrong."""
    if isinstance(address, tuple):
        _check_tuple(address)
        return [address]
    if not isinstance(address, str):
        raise TypeError(f"address must be {_FORMS}, not {type(address).__name__}")
    # A path may hold blanks and commas, so a string that starts as one is one.
    if address.startswith("unix:"):
        parts = [address]
    else:
        parts = address.replace(",", " ").split()
    if not parts:
        raise ValueError(f"address is empty: it must be {_FORMS}")
    for part in parts:
        parse(part)
    return list(parts)


def parse(text: str) -> tuple[str, int] | str:
    """One address: (host, port), or the path of a Unix socket."""
    if text.startswith("unix:"):
        path = text[len("unix:"):]
        if not path:
            raise ValueError(f"address {text!r} has no path")
        return path
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not rest.startswith(":"):
            raise ValueError(f"address {text!r}: an IPv6 address is written [host]:port")
        port = rest[1:]
    else:
        host, colon, port = text.rpartition(":")
        if not colon:
            raise ValueError(f"address {text!r} has no port: it must be {_FORMS}")
        if ":" in host:
            raise ValueError(f"address {text!r}: an IPv6 address needs brackets, as in [::1]:port")
    if not (port.isascii() and port.isdigit()):
        raise ValueError(f"address {text!r}: the port {port!r} is not a number")
    return host, _check_port(int(port), text)


def resolve(address: str | tuple[Any, ...], *, passive: bool = False) -> list[Endpoint]:
    """All endpoints of one address, in the order to try them. `passive`: for listening, where no host is every host.

    OSError (socket.gaierror) when the name is not known.
    """
    target: Any = parse(address) if isinstance(address, str) else address
    if (endpoint := _core.endpoint(target)) is not None:
        return [endpoint]
    host, port = target[0], target[1]
    if passive and host in ("", "*"):
        return _look_up(None, port, passive)
    if not host:
        raise ValueError(f"address {address!r} has no host to dial")
    return _look_up(host, port, passive)


def _look_up(host: str | None, port: int, passive: bool) -> list[Endpoint]:
    """Ask the resolver."""
    import socket

    flags = socket.AI_PASSIVE if passive else 0
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((int(family), sockaddr) for family, _, _, _, sockaddr in found))


def text(endpoint: Endpoint) -> str:
    """The endpoint as people write it."""
    address = endpoint[1]
    if not isinstance(address, tuple):
        return f"unix:{address}"
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if len(address) == 4 else f"{host}:{port}"


def _check_tuple(address: tuple[Any, ...]) -> None:
    if len(address) not in (2, 4) or not isinstance(address[0], str) or not isinstance(address[1], int):
        raise ValueError(f"address {address!r}: a socket address tuple is (host, port), or IPv6's four")
    _check_port(address[1], address)


def _check_port(port: int, address: object) -> int:
    if not 0 <= port <= 65535:
        raise ValueError(f"address {address!r}: the port must be in 0..65535")
    return port
