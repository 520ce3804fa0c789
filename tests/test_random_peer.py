# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""One real end against the plain Python reference peer, and whatever hypothesis thinks of making both do.

The peer is on our side of the table: everything it reads and writes is in this thread's hands, so the model knows the
wire to the byte. `wire` is what the link must have written and the peer has not read yet, in order. What the peer
writes is put by the model where it belongs: to an ask, to a Conn, to the backlog, or away. So each step checks that
the link does the same.

The peer does what peers do: answers in any order, pushes, asks things itself, answers twice or what nobody asked,
refuses; reads nothing for a while, so that sends have to wait and deadlines pass; stops within a packet; and ends the
link, with FIN or RST, between packets or inside one, or with bytes that are no packet. After an end, whatever came
before it must still be there, every ask has exactly one outcome, and the fault has the right class.

A send that ran out of time says whether its packet may have left. If it says no, the peer must never see it.

NEOLINK_EXAMPLES and NEOLINK_STEPS as in test_random_ends.py.
"""
from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from leaks import at_rest, balanced  # noqa: F401
from reference_peer import Packet, ReferencePeer, error_payload, error_text, unwrap, wrap
from scenario_kit import ANSWER, ERROR, NOTIFY, PUSH, REQUEST, each_kind, tcp_pair
from support import PATIENCE, Background, until
from test_random_ends import ANY, PROFILE, SIZES

import neolink

pytestmark = pytest.mark.usefixtures("balanced")
LIMITS = neolink.Limits(link_tx_bytes=40_000)
LARGE = 30_000
"""A few of these fill what the sockets and the link's budget take together."""


@dataclass
class Talk:
    """A Conn of the link's, or an ask."""

    id: int
    conn: Any = None
    state: str = "open"                 # open → deaf → closed; or asking → answered; late; the peer's: waiting → open
    inbox: deque[Packet] = field(default_factory=deque)
    receiving: Background | None = None


@dataclass
class Ask:
    """An ask, or several in one call, on a thread of its own."""

    thread: Background
    ids: list[int]
    answers: dict[int, Packet] = field(default_factory=dict)


class Peer(RuleBasedStateMachine):
    """See the head of this file."""

    def __init__(self, wire: Any, routing: Any, role: str) -> None:
        super().__init__()
        self.kind, self.routing, self.role = wire, routing, role

    @initialize()
    def connect(self) -> None:
        near, far = tcp_pair()
        far.settimeout(PATIENCE)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        self.link = neolink.NodeLink(near, self.role, wire=self.kind, routing=self.routing, limits=LIMITS)
        self.peer = ReferencePeer(far, self.kind, "server" if self.role == "client" else "client")
        self.ours: dict[int, Talk] = {}
        self.theirs: dict[int, Talk] = {}
        self.asks: list[Ask] = []
        self.wire: deque[Packet] = deque()          # written by the link, unread; an id of -1 is not known
        self.told: deque[tuple[int, str]] = deque()     # (id, text) of refusals that the link owes
        self.backlog: deque[Talk] = deque()
        self.late: set[int] = set()
        self.number = 0
        self.received = 0
        self.late_answers = self.ignored = 0
        self.stuck = False
        self.unfinished = b""
        self.over: type[neolink.Error] | None = None

    # ---- words

    def live(self) -> bool:
        return self.over is None

    def talking(self) -> bool:
        """The peer is between two packets."""
        return self.over is None and not self.unfinished

    def payload(self, size: int = 9) -> bytes:
        self.number += 1
        return wrap(self.kind, self.number.to_bytes(4, "big") + bytes(size))

    def pick(self, talks: dict[int, Talk], which: int, *states: str) -> Talk | None:
        found = [talk for talk in talks.values() if talk.state in states]
        return found[which % len(found)] if found else None

    def see(self) -> None:
        """The peer reads all that the link must have written, and nothing else is there."""
        while self.wire or self.told:
            packet = self.peer.recv()
            if packet.code == ERROR:
                assert (packet.id, error_text(self.kind, packet.payload)) == self.told.popleft()
            else:
                wanted = self.wire.popleft()
                assert packet == wanted._replace(id=packet.id if wanted.id < 0 else wanted.id)
        self.stuck = False

    def say(self, packet: Packet) -> None:
        """The peer writes it, the link routes it, and the model knows where to."""
        self.peer.send(packet)
        self.route(packet)
        self.settle()

    def settle(self) -> None:
        until(lambda: self.link.stats().packets_received == self.received, "the packet's arrival")
        for ask in list(self.asks):
            if len(ask.answers) == len(ask.ids):
                self.check_ask(ask, None)
        for talk in (*self.ours.values(), *self.theirs.values()):
            if talk.receiving and talk.inbox:
                self.check(talk, talk.receiving.result())
                talk.receiving = None

    def route(self, packet: Packet) -> None:
        """The rule of docs/design.rst, once more, in Python."""
        self.received += 1
        mine = packet.id % 2 == (self.role == "client") if self.routing == "stream" else bool(packet.code & 0x8000)
        if self.routing == "neo" and packet.code == PUSH[self.kind] and packet.id in self.ours:
            mine = self.ours[packet.id].state in ("open", "deaf", "asking")
        talk = (self.ours if mine else self.theirs).get(packet.id)
        if talk and talk.state == "asking":
            talk.state = "answered"
            next(ask for ask in self.asks if packet.id in ask.ids).answers[packet.id] = packet
        elif talk and talk.state in ("open", "waiting"):
            talk.inbox.append(packet)
        elif talk and talk.state == "late":
            talk.state = "answered"
            self.late_answers += 1
        elif talk is None and not mine and packet.code in (REQUEST, NOTIFY):
            self.theirs[packet.id] = opened = Talk(packet.id, state="waiting", inbox=deque([packet]))
            self.backlog.append(opened)
        elif self.wants_answer(packet):
            self.told.append((packet.id, "connection closed"))
        else:
            self.ignored += 1

    def wants_answer(self, packet: Packet) -> bool:
        return packet.code == REQUEST or (packet.code == PUSH["2016"] and self.kind == "2016")  # all but 5 and 6 do

    def check(self, talk: Talk, packet: neolink.Packet) -> None:
        wanted = talk.inbox.popleft()
        assert (packet.conn_id, packet.code, bytes(packet.payload)) == wanted

    def check_ask(self, ask: Ask, over: type[neolink.Error] | None) -> None:
        """Each has its answer; or, when the link has ended, the end."""
        self.asks.remove(ask)
        try:
            outcomes = ask.thread.result()
        except neolink.Error as error:
            outcomes = [error]
        for number, outcome in zip(ask.ids, outcomes, strict=True):
            if number in ask.answers:
                wanted = ask.answers[number]
                assert (outcome.conn_id, outcome.code, bytes(outcome.payload)) == wanted
            else:
                assert over and isinstance(outcome, over), outcome

    # ---- what the link does

    @precondition(live)
    @rule()
    def new_conn(self) -> None:
        conn = self.link.new_conn()
        assert conn.conn_id not in self.ours
        self.ours[conn.conn_id] = Talk(conn.conn_id, conn)

    @precondition(lambda self: self.live() and not self.stuck)
    @rule(which=ANY, size=SIZES, mine=st.booleans())
    def send(self, which: int, size: int, mine: bool) -> None:
        talk = self.pick(self.ours if mine else self.theirs, which, "open", "deaf")
        if talk:
            packet = Packet(talk.id, REQUEST if mine else ANSWER, self.payload(size))
            talk.conn.send(packet.code, packet.payload, timeout=PATIENCE)
            self.wire.append(packet)
            self.see()

    @precondition(lambda self: self.live() and not self.stuck)
    @rule(size=SIZES)
    def notify(self, size: int) -> None:
        packet = Packet(-1, NOTIFY, self.payload(size))
        self.link.notify(NOTIFY, packet.payload, timeout=PATIENCE)
        self.wire.append(packet)
        self.see()

    @precondition(lambda self: self.live() and not self.stuck)
    @rule(count=st.sampled_from([1, 1, 2, 5]))
    def ask(self, count: int) -> None:
        payloads = [self.payload() for _ in range(count)]
        if count == 1:
            thread = Background(lambda: [self.link.ask(REQUEST, payloads[0])])
        else:
            requests = [neolink.Packet(REQUEST, payload) for payload in payloads]
            thread = Background(self.link.ask_many, requests, return_exceptions=True)
        seen = [self.peer.recv() for _ in payloads]
        assert [packet[1:] for packet in seen] == [(REQUEST, payload) for payload in payloads]
        self.asks.append(Ask(thread, [packet.id for packet in seen]))
        for packet in seen:
            assert packet.id not in self.ours
            self.ours[packet.id] = Talk(packet.id, state="asking")

    @precondition(lambda self: self.live() and not self.stuck)
    @rule(seconds=st.sampled_from([0, 0.001]), many=st.booleans())
    def ask_in_vain(self, seconds: float, many: bool) -> None:
        """Out of time; the requests have left, and their answers will be late."""
        payloads = [self.payload() for _ in range(3 if many else 1)]
        requests = [neolink.Packet(REQUEST, payload) for payload in payloads]
        for outcome in self.link.ask_many(requests, timeout=seconds, return_exceptions=True):
            assert isinstance(outcome, neolink.Timeout) and outcome.maybe_sent
        for payload in payloads:
            packet = self.peer.recv()
            assert packet[1:] == (REQUEST, payload)
            self.ours[packet.id] = Talk(packet.id, state="late")

    @precondition(live)
    @rule(count=st.integers(1, 12), how=st.sampled_from(["ask", "notify", "send"]), seconds=st.sampled_from([0, 0.001]))
    def fill(self, count: int, how: str, seconds: float) -> None:
        """Sends with a deadline, while the peer reads nothing: what was not sent will never be seen, the rest will."""
        self.stuck = True
        for _ in range(count):
            packet = Packet(-1, REQUEST if how == "ask" else NOTIFY, self.payload(LARGE))
            conn = self.link.new_conn() if how == "send" else None
            try:
                if how == "ask":
                    self.link.ask(REQUEST, packet.payload, timeout=seconds)
                elif conn:
                    conn.send(NOTIFY, packet.payload, timeout=seconds)
                else:
                    self.link.notify(NOTIFY, packet.payload, timeout=seconds)
                assert how != "ask"
            except neolink.Timeout as error:
                if not error.maybe_sent:
                    continue
                assert how == "ask", "a packet that fits the budget is sent, or it is not"
            self.wire.append(packet)

    @precondition(lambda self: self.live() and self.stuck)
    @rule()
    def read_on(self) -> None:
        self.see()
        until(lambda: self.link.stats().tx_bytes_queued == 0, "an empty queue")

    @precondition(live)
    @rule(recv1=st.booleans())
    def accept(self, recv1: bool) -> None:
        take = self.link.recv1 if recv1 else self.link.accept
        if not self.backlog:
            with pytest.raises(neolink.Timeout):
                take(timeout=0)
            return
        talk, taken = self.backlog.popleft(), take(timeout=0)
        talk.conn, talk.state = taken.conn if recv1 else taken, "open"
        assert talk.conn.conn_id == talk.id
        if recv1:
            self.check(talk, taken.packet)

    @precondition(live)
    @rule(which=ANY, mine=st.booleans(), later=st.booleans())
    def recv(self, which: int, mine: bool, later: bool) -> None:
        talk = self.pick(self.ours if mine else self.theirs, which, "open")
        if talk is None or talk.receiving:
            return
        if talk.inbox:
            self.check(talk, talk.conn.recv(timeout=0))
        elif later:
            talk.receiving = Background(talk.conn.recv)
        else:
            with pytest.raises(neolink.Timeout):
                talk.conn.recv(timeout=0)

    @precondition(lambda self: self.live() and not self.stuck)
    @rule(which=ANY, mine=st.booleans(), deaf=st.booleans())
    def close_conn(self, which: int, mine: bool, deaf: bool) -> None:
        talk = self.pick(self.ours if mine else self.theirs, which, "open")
        if talk is None:
            return
        for packet in talk.inbox:
            if self.wants_answer(packet):
                self.told.append((packet.id, "connection closed"))
            else:
                self.ignored += 1
        talk.inbox.clear()
        (talk.conn.close_recv if deaf else talk.conn.close)()
        talk.state = "deaf" if deaf else "closed"
        if talk.receiving:
            with pytest.raises(neolink.ConnClosed):
                talk.receiving.result()
            talk.receiving = None
        self.see()

    # ---- what the peer does

    @precondition(talking)
    @rule(which=ANY, what=st.sampled_from(["answer", "answer", "error", "push"]), size=SIZES)
    def answer(self, which: int, what: str, size: int) -> None:
        """To an ask or a Conn of the link's, whether it still waits for it or not."""
        if self.ours:
            number = list(self.ours)[which % len(self.ours)]
            code = {"answer": ANSWER, "error": ERROR, "push": PUSH[self.kind]}[what]
            payload = error_payload(self.kind, "NOT_READY") if what == "error" else self.payload(size)
            self.say(Packet(number, code, payload))
            if not self.stuck:
                self.see()

    @precondition(lambda self: self.talking() and not self.stuck)
    @rule(which=ANY, again=st.booleans(), silent=st.booleans(), size=SIZES)
    def ask_the_link(self, which: int, again: bool, silent: bool, size: int) -> None:
        """On a new Conn of the peer's, or on one there has been."""
        number = list(self.theirs)[which % len(self.theirs)] if again and self.theirs else self.peer.new_id()
        self.say(Packet(number, NOTIFY if silent else REQUEST, self.payload(size)))
        self.see()

    @precondition(talking)
    @rule(parity=st.sampled_from([0, 1]), code=st.sampled_from([ANSWER, ERROR]))
    def stray(self, parity: int, code: int) -> None:
        """An answer to nothing."""
        self.say(Packet(1_000_000 + parity, code, error_payload(self.kind, "what?")))

    @precondition(talking)
    @rule(at=ANY, size=SIZES)
    def stop_within(self, at: int, size: int) -> None:
        """A part of an answer that nobody waits for; the rest may come later."""
        data = self.peer.frame(Packet(2_000_000 + (self.role == "client"), ANSWER, self.payload(size)))
        cut = 1 + at % (len(data) - 1)
        self.peer.sock.sendall(data[:cut])
        self.unfinished = data[cut:]

    @precondition(lambda self: self.live() and self.unfinished)
    @rule(step=st.sampled_from([1, 3, 1 << 16]))
    def go_on(self, step: int) -> None:
        """The rest, in crumbs at first."""
        for at in range(0, min(len(self.unfinished), 5 * step), step):
            self.peer.sock.sendall(self.unfinished[at:at + step])
        self.unfinished = self.unfinished[5 * step:]
        if not self.unfinished:
            self.received += 1
            self.ignored += 1
            self.settle()

    # ---- ends

    @precondition(live)
    @rule(how=st.sampled_from(["fin", "half", "rst", "garbage", "close", "abort"]), chance=st.integers(0, 5))
    def end(self, how: str, chance: int) -> None:
        if chance == 0:
            self.finish(how)

    def finish(self, how: str) -> None:
        """What came before is still there; the fault is of the right kind."""
        self.account()
        if how == "garbage" and self.unfinished:
            how = "fin"                             # within a packet any byte may be its own
        if how in ("close", "abort"):
            if how == "close" and not self.stuck:
                self.link.close(PATIENCE)
            else:
                self.link.abort()
            self.over = neolink.LinkClosed
        else:
            self.over = neolink.ProtocolError if how == "garbage" else neolink.LinkDown
            if how == "garbage":
                self.peer.sock.sendall({"M": b"\xc1", "N": bytes(6) + b"\xff" * 4, "2016": bytes(10)}[self.kind])
            elif how == "half":
                self.peer.half_close()
            elif how == "rst":
                self.peer.reset()
            else:
                self.peer.sock.close()
            until(lambda: self.link.closed, "the link's end")
            if not self.stuck:                      # else the kernel makes a RST of it
                assert self.link.fault.clean == (how in ("fin", "half") and not self.unfinished), self.link.fault
        self.look_back()

    def look_back(self) -> None:
        """One outcome for every ask and every wait; what was received can be read."""
        over = self.over
        assert over
        for ask in list(self.asks):
            self.check_ask(ask, over)
        while over is not neolink.LinkClosed and self.backlog:
            talk = self.backlog.popleft()
            talk.conn, talk.state = self.link.accept(timeout=0), "open"
            assert talk.conn.conn_id == talk.id
        for talk in (*self.ours.values(), *self.theirs.values()):
            if talk.receiving:
                with pytest.raises(over):
                    talk.receiving.result()
            elif talk.state == "open":
                while over is not neolink.LinkClosed and talk.inbox:
                    self.check(talk, talk.conn.recv(timeout=0))
                with pytest.raises(over):
                    talk.conn.recv(timeout=0)
        for call in (self.link.new_conn, self.link.accept, lambda: self.link.ask(REQUEST),
                     lambda: self.link.notify(NOTIFY)):
            with pytest.raises(over):
                call()

    def account(self) -> None:
        self.settle()
        stats = self.link.stats()
        assert (stats.packets_received, stats.late_answers, stats.ignored_packets) == \
            (self.received, self.late_answers, self.ignored), stats

    @precondition(lambda self: not self.live())
    @rule()
    def connect_again(self) -> None:
        self.rest()
        self.connect()

    def rest(self) -> None:
        self.link.close()
        self.peer.sock.close()
        at_rest(self.link)

    def teardown(self) -> None:
        if hasattr(self, "link"):
            try:
                if self.live():
                    self.finish("close")
                self.rest()
            finally:
                self.link.abort()
                self.peer.sock.close()


@each_kind
def test_any_operations_in_any_order(wire, routing):
    for role in ("client", "server"):
        run_state_machine_as_test(lambda role=role: Peer(wire, routing, role), settings=PROFILE)
