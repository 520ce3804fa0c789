# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Admins for the tests of neolink.cluster and neolink ctl: one made by hand, one that repeats what a real one said.

A FakeAdmin answers from a table and a list of nodes; `on(proto.X, reply)` replaces an answer by a message, by several
in turn, or by what a callable returns for the question. It never decides anything, so that a test says what it expects.
`asked` is what it was asked, in order.
"""
from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import neolink
from neolink import proto
from neolink.proto import CellStates, ClusterStates, ErrorCodes, NodeStates, NodeTypes

CAPTURES = Path(__file__).parent / "data" / "captures"
M1, A1, S1, S2, S9 = -0x0fffffff, -0x2fffffff, 1, 2, 9
UP, OUT, FEED = CellStates.UP_TO_DATE, CellStates.OUT_OF_DATE, CellStates.FEEDING

NODES = [
    proto.Node(NodeTypes.STORAGE, ("127.0.0.1", 24421), S1, NodeStates.RUNNING, 1795362201.523793),
    proto.Node(NodeTypes.MASTER, ("127.0.0.1", 24410), M1, NodeStates.RUNNING, None),
    proto.Node(NodeTypes.STORAGE, ("127.0.0.1", 24422), S2, NodeStates.RUNNING, 1795362201.532502),
    proto.Node(NodeTypes.ADMIN, ("127.0.0.1", 24499), A1, NodeStates.RUNNING, 1795362200.140803),
]
"""As an admin lists them: in no order."""


class Hangup(Exception):
    """Raised by a reply: the admin closes the connection, after sending `last` if there is one."""

    def __init__(self, last: Any = None) -> None:
        self.last = last


def table(*cells: dict[int, CellStates], ptid: int | None = 1) -> proto.AnswerPartitionList:
    """A partition list with these rows."""
    return proto.AnswerPartitionList(ptid, 1, [[proto.Cell(*cell) for cell in row.items()] for row in cells])


def ack(text: str = "") -> proto.Error:
    return proto.Error(ErrorCodes.ACK, text)


def denied(text: str) -> proto.Error:
    return proto.Error(ErrorCodes.DENIED, text)


def not_ready(_: Any) -> Any:
    """A reply: no primary master; and hang up, as an admin does."""
    raise Hangup(proto.Error(ErrorCodes.NOT_READY, "Not connected to a primary master."))


class FakeAdmin:
    """Listens on a free port; each link is served on a thread."""

    def __init__(self, wire: str = "M", tls: neolink.TLS | None = None) -> None:
        self.wire = wire
        self.nodes = list(NODES)
        self.asked: list[Any] = []
        self._replies: dict[str, list[Any]] = {}
        self._links: list[neolink.NodeLink] = []
        self._listener = neolink.listen("127.0.0.1:0", wire=wire, tls=tls)  # type: ignore[arg-type]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        ids = proto.AnswerLastIDs(bytes(8), bytes(8), proto.MAX_TID) if wire == "M" else \
            proto.n6.AnswerLastIDs(bytes(8), bytes(8))
        self.on(proto.AskClusterState, proto.AnswerClusterState(ClusterStates.RUNNING))
        self.on(proto.AskPrimary, proto.AnswerPrimary(M1))
        self.on(proto.AskRecovery, proto.AnswerRecovery(1, None, None))
        self.on(proto.AskLastIDs, ids)
        self.on(proto.AskPartitionList, table(*4 * [{S1: UP, S2: UP}]))
        self.on(proto.AskNodeList, self._node_list)
        self.on(proto.Ping, proto.Pong())

    @property
    def address(self) -> str:
        host, port = self._listener.address
        return f"{host}:{port}"

    def on(self, question: type, *replies: Any) -> None:
        """Answer `question` with these in turn, and then always with the last."""
        self._replies[question.__name__] = list(replies)

    def tell(self, message: Any) -> None:
        """Send a notification on every link."""
        for link in self._links:
            if not link.closed:
                link.notify(message)

    def hang_up(self) -> None:
        """End every link, as when the node is killed and started again."""
        for link in self._links:
            link.abort()

    def asked_of(self, question: type) -> list[Any]:
        return [one for one in self.asked if type(one).__name__ == question.__name__]

    def close(self) -> None:
        self._listener.close()
        self._thread.join()
        for link in self._links:
            link.abort()

    def __enter__(self) -> FakeAdmin:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def reply(self, question: Any) -> Any:
        """The answer, None for none."""
        replies = self._replies.get(type(question).__name__)
        if replies is None:
            return None
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return reply(question) if callable(reply) else reply

    def _node_list(self, question: Any) -> Any:
        return proto.AnswerNodeList([node for node in self.nodes if question.node_type in (None, node.type)])

    def _accept(self) -> None:
        for link in self._listener:
            self._links.append(link)
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: neolink.NodeLink) -> None:
        try:
            while True:
                with link.recv1() as request:
                    self._answer(link, request)
        except neolink.Error:
            link.close()

    def _answer(self, link: neolink.NodeLink, request: neolink.Request) -> None:
        question = request.message
        self.asked.append(question)
        try:
            reply = self.reply(question)
        except Hangup as hangup:
            if hangup.last is not None:
                request.reply(hangup.last)
            link.close()
            return
        first, *others = reply if isinstance(reply, list) else [reply]
        if first is not None:
            request.reply(first)
        for message in others:
            link.notify(message)


class Replay(FakeAdmin):
    """Says what a real admin said, in a capture, to the same questions; the rest a FakeAdmin answers."""

    def __init__(self, capture: str) -> None:
        lines = (CAPTURES / f"{capture}.jsonl").read_text().splitlines()
        self.head = json.loads(lines[0])
        super().__init__(capture.split("/")[0].removeprefix("wire-"))
        self._recorded: list[tuple[Any, Any]] = []
        questions: dict[int, Any] = {}
        for line in lines[1:]:
            entry = json.loads(line)
            if entry["name"] != "opening":
                conn_id, message = self._decoded(bytes.fromhex(entry["hex"]))
                if entry["dir"] == "c>s":
                    questions[conn_id] = message
                elif conn_id in questions:
                    self._recorded.append((questions[conn_id], message))

    def _decoded(self, packet: bytes) -> tuple[int, Any]:
        if self.wire == "M":
            import msgspec

            conn_id, code, args = msgspec.msgpack.decode(packet, ext_hook=msgspec.msgpack.Ext)
            return conn_id, proto.decode(code, msgspec.msgpack.encode(args), "M")
        conn_id, code = int.from_bytes(packet[:4], "big"), int.from_bytes(packet[4:6], "big")
        return conn_id, proto.decode(code, packet[10:], "N")

    def reply(self, question: Any) -> Any:
        for place, (asked, answer) in enumerate(self._recorded):
            if asked == question:
                if len(self._recorded) > 1:
                    del self._recorded[place]
                return answer
        return super().reply(question)

    @property
    def questions(self) -> list[Any]:
        """What the real neoctl asked that was not asked again yet."""
        return [asked for asked, _ in self._recorded]


Reply = Callable[[Any], Any]
