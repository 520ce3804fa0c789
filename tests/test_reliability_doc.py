# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""docs/reliability.rst keeps its word: each of the sixty-two scenarios has a row, each test named there exists, carries
the number, and is found by the command beside it.

`complaints` looks at a text and a source tree and says what is wrong; most tests here give it something that is.
A Python test carries its number in its name (test_s07_...), a test of the core in the comment right above it (S7).
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOC = ROOT / "docs" / "reliability.rst"
SCENARIOS = range(1, 63)


class Row(NamedTuple):
    """One scenario as the document has it."""

    number: int
    what: str
    tests: list[str]
    command: str


def rows(text: str) -> Iterator[Row]:
    """The rows of the list table: four cells, of which the first is S and a number."""
    for row in re.split(r"^   \* - ", text, flags=re.M)[1:]:
        cells = [" ".join(cell.split()) for cell in re.split(r"^     - ", row.partition("\n\n")[0], flags=re.M)]
        if re.fullmatch(r"S\d+", cells[0]) and len(cells) == 4:
            yield Row(int(cells[0][1:]), cells[1], re.findall(r"``(.+?)``", cells[2]), cells[3].strip("`"))


def carries_in_python(source: str, name: str, number: int) -> bool | None:
    """Whether the test's name has the number; None when there is no such test."""
    if not re.search(rf"^(async )?def {re.escape(name)}\(", source, re.M):
        return None
    return re.match(rf"test_(s\d\d_)*s{number:02}_", name) is not None


def carries_in_c(source: str, name: str, number: int) -> bool | None:
    """Whether the comment above the test has the number; None when there is no such test, or it is never run."""
    found = re.search(rf"^static void {re.escape(name)}\(void \*\*", source, re.M)
    if not found or not re.search(rf"\b(cmocka_unit_test|TEST)\({re.escape(name)}\b", source):
        return None
    above = source[:found.start()].rstrip()
    return above.endswith("*/") and re.search(rf"\bS{number}\b", above[above.rfind("/*"):]) is not None


def complaints_of_tests(row: Row, root: Path) -> Iterator[str]:
    """What is wrong with the tests that a row names."""
    for test in row.tests:
        path, _, name = test.partition("::")
        file = root / path
        carries = carries_in_c if path.endswith(".c") else carries_in_python
        found = carries(file.read_text(), name, row.number) if file.is_file() else None
        if found is None:
            yield f"S{row.number}: there is no test {test}"
        elif not found:
            yield f"S{row.number}: {test} does not carry that number"

def complaints(text: str, root: Path = ROOT) -> list[str]:
    """All that is wrong with the document."""
    found, seen = [], set()
    for row in rows(text):
        if row.number in seen or row.number not in SCENARIOS:
            found.append(f"S{row.number} is there twice, or is no scenario")
        seen.add(row.number)
        if not row.what:
            found.append(f"S{row.number}: it is not said what is shown")
        if not row.tests:
            found.append(f"S{row.number} has no test")
        if row.command != f"python -m pytest -k s{row.number:02}":
            found.append(f"S{row.number}: the command does not run its tests: {row.command}")
        found += complaints_of_tests(row, root)
    return found + [f"S{number} has no row" for number in SCENARIOS if number not in seen]


def test_each_scenario_has_its_tests():
    assert complaints(DOC.read_text()) == []


def test_no_number_hides_in_another_name():
    """`-k s07` means the scenario: nothing else in the names of tests looks like it, not even a file."""
    names = {name for path in ROOT.glob("tests/**/*.py")
             for name in [path.stem, *re.findall(r"def (test_\w+)", path.read_text())]}
    assert [name for name in names if re.search(r"s\d\d", re.sub(r"_s\d\d(?=_)", "", name))] == []


# ---- the check itself: a tree with one scenario, and what may be wrong with it

GOOD = """
   * - No.
     - What
     - By
     - Again
   * - S7
     - Something
       long
     - ``tests/test_a.py::test_s06_s07_wakes`` ``csrc/test/test_b.c::test_wakes``
     - ``python -m pytest -k s07``

After the table.
"""
PYTHON = "def test_s06_s07_wakes():\n    pass\n\ndef test_sleeps():\n    pass\n"
C = """/* S6, S7: wakes. */
static void test_wakes(void **state)
{
}

/* S70 */
static void test_sleeps(void **state)
{
}

/* S7, but never run */
static void test_idle(void **state)
{
}

int main(void) { const struct CMUnitTest tests[] = { cmocka_unit_test(test_wakes), cmocka_unit_test(test_sleeps) }; }
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "csrc" / "test").mkdir(parents=True)
    (tmp_path / "tests" / "test_a.py").write_text(PYTHON)
    (tmp_path / "csrc" / "test" / "test_b.c").write_text(C)
    return tmp_path


def of_the_seventh(text: str, tree: Path) -> list[str]:
    return [each for each in complaints(text, tree) if "has no row" not in each or each.startswith("S7 ")]


def test_a_good_row_passes(tree):
    assert of_the_seventh(GOOD, tree) == []


def test_what_has_no_row_is_named(tree):
    missing = [each for each in complaints(GOOD, tree) if each.endswith("has no row")]
    assert missing == [f"S{number} has no row" for number in SCENARIOS if number != 7]


@pytest.mark.parametrize("was, becomes, complaint", [
    ("   * - S7\n", "   * - S8\n", "S7 has no row"),
    ("   * - S7\n", "   * - S63\n", "no scenario"),
    ("After the table.", GOOD, "twice"),
    ("Something\n       long", "", "not said what"),
    ("``tests/test_a.py::test_s06_s07_wakes`` ``csrc/test/test_b.c::test_wakes``", "to be written", "S7 has no test"),
    ("test_s06_s07_wakes", "test_s07_gone", "there is no test tests/test_a.py::test_s07_gone"),
    ("tests/test_a.py", "tests/test_gone.py", "there is no test tests/test_gone.py"),
    ("test_s06_s07_wakes", "test_sleeps", "does not carry that number"),
    ("test_b.c::test_wakes", "test_b.c::test_gone", "there is no test"),
    ("test_b.c::test_wakes", "test_b.c::test_sleeps", "does not carry that number"),
    ("test_b.c::test_wakes", "test_b.c::test_idle", "there is no test"),
    ("-k s07", "-k s08", "the command does not run"),
], ids=["no row", "unknown number", "twice", "no words", "no test", "no such function", "no such file", "no number",
        "no such function in C", "no number in C", "not run in C", "another command"])
def test_a_bad_row_is_found(tree, was, becomes, complaint):
    assert was in GOOD
    assert any(complaint in each for each in of_the_seventh(GOOD.replace(was, becomes), tree))
