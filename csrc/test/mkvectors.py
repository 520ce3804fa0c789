"""Turns tests/data into one text file that a C test can read line by line.

Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later

    mkvectors.py DATA > vectors.txt

Words separated by spaces; the first tells the kind of line:

    packet WIRE NAME ID CODE HEX            one packet of the catalogues' vectors, with what it must be taken for
    stream WIRE FILE DIRECTION HEX HEX ...  one direction of a capture without its opening: its packets in order
    code   WIRE VERSION CODE KIND NAME      what a code is: request, notify, push or answer
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ANSWER_BIT = 0x8000
PUSHES = {"AddTransaction", "AddObject"}


def kind_of(message: dict[str, Any]) -> str:
    """The kind of a message by either catalogue: the older one has no `kind`, only the answer's code or null."""
    if message["name"] in PUSHES:
        return "push"
    if message["code"] & ANSWER_BIT:
        return "answer"
    return message.get("kind") or ("request" if message["answer_code"] else "notify")


def code_lines(messages: dict[str, Any], older: dict[str, Any]) -> Iterator[str]:
    catalogues = {"M 5": messages["M5"], "N 6": messages["N6"]}
    for protocol, catalogue in older["protocols"].items():
        catalogues[protocol.replace("-", " ")] = catalogue
    for protocol, catalogue in catalogues.items():
        for message in catalogue["messages"]:
            yield f"code {protocol} {message['code']} {kind_of(message)} {message['name']}"


def packet_lines(messages: dict[str, Any]) -> Iterator[str]:
    sections = {"M5": "M", "N6": "N", "N_older": "N", "G2016": "2016"}
    identification = {"RequestIdentification": 1, "AcceptIdentification": ANSWER_BIT | 1}
    for section, wire in sections.items():
        codes = {m["name"]: m["code"] for m in messages[section].get("messages", [])} or identification
        for vector in messages[section]["vectors"]:
            name = vector["message"]
            yield f"packet {wire} {name} {vector.get('id', 0)} {codes[name]} {vector['hex']}"


def stream_lines(captures: Path) -> Iterator[str]:
    for path in sorted(captures.glob("wire-*/*.jsonl")):
        wire = path.parent.name.removeprefix("wire-")
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][1:]
        for direction in ("c>s", "s>c"):
            packets = [line["hex"] for line in lines if line["dir"] == direction and line["name"] != "opening"]
            if packets:
                yield " ".join(["stream", wire, path.stem, direction, *packets])


def main() -> None:
    data = Path(sys.argv[1])
    messages = json.loads((data / "neo-messages.json").read_text(encoding="utf-8"))
    older = json.loads((data / "older-catalogues.json").read_text(encoding="utf-8"))
    for lines in (code_lines(messages, older), packet_lines(messages), stream_lines(data / "captures")):
        for line in lines:
            print(line)


if __name__ == "__main__":
    main()
