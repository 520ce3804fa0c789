# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Two real ends, and whatever hypothesis thinks of doing to them, against a model of what must come of it.

Every packet carries a number of its own. The model knows for each conversation, on each end, which of them are on
their way (`coming`, in order), how many "connection closed" or "refused" it has to be told, and what became of its
ask. So after each step every claim is exact: what arrives is the next of its conversation and nothing else; what was
answered has that answer; what was not has none; nothing comes twice, because what came is taken off the model. At the
end of each run both ends' counters must agree with each other and with the model.

Nothing here waits for luck: what the model says must come is waited for with patience, what must not is polled, once
the counters say that everything sent was received.

NEOLINK_EXAMPLES says how many runs per kind of link (default 15), NEOLINK_STEPS how long one is at most (40).
"""
from __future__ import annotations

import os
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from leaks import at_rest, balanced  # noqa: F401
from reference_peer import error_text, unwrap, wrap
from scenario_kit import ANSWER, ERROR, NOTIFY, REQUEST, each_kind
from support import PATIENCE, Background, until

import neolink

pytestmark = pytest.mark.usefixtures("balanced")
SHRINK = () if os.environ.get("NEOLINK_EXAMPLES") else (Phase.shrink,)          # it takes minutes
PROFILE = settings(phases=(Phase.explicit, Phase.reuse, Phase.generate, *SHRINK),
                   max_examples=int(os.environ.get("NEOLINK_EXAMPLES", "15")), print_blob=True, deadline=None,
                   stateful_step_count=int(os.environ.get("NEOLINK_STEPS", "40")),
                   suppress_health_check=list(HealthCheck))
TURNED_AWAY = ("connection closed", "connection refused")
SIZES = st.sampled_from([0, 1, 40, 5_000, 20_000])
ENDS = st.sampled_from([0, 1])
ANY = st.integers(0, 1 << 16)
"""Picks one of what there is, whatever that is by then."""


@dataclass
class Side:
    """One end of a conversation."""

    state: str = "unborn"               # waiting (in the backlog), open, deaf (close_recv), closed;
                                        # or of an ask: asking, answered, late; or gone: of a notification, or all over
    conn: Any = None                    # the Conn, once there is one
    coming: deque[tuple[int, int]] = field(default_factory=deque)       # (code, number), sent by the other end
    told: int = 0                       # "connection closed" and the like that are on their way
    receiving: Background | None = None

    def hears(self) -> bool:
        return self.state in ("waiting", "open")


@dataclass
class Talk:
    """A conversation: which end opened it, and how both see it."""

    opener: int
    id: int | None = None               # None: of a notification or an ask, until the other end has accepted it
    sides: tuple[Side, Side] = field(default_factory=lambda: (Side(), Side()))


class Ends(RuleBasedStateMachine):
    """See the head of this file."""

    def __init__(self, wire: Any, routing: Any) -> None:
        super().__init__()
        self.wire, self.routing = wire, routing
        self.number = 0

    @initialize()
    def connect(self) -> None:
        self.talks: list[Talk] = []
        self.asks: list[tuple[int, Background, list[Talk]]] = []            # (asking end, its thread, a talk per request)
        self.backlog: tuple[deque[Talk], deque[Talk]] = (deque(), deque())
        self.accepting = [True, True]
        self.over: list[type[BaseException] | None] = [None, None]          # what ops raise on each end
        self.late, self.refused = [0, 0], [0, 0]
        self.links = neolink.pair(wire=self.wire, routing=self.routing)

    # ---- words

    def fresh(self, size: int) -> tuple[int, bytes]:
        """A number nobody has seen, and a payload that carries it."""
        self.number += 1
        return self.number, wrap(self.wire, self.number.to_bytes(4, "big") + bytes(size))

    def number_of(self, packet: neolink.Packet) -> int:
        return int.from_bytes(unwrap(self.wire, packet.payload)[:4], "big")

    def pick(self, which: int, end: int, *states: str) -> Talk | None:
        """One of the talks whose side at `end` is in one of these states."""
        found = [talk for talk in self.talks if talk.sides[end].state in states]
        return found[which % len(found)] if found else None

    def live(self) -> bool:
        return self.over == [None, None]

    def settle(self) -> None:
        """Everything that was sent has been received and routed, replies included."""
        one, other = self.links

        def agreed() -> bool:
            # One look each: what an arrival makes a link say is counted with the arrival.
            looks = [link.stats() for link in (one, other, one)]
            counts = [(look.packets_sent, look.packets_received) for look in looks]
            return counts[0] == counts[2] and counts[0] == counts[1][::-1]
        until(agreed, "every packet's arrival")
        self.collect()

    # ---- what the model does when a packet arrives

    def arrive(self, talk: Talk, end: int, code: int, number: int) -> None:
        """A packet of the talk reaches that end."""
        side, other = talk.sides[end], talk.sides[1 - end]
        if side.state == "unborn" and self.accepting[end]:
            side.state = "waiting"
            self.backlog[end].append(talk)
        if side.state == "asking":
            side.state, side.told = "answered", 0
            side.coming.append((code, number))
        elif side.state == "late":
            side.state = "gone"
            self.late[end] += 1
        elif side.hears():
            side.coming.append((code, number))
        elif code == REQUEST:
            self.refused[end] += side.state == "unborn"
            self.tell(talk, 1 - end, other)

    def tell(self, talk: Talk, end: int, side: Side) -> None:
        """That end is told that nobody is there."""
        if side.state == "asking":
            side.state, side.told = "answered", 1
        elif side.state == "late":
            side.state = "gone"
            self.late[end] += 1
        elif side.hears():
            side.told += 1

    def deafen(self, talk: Talk, end: int, state: str) -> None:
        """That side stops receiving; what waits there unread is answered."""
        side = talk.sides[end]
        if side.hears():
            unread, side.coming = side.coming, deque()
            for code, number in unread:
                if code == REQUEST:
                    self.tell(talk, 1 - end, talk.sides[1 - end])
        side.told, side.state = 0, state

    def check(self, side: Side, packet: neolink.Packet) -> None:
        """This packet may come there now; it will not come again."""
        if packet.code == ERROR:
            assert side.told, f"nobody had reason to say {error_text(self.wire, packet.payload)}"
            assert error_text(self.wire, packet.payload) in TURNED_AWAY
            side.told -= 1
        else:
            assert (packet.code, self.number_of(packet)) == side.coming.popleft()

    # ---- operations

    @precondition(live)
    @rule(end=ENDS)
    def new_conn(self, end: int) -> None:
        conn = self.links[end].new_conn()
        talk = Talk(end, conn.conn_id)
        assert conn.conn_id % 2 == (self.links[end].role is neolink.Role.CLIENT)
        assert all(talk.id != old.id or old.opener != end for old in self.talks), "an id was given twice"
        talk.sides[end].conn, talk.sides[end].state = conn, "open"
        self.talks.append(talk)

    @precondition(live)
    @rule(end=ENDS, which=ANY, size=SIZES, silent=st.booleans())
    def send(self, end: int, which: int, size: int, silent: bool) -> None:
        """The opener of a Conn asks or notifies on it, the other end answers; with stream routing it may ask, too."""
        talk = self.pick(which, end, "open", "deaf")
        if talk is None:
            return
        number, payload = self.fresh(size)
        if talk.opener == end:
            code = NOTIFY if silent else REQUEST
        else:
            code = REQUEST if silent and self.routing == "stream" and talk.sides[1 - end].conn else ANSWER
        talk.sides[end].conn.send(code, payload, timeout=PATIENCE)
        self.arrive(talk, 1 - end, code, number)
        self.settle()

    @precondition(live)
    @rule(end=ENDS, size=SIZES)
    def notify(self, end: int, size: int) -> None:
        number, payload = self.fresh(size)
        self.links[end].notify(NOTIFY, payload, timeout=PATIENCE)
        self.notified(end, number)
        self.settle()

    @precondition(live)
    @rule(end=ENDS, count=st.integers(0, 5))
    def notify_many(self, end: int, count: int) -> None:
        fresh = [self.fresh(3) for _ in range(count)]
        self.links[end].notify_many([neolink.Packet(NOTIFY, payload) for _, payload in fresh], timeout=PATIENCE)
        for number, _ in fresh:
            self.notified(end, number)
        self.settle()

    def notified(self, end: int, number: int) -> None:
        talk = Talk(end)
        talk.sides[end].state = "gone"
        self.talks.append(talk)
        self.arrive(talk, 1 - end, NOTIFY, number)

    @precondition(live)
    @rule(end=ENDS, size=SIZES)
    def ask(self, end: int, size: int) -> None:
        """On a thread of its own; the next rules bring its answer, or its end."""
        self.begin(end, [self.fresh(size)])

    @precondition(live)
    @rule(end=ENDS, count=st.integers(0, 4))
    def ask_many(self, end: int, count: int) -> None:
        self.begin(end, [self.fresh(9) for _ in range(count)])

    def begin(self, end: int, fresh: list[tuple[int, bytes]]) -> None:
        link, before = self.links[end], self.links[end].stats().packets_sent
        requests = [neolink.Packet(REQUEST, payload) for _, payload in fresh]
        if len(fresh) == 1:
            asking = Background(lambda: [link.ask(REQUEST, fresh[0][1])])
        else:
            asking = Background(link.ask_many, requests, return_exceptions=True)
        until(lambda: link.stats().packets_sent >= before + len(fresh), "the requests' leaving")
        batch = [Talk(end) for _ in fresh]
        for (number, _), talk in zip(fresh, batch, strict=True):
            talk.sides[end].state = "asking"
            self.arrive(talk, 1 - end, REQUEST, number)
        self.talks += batch
        self.asks.append((end, asking, batch))
        self.settle()

    @precondition(live)
    @rule(end=ENDS, size=SIZES, seconds=st.sampled_from([0, 0.001]))
    def ask_in_vain(self, end: int, size: int, seconds: float) -> None:
        """Nobody is there to answer in time, but the request has left. A refusal may be as fast as the deadline."""
        number, payload = self.fresh(size)
        talk = Talk(end)
        talk.sides[end].state = "late"
        try:
            packet = self.links[end].ask(REQUEST, payload, timeout=seconds)
        except neolink.Timeout as error:
            assert error.maybe_sent, "the socket had room"
        else:
            assert not self.accepting[1 - end]
            assert packet.code == ERROR and error_text(self.wire, packet.payload) == "connection refused"
            talk.sides[end].state = "answered"
        self.talks.append(talk)
        self.arrive(talk, 1 - end, REQUEST, number)
        talk.sides[end].told = 0
        self.settle()
        assert self.links[end].stats().late_answers == self.late[end]

    @precondition(live)
    @rule(end=ENDS, how=st.sampled_from(["accept", "recv1", "reply", "thread"]))
    def accept(self, end: int, how: str) -> None:
        """Takes the oldest Conn of the backlog; when there is none, nothing comes."""
        link, waiting = self.links[end], self.backlog[end]
        take = link.accept if how == "accept" else link.recv1
        if not self.accepting[end] or not waiting:
            with pytest.raises(neolink.Timeout if self.accepting[end] else neolink.NotAccepting):
                take(timeout=0)
            return
        talk = waiting.popleft()
        side = talk.sides[end]
        taken = Background(take).result() if how == "thread" else take(timeout=PATIENCE)
        side.state = "open"
        side.conn = taken if how == "accept" else taken.conn
        assert talk.id in (None, side.conn.conn_id)
        talk.id = side.conn.conn_id
        if how != "accept":
            self.check(side, taken.packet)
        if how == "reply":
            number, payload = self.fresh(7)
            taken.reply(ANSWER, payload, timeout=PATIENCE)
            self.arrive(talk, 1 - end, ANSWER, number)
            self.settle()
            self.collect()
            with taken:
                self.deafen(talk, end, "closed")
            self.settle()

    @precondition(live)
    @rule(end=ENDS, which=ANY)
    def recv(self, end: int, which: int) -> None:
        talk = self.pick(which, end, "open", "deaf")
        if talk is None or talk.sides[end].receiving:
            return
        side = talk.sides[end]
        if side.state == "deaf":
            with pytest.raises(neolink.ConnClosed):
                side.conn.recv(timeout=0)
        elif side.coming or side.told:
            self.check(side, side.conn.recv(timeout=PATIENCE))
        else:
            with pytest.raises(neolink.Timeout):
                side.conn.recv(timeout=0)

    @precondition(live)
    @rule(end=ENDS, which=ANY)
    def recv_later(self, end: int, which: int) -> None:
        """A thread that waits on a Conn; collect() looks what it got."""
        talk = self.pick(which, end, "open")
        if talk and not talk.sides[end].receiving:
            talk.sides[end].receiving = Background(talk.sides[end].conn.recv)
            self.collect()

    def collect(self) -> None:
        """Each wait that the model says is over is over, and as it says."""
        for talk in self.talks:
            for side in talk.sides:
                if side.receiving and (side.coming or side.told):
                    self.check(side, side.receiving.result())
                    side.receiving = None
        for entry in list(self.asks):
            end, asking, batch = entry
            if all(talk.sides[end].state == "answered" for talk in batch):
                for talk, packet in zip(batch, asking.result(), strict=True):
                    self.check(talk.sides[end], packet)
                    talk.sides[end].state = "gone"
                self.asks.remove(entry)
            elif len(batch) == 1:
                assert not asking.done() or self.over[end], asking.result()

    # ---- ends

    @precondition(live)
    @rule(end=ENDS, which=ANY, how=st.sampled_from(["close", "close_recv", "drop"]))
    def close_conn(self, end: int, which: int, how: str) -> None:
        """Whoever waits on it is woken; requests that wait unread, or come later, are answered "connection closed"."""
        talk = self.pick(which, end, "open", "deaf")
        if talk is None:
            return
        side = talk.sides[end]
        if how == "drop" and side.receiving is None:
            side.conn = None
        else:
            (side.conn.close_recv if how == "close_recv" else side.conn.close)()
        if side.receiving:
            with pytest.raises(neolink.ConnClosed):
                side.receiving.result()
            side.receiving = None
        if how == "close_recv" and side.state == "deaf":
            return
        self.deafen(talk, end, "deaf" if how == "close_recv" else "closed")
        if side.state == "closed" and side.conn:
            for call in (lambda: side.conn.send(ANSWER, timeout=0), lambda: side.conn.recv(timeout=0)):
                with pytest.raises(neolink.ConnClosed):
                    call()
        self.settle()

    @precondition(live)
    @rule(end=ENDS, chance=st.integers(0, 5))
    def close_accept(self, end: int, chance: int) -> None:
        """Who waits in the backlog is refused, each request of his."""
        if chance:
            return
        self.links[end].close_accept()
        for talk in self.backlog[end]:
            requests = sum(code == REQUEST for code, _ in talk.sides[end].coming)
            self.refused[end] += requests
            self.deafen(talk, end, "closed")
        self.backlog[end].clear()
        self.accepting[end] = False
        self.settle()

    @precondition(live)
    @rule(end=ENDS, how=st.sampled_from(["close", "close", "abort", "cut", "half"]), chance=st.integers(0, 4))
    def end_link(self, end: int, how: str, chance: int) -> None:
        if chance == 0:
            self.end(end, how)

    def end(self, end: int, how: str) -> None:
        """What came before stays readable on the other end; then every op says what ended the link."""
        link, other = self.links[end], self.links[1 - end]
        self.account()
        if how in ("close", "abort"):
            getattr(link, how)()
        else:
            with socket.socket(fileno=os.dup(link.fileno())) as ours:
                ours.shutdown(socket.SHUT_WR if how == "half" else socket.SHUT_RDWR)
        until(lambda: other.closed, "the other end's noticing")
        assert other.fault.clean, other.fault
        self.over[1 - end] = neolink.LinkDown
        self.look_back(1 - end)
        if how == "half":
            other.close()
        until(lambda: link.closed, "the link's end")
        self.over[end] = neolink.LinkClosed if how in ("close", "abort") else neolink.LinkDown
        self.look_back(end)

    @precondition(lambda self: not self.live())
    @rule()
    def connect_again(self) -> None:
        self.rest()
        self.connect()

    def rest(self) -> None:
        for link in self.links:
            link.close()
        at_rest(*self.links)

    def look_back(self, end: int) -> None:
        """Nothing is lost, nothing is invented, and nobody is left waiting."""
        link, over = self.links[end], self.over[end]
        assert over is not None
        for asked_end, asking, batch in self.asks:
            if asked_end == end:
                self.unanswered(end, asking, batch, over)
        for talk in self.talks:
            side = talk.sides[end]
            if side.receiving:
                with pytest.raises(over):
                    side.receiving.result()
                side.receiving = None
            if side.state == "open" and side.conn:
                while over is neolink.LinkDown and (side.coming or side.told):
                    self.check(side, side.conn.recv(timeout=0))
                with pytest.raises(over):
                    side.conn.recv(timeout=0)
        while over is neolink.LinkDown and self.accepting[end] and self.backlog[end]:
            conn = link.accept(timeout=0)
            side = self.backlog[end].popleft().sides[end]
            while side.coming:
                self.check(side, conn.recv(timeout=0))
        for call in (link.new_conn, lambda: link.notify(NOTIFY, timeout=0), lambda: link.ask(REQUEST, timeout=0)):
            with pytest.raises(over):
                call()
        if self.accepting[end]:
            with pytest.raises(over):
                link.accept(timeout=0)

    def unanswered(self, end: int, asking: Background, batch: list[Talk], over: type[BaseException]) -> None:
        """The outcomes of asks when the link ends: those that were answered have it, the rest have the end."""
        if len(batch) == 1:
            with pytest.raises(over):
                asking.result()
            return
        for talk, outcome in zip(batch, asking.result(), strict=True):
            if talk.sides[end].state == "answered":
                self.check(talk.sides[end], outcome)
            else:
                assert isinstance(outcome, over), outcome

    def teardown(self) -> None:
        if not hasattr(self, "links"):
            return
        try:
            if self.live():
                self.end(0, "close")
            self.rest()
        finally:
            for link in self.links:
                link.abort()

    def account(self) -> None:
        """The counters of both ends, to the last packet."""
        self.settle()
        for end, link in enumerate(self.links):
            stats = link.stats()
            assert (stats.late_answers, stats.refused_conns) == (self.late[end], self.refused[end]), stats


@each_kind
def test_s62_any_operations_in_any_order(wire, routing):
    run_state_machine_as_test(lambda: Ends(wire, routing), settings=PROFILE)
