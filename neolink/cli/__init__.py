# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: `neolink` and `python -m neolink`.

A subcommand is a module of this package with `register(subparsers)`, which adds its parser and sets `run`, a function of
the parsed arguments that returns the exit status. What goes wrong is said in words on stderr; a traceback is a bug of
ours.

Starting is most of what a short command costs, so only the module that is asked for is imported; and the command that
scripts ask in loops, `ctl print cluster`, is known without so much as argparse (_ctl_quick).
"""
from __future__ import annotations

import os
import sys

TYPE_CHECKING = False               # neolink/__init__.py says why
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

COMMANDS = {
    "demo": "links at work: round trips and throughput, on loopback or against a live node",
    "ping": "who is it, and how far away: node, wire, version, round trips",
    "ctl": "what neoctl does: look at a cluster and steer it",
}

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CTRL_C = 0, 1, 2, 130


def _parser(wanted: str | None) -> argparse.ArgumentParser:
    import argparse
    import importlib

    from neolink import __version__

    parser = argparse.ArgumentParser(prog="neolink", description="The NEO link layer, from the command line.")
    parser.add_argument("--version", action="version", version=f"neolink {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name == wanted:
            importlib.import_module(f"neolink.cli.{name}").register(commands)
        else:
            commands.add_parser(name, help=summary, add_help=False)
    return parser


def _run(args: list[str]) -> int:
    if args[:1] == ["ctl"]:
        from neolink.cli import _ctl_quick

        status = _ctl_quick.run(args[1:])
        if status is not None:
            return status
    parsed = _parser(args[0] if args and args[0] in COMMANDS else None).parse_args(args)
    return int(parsed.run(parsed))


def _is_ctrl_c(error: BaseException | None) -> bool:
    """Whether it is Ctrl-C, or what became of it on its way: where it interrupts a lock of threading's, a RuntimeError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 when it was done, 2 when it was called wrongly, others as documented."""
    from neolink import Error

    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()              # here, where a reader that has gone can still be handled, and not at exit
        return status
    except BaseException as error:
        if _is_ctrl_c(error):
            return EXIT_CTRL_C
        if isinstance(error, BrokenPipeError):      # the reader of our output has gone: nothing is left to say, not even at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_FAILED
        if isinstance(error, (Error, OSError, ValueError)):
            print(f"neolink: {error}", file=sys.stderr)
            return EXIT_FAILED
        raise
