# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Typed messages on top of packets: what a method does when it is given a message instead of a code.

The compiled types call the functions below by name (`_core._install`); each encodes, makes the raw call, and decodes.
The codec is neolink.proto, imported when the first message is used, so that raw packets never pay for it.

An Error answer raises RemoteError, except that the prototype's two texts have classes of their own (ConnRefused,
ConnClosedByPeer), and that a request whose declared answer is Error gets it back when it says ACK.
"""
from __future__ import annotations

import time

from neolink import _core, errors

TYPE_CHECKING = False               # __init__.py says why
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType
    from typing import Any, NoReturn

    from neolink import Conn, NodeLink, Packet, Request

_codec: ModuleType | None = None
askings: dict[str, dict[type, Any]] = {"M": {}, "N": {}}
"""By wire and class, what it takes to ask by such a message (proto.coding.Asking): filled as they are used, and never
emptied. The compiled NodeLink.ask looks here first."""


def _proto() -> Any:
    """neolink.proto, which is not needed for raw packets and so not imported with the package."""
    global _codec
    if _codec is None:
        try:
            from neolink import proto
        except ImportError as error:
            raise RuntimeError(f"typed messages need neolink.proto, which cannot be imported: {error}") from error
        _codec = proto
    return _codec


class Deadline:
    """The end of a timeout that several calls share. The compiled calls have checked the timeout's type and sign."""

    def __init__(self, timeout: float | None) -> None:
        try:
            self._end = None if timeout is None else time.monotonic() + float(timeout)
        except OverflowError:
            self._end = None                # an int too large for a float is as good as for ever

    def left(self) -> float | None:
        """The seconds left: None for ever, 0 when over."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())


# ---- the functions that the compiled types call


def link_ask(link: NodeLink, message: Any, timeout: float | None) -> Any:
    """NodeLink.ask(message), the first of its class on this wire, or when something is wrong with it."""
    code, payload = _encode(link, message, "ask")
    _check_asks(message)
    _learn(link.wire, type(message))
    return _answer(link, message, link.ask(code, payload, timeout=timeout), "ask")


def link_answer(link: NodeLink, message: Any, packet: Packet) -> Any:
    """What NodeLink.ask(message) returns or raises when another answer came than is declared, or a broken one."""
    return _answer(link, message, packet, "ask")


def link_notify(link: NodeLink, message: Any, timeout: float | None) -> None:
    """NodeLink.notify(message)"""
    code, payload = _encode(link, message, "notify")
    link.notify(code, payload, timeout=timeout)


def conn_send(conn: Conn, message: Any, timeout: float | None) -> None:
    """Conn.send(message)"""
    code, payload = _encode(conn.link, message, "send", conn.conn_id)
    conn.send(code, payload, timeout=timeout)


def conn_ask(conn: Conn, message: Any, timeout: float | None) -> Any:
    """Conn.ask(message)"""
    deadline = Deadline(timeout)
    conn.send(message, timeout=timeout)
    if isinstance(message, _core.Packet):
        return conn.recv(deadline.left())
    _check_asks(message)
    return _answer(conn.link, message, conn.recv(deadline.left()), "ask")


def conn_expect(conn: Conn, types: Sequence[type], timeout: float | None) -> Any:
    """Conn.expect(*types)"""
    if not types:
        raise TypeError("expect() needs at least one message class")
    for cls in types:
        if not isinstance(cls, type):
            raise TypeError(f"expect() takes message classes, not {cls!r}")
    packet = conn.recv(timeout)
    message = _decode(conn.link, packet, "expect")
    if _is_one_of(message, types):
        return message
    if isinstance(message, _proto().Error):
        _raise_remote(conn.link, packet, message, "expect")
    _raise_unexpected(conn.link, packet, message, types, "expect")


def request_reply(request: Request, message: Any, timeout: float | None) -> None:
    """Request.reply(message)"""
    conn = request.conn
    code, payload = _encode(conn.link, message, "reply", conn.conn_id)
    request.reply(code, payload, timeout=timeout)


def packet_message(packet: Packet) -> Any:
    """Packet.message"""
    if packet._wire is None:
        raise errors.DecodeError("a Packet made by hand came by no wire: use proto.decode(code, payload, wire)")
    return _proto().decode(packet.code, packet.payload, packet._wire)


# ---- many at once


def ask_many(link: NodeLink, requests: Iterable[Any], timeout: float | None, return_exceptions: bool) -> list[Any]:
    """NodeLink.ask_many"""
    asked = tuple(requests)
    answers = link._ask_many(asked, timeout, return_exceptions)
    return _ask_messages(link, asked, timeout, return_exceptions) if answers is None else answers


def _ask_messages(link: NodeLink, asked: tuple[Any, ...], timeout: float | None, return_exceptions: bool) -> list[Any]:
    """The same when messages are among them."""
    packets = tuple([_packet(link, request, "ask_many") for request in asked])
    for request in asked:
        if not isinstance(request, _core.Packet):
            _check_asks(request)
    outcomes: list[Any] = []
    for request, outcome in zip(asked, link._ask_many(packets, timeout, True) or (), strict=True):
        if isinstance(outcome, _core.Packet) and not isinstance(request, _core.Packet):
            try:
                outcome = _answer(link, request, outcome, "ask_many")
            except errors.Error as error:
                outcome = error
        if isinstance(outcome, Exception) and not return_exceptions:
            raise outcome
        outcomes.append(outcome)
    return outcomes


def notify_many(link: NodeLink, messages: Iterable[Any], timeout: float | None) -> None:
    """NodeLink.notify_many"""
    told = tuple(messages)
    if not link._notify_many(told, timeout):
        link._notify_many(tuple([_packet(link, message, "notify_many") for message in told]), timeout)


# ---- between messages and packets


def _packet(link: NodeLink, message: Any, op: str) -> Packet:
    return message if isinstance(message, _core.Packet) else _core.Packet(*_encode(link, message, op))


def _encode(link: NodeLink, message: Any, op: str, conn_id: int | None = None) -> tuple[int, bytes]:
    """(code, payload) of a message on this link's wire."""
    if getattr(message, "kind", None) is None or isinstance(message, type):
        raise TypeError(f"{op}() takes a code (int) and a payload, a Packet, or a message of neolink.proto, "
                        f"not {message!r}")
    try:
        encoded: tuple[int, bytes] = _proto().encode(message, link.wire)
    except errors.EncodeError as error:
        _locate(error, link, conn_id, op)
        raise
    return encoded


def _decode(link: NodeLink, packet: Packet, op: str) -> Any:
    try:
        return _proto().decode(packet.code, packet.payload, link.wire)
    except errors.DecodeError as error:
        _locate(error, link, packet.conn_id, op)
        raise


def _learn(wire: str, cls: type) -> None:
    """For the next message of this class, if its declared answer is one that is not looked at further."""
    proto = _proto()
    asking = proto.coding.asking(cls, wire)
    if asking is not None and asking.answer != proto.Error.codes[wire]:
        askings[wire].setdefault(cls, asking)


def _check_asks(message: Any) -> None:
    if message.kind != "request":
        raise TypeError(f"{type(message).__name__} is no request, so it has no answer: use notify() or send()")


def _answer(link: NodeLink, request: Any, packet: Packet, op: str) -> Any:
    """The typed answer to `request`, or an exception."""
    proto = _proto()
    answer, declared = _decode(link, packet, op), request.answers.get(link.wire)
    if isinstance(answer, proto.Error):
        if declared is not None and issubclass(declared, proto.Error) and answer.code == proto.ErrorCodes.ACK:
            return answer
        _raise_remote(link, packet, answer, op)
    if declared is not None and not _is_one_of(answer, (declared,)):
        _raise_unexpected(link, packet, answer, (declared,), op)
    return answer


def _is_one_of(message: Any, types: Sequence[type]) -> bool:
    """By class, or by name: where a message differs on N, its class there is one of proto.n6 with M's name."""
    return isinstance(message, tuple(types)) or type(message).__name__ in [cls.__name__ for cls in types]


def _raise_remote(link: NodeLink, packet: Packet, answer: Any, op: str) -> NoReturn:
    proto = _proto()
    error: errors.Error
    where = f"{op} on Conn {packet.conn_id} of link {link!r}"
    if answer.code == proto.ErrorCodes.PROTOCOL_ERROR and answer.message == "connection refused":
        error = errors.ConnRefused(f"{where}: the peer accepts no Conns")
    elif answer.code == proto.ErrorCodes.PROTOCOL_ERROR and answer.message == "connection closed":
        error = errors.ConnClosedByPeer(f"{where}: the peer has closed this Conn")
    else:
        name = getattr(answer.code, "name", answer.code)
        error = errors.RemoteError(f"{where}: the peer answered {name}: {answer.message}")
        error.code, error.message = answer.code, answer.message
    _locate(error, link, packet.conn_id, op)
    raise error


def _raise_unexpected(link: NodeLink, packet: Packet, message: Any, types: Sequence[type], op: str) -> NoReturn:
    expected = " or ".join(cls.__name__ for cls in types)
    error = errors.UnexpectedMessage(f"{op} on Conn {packet.conn_id} of link {link!r}: expected {expected}, "
                                     f"got {type(message).__name__}")
    error.packet = packet
    _locate(error, link, packet.conn_id, op)
    raise error


def _locate(error: errors.Error, link: NodeLink, conn_id: int | None, op: str) -> None:
    error.link, error.conn_id, error.op = link, conn_id, op
