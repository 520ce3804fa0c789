# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Test doubles for programs that speak NEO.

    from neolink import proto, testing

    def test_status_page():
        with testing.Cluster(storages=2, replicas=1) as cluster:
            cluster.stop_storage("S2")
            assert "DOWN" in status_page(cluster.admin_address)

`Cluster` is a whole cluster in this process: master, storages, admin, on the real wire over loopback, good enough for
NEO's own client and neoctl. `cluster.on(proto.X, reply)` makes it misbehave; a reply is

=====================  ==================================================================================
a message or Packet    sent as the answer: `proto.Error(proto.ErrorCodes.NOT_READY, "later")`
a callable             called with the neolink.Request; what it returns is the answer: another reply, or None
PASS                   what the node answers by itself
SILENCE                no answer, ever; None from a callable is the same
HANG_UP, RESET         the link is closed, or ended without delivering what was sent before
Garbage(data)          bytes that are no packet
Gate(reply)            the answer waits for gate.open(); no test has to sleep
=====================  ==================================================================================

`pair(next_id=…)` is two connected links whose ids begin where you say. The pytest plugin "neolink", installed with
the package, has them as fixtures: `neolink_cluster` (its arguments come from the marker of the same name) and
`neolink_pair`.

How to read this package: `_cluster` is what a test sees; `_master`, `_commands`, `_storage` and `_admin` are the
nodes, `_node` what they share; `_state` is what they all know, `_partition` and `_database` the two parts of that
with rules of their own; `_rules` are the other answers.

What the doubles do not do: take storages or masters from outside; lose data; end when a real node would end because of
a message, where they refuse it or hang up instead.
"""
from neolink.testing._cluster import Cluster, Writing
from neolink.testing._pair import pair
from neolink.testing._rules import HANG_UP, PASS, RESET, SILENCE, Action, Garbage, Gate, Rule

__all__ = ["HANG_UP", "PASS", "RESET", "SILENCE", "Action", "Cluster", "Garbage", "Gate", "Rule", "Writing", "pair"]
