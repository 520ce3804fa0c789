# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong when a cluster is asked or steered, besides what can go wrong on any link (neolink.errors).

    Refused               RemoteError       no, and nothing has changed; the text says why
    ├── NoSuchNode        LookupError       … because there is no such node
    └── Unsafe            EncodeError       … by us, before anything left: it would have ended a node
        └── NoSuchPartition   LookupError
    NotReady              RemoteError       the cluster, or the node asked, cannot answer now; time was up
    MasterLost            RemoteError       the master went away over it: done or not, nobody can tell
    NotAnAdmin            RemoteError       somebody else answered at the admin's address
    NoReadableCell        Error             no storage that has the data could be read
    NoSuchObject          RemoteError, LookupError
    NoSuchTransaction     RemoteError, LookupError

`code` is the peer's proto.ErrorCodes member, None where no peer was asked; `message` is what it said, or what we say.
"""
from __future__ import annotations

from typing import Any, TypeVar

from neolink import errors


class Refused(errors.RemoteError):
    """The cluster refuses, and nothing has changed. `message` has the reason."""


class NoSuchNode(Refused, LookupError):
    """There is no such node; said by the master (`code` DENIED), or known from its list of nodes (`code` None)."""


class Unsafe(Refused, errors.EncodeError):
    """Not sent: a NEO node would have exited over it."""


class NoSuchPartition(Unsafe, LookupError):
    """Not sent: the partition table has no such row."""


class NotReady(errors.RemoteError):
    """Not now: no master, or one that does not serve yet. It was asked again until the time was up."""


class MasterLost(errors.RemoteError):
    """The admin lost its master while a command was under way. It may or may not have been done."""


class NotAnAdmin(errors.RemoteError):
    """Whoever answers at this address is no admin."""


class NoReadableCell(errors.Error):
    """All storages that should have the data were tried; the text has the story of each."""


class NoSuchObject(errors.RemoteError, LookupError):
    """There is no such object, or none before that tid."""


class NoSuchTransaction(errors.RemoteError, LookupError):
    """There is no such transaction."""


E = TypeVar("E", bound=errors.RemoteError)


def remote(cls: type[E], message: str, *, code: Any = None, text: str | None = None,
           cause: errors.Error | None = None) -> E:
    """An error of `cls` that says `message`, where `cause` happened if there is one."""
    error = cls(text if text is not None else message)
    error.code, error.message = code, message
    if cause is not None:
        error.link, error.conn_id, error.op = cause.link, cause.conn_id, cause.op
        error.__cause__ = cause
    return error
