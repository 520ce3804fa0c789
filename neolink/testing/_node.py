# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What the three kinds of node have in common: a listener, a thread for each link, and handlers by message.

A message is handled under the lock of the whole cluster, and answered there too, so that whatever the handlers push to
others leaves in the order in which it happened. That cannot block: a link of a test double queues without bound.

A handler is a method marked with @handles. It returns the answer, or None; it raises Refusal for an Error, and Delay
if the call has to wait until something changes.
"""
from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import neolink
from neolink import errors
from neolink.proto import ErrorCodes, NodeTypes

if TYPE_CHECKING:
    from neolink.testing._state import State

log = logging.getLogger("neolink.testing")

CLOSE_SECONDS = 1.0
"""What a peer gets to read the last words of a link that is closed. It only counts for one that does not read."""

Handler = Callable[[Any, "Call", Any], Any]
H = TypeVar("H", bound=Handler)


class Refusal(Exception):
    """Answer with an Error; `close`: and close the link after it, as NEO does after most."""

    def __init__(self, code: ErrorCodes, text: str = "", close: bool = False) -> None:
        super().__init__(code, text)
        self.code, self.text, self.close = code, text, close


def denied(text: str) -> Refusal:
    """A command that changes nothing."""
    return Refusal(ErrorCodes.DENIED, text)


def protocol_error(text: str) -> Refusal:
    """What NEO hangs up after."""
    return Refusal(ErrorCodes.PROTOCOL_ERROR, text, close=True)


class Delay(Exception):
    """It cannot be answered yet: try again when something has changed."""


def handles(*names: str, roles: tuple[NodeTypes | None, ...] = ()) -> Callable[[H], H]:
    """Mark a method as the handler of these messages, from peers identified as one of `roles`, or from anybody."""
    def mark(method: H) -> H:
        setattr(method, "handles", [(name, roles) for name in names])
        return method
    return mark


class Session:
    """A peer at one of our nodes."""

    def __init__(self, link: neolink.NodeLink) -> None:
        self.link = link
        self.role: NodeTypes | None = None      # set when it has identified itself
        self.nid: int | None = None
        self.read_only = False

    def push(self, message: Any) -> None:
        """Send a notification. A peer that is gone misses it."""
        try:
            self.link.notify(message)
        except errors.LinkError:
            pass

    def hang_up(self) -> None:
        """Close the link, after what was sent."""
        self.link.close(CLOSE_SECONDS)


class Call:
    """A message that wants to be handled."""

    def __init__(self, node: ServerNode, session: Session, request: neolink.Request, message: Any) -> None:
        self.node = node
        self.session = session
        self.request = request
        self.message = message
        self.waited = False         # it has been parked before

    def reply(self, message: Any) -> None:
        """Answer. A peer that is gone misses it."""
        try:
            self.request.reply(message)
            self.request.close()
        except (errors.LinkError, errors.ConnError):
            pass

    def keep(self) -> None:
        """Never answer: the Conn stays open as long as the link, so that the peer is not told that it was closed."""
        with self.node.state.lock:
            self.node.silent.append(self.request)


class ServerNode:
    """A node that listens. Subclasses have the handlers."""

    type: ClassVar[NodeTypes]
    _handlers: ClassVar[dict[str, tuple[Handler, tuple[NodeTypes | None, ...]]]] = {}

    def __init_subclass__(cls) -> None:
        cls._handlers = {name: (method, roles) for base in reversed(cls.__mro__) for method in vars(base).values()
                         for name, roles in getattr(method, "handles", ())}

    def __init__(self, state: State, nid: int, tls: neolink.TLS | None) -> None:
        self.state = state
        self.nid = nid
        self.sessions: list[Session] = []
        self.silent: list[neolink.Request] = []     # never to be answered
        self._tls = tls
        self._listener: neolink.Listener | None = None
        self._threads: list[threading.Thread] = []
        self._address: Any = ("127.0.0.1", 0)
        self._place: socket.socket | None = None    # bound to the address, so that nobody is given it by chance

    # ---- life

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; it stays the same when the node is stopped and started."""
        host, port = self._address[:2]
        return host, port

    @property
    def listening(self) -> bool:
        return self._listener is not None

    def start(self) -> None:
        """Listen, at the same address as before if it was stopped."""
        if self._place is None:
            self._place = socket.socket()
            self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)   # the listener has it, too
            self._place.bind(self._address)
            self._address = self._place.getsockname()
        self._listener = neolink.listen(self._address, tls=self._tls, wire=self.state.wire,
                                        limits=neolink.Limits(link_tx_bytes=None))
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Stop listening and close all links. Does not wait for threads: they may be waiting for the lock."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        for session in list(self.sessions):
            session.hang_up()

    def leave(self) -> None:
        """Stop, and give the address up."""
        self.stop()
        place, self._place = self._place, None
        if place is not None:
            place.close()

    def join(self) -> None:
        """Wait for the threads of a node that was stopped; without the lock. A thread does not wait for itself."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._threads.clear()

    def _spawn(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, name=f"neolink-{self.type.name.lower()}", daemon=True)
        with self.state.lock:                   # a node that is started again may be accepting the last of before
            thread.start()
            self._threads = [each for each in self._threads if each.is_alive()] + [thread]

    def _accept(self, listener: neolink.Listener) -> None:
        for link in listener:
            session = Session(link)
            with self.state.lock:
                if self._listener is not listener:      # stopped while the link was under way
                    link.abort()
                    return
                self.sessions.append(session)
                self._spawn(self._serve, session)

    def _serve(self, session: Session) -> None:
        try:
            while True:
                self._take(session, session.link.recv1())
        except (errors.LinkError, errors.DecodeError, errors.NotAccepting) as error:
            log.debug("%s: a link ended: %s", self.type.name, error)    # a peer that writes nonsense is hung up on
        except BaseException as error:
            self.state.failures.append(error)
            log.exception("%s failed", self.type.name)
        finally:
            session.link.close(CLOSE_SECONDS)
            with self.state.lock:
                self.sessions.remove(session)
                self.silent = [request for request in self.silent if request.conn.link is not session.link]
                self.state.forget(session)
                self.session_ended(session)
                self.state.wake()
                self.state.settle()

    # ---- messages

    def _take(self, session: Session, request: neolink.Request) -> None:
        call = Call(self, session, request, request.message)
        with self.state.lock:
            rule = next((rule for rule in reversed(self.state.rules) if rule.fits(call.message, self)), None)
            if rule is not None:
                rule.requests.append(call.message)
                self.state.changed.notify_all()
        if rule is not None:
            rule.apply(call)        # without the lock: a rule may use the Cluster, or take its time
        else:
            self.handle_now(call)

    def handle_now(self, call: Call) -> None:
        """Handle a message and whatever that wakes."""
        with self.state.lock:
            self.handle(call)
            self.state.settle()

    def handle(self, call: Call) -> None:
        """Do what the node does about a message by itself."""
        try:
            answer = self._find(call)(self, call, call.message)
        except Delay:
            call.waited = True
            self.state.park(call)
            return
        except Refusal as refusal:
            call.reply(self.state.messages.Error(refusal.code, refusal.text))
            if refusal.close:
                call.session.hang_up()
            return
        if answer is not None:
            call.reply(answer)
        elif call.message.kind == "notify":
            call.request.close()

    def _find(self, call: Call) -> Handler:
        handler, roles = self._handlers.get(type(call.message).__name__, (None, ()))
        if handler is None or roles and call.session.role not in roles:
            raise protocol_error(f"unexpected packet: no handler found in {self.handler_name(call.session)}")
        return handler

    @handles("Ping")
    def _ping(self, call: Call, message: Any) -> Any:
        return self.state.messages.Pong()

    # ---- for subclasses

    def handler_name(self, session: Session) -> str:
        """What NEO calls the set of handlers that a peer of this kind meets; part of an Error's text."""
        raise NotImplementedError

    def session_ended(self, session: Session) -> None:
        """A link has ended; called with the lock held."""
