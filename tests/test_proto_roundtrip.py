# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Any message that passes the checks comes back the same; any bytes at all are a message or a DecodeError."""
import functools
import random

import pytest

from neolink import proto
from neolink.errors import DecodeError
from neolink.proto import kinds
from neolink.proto.coding import fields_of

pytest.importorskip("hypothesis")
from hypothesis import given, settings          # noqa: E402
from hypothesis import strategies as st         # noqa: E402

CLASSES = [(wire, cls) for wire, classes in proto.CATALOGUE.items() for cls in classes.values()]
QUICK = settings(max_examples=20, deadline=None, database=None)
NIDS = st.builds(lambda namespace, number: (namespace << 24) + number, st.sampled_from(sorted(kinds.LETTERS)),
                 st.integers(1, 0xffffff))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ADDRESSES = st.tuples(TEXT.filter(bool), st.integers(0, 65535))
ENUM_MEMBERS = st.sampled_from([*proto.CellStates, *proto.ClusterStates, *proto.NodeStates, *proto.NodeTypes])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-1 << 63, (1 << 64) - 1) | st.binary(max_size=9) | ENUM_MEMBERS,
    lambda inner: (st.lists(inner, max_size=3)
                   | st.dictionaries(st.binary(max_size=3) | ENUM_MEMBERS, inner, max_size=3)),
    max_leaves=5)


@functools.cache
def values(kind, wire):
    """What a field of this kind may hold on this wire."""
    match kind:
        case kinds.Int():
            if wire == "M":
                return st.integers(0, (1 << 64) - 1)
            return st.integers(kind.least_n, kind.greatest_n).filter(lambda number: number != kind.null)
        case kinds.NodeId(storage=storage):
            return st.integers(1, 0xffffff) if storage else NIDS
        case kinds.Bool():
            return st.booleans()
        case kinds.Compression():
            return st.integers(0, 1)
        case kinds.Float():
            return st.floats(allow_nan=False, allow_infinity=False)
        case kinds.Fixed(size=size, null=null):
            return st.binary(min_size=size, max_size=size).filter(lambda value: value != null)
        case kinds.Blob():
            return st.binary(max_size=300)
        case kinds.Text():
            return TEXT
        case kinds.Address():
            return ADDRESSES
        case kinds.ErrorCode():
            return st.sampled_from([code for code in proto.ErrorCodes if wire == "M" or code.value < 13])
        case kinds.Enum(type=enum):
            return st.sampled_from(enum)
        case kinds.ListOf(item=item):
            return st.lists(values(item, wire), max_size=4)
        case kinds.MapOf(key=key, value=value):
            return st.dictionaries(values(key, wire), values(value, wire), max_size=4)
        case kinds.TupleOf(type=cls, items=items):
            return st.builds(cls, *[values(item, wire) for _, item in items])
        case kinds.Nullable(kind=inner, wires=wires):
            return st.none() | values(inner, wire) if wire in wires else values(inner, wire)
        case kinds.Anything():
            return ANYTHING
    raise AssertionError(kind)


@functools.cache
def messages(cls, wire):
    built = st.builds(cls, *[values(kind, wire) for _, kind in fields_of(cls)])
    if cls is proto.NotPrimaryMaster:
        built = st.builds(cls, st.none(), st.lists(ADDRESSES, max_size=3))
    return built


@pytest.mark.parametrize("wire, cls", CLASSES, ids=[f"{wire}-{cls.__name__}" for wire, cls in CLASSES])
def test_round_trip_and_wrong_bytes(wire, cls):
    @QUICK
    @given(messages(cls, wire))
    def check(message):
        code, payload = proto.encode(message, wire)
        assert proto.encode(message, wire, check=False) == (code, payload)
        decoded = proto.decode(code, payload, wire)
        assert decoded == message and type(decoded) is cls
        assert proto.encode(decoded, wire) == (code, payload)
        for wrong in wrong_bytes(payload):
            decoded_or_refused(wire, cls, wrong)
    check()


def wrong_bytes(payload):
    """It, each with one byte that may be another: at both ends, and at four places between."""
    numbers = random.Random(payload)
    places = {0, len(payload) - 1, *(numbers.randrange(len(payload)) for _ in range(4))} if payload else ()
    for at in places:
        yield payload[:at] + numbers.randbytes(1) + payload[at + 1:]


def decoded_or_refused(wire, cls, payload):
    try:
        message = proto.decode(cls.codes[wire], payload, wire)
    except DecodeError as error:
        assert cls.__name__ in str(error)
    else:
        assert type(message) is cls


@settings(max_examples=1000, deadline=None, database=None)
@given(st.sampled_from(CLASSES), st.binary(max_size=60))
def test_any_bytes(where, payload):
    decoded_or_refused(*where, payload)
