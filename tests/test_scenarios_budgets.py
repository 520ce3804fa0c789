# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Slow peers, budgets, fairness: S44 to S51."""
import random
import time

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import (
    ANSWER,
    Cost,
    NOTIFY,
    REQUEST,
    body,
    both_ends,
    cost,
    data_of,
    each_kind,
    each_wire,
    frame,
    is_above,
    keeps_its_rate,
    one_processor,
    memory,
    peak_memory,
    raw_peer,
    stuff,
)
from support import PATIENCE, Background, until, waiting, within

import neolink

pytestmark = pytest.mark.usefixtures("balanced")


def echo(link: neolink.NodeLink) -> Background:
    return Background(link.serve, lambda request: neolink.Packet(ANSWER, request.packet.payload))


@each_kind
def test_s44_a_conn_that_is_never_read_holds_the_link_at_its_budget_and_not_before(wire, routing):
    limits = neolink.Limits(link_rx_bytes=1_000_000, conn_rx_bytes=100_000)
    with raw_peer(wire, routing, limits=limits) as (link, peer):
        slow = link.new_conn()
        slow.send(REQUEST)
        slow_id, payload = peer.recv().conn_id, body(wire, bytes(10_000))
        sent = 0
        for _ in range(80):                         # far over conn_rx_bytes, below the link's: others do not notice
            peer.send(slow_id, ANSWER, payload)
            sent += 1
            asking = Background(link.ask, REQUEST)
            peer.send(peer.recv().conn_id, ANSWER)
            assert asking.result().code == ANSWER
        asking = Background(link.ask, REQUEST)
        asked = peer.recv().conn_id
        # its answer is behind more than the link may hold
        sending = Background(peer.sock.sendall, frame(wire, slow_id, ANSWER, payload) * 60 + frame(wire, asked, ANSWER))
        sent += 60
        until(lambda: link.stats().rx_bytes_queued > 1_000_000)
        assert not asking.done()
        assert link.stats().rx_bytes_queued < 1_200_000
        for _ in range(sent):
            slow.recv(timeout=PATIENCE)
        assert asking.result().code == ANSWER       # it went on when there was room
        sending.result()
        slow.close()
        at_rest(link)


@each_wire
def test_s44_or_that_conn_fails_and_others_never_wait(wire):
    limits = neolink.Limits(conn_rx_bytes=100_000, rx_policy="fail")
    with raw_peer(wire, limits=limits) as (link, peer):
        slow = link.new_conn()
        slow.send(REQUEST)
        slow_id = peer.recv().conn_id
        for _ in range(30):
            peer.send(slow_id, ANSWER, body(wire, bytes(10_000)))
        asking = Background(link.ask, REQUEST)
        peer.send(peer.recv().conn_id, ANSWER)
        assert asking.result().code == ANSWER
        with pytest.raises(neolink.TooBig, match="conn_rx_bytes") as caught:
            while True:
                slow.recv(timeout=20)
        assert caught.value.conn_id == slow_id and slow.closed
        with pytest.raises(neolink.Error):
            slow.send(REQUEST)
        at_rest(link)


def test_s44_the_walk_tells_nine_tenths_from_less():
    noise = random.Random(5)
    assert is_above(0.9, lambda: noise.gauss(1.0, 0.2))
    assert not is_above(0.9, lambda: noise.gauss(0.8, 0.2))
    assert not is_above(0.9, lambda: 0.9)


def test_s44_the_walk_ends_when_there_is_nothing_to_tell():
    """Values of which every second one is above: a coin decides, soon enough."""
    noise, rounds = random.Random(6), []
    for _ in range(50):
        tosses = 0

        def toss() -> float:
            nonlocal tosses
            tosses += 1
            return noise.random()

        is_above(0.5, toss)
        rounds.append(tosses)
    assert 600 < sum(rounds) / 50 < 2400 and max(rounds) < 20_000


def spent(seconds: float) -> None:
    """Use up so much processor time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize("extra, kept", [
    (lambda: None, True),
    (lambda: spent(0.00006), False),                # a third more
    (lambda: time.sleep(0.001), False),             # a wait, which takes none
])
def test_s44_work_that_takes_longer_has_not_kept_its_rate(extra, kept):
    assert keeps_its_rate(lambda: cost(lambda: spent(0.0002)), lambda: cost(lambda: (spent(0.0002), extra()))) is kept


@pytest.mark.parametrize("extra, kept", [(0.0, True), (0.00006, False)])
def test_s44_who_is_slower_by_itself_has_kept_its_rate(extra, kept):
    """One of two places takes twice as long, which is not what the load costs."""
    load = 1

    def trade() -> None:
        nonlocal load
        load = 1 - load

    def turn(place: int) -> Cost:
        return cost(lambda: spent((0.0001, 0.0002)[place] + extra * (place == load)))

    assert keeps_its_rate(lambda: turn(1 - load), lambda: turn(load), trade=trade) is kept


def never_read(client: neolink.NodeLink, server: neolink.NodeLink) -> tuple[neolink.Conn, neolink.Conn]:
    """A Conn of the client's that it will not read, and the server's end of it, to send on."""
    slow = client.new_conn()
    slow.send(REQUEST)
    return slow, server.accept(timeout=PATIENCE)


class Unread:
    """A Conn of each of two links. Nobody reads that of the busy link, and half of the link's budget is queued on it."""

    def __init__(self, *pairs: tuple[neolink.NodeLink, neolink.NodeLink]) -> None:
        self.idle, self.busy = (client for client, _ in pairs)
        self.ends = {client: never_read(client, server) for client, server in pairs}

    def drain(self) -> None:
        slow, _ = self.ends[self.busy]
        while self.busy.stats().rx_bytes_queued:
            slow.recv(timeout=PATIENCE)

    def trade(self) -> None:
        """The other link is the busy one."""
        self.drain()
        self.idle, self.busy = self.busy, self.idle
        _, sender = self.ends[self.busy]
        for _ in range(300):
            sender.send(ANSWER, bytes(100_000))
        until(lambda: self.busy.stats().rx_bytes_queued >= 30_000_000)

    def close(self) -> None:
        self.drain()
        for slow, sender in self.ends.values():
            slow.close()
            sender.close()


@pytest.mark.parametrize("batch, asks", [(1, 20), (100, 100)])
def test_s44_others_keep_nine_tenths_of_their_rate(batch, asks):
    """A Conn that nobody reads holds half of the link's budget. That link and one without such a Conn take turns."""
    with one_processor(), both_ends("N") as one, both_ends("N") as other:
        unread = Unread(one, other)
        serving = [echo(server) for _, server in (one, other)]
        requests = [neolink.Packet(REQUEST, b"x" * 100)] * batch

        def ask(client: neolink.NodeLink) -> None:
            for _ in range(asks // batch):
                if batch == 1:
                    client.ask(requests[0], timeout=PATIENCE)
                else:
                    client.ask_many(requests, timeout=PATIENCE)

        assert keeps_its_rate(lambda: cost(lambda: ask(unread.idle)), lambda: cost(lambda: ask(unread.busy)),
                              trade=unread.trade)
        assert unread.busy.stats().rx_bytes_queued >= 30_000_000
        unread.close()
        for (client, _), served in zip((one, other), serving, strict=True):
            client.close()
            served.result()


def test_s44_a_conn_that_is_never_read_takes_no_turn_from_others():
    """Counted, not timed: an ask costs the same reads and changes of readers with it as without."""
    with both_ends("N") as (client, server):
        slow, sender = never_read(client, server)
        serving = echo(server)

        def takes() -> int:
            """In a turn without a change. On a busy machine the poller looks after the link of a thread that is put
            aside, which is a take more, and when the thread comes back just then, a change: not in turn after turn."""
            for _ in range(1000):
                before = client.stats()
                for _ in range(200):
                    client.ask(REQUEST, timeout=PATIENCE)
                after = client.stats()
                assert after.packets_received - before.packets_received == 200
                if after.rx_handovers == before.rx_handovers:
                    return after.rx_takes - before.rx_takes
            pytest.fail("a change of readers in each turn")

        solo = min(takes() for _ in range(5))
        for n in range(100):
            sender.send(ANSWER, bytes(100_000))
            until(lambda n=n: client.stats().rx_bytes_queued >= (n + 1) * 100_000)
        assert min(takes() for _ in range(5)) <= solo + 5       # the poller's, of what came before
        slow.close()
        sender.close()                              # its request was never read, so this is answered
        until(lambda: server.stats().tx_bytes_queued == 0)
        client.close()
        serving.result()


@each_kind
def test_s45_nobody_accepts_and_our_asks_complete(wire, routing):
    with raw_peer(wire, routing, limits=neolink.Limits(accept_backlog=10)) as (link, peer):
        for n in range(100):                        # far over the backlog
            peer.send(2 * n, REQUEST)
            peer.send(2 * n + 1000, NOTIFY)
        asking = Background(link.ask, REQUEST)
        refused = 0
        while (packet := peer.recv()).error is not None:
            refused += packet.error == "refused"
        peer.send(packet.conn_id, ANSWER)
        assert asking.result().code == ANSWER
        until(lambda: link.stats().packets_received == 201)
        stats = link.stats()
        assert (stats.refused_conns, stats.ignored_packets, stats.conns) == (95, 95, 10)
        for _ in range(10):
            with link.accept(timeout=20) as conn:
                conn.recv(timeout=20)
        at_rest(link)


@pytest.mark.parametrize("wire", ["2016", "N", "M"])
def test_s46_both_sides_only_send(wire):
    """Both are stuck, for nobody reads: no call hangs beyond its time, and when they read all is there."""
    limits = neolink.Limits(link_rx_bytes=200_000, link_tx_bytes=300_000)
    with both_ends(wire, limits=limits) as (client, server):
        sending = [Background(stuff, link, 20_000) for link in (client, server)]
        sent = [each.result() for each in sending]
        assert not client.closed and not server.closed

        def take(link, count):
            for n in range(count):
                with link.recv1(timeout=PATIENCE) as request:
                    assert data_of(wire, request.packet.payload)[:4] == n.to_bytes(4, "big")

        reading = [Background(take, client, sent[1]), Background(take, server, sent[0])]
        for each in reading:
            each.result()
        at_rest(client, server)


def packets_for(wire: str) -> list[tuple[int, int, bytes]]:
    return [(2, REQUEST, body(wire, b"")), (4, NOTIFY, body(wire, b"x" * 5)), (0xFFFFFFFE, REQUEST, body(wire, bytes(300)))]


@each_wire
def test_s47_split_at_every_byte(wire):
    packets = packets_for(wire)
    stream = b"".join(frame(wire, *packet) for packet in packets)
    for at in range(1, len(stream), 1 if len(stream) < 100 else 3):
        with raw_peer(wire) as (link, peer):
            accepting = Background(lambda link=link: [link.recv1(timeout=PATIENCE) for _ in packets])
            peer.sock.sendall(stream[:at])
            until(lambda link=link, at=at: link.stats().bytes_received == at)
            peer.sock.sendall(stream[at:])
            got = [(r.packet.conn_id, r.packet.code, bytes(r.packet.payload)) for r in accepting.result()]
            assert got == packets


@each_wire
def test_s47_a_byte_at_a_time(wire):
    packets = packets_for(wire)
    with raw_peer(wire) as (link, peer):
        accepting = Background(lambda: [link.recv1(timeout=PATIENCE) for _ in packets])
        for n, byte in enumerate(b"".join(frame(wire, *packet) for packet in packets)):
            peer.sock.sendall(bytes([byte]))
            if n < 40:                              # each alone for the headers; then as it comes
                until(lambda n=n: link.stats().bytes_received >= n + 1)
        assert [bytes(request.packet.payload) for request in accepting.result()] == [packet[2] for packet in packets]


@each_wire
def test_s47_many_packets_at_once_and_packets_about_as_large_as_a_buffer(wire):
    sizes = [0, 1, *[1] * 3000, *range(65_500, 65_560, 3), 131_072, 70_000, 3]
    with raw_peer(wire, limits=neolink.Limits(accept_backlog=None)) as (link, peer):
        stream = b"".join(frame(wire, 2 * n, NOTIFY, body(wire, bytes([n % 251]) * size)) for n, size in enumerate(sizes))
        sending = Background(peer.sock.sendall, stream)
        with link:
            link.recv1(timeout=20)
            for n, size in enumerate(sizes[1:], 1):
                with link.recv1(timeout=PATIENCE) as request:
                    assert data_of(wire, request.packet.payload) == bytes([n % 251]) * size
            sending.result()


LIMIT = 100_000


@each_wire
def test_s48_at_the_limit_and_one_more(wire):
    limits = neolink.Limits(packet_bytes=LIMIT)
    overhead = 0 if wire == "N" else len(frame(wire, 2, REQUEST, body(wire)))
    with raw_peer(wire, limits=limits) as (link, peer):
        peer.send(2, REQUEST, body(wire, bytes(LIMIT - overhead)))
        assert len(data_of(wire, link.recv1(timeout=20).packet.payload)) == LIMIT - overhead
        accepting = Background(link.accept)
        waiting(link)
        peer.sock.sendall(frame(wire, 4, REQUEST, body(wire, bytes(LIMIT - overhead + 1)))[:1000])
        if wire == "M":                             # a binary string says its length at once
            assert len(body("M")) == 6
        with pytest.raises(neolink.ProtocolError, match=str(LIMIT)):
            accepting.result()


HEAD = b"\x93\x01\xcd\x12\x34"
ABSURD = {
    "N length": ("N", b"\0\0\0\2\x12\x34\xff\xff\xff\xff"),
    "2016 length": ("2016", b"\0\0\0\2\x12\x34\xff\xff\xff\xff"),
    "2016 shorter than its header": ("2016", b"\0\0\0\2\x12\x34\0\0\0\x09"),
    "array32": ("M", HEAD + b"\xdd\xff\xff\xff\xff"),
    "map32": ("M", HEAD + b"\x91\xdf\xff\xff\xff\xff"),
    "bin32": ("M", HEAD + b"\x91\xc6\xff\xff\xff\xff"),
    "str32": ("M", HEAD + b"\x91\xdb\xff\xff\xff\xff"),
    "ext32": ("M", HEAD + b"\x91\xc9\xff\xff\xff\xff\x01"),
    "reserved byte": ("M", HEAD + b"\x91\xc1"),
    "id too large": ("M", b"\x93\xcf\0\0\0\1\0\0\0\0\x01\x90"),
    "code too large": ("M", b"\x93\x01\xce\0\1\0\0\x90"),
    "not three": ("M", b"\x94\x01\x02\x90\x90"),
    "no array of args": ("M", b"\x93\x01\x02\x03"),
}


@pytest.mark.thread_unsafe(reason="it measures the memory of the process")
@pytest.mark.parametrize("name", ABSURD)
def test_s48_absurd_lengths_and_counts(name):
    """A clear error before any memory is spent on it."""
    wire, data = ABSURD[name]
    before = peak_memory()
    with raw_peer(wire) as (link, peer):
        accepting = Background(link.accept)
        waiting(link)
        peer.sock.sendall(data)
        with pytest.raises(neolink.ProtocolError, match="byte 0"):
            accepting.result()
        assert peer.rest() == []
        at_rest(link)
    assert peak_memory() - before < 16 << 20


def test_s48_deep_nesting():
    """10^5 arrays in each other are well-formed: they pass, without recursion. Without an end they run into the limit."""
    deep = b"\x91" * 100_000 + b"\x90"
    with raw_peer("M", limits=neolink.Limits(packet_bytes=1_000_000)) as (link, peer):
        peer.sock.sendall(HEAD + deep)
        with link.recv1(timeout=20) as request:
            assert request.packet.payload == deep
            with pytest.raises(neolink.DecodeError):
                request.message                     # noqa: B018
        accepting = Background(link.accept)
        with pytest.raises(OSError):
            peer.sock.sendall(HEAD + b"\x91" * 10_000_000)
        with pytest.raises(neolink.ProtocolError, match="1000000"):
            accepting.result()


def test_s49_small_packets_behind_a_large_one():
    """They wait for the bytes before them, and for nothing else."""
    with both_ends("N") as (client, server):
        def slowest_ask() -> float:
            sending = Background(client.notify, NOTIFY, large)
            slowest = 0.0
            while not sending.done():
                begin = time.monotonic()
                client.ask(REQUEST, timeout=PATIENCE)
                slowest = max(slowest, time.monotonic() - begin)
            sending.result()
            return slowest

        serving = Background(server.serve, lambda request: neolink.Packet(ANSWER))
        large = bytes(0x4000000)
        client.ask(REQUEST, timeout=PATIENCE)
        within(2, slowest_ask)
        client.close()
        serving.result()


@each_kind
@pytest.mark.parametrize("stage", ["unread", "half a packet", "unsent", "blocked send", "asking", "many", "backlog"])
def test_s50_budgets_are_given_back_after_abort(wire, routing, stage):
    with raw_peer(wire, routing) as (link, peer):
        work, conn = [], link.new_conn()
        if stage == "unread":
            conn.send(REQUEST)
            peer.send(peer.recv().conn_id, ANSWER, body(wire, bytes(5000)))
            until(lambda: link.stats().rx_bytes_queued)
        elif stage == "half a packet":
            peer.sock.sendall(frame(wire, 2, REQUEST, body(wire, bytes(5000)))[:3000])
            until(lambda: link.stats().bytes_received == 3000)
        elif stage in ("unsent", "blocked send"):
            stuff(link)
            if stage == "blocked send":
                work = [Background(conn.send, NOTIFY, body(wire, bytes(1_000_000))) for _ in range(3)]
        elif stage == "asking":
            work = [Background(link.ask, REQUEST) for _ in range(3)]
        elif stage == "many":
            work = [Background(link.ask_many, [neolink.Packet(REQUEST)] * 100)]
        else:
            for n in range(10):
                peer.send(2 * n, REQUEST, body(wire, bytes(5000)))
            until(lambda: link.stats().conns == 11)
        waiting(link, len(work))
        link.abort()
        for each in work:
            with pytest.raises(neolink.LinkClosed):
                each.result()
        at_rest(link)
        until(lambda: link.fileno() == -1)          # the poller may be reading


@pytest.mark.thread_unsafe(reason="it measures the memory of the process")
@pytest.mark.no_asan
@pytest.mark.parametrize("closed_seconds", [0.01, 60])
def test_s51_opening_and_closing_without_end(closed_seconds):
    """Thousands of them: nothing grows."""
    with both_ends("N", limits=neolink.Limits(closed_seconds=closed_seconds)) as (client, server):
        serving = echo(server)

        def run(count):
            for _ in range(count):
                with client.new_conn() as conn:
                    conn.send(REQUEST)
                    conn.recv(timeout=PATIENCE)
            return count

        run(3000)
        before = memory()
        count = run(12_000)
        # a closed Conn's id is remembered for closed_seconds: some forty bytes of each
        assert memory() - before < (2 << 20) + (100 * count if closed_seconds == 60 else 0)
        at_rest(client)
        client.close()
        serving.result()
