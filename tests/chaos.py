#!/usr/bin/env python3
# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Many threads ask over links that run through a proxy which delays, splits, stalls, corrupts and cuts; and every ask
is accounted for.

    python tests/chaos.py --asks 1000000                    on every wire, plain and TLS, a sixth each
    python tests/chaos.py --asks 100000 --wires M --tls no --seed 7

The seed decides what the proxy does to each connection, byte by byte, and what each thread asks; it is printed first,
and giving it again repeats that. (When threads run is the machine's decision.)

The books. Each ask has a number, sealed with a checksum into its request; so has its answer. The serving end marks
each number it serves, so that a second delivery is seen. An ask has one of these outcomes, and every one is counted
once:

    answered    with its own number and payload; it must have been served
    timeout     which was short on purpose. When it says that the packet surely did not leave, it was not served
    ended       the link went down, or was closed, while it waited
    damaged     the seal of its answer is broken: only allowed on a plain link that the proxy has corrupted

Corruption is cut off soon after, because the length or the id of a packet may be what was hit, and then the answer
that its asker waits for never comes: that no ask waits for ever is part of the claim. (Plain NEO has no checksum: a
link cannot notice that a payload was changed, only TLS does.)
"""
from __future__ import annotations

import argparse
import itertools
import logging
import random
import select
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from leaks import gauges
from reference_peer import unwrap, wrap

import neolink

ASK, TALK, NOTE = 0x1234, 0x1235, 5
ANSWER_BIT = 0x8000
WIRES = ("2016", "N", "M")
PATIENCE = 60.0
"""What an ask is given where only a broken promise can use it up."""
SEAL = struct.Struct(">cQI")
PAGE = 1 << 15
"""Numbers whose books are closed together."""
CUT_BYTES = 150_000
"""After about so many a connection meets its fate."""


class BrokenBooks(AssertionError):
    """The accounting found something that must not be."""


class Damaged(Exception):
    """The seal of a payload is broken."""


def seal(wire: str, kind: bytes, number: int, filler: bytes) -> bytes:
    """A payload of that wire that can be recognized."""
    return wrap(wire, SEAL.pack(kind, number, zlib.crc32(kind + number.to_bytes(8, "big") + filler)) + filler)


def unseal(wire: str, kind: bytes, payload: Any) -> tuple[int, bytes]:
    """(number, filler)."""
    try:
        data = unwrap(wire, payload)
        found, number, check = SEAL.unpack_from(data)
    except Exception as error:              # whatever a codec says to damaged bytes
        raise Damaged from error
    filler = data[SEAL.size:]
    if found != kind or check != zlib.crc32(kind + number.to_bytes(8, "big") + filler):
        raise Damaged
    return number, filler


class Numbers:
    """A set of them, a bit each, in pages that can be taken away when they are so old that nobody will ask any more."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self._first = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> bool:
        """Was it new?"""
        page, at = divmod(number, PAGE)
        byte, bit = divmod(at, 8)
        with self._lock:
            if page < self._first:
                return False
            if page not in self.pages:
                self.pages[page] = bytearray(PAGE // 8)
            bits = self.pages[page]
            new = not bits[byte] >> bit & 1
            bits[byte] |= 1 << bit
            return new

    def take(self, page: int) -> int:
        """The bits of a page, the oldest there is; its numbers are not new from now on."""
        with self._lock:
            self._first = page + 1
            return int.from_bytes(self.pages.pop(page, b""), "little")


class Books:
    """What was asked, what was served, and what became of it. A notification counts as an ask that wants no answer."""

    def __init__(self, asks: float) -> None:
        self.asks, self.begun = asks, 0
        self._closed, self._answers = 0, 0
        self.served, self.answered, self.unsent = Numbers(), Numbers(), Numbers()
        self.outcomes: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()

    def next(self) -> int:
        """The number of a new ask."""
        with self._lock:
            self.begun += 1
            return self.begun - 1

    def over(self) -> bool:
        return self.begun >= self.asks or bool(self.wrong)

    def outcome(self, what: str, count: int = 1) -> None:
        with self._lock:
            self.outcomes[what] += count

    def fault(self, what: str) -> None:
        with self._lock:
            self.faults[what] += 1

    def complain(self, what: str) -> None:
        with self._lock:
            self.wrong.append(what)

    def close_pages(self, open_pages: int) -> None:
        """Check all pages but the last ones, and forget them."""
        for page in range(self._closed, self.begun // PAGE + 1 - open_pages):
            served, answered, unsent = (numbers.take(page) for numbers in (self.served, self.answered, self.unsent))
            self._closed, self._answers = page + 1, self._answers + answered.bit_count()
            if answered & ~served:
                self.complain(f"{(answered & ~served).bit_count()} asks were answered, but never served")
            if unsent & served:
                self.complain(f"{(unsent & served).bit_count()} asks were reported as not sent, but served")

    def check(self) -> None:
        """Raises BrokenBooks unless everything adds up. No ask is under way any more."""
        self.close_pages(0)
        if self.begun != sum(self.outcomes.values()):
            self.complain(f"{self.begun} asks have {sum(self.outcomes.values())} outcomes")
        if self._answers != self.outcomes["answered"]:
            self.complain(f"{self._answers} numbers for {self.outcomes['answered']} answers")
        if self.wrong:
            raise BrokenBooks("; ".join(self.wrong[:10]))


# ---- the proxy


class Passage:
    """One connection through the proxy, and what it will do to it."""

    def __init__(self, near: socket.socket, far: socket.socket, numbers: random.Random, books: Books) -> None:
        self.near, self.far, self.numbers, self.books = near, far, numbers, books
        self.corrupted = False
        self.fate = numbers.choices(["fin", "rst", "corrupt"], [3, 3, 2])[0]
        self.left = int(numbers.expovariate(1 / CUT_BYTES))
        self.slow = numbers.random() < 0.2
        for sock in near, far:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def run(self) -> None:
        """Carries bytes both ways until one end goes, or fate comes."""
        try:
            while self.left > 0 or not self.corrupted and self.fate == "corrupt":
                ready, _, _ = select.select([self.near, self.far], [], [], 0.05 if self.corrupted else None)
                if self.corrupted and not ready:
                    break
                for sock in ready:
                    data = sock.recv(self.numbers.choice([1, 5, 300, 65536, 65536, 65536]))
                    if not data:
                        return
                    self.carry(data, self.far if sock is self.near else self.near)
            self.books.fault("cut: " + self.fate)
            if self.fate == "rst":
                for sock in self.near, self.far:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass                                    # an end has gone
        finally:
            self.near.close()
            self.far.close()

    def carry(self, data: bytes, to: socket.socket) -> None:
        luck = self.numbers.random()
        if luck < 0.003 or self.slow and luck < 0.03:
            time.sleep(self.numbers.random() / 500)
            self.books.fault("delayed")
        elif luck > 0.9998:
            time.sleep(0.05)
            self.books.fault("stalled")
        if self.fate == "corrupt" and self.left < len(data) and not self.corrupted:
            at = self.numbers.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1 << self.numbers.randrange(8)]) + data[at + 1:]
            self.corrupted, self.left = True, 1 + self.numbers.randrange(8192)
        elif self.left < len(data):
            data = data[:self.left]                 # the cut is at this byte, wherever in a packet that is
        self.left -= len(data)
        while data:
            size = self.numbers.randrange(1, len(data) + 1) if self.numbers.random() < 0.1 else len(data)
            to.sendall(data[:size])
            data = data[size:]


class Proxy:
    """Listens, and carries what comes to the target; a thread for each connection."""

    def __init__(self, target: Any, seed: str, books: Books) -> None:
        self._target, self._seed, self._books = target, seed, books
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = self._server.getsockname()
        self._passages: dict[Any, Passage] = {}
        self._came = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        for count in itertools.count():
            try:
                near, address = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            passage = Passage(near, far, random.Random(f"{self._seed} {count}"), self._books)
            with self._came:
                self._passages[address] = passage
                if len(self._passages) > 8:         # of dials that failed: nobody asks for those
                    del self._passages[next(iter(self._passages))]
                self._came.notify_all()
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(threading.Thread(target=passage.run))
            self._threads[-1].start()

    def passage(self, link: neolink.NodeLink) -> Passage:
        """The one that this dialed link runs through. On 2016, a dial may be over before anybody has accepted it."""
        address = link.local_address
        with self._came:
            assert self._came.wait_for(lambda: address in self._passages, PATIENCE), address
            return self._passages.pop(address)          # for addresses come back

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)     # wakes accept()
        self._server.close()
        for thread in (self._accepting, *self._threads):
            thread.join(PATIENCE)
            if thread.is_alive():
                self._books.complain("the proxy still carries something, though all links are closed")


# ---- the end that serves


class Serving:
    """A listener whose links are served by three threads each."""

    def __init__(self, wire: Any, tls: Any, books: Books) -> None:
        self._wire, self._books = wire, books
        self._listener = neolink.listen("127.0.0.1:0", wire=wire, tls=tls)
        self.address = self._listener.address
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        for link in self._listener:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(threading.Thread(target=self._serve, args=(link,)))
            self._threads[-1].start()

    def _serve(self, link: neolink.NodeLink) -> None:
        with link:
            try:
                link.serve(self._handle, workers=3)
            except neolink.LinkError:
                pass

    def _handle(self, request: neolink.Request) -> None:
        try:
            code = request.packet.code
            filler = self._one(request, request.packet)
            for _ in range(filler[0] if code == TALK else 0):
                self._one(request, request.conn.recv(timeout=PATIENCE))
        except Damaged:
            self._books.fault("damaged request")
        except neolink.Error:
            pass                                    # the link's end: its asker is told on the other side

    def _one(self, request: neolink.Request, packet: neolink.Packet) -> bytes:
        """Serve one packet, once."""
        number, filler = unseal(self._wire, b"?", packet.payload)
        if packet.code != NOTE and packet.code not in (ASK, TALK):
            raise Damaged
        if not self._books.served.add(number):
            self._books.complain(f"ask {number} was delivered twice")
        if packet.code != NOTE:
            request.reply(packet.code | ANSWER_BIT, seal(self._wire, b"!", number, filler))
        return filler

    def close(self) -> None:
        self._listener.close()
        self._accepting.join(PATIENCE)
        for thread in self._threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                self._books.complain("a link is served still, though its peer has closed it")


# ---- the end that asks


class Slot:
    """A link that is dialed again when it has ended; several threads share it."""

    def __init__(self, proxy: Proxy, wire: Any, tls: Any, books: Books) -> None:
        self._proxy, self._wire, self._tls, self._books = proxy, wire, tls, books
        self._lock = threading.Lock()
        self._link: neolink.NodeLink | None = None
        self._passage: Passage | None = None

    def get(self) -> tuple[neolink.NodeLink, Passage]:
        with self._lock:
            while self._link is None or self._passage is None or self._link.closed:
                self.close()
                try:
                    self._link = neolink.dial(self._proxy.address, wire=self._wire, tls=self._tls, timeout=PATIENCE)
                    self._passage = self._proxy.passage(self._link)
                    self._books.fault("links")
                except neolink.DialError:           # chaos does not spare the handshake
                    self._books.fault("failed dials")
            return self._link, self._passage

    def close(self) -> None:
        if self._link:
            self._link.close()
            if held := gauges(self._link):
                self._books.complain(f"a closed link holds {held}")
            self._link = None


class Asker:
    """One thread's work: asks of every kind, one after the other, each with its outcome."""

    def __init__(self, slot: Slot, wire: str, tls: bool, seed: str, books: Books) -> None:
        self._slot, self._wire, self._tls, self._books = slot, wire, tls, books
        self._numbers = random.Random(seed)
        self._fillers: dict[int, bytes] = {}
        """Of the asks under way."""

    def run(self, over: Callable[[], bool]) -> None:
        kinds = [self._ask] * 12 + [self._ask_many, self._talk, self._short, self._note]
        while not over():
            link, passage = self._slot.get()
            kind = self._numbers.choice(kinds)
            try:
                kind(link, passage)
            except Exception as error:              # what no ask may end with
                self._books.complain(f"{kind.__name__} on {link!r}: {error!r}")
            luck = self._numbers.random()
            if luck < 0.0002:
                link.abort() if luck < 0.0001 else link.close()
                self._books.fault("closed by us")

    def _request(self, *head: int) -> bytes:
        """The payload of a new ask."""
        number = self._books.next()
        size = self._numbers.choice([0, 10, 100, 100, 300, 300, 1000, 20_000 if self._numbers.random() < 0.2 else 0])
        self._fillers[number] = bytes(head) + bytes([number % 251]) * size
        self._last = number
        return seal(self._wire, b"?", number, self._fillers[number])

    def _settle(self, number: int, code: int, outcome: Any, passage: Passage) -> None:
        """What came of one ask: a Packet or an Error."""
        filler = self._fillers.pop(number)
        if isinstance(outcome, neolink.Timeout):
            self._books.outcome("timeout")
            if not outcome.maybe_sent:
                self._books.unsent.add(number)
        elif isinstance(outcome, neolink.Error):
            if not isinstance(outcome, (neolink.LinkClosed, neolink.LinkDown)):
                self._books.complain(f"ask {number} ended with {outcome!r}")
            if isinstance(outcome, neolink.ProtocolError) and not passage.corrupted:
                self._books.complain(f"the peer is innocent: {outcome!r}")
            self._books.outcome("ended")
            self._wait_for_the_end(outcome)
        else:
            self._answered(number, code, filler, outcome, passage)

    def _wait_for_the_end(self, error: neolink.Error) -> None:
        """Once an op says that the link has ended, the link says so soon: whoever redials looks at that."""
        assert error.link is not None
        end = time.monotonic() + PATIENCE
        while not error.link.closed:
            if time.monotonic() > end:
                self._books.complain(f"{error.link!r} is open still, though {error!r}")
                return
            time.sleep(0.0005)

    def _answered(self, number: int, code: int, filler: bytes, packet: neolink.Packet, passage: Passage) -> None:
        try:
            if packet.code != code | ANSWER_BIT or unseal(self._wire, b"!", packet.payload) != (number, filler):
                raise Damaged
            if not self._books.answered.add(number):
                self._books.complain(f"ask {number} was answered twice")
            self._books.outcome("answered")
        except Damaged:
            self._books.outcome("damaged")
            if self._tls or not passage.corrupted:
                self._books.complain(f"ask {number} was answered by {packet!r}")

    def _single(self, link: neolink.NodeLink, passage: Passage, timeout: float) -> None:
        payload = self._request()
        outcome: Any
        try:
            outcome = link.ask(ASK, payload, timeout=timeout)
        except neolink.Error as error:
            outcome = error
        if timeout == PATIENCE and isinstance(outcome, neolink.Timeout):
            self._books.complain(f"ask {self._last} waited for ever")
        self._settle(self._last, ASK, outcome, passage)

    def _ask(self, link: neolink.NodeLink, passage: Passage) -> None:
        self._single(link, passage, PATIENCE)

    def _short(self, link: neolink.NodeLink, passage: Passage) -> None:
        self._single(link, passage, self._numbers.choice([0, 0.0002, 0.002]))

    def _ask_many(self, link: neolink.NodeLink, passage: Passage) -> None:
        timeout = self._numbers.choice([PATIENCE, PATIENCE, 0.001])
        packets = [neolink.Packet(ASK, self._request()) for _ in range(self._numbers.randrange(1, 10))]
        numbers = list(self._fillers)
        outcomes = link.ask_many(packets, timeout=timeout, return_exceptions=True)
        for number, outcome in zip(numbers, outcomes, strict=True):
            if timeout == PATIENCE and isinstance(outcome, neolink.Timeout):
                self._books.complain(f"ask {number} of many waited for ever")
            self._settle(number, ASK, outcome, passage)

    def _talk(self, link: neolink.NodeLink, passage: Passage) -> None:
        """Several questions on one Conn; the answers come in their order."""
        more = self._numbers.randrange(5)
        payloads = [self._request(more) for _ in range(more + 1)]
        outcomes: list[Any] = []
        try:
            with link.new_conn() as conn:
                for payload in payloads:
                    conn.send(TALK, payload, timeout=PATIENCE)
                for _ in payloads:
                    outcomes.append(conn.recv(timeout=PATIENCE))
        except neolink.Error as error:
            if isinstance(error, neolink.Timeout):
                self._books.complain(f"a conversation waited for ever on {link!r}")
            outcomes += [error] * (len(payloads) - len(outcomes))
        for number, outcome in zip(list(self._fillers), outcomes, strict=True):
            self._settle(number, TALK, outcome, passage)

    def _note(self, link: neolink.NodeLink, passage: Passage) -> None:
        """A notification wants no answer, but may not come twice either."""
        payload = self._request()
        del self._fillers[self._last]
        try:
            link.notify(NOTE, payload, timeout=PATIENCE)
            self._books.outcome("notified")
        except (neolink.LinkClosed, neolink.LinkDown):
            self._books.outcome("ended")


class Scene:
    """One wire, plain or TLS: a serving end, a proxy, some links through it, some threads on each."""

    def __init__(self, books: Books, wire: Any, tls: Any, seed: str, links: int = 2, threads: int = 3) -> None:
        self.name = f"{wire} {'TLS' if tls else 'plain'}"
        self.books = books
        self._serving = Serving(wire, tls, books)
        self._proxy = Proxy(self._serving.address, seed, books)
        self._slots = [Slot(self._proxy, wire, tls, books) for _ in range(links)]
        askers = [Asker(slot, wire, tls is not None, f"{seed} {n} {m}", books)
                  for n, slot in enumerate(self._slots) for m in range(threads)]
        self._threads = [threading.Thread(target=asker.run, args=(books.over,)) for asker in askers]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Waits for the askers; closes everything, which must be possible."""
        for thread in self._threads:
            thread.join()
        for slot in self._slots:
            slot.close()
        self._serving.close()
        self._proxy.close()


def scenes(seed: int, wires: list[str], tls: list[Any], asks: float, **shape: int) -> Iterator[Scene]:
    """Each wire, each kind of TLS, with its share of the asks."""
    for wire, context in itertools.product(wires, tls):
        kind = f"{seed} {wire} {bool(context)}"
        yield Scene(Books(asks / (len(wires) * len(tls))), wire, context, kind, **shape)


def contexts(which: str) -> list[Any]:
    """None for plain, and certificates of a CA made for the run."""
    found: list[Any] = [None] if which in ("no", "both") else []
    if which in ("yes", "both"):
        from tls_kit import house
        found.append(house().good.tls())
    return found


def play(scene: Scene) -> None:
    """One scene from beginning to end; raises BrokenBooks."""
    scene.start()
    scene.finish()
    scene.books.check()


def quiet() -> None:
    """The listeners' log of failed handshakes is not wanted here."""
    logging.getLogger("neolink").setLevel(logging.CRITICAL)


def line(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asks", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--wires", nargs="+", choices=WIRES, default=list(WIRES))
    parser.add_argument("--tls", choices=("yes", "no", "both"), default="both")
    parser.add_argument("--links", type=int, default=2, help="links at once")
    parser.add_argument("--threads", type=int, default=3, help="threads on each")
    options = parser.parse_args()
    quiet()
    print(f"seed {options.seed}", flush=True)
    for scene in scenes(options.seed, options.wires, contexts(options.tls), options.asks, links=options.links,
                        threads=options.threads):
        began = time.monotonic()
        play(scene)
        books = scene.books
        print(f"{scene.name}: {books.begun} asks in {time.monotonic() - began:.1f} s: {line(books.outcomes)}; "
              f"{line(books.faults)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
