# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing the typed messages of the wires N and M: any payload is a message or a DecodeError, and a message goes out as it came.

    python tests/fuzz_codec.py --seconds 60 [--seed 7]      mutations of what NEO sent (tests/data), the same for a seed
    python tests/fuzz_codec.py --atheris -max_total_time=60     guided by coverage, where atheris is installed

What goes out may differ from what came in where a wire has several forms of one value: on N a bool is any byte, and None
any NaN; on M numbers need not be packed as short as can be. So it is looked at byte by byte (N), or unpacked (M); and what went
out must come in and go out again the same.
"""
from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

from neolink import proto
from neolink.errors import DecodeError

DATA = Path(__file__).parent / "data"
CODES = {wire: sorted(classes) for wire, classes in proto.CATALOGUE.items()}
Case = tuple[str, int, bytes]
unpack = msgspec.msgpack.Decoder(ext_hook=lambda code, data: (code, bytes(data))).decode


def check(wire: str, code: int, payload: bytes) -> bool:
    """Whether this payload is a message. AssertionError, or any other exception, when the codec is wrong about it."""
    try:
        message = proto.decode(code, payload, wire)
    except DecodeError as refused:
        assert str(refused)
        return False
    out_code, out = proto.encode(message, wire, check=False)
    assert out_code == code
    if out != payload:
        assert is_other_form(wire, payload, out), (payload.hex(), out.hex())
    assert proto.encode(proto.decode(code, out, wire), wire, check=False)[1] == out
    return True


def is_other_form(wire: str, came: bytes, out: bytes) -> bool:
    if wire == "M":
        return repr(unpack(came or b"\x90")) == repr(unpack(out))
    return len(came) == len(out) and all(a == b or b in (0x01, 0xff) for a, b in zip(came, out))


def captured() -> list[Case]:
    """Each different payload that NEO sent, up to 2,000 bytes."""
    found: set[Case] = set()
    for wire in "NM":
        for path in sorted(DATA.glob(f"captures/wire-{wire}/*.jsonl")):
            for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()[1:]):
                if line.get("name") != "opening" and "hex" in line:
                    found.update(packet(wire, bytes.fromhex(line["hex"])))
    return sorted(case for case in found if len(case[2]) <= 2000)


def packet(wire: str, data: bytes) -> list[Case]:
    """N: id, code, length, payload. M: [id, code, payload], whose first two are short here. Others are not of today's wires."""
    if wire == "N":
        return [("N", int.from_bytes(data[4:6], "big"), data[10:])] if len(data) >= 10 else []
    try:
        _, code, arguments = msgspec.msgpack.decode(data, type=tuple[int, int, msgspec.Raw])
    except msgspec.MsgspecError:
        return []
    return [("M", code, bytes(arguments))]


def mutated(rng: random.Random, payload: bytes, other: bytes) -> bytes:
    """One to four changes of the kinds that decoders are known to trip over."""
    data = bytearray(payload)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        to = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 20)))
        match rng.randrange(7):
            case 0:
                data[at:at + 1] = bytes([rng.randrange(256)])
            case 1:
                data[at:to] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\xc0")) * (to - at)
            case 2:
                del data[at:to]
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8)))
            case 4:
                data[at:at] = data[at:to]
            case 5:
                data[at:] = other[rng.randint(0, len(other)):]
            case 6:
                data[at:at + 4] = rng.choice((0, 1, 2, 255, 65535, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)).to_bytes(4, "big")
    return bytes(data)


def run(seed: int, seconds: float = float("inf"), runs: float = float("inf")) -> Counter[str]:
    """Checks so many mutations; tells how many of them were messages."""
    rng, seeds, told = random.Random(seed), captured(), Counter[str]()
    end = time.monotonic() + seconds
    while told.total() < runs and time.monotonic() < end:
        wire, code, payload = rng.choice(seeds)
        if rng.random() < 0.05:
            code = rng.choice(CODES[wire])
        payload = mutated(rng, payload, rng.choice(seeds)[2])
        try:
            told[wire + (" message" if check(wire, code, payload) else " refused")] += 1
        except Exception:
            print(f"check({wire!r}, {code:#x}, bytes.fromhex({payload.hex()!r}))", file=sys.stderr)
            raise
    return told


def guided(arguments: list[str]) -> None:
    import atheris      # type: ignore[import-not-found]

    def one(data: bytes) -> None:
        if len(data) >= 3:
            wire = "NM"[data[0] & 1]
            check(wire, CODES[wire][(data[1] << 8 | data[2]) % len(CODES[wire])], data[3:])

    for module in (proto.codec_n, proto.codec_m):
        for name in [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]:
            if callable(function := getattr(module, name)) and not isinstance(function, type):
                setattr(module, name, atheris.instrument_func(function))
    atheris.Setup(arguments, one)
    atheris.Fuzz()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--atheris", action="store_true", help="guided by coverage; what follows is libFuzzer's")
    a, rest = p.parse_known_args()
    if a.atheris:
        guided([sys.argv[0], *rest])
    else:
        for what, n in sorted(run(a.seed, seconds=a.seconds).items()):
            print(f"{what:10} {n:>10,}")


if __name__ == "__main__":
    main()
