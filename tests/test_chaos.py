# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Thirty thousand asks through a proxy that delays, splits, stalls, corrupts and cuts: every one is accounted for.

NEOLINK_CHAOS_ASKS says how many; a failure names the seed, which NEOLINK_CHAOS_SEED gives again. For a million:
python tests/chaos.py --asks 1000000.
"""
import os
import random

import pytest
from chaos import PAGE, WIRES, Books, BrokenBooks, Damaged, contexts, play, scenes, seal, unseal
from leaks import balanced  # noqa: F401

ASKS = float(os.environ.get("NEOLINK_CHAOS_ASKS", "30000"))
SEED = int(os.environ.get("NEOLINK_CHAOS_SEED", random.SystemRandom().randrange(1 << 32)))


@pytest.mark.usefixtures("balanced")
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("tls", ["no", "yes"])
def test_every_ask_is_accounted_for(wire, tls, caplog):
    caplog.set_level("CRITICAL", "neolink")
    scene, = scenes(SEED, [wire], contexts(tls), ASKS / 6)
    try:
        play(scene)
    except BaseException as error:
        error.add_note(f"NEOLINK_CHAOS_SEED={SEED}")
        raise
    books = scene.books
    assert books.outcomes["answered"] > ASKS / 6 / 4 and books.faults["links"] > 1


# ---- the books are no good unless they can be found wrong


def entered(*numbers: int) -> Books:
    """Books in which these were asked, served and answered."""
    books = Books(10)
    for _ in range(max(numbers) + 1):
        books.next()
    for number in numbers:
        assert books.served.add(number) and books.answered.add(number)
        books.outcome("answered")
    return books


def test_good_books():
    entered(0, 1, 2).check()


@pytest.mark.parametrize("what, words", [
    (lambda books: books.next(), "4 asks have 3 outcomes"),
    (lambda books: books.outcome("ended"), "3 asks have 4 outcomes"),
    (lambda books: (books.next(), books.outcome("answered"), books.answered.add(3)), "answered, but never served"),
    (lambda books: books.unsent.add(1), "reported as not sent, but served"),
    (lambda books: (books.next(), books.outcome("answered")), "3 numbers for 4 answers"),
])
def test_broken_books(what, words):
    books = entered(0, 1, 2)
    what(books)
    with pytest.raises(BrokenBooks, match=words):
        books.check()


def test_a_second_delivery_is_seen():
    books = entered(5)
    assert not books.served.add(5) and not books.answered.add(5)


def test_closed_pages_are_checked_and_stay_closed():
    books = entered(5)
    books.unsent.add(5)
    for _ in range(2 * PAGE):
        books.next()
    books.close_pages(1)
    assert books.wrong == ["1 asks were reported as not sent, but served"] and not books.served.pages
    assert not books.served.add(7)                  # nobody delivers a packet so late


@pytest.mark.parametrize("wire", WIRES)
def test_every_bit_of_a_payload_is_sealed(wire):
    payload = seal(wire, b"?", 7, b"filler")
    assert unseal(wire, b"?", payload) == (7, b"filler")
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Damaged):
            unseal(wire, b"?", bytes(damaged))
    with pytest.raises(Damaged):
        unseal(wire, b"!", payload)
