# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The typed messages against what NEO says and sends: its catalogues, its sample packets, its recorded sessions.

The expected values of the samples come from the samples' own notation and the type strings of the catalogue, by a small
interpreter here that shares nothing with the codecs under test.
"""
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import neolink.errors
from neolink import proto

DATA = Path(__file__).parent / "data"
NEO = json.loads((DATA / "neo-messages.json").read_text())
PROTOCOLS = {"M": NEO["M5"], "N": NEO["N6"]}
ENTRIES = [(wire, entry) for wire, protocol in PROTOCOLS.items() for entry in protocol["messages"]]
VECTORS = [(wire, vector) for wire, protocol in PROTOCOLS.items() for vector in protocol["vectors"]]


def class_of(wire, name):
    return getattr(proto if wire == "M" else proto.n6, name)


def split_packet(wire, packet):
    """(code, payload) of a whole packet; on M the id and code are found by hand, the payload is what is left."""
    if wire == "N":
        _, code, length = struct.unpack_from(">IHI", packet)
        assert len(packet) == 10 + length
        return code, packet[10:]
    assert packet[0] == 0x93
    rest = packet[1:]
    for _ in ("id", "code"):
        size = {0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8}.get(rest[0], 0)
        number = int.from_bytes(rest[1:1 + size], "big") if size else rest[0]
        rest = rest[1 + size:]
    return number, rest


def ids(items):
    return [f"{wire}-{item.get('name') or item['message']}-{item.get('id', item.get('code'))}" for wire, item in items]


# ---- the catalogue

@pytest.mark.parametrize("wire, entry", ENTRIES, ids=ids(ENTRIES))
def test_declaration(wire, entry):
    cls = class_of(wire, entry["name"])
    assert cls.__name__ == entry["name"]
    assert cls.__doc__
    assert cls.codes[wire] == entry["code"]
    assert proto.message_class(entry["code"], wire) is cls
    assert cls.kind == entry["kind"]
    assert cls.__struct_fields__ == cls.__match_args__ == tuple(field["name"] for field in entry["fields"])
    if entry["answer"]:
        assert cls.answers[wire] is class_of(wire, entry["answer"])
        assert cls.answers[wire].codes[wire] == entry["answer_code"]
    else:
        assert cls.answers == {} and cls.answer is None
    if "ignored_on_closed_connection" in entry:
        assert cls.ignored_on_close is entry["ignored_on_closed_connection"]


def test_the_catalogues_hold_nothing_else():
    for wire, protocol in PROTOCOLS.items():
        assert sorted(proto.CATALOGUE[wire]) == sorted(entry["code"] for entry in protocol["messages"])
    assert len(proto.CATALOGUE["M"]) == 111 and len(proto.CATALOGUE["N"]) == 102


def test_ten_names_differ_and_six_are_of_n_alone():
    names = {wire: {entry["name"] for entry in protocol["messages"]} for wire, protocol in PROTOCOLS.items()}
    differ = {name for name in names["M"] & names["N"] if class_of("M", name) is not class_of("N", name)}
    assert len(differ) == 10 and {"AnswerLastIDs", "AddTransaction"} < differ
    assert len(names["N"] - names["M"]) == 6
    for name in names["N"] - names["M"]:
        assert getattr(proto, name) is getattr(proto.n6, name)


def test_the_answer_may_differ_by_wire():
    assert proto.AskLastIDs.answer is proto.AnswerLastIDs
    assert proto.AskLastIDs.answers == {"M": proto.AnswerLastIDs, "N": proto.n6.AnswerLastIDs}
    assert proto.n6.AskPack.answer is proto.n6.AnswerPack
    assert proto.n6.AskFinishTransaction.answers == {"N": proto.AnswerTransactionFinished}
    assert proto.Truncate.answer is proto.Error


@pytest.mark.parametrize("wire", PROTOCOLS)
def test_enums(wire):
    for name, spec in PROTOCOLS[wire]["enums"].items():
        values = spec["values"] if "values" in spec else spec
        members = {member.name: member.value for member in getattr(proto, name)}
        if wire == "N" and name == "ErrorCodes":
            del members["UNDO_PACK_ERROR"]
        assert members == values


def test_public_names_exist():
    assert len(set(proto.__all__)) == len(proto.__all__)
    for name in proto.__all__:
        getattr(proto, name)
    for entry in NEO["M5"]["messages"] + NEO["N6"]["messages"]:
        assert entry["name"] in proto.__all__
    assert set(proto.n6.__all__) == {entry["name"] for entry in NEO["N6"]["messages"]}


def test_programs_without_typed_messages_do_not_pay_for_them():
    script = "import sys, neolink; print([name for name in ('neolink.proto', 'msgspec') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_what_nodes_ignore_on_a_connection_they_closed():
    assert proto.AskObject.ignored_on_close and not proto.n6.AskPack.ignored_on_close
    for name in ("AskFinishTransaction", "AskLockInformation"):
        assert not class_of("N", name).ignored_on_close


# ---- the sample packets

def split_types(text):
    """The types of a comma-separated list, not looking into brackets."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "<(") - (char in ">)")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def expected(kind, value):
    """The Python value that a message should hold for one in the notation of the samples."""
    if value is None:
        return None
    if kind.startswith("?"):
        return expected(kind[1:], value)
    if kind.startswith("list<"):
        return [expected(kind[5:-1], item) for item in value]
    if kind.startswith("map<"):
        key, item = split_types(kind[4:-1])
        return {expected(key, k): expected(item, v) for k, v in value["map"]}
    if kind.startswith("tuple<"):
        return tuple(expected(item, v) for item, v in zip(split_types(kind[6:-1]), value, strict=True))
    if kind.startswith(("struct(", "opt(")):
        parts = [part.split(":", 1) for part in split_types(kind[kind.index("(") + 1:-1])]
        return tuple(expected(part[1], v) for part, v in zip(parts, value, strict=True))
    if kind == "addr":
        return bytes.fromhex(value[0]["hex"]).decode(), value[1]
    if kind == "any":
        return expected_any(value)
    if kind.startswith(("enum:", "e8:")):
        return getattr(proto, kind.split(":")[1])[value["enum"]]
    if isinstance(value, dict):
        return value["text"] if "text" in value else bytes.fromhex(value["hex"])
    return value


def expected_any(value):
    if isinstance(value, list):
        return [expected_any(item) for item in value]
    if isinstance(value, dict):
        (what, content), = value.items()
        if what == "map":
            return {expected_any(k): expected_any(v) for k, v in content}
        if what == "enum":
            enums = proto.ClusterStates, proto.CellStates
            return next(enum[content] for enum in enums if content in enum.__members__)
        return content if what == "text" else bytes.fromhex(content)
    return value


N_TEXT = {"cluster", "message", "devpath", "upstream_name"}     # N calls bytes and text alike "str"


def expected_field(wire, message, field, value):
    if (message, field["name"]) == ("Error", "code"):
        return proto.ErrorCodes(value)
    if (wire, message, field["name"]) == ("M", "NotifyMonitorInformation", "info"):
        return {key["text"]: expected_any(item) for key, item in value["map"]}
    result = expected(field["type"], value)
    if wire == "N" and field["name"] in N_TEXT:
        return [item.decode() for item in result] if isinstance(result, list) else result.decode()
    if wire == "N" and field["name"] == "source":
        return result[0].decode(), result[1]
    return result


@pytest.mark.parametrize("wire, vector", VECTORS, ids=ids(VECTORS))
def test_vector(wire, vector):
    code, payload = split_packet(wire, bytes.fromhex(vector["hex"]))
    entry = next(entry for entry in PROTOCOLS[wire]["messages"] if entry["name"] == vector["message"])
    fields = entry["fields"]
    values = [expected_field(wire, vector["message"], field, value)
              for field, value in zip(fields, vector["args"], strict=True)]
    cls = class_of(wire, vector["message"])
    message = proto.decode(code, payload, wire)
    assert type(message) is cls
    assert message == cls(*values) == cls(**{field["name"]: value for field, value in zip(fields, values)})
    assert proto.encode(message, wire) == (code, payload)
    assert proto.encode(cls(*values), wire) == (code, payload)
    assert proto.encode(cls(*values), wire, check=False) == (code, payload)
    assert proto.decode(code, memoryview(bytearray(payload)), wire) == message


def test_every_message_has_a_vector():
    for wire, protocol in PROTOCOLS.items():
        assert {vector["message"] for vector in protocol["vectors"]} == {e["name"] for e in protocol["messages"]}


# ---- the recorded sessions

def captured(folder, pattern="*"):
    for path in sorted((DATA / "captures" / folder).glob(f"{pattern}.jsonl")):
        for line in path.read_text().splitlines()[1:]:
            packet = json.loads(line)
            if packet["name"] != "opening":
                yield path.stem, packet["name"], bytes.fromhex(packet["hex"])


@pytest.mark.parametrize("wire, different", [("M", 103), ("N", 101)])
def test_captures(wire, different):
    seen, packets = set(), 0
    for session, name, packet in captured(f"wire-{wire}"):
        if session.startswith("older-") or session == "neogo-frames":
            continue        # other protocols of N; frames made by hand: below
        code, payload = split_packet(wire, packet)
        message = proto.decode(code, payload, wire)
        assert type(message).__name__ == name, session
        assert proto.encode(message, wire) == (code, payload), (session, message)
        seen.add(name)
        packets += 1
    assert len(seen) == different and packets > 1500


def test_frames_made_by_hand():
    refused = []
    for _, name, packet in captured("wire-N", "neogo-frames"):
        code, payload = split_packet("N", packet)
        try:
            assert proto.encode(proto.decode(code, payload, "N"), "N") == (code, payload)
        except neolink.errors.DecodeError as error:
            refused.append((name, str(error)))
    assert [name for name, _ in refused] == ["unknown", "AskObject", "Ping"]
    assert "0x0043" in refused[0][1] and "AskObject.oid" in refused[1][1] and "got 4" in refused[2][1]
