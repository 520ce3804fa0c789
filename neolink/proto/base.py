# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What all messages have in common, and how a class becomes a message.

A message is a msgspec Struct: construction, comparison, repr and match come from there, at C speed. The fields are laid
out as an array, so that msgspec can pack most messages of wire M as they are.

`request`, `answer` and `notify` enter a class into the catalogue of each wire under the code given there:

    @request(M=0x2e, N=0x2e)
    class AskClusterState(Message): ...

    @answer(AskClusterState, M=0x802e, N=0x802e)
    class AnswerClusterState(Message): ...

Constructing a message checks the number and the names of its fields (TypeError), not their values: those are checked
when it is encoded. A test double that has to send a wrong value builds it and encodes it with check=False.
"""
from collections.abc import Callable
from typing import ClassVar, Literal, TypeVar

import msgspec

from .kinds import Wire

C = TypeVar("C", bound="type[Message]")


class Message(msgspec.Struct, array_like=True):
    """Base of all messages."""
    kind: ClassVar[Literal["request", "answer", "notify"]]
    codes: ClassVar[dict[Wire, int]] = {}       # by wire; a wire that is missing does not have this message
    answers: ClassVar[dict[Wire, "type[Message]"]] = {}     # of a request: the class that answers it, by wire
    answer: ClassVar["type[Message] | None"] = None     # the same on M, or on N if M does not have it
    ignored_on_close: ClassVar[bool] = False    # NEO/py drops it when it arrives on a connection it has closed

    def verify(self) -> None:
        """Raise Mismatch if the fields, each right for itself, do not fit together. Called before encoding."""


CATALOGUE: dict[Wire, dict[int, type[Message]]] = {"M": {}, "N": {}}


def request(*, M: int | None = None, N: int | None = None, answer: type[Message] | None = None,
            ignored_on_close: bool = True) -> Callable[[C], C]:
    """A message that is answered: by the class that says so with @answer, or by `answer` if that one answers several:
    Error, and the answers that M and N share while their questions differ."""
    def enter(cls: C) -> C:
        _enter(cls, "request", M, N)
        cls.answer = answer
        cls.answers = {wire: answer for wire in cls.codes} if answer else {}
        cls.ignored_on_close = ignored_on_close
        return cls
    return enter


def answer(question: type[Message] | None, *, M: int | None = None, N: int | None = None) -> Callable[[C], C]:
    """The answer to `question`; Error alone answers none in particular."""
    def enter(cls: C) -> C:
        _enter(cls, "answer", M, N)
        if question is not None:
            question.answers.update((wire, cls) for wire in cls.codes if wire in question.codes)
            question.answer = question.answer or cls
        return cls
    return enter


def notify(*, M: int | None = None, N: int | None = None) -> Callable[[C], C]:
    """A message that is not answered."""
    def enter(cls: C) -> C:
        _enter(cls, "notify", M, N)
        return cls
    return enter


def _enter(cls: type[Message], kind: Literal["request", "answer", "notify"], code_m: int | None,
           code_n: int | None) -> None:
    cls.kind, cls.codes, cls.answers, cls.answer, cls.ignored_on_close = kind, {}, {}, None, False
    wires: list[tuple[Wire, int | None]] = [("M", code_m), ("N", code_n)]
    for wire, code in wires:
        if code is not None:
            cls.codes[wire] = code
            if CATALOGUE[wire].setdefault(code, cls) is not cls:
                raise TypeError(f"{cls.__name__} and {CATALOGUE[wire][code].__name__} share code {code:#x} of {wire}")
