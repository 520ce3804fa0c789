# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Typed messages on links: ask, expect, reply, and what an Error answer becomes."""
import sys

import pytest
from support import Background

import neolink
from neolink import Packet, _typed, proto

pytestmark = pytest.mark.usefixtures("no_leaks")

RUNNING = proto.AnswerClusterState(proto.ClusterStates.RUNNING)
ERROR = proto.ErrorCodes


def answered(links, asked, *replies):
    """The outcome of asking when the peer replies so."""
    client, server = links
    asking = Background(client.ask, asked, timeout=20)
    with server.recv1(timeout=20) as request:
        assert request.message == asked
        assert request.packet.message == asked
        for reply in replies:
            request.reply(reply)
        return asking.result()


@pytest.fixture(params=["M", "N"])
def wire(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["first of its class", "known"])
def links(request, wire, monkeypatch):
    """A client and a server; the client has asked by messages of the classes here before, or by none."""
    if request.param:
        for cls in proto.AskClusterState, proto.AskLastIDs, proto.AskNewOIDs:
            learn(monkeypatch, wire, cls, proto.coding.asking(cls, wire))
    else:
        for cls in list(_typed.askings[wire]):
            monkeypatch.delitem(_typed.askings[wire], cls)
    client, server = neolink.pair(wire=wire, routing="neo")
    with client, server:
        yield client, server


def learn(monkeypatch, wire, cls, asking):
    monkeypatch.setitem(_typed.askings[wire], cls, asking)


def test_ask(links):
    assert answered(links, proto.AskClusterState(), RUNNING) == RUNNING


def test_the_second_ask_of_a_class(links):
    for _ in range(2):
        assert answered(links, proto.AskClusterState(), RUNNING) == RUNNING
        assert proto.AskClusterState in _typed.askings[links[0].wire]


def test_what_is_known_of_a_class_is_what_is_done(links, monkeypatch):
    code, _, answer, _ = proto.coding.asking(proto.AskClusterState, links[0].wire)
    message, seen = proto.AskClusterState(), []
    encoded = proto.encode(message, links[0].wire)[1]
    learn(monkeypatch, links[0].wire, type(message),
          proto.coding.Asking(code, lambda asked: seen.append(asked) or encoded, answer, lambda payload: "decoded"))
    assert answered(links, message, RUNNING) == "decoded"
    assert seen == [message]


@pytest.mark.parametrize("failing", ["encode", "decode"])
def test_what_fails_once_is_done_again_but_not_what_the_user_ends(links, failing, monkeypatch):
    message, wire = proto.AskClusterState(), links[0].wire

    def fail(_):
        raise error

    for error in MemoryError(), KeyboardInterrupt():
        learn(monkeypatch, wire, type(message), proto.coding.asking(type(message), wire)._replace(**{failing: fail}))
        if isinstance(error, Exception):
            assert answered(links, message, RUNNING) == RUNNING
        else:
            sent = Background(links[1].recv1) if failing == "encode" else Background(answer_one, links[1])
            with pytest.raises(KeyboardInterrupt):
                links[0].ask(message, timeout=20)
            links[0].notify(1)
            sent.result().close()


def answer_one(link):
    request = link.recv1(timeout=20)
    request.reply(RUNNING)
    return request


def test_what_is_known_of_a_class_may_be_forgotten_meanwhile(links, monkeypatch):
    client, server = links
    cls, by_class = proto.AskClusterState, _typed.askings[client.wire]
    learn(monkeypatch, client.wire, cls, proto.coding.asking(cls, client.wire))
    before = sys.getrefcount(by_class[cls])
    asking = Background(client.ask, cls(), timeout=20)
    with server.recv1(timeout=20) as request:
        meanwhile = sys.getrefcount(by_class[cls])
        request.reply(RUNNING)
        assert asking.result() == RUNNING
    after = sys.getrefcount(by_class[cls])
    assert (meanwhile, after) == (before + 1, before)       # the ask has it, too


def test_a_long_answer(links):
    reply = proto.AnswerNewOIDs([number.to_bytes(8, "big") for number in range(5000)])
    assert answered(links, proto.AskNewOIDs(5000), reply) == reply


def test_ask_with_a_packet_in_and_a_packet_out(links):
    client, server = links
    asking = Background(client.ask, Packet(0x2E, b""), timeout=20)
    with server.recv1(timeout=20) as request:
        request.reply(Packet(0x8000, request.packet.payload))
    answer = asking.result()
    assert isinstance(answer, Packet) and answer.code == 0x8000


def test_answer_that_differs_by_wire(links):
    client, _ = links
    declared = proto.AskLastIDs.answers[client.wire]
    reply = declared(*([b"\0" * 8] * len(declared.__struct_fields__)))
    assert answered(links, proto.AskLastIDs(), reply) == reply


def test_error_answer_raises(links):
    with pytest.raises(neolink.RemoteError, match="NOT_READY: come back later") as caught:
        answered(links, proto.AskClusterState(), proto.Error(ERROR.NOT_READY, "come back later"))
    error = caught.value
    assert (error.code, error.message, error.op, error.link) == (ERROR.NOT_READY, "come back later", "ask", links[0])
    assert error.conn_id is not None


@pytest.mark.parametrize("text, error, standard", [
    ("connection refused", neolink.ConnRefused, ConnectionRefusedError),
    ("connection closed", neolink.ConnClosedByPeer, ConnectionResetError),
])
def test_the_prototypes_two_texts(links, text, error, standard):
    with pytest.raises(error) as caught:
        answered(links, proto.AskClusterState(), proto.Error(ERROR.PROTOCOL_ERROR, text))
    assert isinstance(caught.value, standard)


def test_nobody_accepts(links):
    links[1].close_accept()
    with pytest.raises(neolink.ConnRefused):
        links[0].ask(proto.AskClusterState(), timeout=20)


def test_ack_is_the_answer_of_those_that_have_no_other(links):
    ask, ack = proto.SetClusterState(proto.ClusterStates.VERIFYING), proto.Error(ERROR.ACK, "done")
    assert answered(links, ask, ack) == ack
    with pytest.raises(neolink.RemoteError):
        answered(links, ask, proto.Error(ERROR.DENIED, "no"))
    with pytest.raises(neolink.RemoteError):
        answered(links, proto.AskClusterState(), ack)


def test_unexpected_answer(links):
    other = proto.AnswerNewOIDs([b"\0" * 8])
    with pytest.raises(neolink.UnexpectedMessage, match="expected AnswerClusterState, got AnswerNewOIDs") as caught:
        answered(links, proto.AskClusterState(), other)
    assert caught.value.packet.message == other


def test_malformed_answer(links):
    payload = b"\x91\xa1x" if links[0].wire == "M" else b"\x7f"
    with pytest.raises(neolink.DecodeError) as caught:
        answered(links, proto.AskClusterState(), Packet(0x802E, payload))
    assert caught.value.op == "ask" and caught.value.link is links[0]


def test_only_requests_are_asked(links):
    with pytest.raises(TypeError, match="has no answer"):
        links[0].ask(RUNNING)
    with pytest.raises(TypeError, match="has no answer"):
        links[0].ask_many([RUNNING])
    with pytest.raises(TypeError, match="a code"):
        links[0].ask(proto.AskClusterState)
    with pytest.raises(TypeError, match="a code"):
        links[0].notify(object())
    assert links[0].stats().packets_sent == 0


def test_bad_field_of_a_request(links):
    with pytest.raises(neolink.EncodeError, match="AskNewOIDs") as caught:
        links[0].ask(proto.AskNewOIDs("many"))
    assert caught.value.op == "ask" and caught.value.link is links[0]
    assert links[0].stats().packets_sent == 0


def test_bad_field_is_an_encode_error_that_says_where(links):
    with pytest.raises(neolink.EncodeError) as caught:
        links[0].notify(proto.SetClusterState(2))
    assert caught.value.op == "notify" and caught.value.link is links[0]
    assert links[0].stats().packets_sent == 0


def test_conn_ask_expect_and_send(links):
    client, server = links
    with client.new_conn() as conn:
        asking = Background(conn.ask, proto.AskClusterState(), timeout=20)
        with server.accept(timeout=20) as peer:
            assert peer.expect(proto.AskClusterState, proto.Ping, timeout=20) == proto.AskClusterState()
            peer.send(RUNNING)
            assert asking.result() == RUNNING
            peer.send(proto.Error(ERROR.DENIED, "no"))
            peer.send(proto.Error(ERROR.DENIED, "no"))
            peer.send(RUNNING)
            with pytest.raises(neolink.RemoteError):
                conn.expect(proto.AnswerClusterState, timeout=20)
            assert conn.expect(proto.Error, timeout=20).message == "no"
            with pytest.raises(neolink.UnexpectedMessage):
                conn.expect(proto.AnswerNewOIDs, proto.Ping, timeout=20)
            with pytest.raises(neolink.Timeout):
                conn.expect(proto.Ping, timeout=0)


@pytest.mark.parametrize("args, kwargs", [((), {}), ((5,), {}), ((proto.Ping,), {"x": 1}), ((), {"timeout": 1})])
def test_expect_wants_classes(links, args, kwargs):
    with pytest.raises(TypeError):
        links[0].new_conn().expect(*args, **kwargs)


def test_ask_many(links):
    client, server = links

    def serve():
        for n in range(4):
            with server.recv1(timeout=20) as request:
                request.reply(RUNNING if n != 1 else proto.Error(ERROR.DENIED, "no"))

    serving = Background(serve)
    asked = [proto.AskClusterState(), proto.AskClusterState(), Packet(0x2E), proto.AskClusterState()]
    first, second, third, fourth = client.ask_many(asked, timeout=20, return_exceptions=True)
    assert first == fourth == RUNNING
    assert isinstance(second, neolink.RemoteError) and second.op == "ask_many"
    assert third.message == RUNNING
    serving.result()


def test_notify_and_notify_many(links):
    client, server = links
    note = proto.NotifyNodeInformation(1.5, [])
    client.notify(note)
    client.notify_many([note, Packet(0x2E)])
    assert [server.recv1(timeout=20).packet.code for _ in range(3)] == [6, 6, 0x2E]


def test_2016_has_no_typed_messages():
    client, server = neolink.pair(wire="2016")
    with client, server:
        with pytest.raises(neolink.EncodeError):
            client.ask(proto.AskClusterState(), timeout=0)
