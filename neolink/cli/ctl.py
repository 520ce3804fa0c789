# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""`neolink ctl`: what neoctl does, with its spelling, and more.

Where the output goes decides its form: tables on a terminal; elsewhere neoctl's own lines; with --json data (_ctl_data
has the schemas). Errors are words on stderr, and a status:

    0 done    1 refused, or failed    2 called wrongly    3 not ready    4 no such node or partition    5 timed out
    6 nobody there, or nobody who is an admin    7 nothing to do (only with --exit-code)    8 sent, outcome unknown

What the admin refuses reads as from neoctl, which knows only 0 and 1; so "nothing to do" is 0, unless it is asked for.

Starting is most of what a short command costs, so the package that does the work is imported late. A plain `print
cluster` does not even come here: _ctl_quick.
"""
from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from neolink.cli import _ctl_quick

if TYPE_CHECKING:
    from neolink import TLS
    from neolink.cli._ctl_commands import Command, Reply, Run
    from neolink.cluster import Admin

DONE, REFUSED, USAGE, NOT_READY, NO_SUCH, TIMED_OUT, NOBODY, NOTHING, UNKNOWN = range(9)

_EPILOG = f"""\
Without a command, all commands are listed. On a terminal the output is for people; elsewhere it is neoctl's.

exit status:
  {DONE}  done
  {REFUSED}  refused by the cluster, or failed in another way
  {USAGE}  called wrongly; nothing was sent
  {NOT_READY}  the cluster was not ready, and the time is up
  {NO_SUCH}  no such node or partition
  {TIMED_OUT}  no answer in time, or what was waited for did not happen
  {NOBODY}  nobody answers there, or nobody who is an admin
  {NOTHING}  there was nothing to do (only with --exit-code; else {DONE}, as with neoctl)
  {UNKNOWN}  the admin or the master went away over it: done or not, nobody can tell"""

WATCH_SECONDS = 1.0


def register(commands: Any) -> None:
    """Add the parser of `neolink ctl`. Options may stand before and after the words of the command."""
    parser = commands.add_parser("ctl", help="what neoctl does: look at a cluster and steer it",
                                 usage="neolink ctl [OPTION …] COMMAND …",
                                 formatter_class=argparse.RawDescriptionHelpFormatter,
                                 description="Look at a NEO cluster and steer it, through its admin.",
                                 epilog=_EPILOG, parents=[_options()])
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="as in neoctl")
    parser.set_defaults(run=run)


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    add = options.add_argument
    add("-a", "--address", metavar="ADMIN", help="HOST:PORT of an admin, or of several; default: $NEOLINK_ADMIN, then "
        + _ctl_quick.DEFAULT_ADMIN)
    add("--embedded", action="store_true", help="try it out: a small cluster of our own for this one command")
    add("--json", action="store_true", help="data for scripts; compact, one line each, with --watch")
    add("--lines", action="store_true", help="neoctl's lines, on a terminal too")
    add("--timeout", type=float, metavar="S",
        help=f"seconds for the command (default: {_ctl_quick.CALL_SECONDS:g}; --wait: for ever)")
    add("--tls", nargs=3, metavar=("CA", "CERT", "KEY"), help="speak TLS with these files")
    add("--watch", action="store_true", help="print commands: again when something changed, until interrupted")
    add("--every", type=float, metavar="S", help=f"how often --watch looks (default: {WATCH_SECONDS:g})")
    add("--count", type=int, metavar="N", help="end --watch after printing N times")
    add("--wait", action="store_true", help="what takes time: return when it is done")
    add("--exit-code", action="store_true", help=f"exit with {NOTHING} when there was nothing to do")
    add("--completion", choices=("bash", "zsh", "fish"), help="print a script for the shell")
    add("-n", "--dry-run", action="store_true", help="tweak: tell how only")
    return options


_DEFAULTS: dict[str, Any] = {
    "address": None, "embedded": False, "json": False, "lines": False, "timeout": None, "tls": None, "watch": False,
    "every": WATCH_SECONDS, "count": None, "wait": False, "exit_code": False, "completion": None, "dry_run": False}


def run(args: argparse.Namespace) -> int:
    """Read the words, run the command, print what came of it."""
    args = _parsed(args)
    try:
        return _at_length(args)
    except BrokenPipeError:
        raise
    except Exception as error:
        return failed(error, args)


def failed(error: Exception, args: argparse.Namespace) -> int:
    """Say what went wrong. The exit status."""
    kind, status, text = _explained(error, args)
    return _failed(args, kind, text, status)


def _at_length(args: argparse.Namespace) -> int:
    from neolink.cli import _ctl_commands

    if args.completion:
        from neolink.cli import _ctl_complete

        print(_ctl_complete.script(args.completion), end="")
        return DONE
    if not args.words:
        print(_ctl_commands.listing())
        return DONE
    try:
        command, ask = _ctl_commands.find(args.words, args.dry_run)
        _check(args, command)
        with _connected(args) as c:
            return _watch(c, args, ask) if args.watch else _once(c, args, ask)
    except _ctl_commands.Usage as error:
        return _failed(args, "usage", str(error), USAGE)


def _parsed(args: argparse.Namespace) -> argparse.Namespace:
    """The options among the words, too, and the defaults of those that were not given."""
    late = argparse.ArgumentParser(prog="neolink ctl", parents=[_options()])
    late.add_argument("words", nargs="*")
    found = late.parse_intermixed_args(args.words)
    return argparse.Namespace(**{**_DEFAULTS, **vars(args), **vars(found)})


def _check(args: argparse.Namespace, command: Command) -> None:
    from neolink.cli._ctl_commands import Usage

    if args.watch and not command.watches:
        raise Usage("--watch is for the print commands")
    if args.wait and not command.waits:
        raise Usage("--wait: there is nothing to wait for, or NEO does not tell when it is done")
    if not args.every > 0:
        raise Usage(f"--every must be more than 0, not {args.every:g}")


@contextmanager
def _connected(args: argparse.Namespace) -> Iterator[Admin]:
    from neolink import cluster

    if args.embedded:
        from neolink.testing import Cluster

        with Cluster() as ours, cluster.connect(ours.admin_address, timeout=_timeout(args)) as c:
            yield c
        return
    with cluster.connect(_address(args), tls=_tls(args), timeout=_timeout(args)) as c:
        yield c


def _tls(args: argparse.Namespace) -> TLS | None:
    if not args.tls:
        return None
    from neolink import TLS

    return TLS(*args.tls)


def _timeout(args: argparse.Namespace) -> float:
    return _ctl_quick.CALL_SECONDS if args.timeout is None else float(args.timeout)


def _address(args: argparse.Namespace) -> str:
    return _ctl_quick.address(args.address)


# ---- printing


def _once(c: Admin, args: argparse.Namespace, ask: Run) -> int:
    reply = ask(c)
    _print(reply, args)
    if args.wait and reply.wait is not None:
        sys.stdout.flush()
        for progress in reply.wait(c, args.timeout):
            if sys.stderr.isatty():
                print(f"{progress.what}: {progress.done} of {progress.total} cells", file=sys.stderr)
    return NOTHING if args.exit_code and reply.changed is False else DONE


def _watch(c: Admin, args: argparse.Namespace, ask: Run) -> int:
    """Print what changed since the last look; on a terminal, in the place of what was there."""
    last, printed = None, 0
    while args.count is None or printed < args.count:
        if last is not None:
            time.sleep(args.every)
        reply = ask(c)
        if reply.data != last:
            if sys.stdout.isatty() and not args.json:
                print("\033[H\033[2J", end="")
            _print(reply, args)
            sys.stdout.flush()
            last, printed = reply.data, printed + 1
    return DONE


def _print(reply: Reply, args: argparse.Namespace) -> None:
    if args.json:
        import json

        print(json.dumps(reply.data, indent=None if args.watch else 2))
    elif reply.views is not None and sys.stdout.isatty() and not args.lines:
        from neolink.cli import _ctl_table

        _ctl_table.show(reply.views(), sys.stdout)
    elif reply.lines is not None:
        print(reply.lines)


def _failed(args: argparse.Namespace, kind: str, text: str, status: int) -> int:
    if args.json:
        import json

        print(json.dumps({"error": {"kind": kind, "message": text}}, indent=None if args.watch else 2))
    print(text, file=sys.stderr)
    return status


# ---- what went wrong, in words


def _explained(error: Exception, args: argparse.Namespace) -> tuple[str, int, str]:
    """(kind for --json, exit status, text) of an error; those that are ours to fix go on as they are."""
    from neolink import cluster, errors

    if isinstance(error, (cluster.NoSuchNode, cluster.NoSuchPartition)):
        return "no such", NO_SUCH, error.message
    if isinstance(error, cluster.Refused):
        return "refused", REFUSED, error.message
    if isinstance(error, cluster.NotReady):
        return "not ready", NOT_READY, f"ERROR: {error.message}"        # as neoctl has it
    if isinstance(error, cluster.NotAnAdmin):
        return "not an admin", NOBODY, str(error)
    if isinstance(error, cluster.MasterLost):
        return "unknown", UNKNOWN, str(error)
    if isinstance(error, errors.Timeout) and error.op != "dial":
        return "timed out", TIMED_OUT, f"timed out: {error}"
    if isinstance(error, errors.HandshakeError):
        return "no admin there", NOBODY, f"{error}{_hint(error, args)}"
    if isinstance(error, (errors.DialError, errors.Timeout)):
        return "nobody there", NOBODY if isinstance(error, errors.DialError) else TIMED_OUT, str(error)
    if isinstance(error, errors.LinkDown):
        return "unknown", UNKNOWN, f"the admin hung up before it answered: {error}"
    if isinstance(error, (errors.Error, OSError, ValueError, ImportError)):
        return "failed", REFUSED, str(error)
    raise error


def _hint(error: Exception, args: argparse.Namespace) -> str:
    """A node that speaks TLS closes without a word when it is dialed without, and the other way round."""
    theirs = getattr(error, "theirs", None)
    if args.tls:
        return "; if it speaks no TLS, leave --tls out"
    if theirs == "TLS":
        return "; it speaks TLS: give --tls CA CERT KEY"
    return "; if it speaks TLS, give --tls CA CERT KEY" if theirs in (None, "nothing") else ""
