# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""pair(): two connected links, as neolink.pair() makes them, with a say in the ids that they give out."""
from __future__ import annotations

import socket

from neolink import Limits, NodeLink, Role, WireName
from neolink._kinds import AcceptMode, Routing


def pair(*, next_id: int = 0, wire: WireName = "M", routing: Routing | None = None,
         accept: AcceptMode = "queue", limits: Limits | None = None) -> tuple[NodeLink, NodeLink]:
    """(client end, server end), connected, whose next Conns get ids from `next_id` on.

    Ids count up in steps of 2, odd ones on the client end, even ones on the server end, and begin anew after
    0xffffffff. A `next_id` of the other end's parity means the id beside it: 0xfffffffe is 0xffffffff on the client
    end.
    """
    if not 0 <= next_id < 1 << 32:
        raise ValueError(f"next_id must be an id of 32 bits, not {next_id}")
    ends = socket.socketpair()
    links: list[NodeLink] = []
    try:
        for end, role in zip(ends, (Role.CLIENT, Role.SERVER), strict=True):
            links.append(NodeLink(end, role, wire=wire, routing=routing, accept=accept, limits=limits,
                                  _first_id=next_id))
    except BaseException:
        for link in links:
            link.abort()
        for end in ends:
            end.close()
        raise
    return links[0], links[1]
