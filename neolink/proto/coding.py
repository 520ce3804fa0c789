# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Messages to packets and back: where declarations, checks and the two codecs meet.

What a class needs on a wire (its kinds, checks and codec functions) is put together when it is first used there, so
that importing the catalogue costs little; two threads that do so at once build the same thing twice.
"""
import struct
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_type_hints

from msgspec.structs import astuple

from ..errors import DecodeError, EncodeError
from . import codec_m, codec_n
from .base import CATALOGUE, Message
from .kinds import Kind, Mismatch, Wire, checker, kind_of

WireName = Literal["2016", "N", "M"]
Encode = Callable[[Message], bytes]
Decode = Callable[[Any], Message]

# what the codecs raise at values that were not checked
UNPACKABLE = (TypeError, ValueError, AttributeError, KeyError, OverflowError, RecursionError, struct.error)


def encode(message: Message, wire: WireName, *, check: bool = True) -> tuple[int, bytes]:
    """The code and payload of a message on a wire.

    EncodeError names the field if a value has the wrong type, does not fit the wire, or is known to end the NEO node
    that receives it. With check=False whatever can be packed is packed: for test doubles that misbehave on purpose.
    (What no message can express, such as a missing field, they send as a raw code and payload.)
    """
    try:
        code, checked, unchecked = _encoders[wire, type(message)]
    except TypeError:
        raise EncodeError(f"{wire!r} is not the name of a wire: expected 'M' or 'N'") from None
    try:
        return code, checked(message) if check else unchecked(message)
    except EncodeError:
        raise
    except UNPACKABLE as error:
        raise EncodeError(f"{message!r:.200} cannot be written on wire {wire}: {error}") from error


def decode(code: int, payload: Any, wire: WireName) -> Message:
    """The message of a packet: `payload` is bytes-like, on M the msgpack array of fields (b"" stands for none).

    DecodeError names the message, the field, what was expected and what came; also for a code that the catalogue of the
    wire does not have. An error code of a newer node is kept as an int; any other enum value that is not known here,
    and bytes behind the last field, are a DecodeError.
    """
    try:
        decoder = _decoders[wire, code]
    except TypeError:
        raise DecodeError(f"wire {wire!r} and code {code!r}: expected 'M' or 'N' and an int") from None
    return decoder(payload)


class Asking(NamedTuple):
    """What it takes to ask by messages of one class on one wire, when the answer is the declared one."""

    code: int
    encode: Encode
    answer: int
    """The code of the declared answer."""
    decode: Decode


def asking(cls: type[Message], wire: WireName) -> Asking | None:
    """None if such a message is no request of this wire, or none is declared to be its answer there."""
    if wire == "2016" or wire not in cls.codes or cls.kind != "request" or wire not in cls.answers:
        return None
    code = cls.answers[wire].codes[wire]
    encoder = _encoders[wire, cls]
    return Asking(encoder.code, encoder.checked, code, _decoders[wire, code])


def message_class(code: int, wire: WireName) -> type[Message] | None:
    """The class with this code on this wire, or None."""
    return CATALOGUE[wire].get(code) if wire in ("M", "N") else None


def fields_of(cls: type[Message]) -> list[tuple[str, Kind]]:
    """Names and kinds of the fields of a message, in their order on the wire."""
    hints = get_type_hints(cls, include_extras=True)
    return [(name, kind_of(hints[name])) for name in cls.__struct_fields__]


class _Encoder(NamedTuple):
    code: int
    checked: Encode
    unchecked: Encode


class _Encoders(dict[tuple[WireName, type[Message]], _Encoder]):
    def __missing__(self, key: tuple[WireName, type[Message]]) -> _Encoder:
        wire, cls = key
        if not issubclass(cls, Message):
            raise EncodeError(f"expected a message of neolink.proto, got a {cls.__name__}")
        if wire != "M" and wire != "N":
            raise EncodeError(f"{cls.__name__}: wire {wire!r} has no typed messages: expected 'M' or 'N'")
        if wire not in cls.codes:
            raise EncodeError(_not_on(cls, wire))
        names, kinds = _split(cls)
        unchecked = (codec_m if wire == "M" else codec_n).encoder(cls, kinds)
        checked = _checked(cls, wire, names, kinds, unchecked) if kinds else unchecked
        encoder = self[key] = _Encoder(cls.codes[wire], checked, unchecked)
        return encoder


class _Decoders(dict[tuple[WireName, int], Decode]):
    def __missing__(self, key: tuple[WireName, int]) -> Decode:
        wire, code = key
        cls = message_class(code, wire)
        if cls is None:
            raise DecodeError(f"code {code:#06x} is no message of wire {wire}" if wire in ("M", "N") else
                              f"wire {wire!r} has no typed messages: expected 'M' or 'N'")
        names, kinds = _split(cls)
        decoder: Decode = (codec_m if wire == "M" else codec_n).decoder(cls, names, kinds)
        self[key] = decoder
        return decoder


def _split(cls: type[Message]) -> tuple[list[str], list[Kind]]:
    fields = fields_of(cls)
    return [name for name, _ in fields], [kind for _, kind in fields]


def _not_on(cls: type[Message], wire: Wire) -> str:
    namesake = next((other for other in CATALOGUE[wire].values() if other.__name__ == cls.__name__), None)
    if namesake is None:
        return f"wire {wire} has no {cls.__name__}"
    module = "proto.n6" if wire == "N" else "proto"
    return f"{cls.__name__} has other fields on wire {wire}: use {module}.{cls.__name__} there"


def _checked(cls: type[Message], wire: Wire, names: list[str], kinds: list[Kind], unchecked: Encode) -> Encode:
    checks = [(f".{name}", checker(kind, wire)) for name, kind in zip(names, kinds)]
    verify = None if cls.verify is Message.verify else cls.verify

    def encode(message: Message) -> bytes:
        name = ""
        try:
            for (name, check), value in zip(checks, astuple(message)):
                check(value)
            if verify is not None:
                name = ""
                verify(message)
        except Mismatch as mismatch:
            raise EncodeError(mismatch.text(cls.__name__ + name)) from None
        return unchecked(message)
    return encode


_encoders = _Encoders()
_decoders = _Decoders()
