"""Makes the fuzzers' first inputs of the captures in tests/data.

Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later

    mkcorpus.py TARGET DATA DIRECTORY

Each input begins with the two bytes by which its target chooses what to do: see the head of fuzz_TARGET.c. A capture gives
its opening (hs), its first packets (wire), or each of its kinds of payload once (mpskip, of wire M). A whole link (link) is fed
scripts, which no capture has: a few that make sense, and others that are drawn, the same each time.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

SHORT = 300


def captured(data: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Each direction of each capture, with its wire."""
    for path in sorted(data.glob("captures/wire-*/*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][1:]
        for direction in ("c>s", "s>c"):
            if packets := [line for line in lines if line["dir"] == direction]:
                yield path.parent.name.removeprefix("wire-"), packets


def hs(data: Path) -> Iterator[bytes]:
    for _, packets in captured(data):
        for how in range(8):
            yield bytes([how, 40]) + bytes.fromhex(packets[0]["hex"])[:100]


def wire(data: Path) -> Iterator[bytes]:
    for name, packets in captured(data):
        stream = b"".join(bytes.fromhex(p["hex"]) for p in packets if p["name"] != "opening")
        yield bytes([6 + "2016 N M".split().index(name), 3]) + stream[:SHORT]


def mpskip(data: Path) -> Iterator[bytes]:
    seen = set()
    for name, packets in captured(data):
        for p in packets if name == "M" else []:
            if p["name"] not in seen and len(p["hex"]) < 2 * SHORT:
                seen.add(p["name"])
                yield bytes([255, 3]) + bytes.fromhex(p["hex"])


def link(data: Path) -> Iterator[bytes]:
    """The steps are those of fuzz_link.c: calls below 80, each with its Conn or ask; the peer's above, with three operands."""
    received = "0000" + "80000001" * 3 + "0200" * 3             # open; three packets come; recv each
    asked = "0900" + "83000000" * 2 + "0b00" + "0900" + "0c00"  # begin; answered twice; wait; begin; end
    accepted = "82000001" * 3 + "0101" + "0201" + "040101" + "0701" + "85000000"    # requests; accept, recv, send, close; read
    for how in range(0, 54, 2):
        yield bytes([how, 0]) + bytes.fromhex(received + asked + accepted)
    draw = random.Random(1)
    for how in range(60):
        yield bytes([how, draw.choice((0, 8, 16, 24, 48, 7))]) + draw.randbytes(SHORT)


def main() -> None:
    target, data, directory = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for i, content in enumerate(sorted(set({"hs": hs, "wire": wire, "mpskip": mpskip, "link": link}[target](data)))):
        (directory / f"capture-{i:03}").write_bytes(content)


main()
