# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What the typed messages refuse: malformed packets when decoding, and what would end a NEO node when encoding."""
import msgspec.msgpack
import pytest

from neolink import proto
from neolink.errors import DecodeError, EncodeError
from neolink.proto import CellStates, ClusterStates, ErrorCodes, NodeStates, NodeTypes
from neolink.proto.codec_m import ENUM_OF_EXT

ONE = proto.id_from_int(1)
SHA = bytes(range(20))
pack = msgspec.msgpack.encode


def member(ext, value):
    return msgspec.msgpack.Ext(ext, bytes([value]))


NODE = proto.Node(NodeTypes.STORAGE, ("127.0.0.1", 10000), 1, NodeStates.RUNNING, 1.5)
FULL = [        # a message of every kind of field, and the wires it is the same on
    (proto.AnswerObject(ONE, ONE, None, 1, SHA, b"hello", ONE), "MN"),
    (proto.NotifyNodeInformation(2.5, [NODE, NODE._replace(address=None, nid=None, id_timestamp=None)]), "MN"),
    (proto.SendPartitionTable(3, 1, [[proto.Cell(1, CellStates.UP_TO_DATE)], []]), "MN"),
    (proto.AnswerLockedTransactions({ONE: None, proto.id_from_int(2): ONE}), "MN"),
    (proto.CheckPartition(5, proto.Source("up", ("::1", 1)), ONE, ONE), "MN"),
    (proto.Error(ErrorCodes.NOT_READY, "später"), "MN"),
    (proto.TweakPartitionTable(True, [1, 2]), "MN"),
    (proto.AnswerObjectUndoSerial({ONE: proto.UndoSerial(ONE, None, True)}), "MN"),
    (proto.AskPartitionList(1, 2, -0x10000000 + 1), "MN"),
    (proto.RequestIdentification(NodeTypes.ADMIN, None, None, "test", None, {"backup": [b"a"], "n": -1}), "M"),
    (proto.NotifyMonitorInformation({"pt_summary": {CellStates.FEEDING: 2}, "cluster_state": None}), "M"),
    (proto.AnswerRelockObject(proto.Conflict(ONE, ONE, proto.StoredData(0, SHA, b""))), "M"),
    (proto.AnswerPackOrders([proto.PackOrder(ONE, None, False, None, ONE)]), "M"),
    (proto.AnswerMonitorInformation([None, "x"], [], "y"), "M"),
    (proto.n6.AnswerRebaseObject(proto.Conflict(ONE, ONE, proto.StoredData(0, SHA, b""))), "N"),
    (proto.n6.RequestIdentification(NodeTypes.CLIENT, None, None, "test", None, ["sda"], [1]), "N"),
]
FULL_ON = [(message, wire) for message, wires in FULL for wire in wires]
FULL_IDS = [f"{wire}-{type(message).__name__}" for message, wire in FULL_ON]


# ---- malformed packets

@pytest.mark.parametrize("message, wire", FULL_ON, ids=FULL_IDS)
def test_cut_anywhere_or_too_long(message, wire):
    code, payload = proto.encode(message, wire)
    assert proto.decode(code, payload, wire) == message
    name = type(message).__name__
    for end in range(1 if wire == "M" else 0, len(payload)):      # on M b"" is a packet without fields
        with pytest.raises(DecodeError, match=f"^{name}.*expected .* got "):
            proto.decode(code, payload[:end], wire)
    with pytest.raises(DecodeError, match=f"^{name}: expected .* got "):
        proto.decode(code, payload + b"\0", wire)


def test_no_payload_is_no_fields_on_m():
    assert proto.decode(2, b"", "M") == proto.decode(2, b"\x90", "M") == proto.Ping()
    with pytest.raises(DecodeError, match="^AskObject: expected 3 fields, got 0"):
        proto.decode(0x20, b"", "M")


@pytest.mark.parametrize("fields, text", [
    ([ONE, None], "^AskObject: expected 3 fields, got 2"),
    ([ONE, None, None, None], "^AskObject: expected 3 fields, got 4"),
    ([None, None, None], r"^AskObject.oid: expected an oid of 8 bytes, got None"),
    ([ONE, b"short", None], r"^AskObject.at: expected a tid of 8 bytes, got bytes of length 5"),
    ([ONE, "\0" * 8, None], r"^AskObject.at: expected a tid of 8 bytes, got str"),
    ([ONE, None, 7], r"^AskObject.before: expected a tid of 8 bytes, got int 7"),
    ({}, "^AskObject: expected an array of fields, got dict"),
    (5, "^AskObject: expected an array of fields, got int 5"),
])
def test_fields_of_m(fields, text):
    with pytest.raises(DecodeError, match=text):
        proto.decode(0x20, pack(fields), "M")


@pytest.mark.parametrize("cls, fields, text", [
    (proto.RequestIdentification, [member(4, 2), None, None, "test", None, {}], "cluster: expected text .* got str"),
    (proto.RequestIdentification, [member(4, 2), None, None, b"\xff", None, {}], "cluster: expected text in UTF-8"),
    (proto.RequestIdentification, [2, None, None, b"t", None, {}], "node_type: expected a NodeTypes member .*int 2"),
    (proto.RequestIdentification, [member(4, 2), None, None, b"t", 1, {}], "id_timestamp: expected a float, got int 1"),
    (proto.RequestIdentification, [member(4, 2), 1 << 31, None, b"t", None, {}], "nid: expected a nid"),
    (proto.RequestIdentification, [member(4, 2), True, None, b"t", None, {}], "nid: expected a nid.*True"),
    (proto.RequestIdentification, [member(4, 2), None, [b"h"], b"t", None, {}], "address: expected an address"),
    (proto.RequestIdentification, [member(4, 2), None, [b"h", b"p"], b"t", None, {}], "address: expected an address"),
    (proto.RequestIdentification, [member(4, 2), None, None, b"t", None, []], "extra: expected a map, got list"),
    (proto.RequestIdentification, [member(4, 2), None, None, b"t", None, {1: 2}], "extra key int 1: expected text"),
    (proto.RequestIdentification, [member(4, 2), None, None, b"t", None, {b"a": "str"}], r"extra\['a'\]: .* got str"),
    (proto.StartOperation, [1], "backup: expected true or false, got int 1"),
    (proto.SetNumReplicas, [True], "num_replicas: expected an int, got True"),
    (proto.AnswerNewOIDs, [[ONE, b"?"]], r"oids\[1\]: expected an oid of 8 bytes, got bytes of length 1"),
    (proto.AnswerNewOIDs, [ONE], "oids: expected an array, got bytes"),
    (proto.SendPartitionTable, [1, 0, [[[1]]]], r"rows\[0\]\[0\]: expected a Cell"),
    (proto.SendPartitionTable, [1, 0, [[], [[1, member(1, 0)]]]], r"rows\[1\]\[0\].state: expected a CellStates"),
    (proto.AnswerLockedTransactions, [{ONE: 1}], r"tids\[.*\]: expected a tid of 8 bytes, got int 1"),
    (proto.AnswerObject, [ONE, ONE, None, 0, SHA, "str", None], "data: expected bytes .bin., got str"),
    (proto.AnswerObject, [ONE, ONE, None, 0, SHA[1:], b"", None], "checksum: expected a checksum of 20 bytes"),
    (proto.Error, [b"6", b"text"], "code: expected an error code"),
])
def test_kinds_of_m(cls, fields, text):
    with pytest.raises(DecodeError, match=f"^{cls.__name__}.{text}"):
        proto.decode(cls.codes["M"], pack(fields), "M")


@pytest.mark.parametrize("payload", [
    b"\xc1", b"\x91", b"\x91\xa1\xff", b"\x91\x81\x80\x01", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    b"\x91\xc6\xff\xff\xff\xff", b"\x91" * 5000 + b"\x90", b"\x90\x90", b"\x91\xd6\xff\0\0\0\1",
], ids=lambda payload: payload[:6].hex())
def test_not_msgpack(payload):
    with pytest.raises(DecodeError, match="^AskNodeList"):
        proto.decode(proto.AskNodeList.codes["M"], payload, "M")


@pytest.mark.parametrize("payload, text", [
    ("00000001 00000008 00", r"devpath\[0\]"), ("00", "devpath"), ("ffffffff", r"devpath\[0\]"),
])
def test_lists_of_n(payload, text):
    head = bytes.fromhex("02 00000000 00000000 00000000") + b"\xff" * 8
    with pytest.raises(DecodeError, match=f"^RequestIdentification.{text}: expected .* got "):
        proto.decode(1, head + bytes.fromhex(payload), "N")


@pytest.mark.parametrize("cls, payload, text", [
    (proto.AnswerPrimary, "00000000", "nid: expected a nid, got None"),
    (proto.Truncate, "ff" * 8, "tid: expected a tid of 8 bytes, got None"),
    (proto.n6.AskPack, "ff" * 8, "tid: expected a tid of 8 bytes, got None"),
    (proto.SetClusterState, "ff", "state: expected a ClusterStates, got number -1"),
    (proto.SetClusterState, "07", "state: expected a ClusterStates, got number 7"),
    (proto.AnswerClusterState, "fe", "state: expected a ClusterStates, got number -2"),
    (proto.n6.AnswerRebaseObject, "02", "conflict: expected option byte 00 or 01, got 02"),
    (proto.Error, "00000000 00000001 ff", "message: expected text in UTF-8"),
    (proto.AnswerLockedTransactions, "00000002" + 2 * ("00" * 8 + "ff" * 8), r"tids\[item 1\]: expected different"),
    (proto.NotPrimaryMaster, "00000000 00000001 00000000", r"known_masters\[0\]: expected an address, got None"),
])
def test_kinds_of_n(cls, payload, text):
    with pytest.raises(DecodeError, match=f"^{cls.__name__}.{text}"):
        proto.decode(cls.codes["N"], bytes.fromhex(payload), "N")


def test_unknown_codes_and_wires():
    for code, wire in ((0x7777, "M"), (0xffff, "N"), (proto.AskOIDsFrom.codes["M"] + 40, "N")):
        with pytest.raises(DecodeError, match=f"code {code:#06x} is no message of wire {wire}"):
            proto.decode(code, b"", wire)
        assert proto.message_class(code, wire) is None
    with pytest.raises(DecodeError, match="2016"):
        proto.decode(1, b"", "2016")
    with pytest.raises(EncodeError, match="2016"):
        proto.encode(proto.Ping(), "2016")
    with pytest.raises(EncodeError):
        proto.encode(proto.Ping(), None)
    assert proto.message_class(1, "2016") is None


# ---- enums

def test_enums_are_strict_and_print_by_name():
    assert str(ClusterStates.RUNNING) == "RUNNING" and repr(ClusterStates.RUNNING) == "ClusterStates.RUNNING"
    assert ClusterStates.RUNNING != 2 and ClusterStates(2) is ClusterStates.RUNNING
    assert repr(proto.AnswerClusterState(ClusterStates.RUNNING)) == "AnswerClusterState(state=ClusterStates.RUNNING)"
    for wire in "MN":
        for wrong in (2, NodeStates.RUNNING, "RUNNING", True):
            with pytest.raises(EncodeError, match="^SetClusterState.state: expected a ClusterStates member, got "):
                proto.encode(proto.SetClusterState(wrong), wire)


def test_unknown_members_of_m():
    code = proto.AnswerClusterState.codes["M"]
    for ext, value in ((1, 7), (1, 0xff), (2, 0), (9, 0)):
        with pytest.raises(DecodeError, match=f"^AnswerClusterState.state: .* got .*ext {ext} .* value {value:02x}"):
            proto.decode(code, pack([member(ext, value)]), "M")
    with pytest.raises(DecodeError):
        proto.decode(code, pack([msgspec.msgpack.Ext(1, b"\0\1")]), "M")
    with pytest.raises(DecodeError):
        proto.decode(proto.NotifyMonitorInformation.codes["M"], pack([{b"cluster_state": member(1, 7)}]), "M")


def test_ext_types_are_numbered_by_name():
    names = sorted(["CellStates", "ClusterStates", "ErrorCodes", "NodeStates", "NodeTypes"])
    assert {ext: enum.__name__ for ext, enum in ENUM_OF_EXT.items()} == {
        ext: name for ext, name in enumerate(names) if name != "ErrorCodes"}


def test_error_codes_of_newer_nodes_are_kept():
    error = proto.decode(0x8000, pack([77, b"new"]), "M")
    assert error == proto.Error(77, "new") and type(error.code) is int
    assert proto.decode(0x8000, bytes.fromhex("0000000d 00000000"), "N").code == 13       # not an N code
    assert proto.decode(0x8000, pack([13, b""]), "M").code is ErrorCodes.UNDO_PACK_ERROR
    with pytest.raises(EncodeError, match="^Error.code: expected an ErrorCodes member"):
        proto.encode(error, "M")        # passed on it would end the node that receives it
    with pytest.raises(EncodeError, match="^Error.code"):
        proto.encode(proto.Error(ErrorCodes.UNDO_PACK_ERROR, ""), "N")
    assert proto.encode(error, "M", check=False) == (0x8000, pack([77, b"new"]))


# ---- None

def test_none_where_a_wire_has_it():
    assert proto.encode(proto.AnswerPartitionTable(None, 0, []), "N") == (0x8009, bytes(16))
    assert proto.decode(0x8009, bytes(16), "N").ptid is None
    with pytest.raises(EncodeError, match="^AnswerPartitionTable.ptid"):
        proto.encode(proto.AnswerPartitionTable(None, 0, []), "M")
    with pytest.raises(DecodeError, match="^AnswerPartitionTable.ptid"):
        proto.decode(0x8009, pack([None, 0, []]), "M")
    deleted = proto.AnswerObject(ONE, ONE, None, None, proto.ZERO_HASH, b"", None)
    assert proto.decode(*proto.encode(deleted, "M"), "M") == deleted
    with pytest.raises(EncodeError, match="^AnswerObject.compression"):
        proto.encode(deleted, "N")
    assert proto.decode(*proto.encode(proto.NotPrimaryMaster(0, [("::1", 1)]), "N"), "N").primary is None
    assert proto.decode(*proto.encode(proto.NotPrimaryMaster(0, [("::1", 1)]), "M"), "M").primary == 0


def test_what_n_reads_as_none_is_not_sent_as_a_value():
    for message in (proto.n6.AskPack(proto.INVALID_TID), proto.AskObject(ONE, proto.INVALID_TID, None),
                    proto.SendPartitionTable(0, 0, [])):
        with pytest.raises(EncodeError):
            proto.encode(message, "N")


def test_compression_is_an_int_on_both_wires():
    for value in (0, 1, True):
        message = proto.AnswerObject(ONE, ONE, None, value, SHA, b"", None)
        decoded = proto.decode(*proto.encode(message, "N"), "N")
        assert type(decoded.compression) is int and decoded == message
    with pytest.raises(EncodeError):
        proto.encode(message, "M")      # True would be a bool there
    with pytest.raises(EncodeError):
        proto.encode(proto.AnswerObject(ONE, ONE, None, 2, SHA, b"", None), "N")


# ---- what would end a NEO node

FATAL = [
    ("MN", proto.Truncate(None)), ("MN", proto.AskObject(None, None, None)), ("N", proto.n6.AskPack(None)),
    ("MN", proto.AskTransactionInformation(None)), ("N", proto.AskNewOIDs(0)), ("MN", proto.AskNewOIDs(-1)),
    ("MN", proto.SetNumReplicas(-1)), ("MN", proto.SetNumReplicas(None)), ("MN", proto.SetNumReplicas(True)),
    ("MN", proto.CheckReplicas({0: None}, None, None)), ("MN", proto.CheckReplicas({0: None}, b"7", None)),
    ("MN", proto.CheckReplicas({0: proto.nid_parse("A1")}, ONE, None)), ("MN", proto.CheckReplicas({-1: 1}, ONE, None)),
    ("MN", proto.AddPendingNodes([0x10000001])), ("MN", proto.AddPendingNodes([0])),
    ("MN", proto.Repair([1 << 24], True)),
    ("MN", proto.AddPendingNodes(1)), ("MN", proto.AddPendingNodes({1})), ("MN", proto.AddPendingNodes(["S1"])),
    ("MN", proto.AskPartitionList(0, 0, 0x40000001)), ("MN", proto.AskPartitionList("0", 0, None)),
    ("MN", proto.AskPartitionList(0, 1.0, None)), ("MN", proto.AskNodeList(1)), ("MN", proto.Error(6, "text")),
    ("MN", proto.Error(ErrorCodes.ACK, b"text")), ("MN", proto.Error(ErrorCodes.ACK, None)),
    ("MN", proto.Error(ErrorCodes.ACK, "\ud800")), ("MN", proto.StartOperation(1)), ("MN", proto.AnswerNewOIDs([None])),
    ("MN", proto.NotifyNodeInformation(float("nan"), [])), ("MN", proto.NotifyNodeInformation(1, [])),
    ("MN", proto.NotifyNodeInformation(1.0, [NODE._replace(state=2)])),
    ("MN", proto.NotifyNodeInformation(1.0, [NODE[:4]])),
    ("MN", proto.NotPrimaryMaster(1, [("::1", 1)])), ("MN", proto.NotPrimaryMaster(None, [None])),
    ("MN", proto.NotPrimaryMaster(None, [("", 1)])), ("MN", proto.NotPrimaryMaster(None, [("::1", 65536)])),
    ("MN", proto.NotPrimaryMaster(None, [(b"::1", 1)])), ("MN", proto.AnswerLockedTransactions([])),
    ("MN", proto.AnswerObject(ONE, ONE, None, 0, SHA, "text", None)), ("M", proto.AskTIDs(0, 1 << 64, 0)),
    ("N", proto.AskUnfinishedTransactions([1 << 32])), ("M", proto.RequestIdentification(2, None, None, "t", None, {})),
    ("M", proto.RequestIdentification(NodeTypes.CLIENT, None, None, b"t", None, {})),
    ("M", proto.RequestIdentification(NodeTypes.CLIENT, None, None, "t", None, {b"backup": b"x"})),
    ("M", proto.RequestIdentification(NodeTypes.CLIENT, None, None, "t", None, {"x": 1 << 64})),
    ("M", proto.RequestIdentification(NodeTypes.CLIENT, None, None, "t", None, {"x": {(): 1}})),
    ("M", proto.RequestIdentification(NodeTypes.CLIENT, None, None, "t", None, {"x": object()})),
    ("M", proto.RequestIdentification(NodeTypes.CLIENT, None, None, "t", None, {"x": float("inf")})),
]
FATAL_ON = [(wire, message) for wires, message in FATAL for wire in wires]


@pytest.mark.parametrize("wire, message", FATAL_ON, ids=[f"{wire}-{message!r:.60}" for wire, message in FATAL_ON])
def test_fatal_messages_do_not_leave(wire, message):
    with pytest.raises(EncodeError, match=rf"^{type(message).__name__}\..*expected .* got "):
        proto.encode(message, wire)


def test_strings_that_a_node_of_m_cannot_hold():
    data = bytes(0x4000000 - 4096)
    assert len(proto.encode(proto.AddObject(ONE, ONE, 0, SHA, data, None), "M")[1]) > len(data)
    data += b"\0"
    with pytest.raises(EncodeError, match="^AddObject.data: expected at most 67104768 bytes"):
        proto.encode(proto.AddObject(ONE, ONE, 0, SHA, data, None), "M")
    assert len(proto.encode(proto.AddObject(ONE, ONE, 0, SHA, data, None), "N")[1]) > len(data)


def test_untyped_values_do_not_nest_without_end():
    value = []
    value.append(value)
    for extra in ({"x": value}, {"x": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}):
        with pytest.raises(EncodeError, match="^RequestIdentification.extra.*levels"):
            proto.encode(proto.RequestIdentification(NodeTypes.CLIENT, None, None, "t", None, extra), "M")
    endless = proto.RequestIdentification(NodeTypes.CLIENT, None, None, "t", None, {"x": value})
    with pytest.raises(EncodeError):        # not checked, but not a crash either
        proto.encode(endless, "M", check=False)


def test_unchecked_for_test_doubles():
    assert proto.encode(proto.Truncate(None), "M", check=False)[1] == b"\x91\xc0"
    assert proto.encode(proto.n6.AskPack(None), "N", check=False)[1] == proto.INVALID_TID
    assert proto.encode(proto.SetClusterState(2), "M", check=False)[1] == b"\x91\x02"
    assert proto.encode(proto.SetClusterState(99), "N", check=False)[1] == b"c"
    assert proto.encode(proto.AskNewOIDs(0), "N", check=False)[1] == bytes(4)
    for message, wire in ((proto.AskNewOIDs("x"), "N"), (proto.AskNewOIDs(1 << 64), "M"),
                          (proto.AskNewOIDs(object()), "M"), (proto.AddPendingNodes(None), "N"),
                          (proto.StartOperation(object()), "M")):
        with pytest.raises(EncodeError, match="cannot be written on wire"):
            proto.encode(message, wire, check=False)


# ---- the two wires

def test_messages_of_the_other_wire():
    with pytest.raises(EncodeError, match="other fields on wire N: use proto.n6.AnswerLastIDs"):
        proto.encode(proto.AnswerLastIDs(None, None, ONE), "N")
    with pytest.raises(EncodeError, match="other fields on wire M: use proto.AnswerLastIDs"):
        proto.encode(proto.n6.AnswerLastIDs(None, None), "M")
    with pytest.raises(EncodeError, match="wire N has no WaitForPack"):
        proto.encode(proto.WaitForPack(ONE), "N")
    with pytest.raises(EncodeError, match="wire M has no AskPack"):
        proto.encode(proto.AskPack(ONE), "M")
    for wrong in (5, None, proto.Ping, b"", proto.Message()):
        with pytest.raises(EncodeError):
            proto.encode(wrong, "M")


def test_construction():
    message = proto.AskObject(ONE, before=None, at=ONE)
    assert message == proto.AskObject(ONE, ONE, None) != proto.AskObject(ONE, None, None)
    match message:
        case proto.AskObject(oid, at=at):
            assert oid == at == ONE
    for wrong in (lambda: proto.AskObject(ONE), lambda: proto.Ping(1), lambda: proto.AskObject(ONE, ONE, None, None),
                  lambda: proto.AskObject(ONE, ONE, None, tid=None)):
        with pytest.raises(TypeError):
            wrong()


def test_sequences_are_taken_and_lists_and_named_tuples_returned():
    sent = proto.SendPartitionTable(1, 0, ([(1, CellStates.FEEDING)], ([2, CellStates.UP_TO_DATE],)))
    for wire in "MN":
        table = proto.decode(*proto.encode(sent, wire), wire)
        assert table.rows == [[proto.Cell(1, CellStates.FEEDING)], [proto.Cell(2, CellStates.UP_TO_DATE)]]
        assert type(table.rows[0][0]) is proto.Cell
