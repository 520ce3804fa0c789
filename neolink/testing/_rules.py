# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Cluster.on(): other answers than a well-behaved node's.

A Rule names a message and says what is done about it: a message or Packet is sent as the answer; a callable is called
with the neolink.Request, and what it returns is the answer, where None is none and PASS is what the node would have
answered by itself; an Action does things that no answer can, such as closing the link. The newest rule that fits is
taken.

Nothing here waits for time to pass. An answer that has to come late comes when a Gate is opened.
"""
from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Self

from neolink import _core
from neolink.proto import Message, nid_str

if TYPE_CHECKING:
    from neolink.testing._node import Call, ServerNode
    from neolink.testing._state import State

WAIT_SECONDS = 10.0
"""How long wait() waits when not told: for a loaded machine; what is waited for is usually there in milliseconds."""


class Action:
    """Something done about a message that is more than an answer."""

    def run(self, call: Call) -> None:
        raise NotImplementedError


class _Pass(Action):
    def run(self, call: Call) -> None:
        call.node.handle_now(call)

    def __repr__(self) -> str:
        return "PASS"


class _Silence(Action):
    def run(self, call: Call) -> None:
        call.keep()

    def __repr__(self) -> str:
        return "SILENCE"


class _HangUp(Action):
    def __init__(self, reset: bool) -> None:
        self._reset = reset

    def run(self, call: Call) -> None:
        if self._reset:
            call.session.link.abort()
        else:
            call.session.hang_up()

    def __repr__(self) -> str:
        return "RESET" if self._reset else "HANG_UP"


class Garbage(Action):
    """Bytes that are no packet, written past the link. The default ends a NEO link on either wire."""

    def __init__(self, data: bytes = b"\xc1" * 16) -> None:
        self.data = data

    def run(self, call: Call) -> None:
        with socket.socket(fileno=os.dup(call.session.link.fileno())) as sock:
            sock.sendall(self.data)
        call.keep()


class Gate(Action):
    """Holds back what comes until it is opened, then lets it be answered: by the node itself, or with `reply`.

    Only what matches waits; other messages of the same peer are answered meanwhile.
    """

    def __init__(self, reply: Any = None) -> None:
        self._action: Action = PASS if reply is None else as_action(reply)
        self._held: list[Call] = []
        self._open = False
        self._state: State | None = None

    def run(self, call: Call) -> None:
        self._state = call.node.state
        with self._state.lock:
            if not self._open:
                self._held.append(call)
                return
        self._action.run(call)

    @property
    def held(self) -> int:
        """How many wait."""
        return len(self._held)

    def open(self) -> None:
        """Answer those that wait, in the order in which they came, and whatever comes later at once."""
        self._open = True
        if self._state is None:
            return
        with self._state.lock:
            held, self._held = self._held, []
        for call in held:
            self._action.run(call)


PASS = _Pass()
SILENCE = _Silence()
HANG_UP = _HangUp(reset=False)
RESET = _HangUp(reset=True)


class _Answer(Action):
    """Answers with a message, or with what a callable returns."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply

    def run(self, call: Call) -> None:
        reply = self._reply(call.request) if callable(self._reply) else self._reply
        if isinstance(reply, Action):
            reply.run(call)
        elif reply is None:
            call.keep()
        else:
            call.reply(reply)


def as_action(reply: Any) -> Action:
    """What a reply given to on() means."""
    if isinstance(reply, Action):
        return reply
    if isinstance(reply, (Message, _core.Packet)) or (callable(reply) and not isinstance(reply, type)):
        return _Answer(reply)
    raise TypeError(f"a reply is a message, a Packet, a callable that takes the request, or one of PASS, SILENCE, "
                    f"HANG_UP, RESET, Garbage(…), Gate(…), not {reply!r}")


class Rule:
    """An entry of Cluster.on(). A context manager: leaving it removes the rule."""

    def __init__(self, state: State, message: type[Message], reply: Any, node: str | None, times: int | None) -> None:
        if not (isinstance(message, type) and issubclass(message, Message)):
            raise TypeError(f"on() takes a message class of neolink.proto, not {message!r}")
        if state.wire not in message.codes and not hasattr(state.messages, message.__name__):
            raise ValueError(f"wire {state.wire} has no {message.__name__}: a cluster on it can never receive one")
        if times is not None and times < 1:
            raise ValueError(f"times must be 1 or more, or None for ever, not {times}")
        self.requests: list[Any] = []       # the messages that it was applied to
        self._state = state
        self._name = message.__name__       # by name: on N some have a class of their own
        self._action = as_action(reply)
        self._node = node
        self._times = times

    def fits(self, message: Any, node: ServerNode) -> bool:
        """Whether the rule is for this message at this node."""
        if type(message).__name__ != self._name or self._times == len(self.requests):
            return False
        return self._node is None or self._node in (node.type.name.lower(), nid_str(node.nid))

    def apply(self, call: Call) -> None:
        """Do what the rule says. The caller has counted the message among `requests`, under the lock."""
        self._action.run(call)

    def wait(self, count: int = 1, timeout: float = WAIT_SECONDS) -> None:
        """Return when the rule was applied `count` times. TimeoutError says how often it was."""
        with self._state.changed:
            if not self._state.changed.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{self._name} came {len(self.requests)} times in {timeout:g} s, not {count}")

    def remove(self) -> None:
        """From now on the message is answered as without the rule. Twice is fine."""
        with self._state.lock:
            if self in self._state.rules:
                self._state.rules.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()
