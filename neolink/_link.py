# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""NodeLink as users see it: the compiled link, and what needs no C."""
from __future__ import annotations

from neolink import _core, _typed

TYPE_CHECKING = False               # __init__.py says why
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable
    from typing import Any

    from neolink import TLS, Conn, Request, _serve
    from neolink._kinds import AcceptMode, KeepAlive, Limits, LinkStats, Role, Routing, WireName


class NodeLink(_core.NodeLink):
    """A link between two nodes, on which many Conns are multiplexed.

    NodeLink(sock, role) takes over an established stream socket: TCP, Unix, or one end of socketpair(). A socket
    object is detached, an int belongs to the link from then on, unless the constructor raises. dial(), listen() and
    pair() are the usual ways to get a link. `timeout` is for the handshake of TLS only.

    `keepalive` is for TCP: (idle seconds, interval seconds, probes), or None to leave the socket's own. A peer that is
    gone is found in idle + interval * probes seconds, also while a send waits for it.

    A context manager; iterating it accepts Conns until the link closes or close_accept() is called.
    """

    _pool: _serve.ConnPool | None = None

    def __init__(self, sock: socket.socket | int, role: Role | str, *, wire: WireName = "2016",
                 routing: Routing | None = None, accept: AcceptMode = "queue", tls: TLS | None = None,
                 keepalive: KeepAlive = (60, 10, 3), limits: Limits | None = None, raw: bool = False,
                 timeout: float | None = 30.0, _first_id: int = 0) -> None:
        fd, let_go = (sock, None) if isinstance(sock, int) else _descriptor(sock)
        if fd < 0:
            raise ValueError("sock is closed")
        role = str(getattr(role, "value", role))        # a Role, without importing enum for it
        super().__init__(fd, role, wire=wire, routing=routing, accept=accept, tls=tls, keepalive=keepalive,
                         limits=limits, raw=raw, timeout=timeout, first_id=_first_id,
                         let_go=let_go)

    @property
    def role(self) -> Role:  # type: ignore[override]
        """Which end this is."""
        from neolink._kinds import Role

        return Role(super().role)

    def handle_new_conn(self, handler: Callable[[Conn], object] | None, *, workers: int | None = None) -> None:
        """Serve each Conn the peer opens by handler(conn) on a thread of a growing pool.

        There are at most `workers` threads (None: 256). Conns that wait for accept() are served too. The handler can
        be changed while traffic runs, or removed (None): when that returns, later Conns wait for accept() again. The
        Conn is closed when the handler returns. What it raises goes to threading.excepthook, except LinkError and
        ConnError of its own link or Conn, which end it silently. Python's own hook gets one of each kind a second,
        and the log says how many more there were; a hook of the program's own gets them all.
        """
        from neolink import _serve

        limit = check_workers(_serve.WORKERS_MAX if workers is None else workers)
        if handler is not None and not callable(handler):
            raise TypeError(f"handler must be callable or None, not {type(handler).__name__}")
        if self._pool is None:
            if handler is None:
                return
            # setdefault is one step: two threads that come here first get the same pool
            self.__dict__.setdefault("_pool", _serve.ConnPool(self))
        assert self._pool is not None
        self._pool.set(handler, limit)

    def serve(self, handler: Callable[[Request], object], *, workers: int = 1) -> None:
        """Take requests and call handler(request) until the link ends.

        A value the handler returns is sent as the reply: a Packet or a message; None sends nothing. What it raises
        goes to threading.excepthook as in handle_new_conn, and the request's Conn is closed. Returns when the link is
        closed or ended between two packets, or after close_accept(); other ends raise. With more workers as many
        requests are handled at once.
        """
        from neolink import _serve

        if not callable(handler):
            raise TypeError(f"handler must be callable, not {type(handler).__name__}")
        _serve.serve(self, handler, check_workers(workers))

    def ask_many(self, requests: Iterable[Any], *, timeout: float | None = None,
                 return_exceptions: bool = False) -> list[Any]:
        """Ask them all at once, pipelined on this link; the answers in the order of `requests`.

        A request is a typed message or a Packet, whose conn_id is ignored; a Packet is answered by a Packet. The first
        failure in that order is raised, or with return_exceptions each failure stands in its place.
        """
        return _typed.ask_many(self, requests, timeout, return_exceptions)

    def notify_many(self, messages: Iterable[Any], *, timeout: float | None = None) -> None:
        """Send them all, gathered into as few writes as they fit in; blocks only for the link's transmit budget."""
        _typed.notify_many(self, messages, timeout)

    def stats(self) -> LinkStats:
        """A consistent snapshot of the link's counters."""
        from neolink._kinds import LinkStats

        return LinkStats._make(self._stats())

    @property
    def aio(self) -> Any:
        """The asyncio face of this very link, see neolink.aio."""
        from importlib import import_module

        return import_module("neolink.aio").of(self)    # by name: asyncio is imported by those who use it only


def _descriptor(sock: socket.socket) -> tuple[int, Callable[[], int]]:
    """The socket's descriptor, and how it is told that it has it no more.

    That is the built-in detach(); the class's own is Python, and may fail, or be interrupted, before it did anything.
    """
    import socket

    if not isinstance(sock, socket.socket):
        raise TypeError(f"sock must be a socket or a descriptor, not {type(sock).__name__}")
    return sock.fileno(), super(socket.socket, sock).detach


def check_workers(workers: int) -> int:
    """`workers`, or an exception that says what is wrong with it."""
    if not isinstance(workers, int):
        raise TypeError(f"workers must be an int, not {type(workers).__name__}")
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    return workers
