# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The process: its end (S15), forks (S58, S9), interpreters (S59), and the order of what arrives in it (S61)."""
import time

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import ANSWER, KINDS, NOTIFY, REQUEST, body, raw_peer, run_program
from support import Background, within

import neolink

pytestmark = pytest.mark.usefixtures("balanced")

BEGIN = """
import atexit, os, sys, threading, neolink
from scenario_kit import *
from support import Background, until, waiting
client, server = neolink.pair(wire="N")
"""
PROGRAMS = {
    "open links": "",
    "a listener": "listener = neolink.listen('127.0.0.1:0')",
    "daemon threads that wait": """
conn = client.new_conn()
for wait in (conn.recv, client.accept, client.recv1, lambda: client.ask(REQUEST)):
    threading.Thread(target=wait, daemon=True).start()
waiting(client, 4)
""",
    "senders over the budget": """
near, far = tcp_pair()
full = neolink.NodeLink(near, "client", wire="N")
stuff(full)
Background(full.notify, NOTIFY, bytes(100000))
waiting(full)
""",
    "handlers": """
client.handle_new_conn(lambda conn: list(conn))
server.handle_new_conn(lambda conn: list(conn))
for link in (client, server):
    for _ in range(3):
        link.notify(NOTIFY)
until(lambda: client.stats().waiters >= 3)
""",
    "daemon threads that work": """
Background(server.serve, lambda request: neolink.Packet(ANSWER))
def work():
    while True:
        client.ask(REQUEST)
for _ in range(4):
    Background(work)
until(lambda: client.stats().packets_received > 100)
""",
    "used inside atexit": """
def bye():
    client.notify(NOTIFY)
    server.recv1(timeout=20).close()
    client.close()
    server.close()
    print("bye", flush=True)
atexit.register(bye)
""",
    "a trace": """
trace = neolink.Trace(lambda event: None)
trace.__enter__()
client.notify(NOTIFY)
""",
}
MEASURE = """
import atexit as _atexit, time as _time
_atexit.register(lambda: print("exit", _time.monotonic(), flush=True))
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_s15_the_interpreter_exits_in_time(name):
    """The first line of atexit runs last-registered-first: "exit" is printed as the end begins."""
    def exit_of_program() -> float:
        done = run_program(BEGIN + PROGRAMS[name] + MEASURE)
        ended = time.monotonic()
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "Fatal" not in done.stderr, done.stderr
        began = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("exit")]
        if "atexit" in name:
            assert "bye" in done.stdout
        return ended - began[0]

    within(1, exit_of_program)


FORK = """
import os, sys, time, gc, neolink
from scenario_kit import *
from support import Background, until, waiting

listener = neolink.listen("127.0.0.1:0", wire="N")
client = neolink.dial(listener.address, wire="N")
server = listener.accept(timeout=20)
conn = client.new_conn()
Background(server.serve, lambda request: neolink.Packet(ANSWER))
stop = []
def work():
    while not stop:
        client.ask(REQUEST, timeout=20)
workers = [Background(work) for _ in range(3)]
until(lambda: client.stats().packets_received > 50)
for way in ("use", "close", "drop"):
    pid = os.fork()
    if pid == 0:
        code = 0
        if way == "use":
            for call in (lambda: client.ask(REQUEST, timeout=1), lambda: client.notify(NOTIFY), client.accept,
                         client.new_conn, lambda: conn.send(REQUEST), conn.recv, lambda: client.recv1(timeout=1),
                         lambda: next(client), lambda: listener.accept(timeout=1)):
                try:
                    call()
                    code = 1
                except neolink.ForkedLink as error:
                    if "parent" not in str(error):
                        code = 2
            a, b = neolink.pair(wire="N")                   # and the child makes its own
            a.notify(NOTIFY)
            b.recv1(timeout=20).close()
            a.close(); b.close()
        elif way == "close":
            for thing in (client, server):
                try:
                    thing.close()
                except neolink.ForkedLink:
                    pass
        else:
            del client, server, conn, listener
            gc.collect()
        if code == 0 and way == "drop":
            sys.exit(0)                                     # with all of the interpreter's own clean-up
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, (way, status)
    before = client.stats().packets_received
    until(lambda: client.stats().packets_received > before + 50)
stop.append(1)
for worker in workers:
    worker.result()
client.close(); server.close(); listener.close()
print("unharmed")
"""


@pytest.mark.no_asan
def test_s58_fork_with_traffic_running():
    """S9, S58: the child is refused everything and disturbs nobody, however it ends."""
    done = run_program(FORK)
    assert (done.stdout, done.returncode) == ("unharmed\n", 0), done.stderr


@pytest.mark.parametrize("wire, routing", KINDS)
def test_s61_the_order_of_the_wire_holds_across_conns(wire, routing):
    """Who has received a packet finds all that came before it, on whatever Conn, without waiting."""
    with raw_peer(wire, routing) as (link, peer):
        conns = [link.new_conn() for _ in range(4)]
        for conn in conns:
            conn.send(REQUEST)
        ids = [peer.recv().conn_id for _ in conns]
        for turn in range(200):
            for conn_id in ids:
                peer.send(conn_id, ANSWER)
            peer.send(2 * turn, NOTIFY, body(wire))
            if turn % 2:
                link.recv1(timeout=20).close()           # the last one of the turn: the others are there
                for conn in conns:
                    assert conn.recv(timeout=0).code == ANSWER
            else:
                conns[3].recv(timeout=20)
                for conn in conns[:3]:
                    conn.recv(timeout=0)
                link.recv1(timeout=20).close()
        for conn in conns:
            conn.close()
        at_rest(link)


def test_s61_with_another_thread_reading():
    with raw_peer("M") as (link, peer):
        bystander = Background(link.new_conn().recv)
        conn = link.new_conn()
        conn.send(REQUEST)
        conn_id = peer.recv().conn_id
        for turn in range(300):
            peer.send(2 * turn, NOTIFY)
            peer.send(conn_id, ANSWER)
            conn.recv(timeout=20)
            link.recv1(timeout=0).close()
        link.close()
        with pytest.raises(neolink.LinkClosed):
            bystander.result()


SUBINTERPRETERS = """
import importlib, sys, threading, neolink
from scenario_kit import *
from support import Background, until
INSIDE = '''
import neolink
a, b = neolink.pair(wire="N")
a.notify(5)
with b.recv1(timeout=20) as request:
    assert request.packet.code == 5
a.close(); b.close()
'''
def run_inside():
    # What went wrong in an interpreter that is made for it and shares the GIL, or None.
    if sys.version_info >= (3, 13):
        interpreters = importlib.import_module("_interpreters")
        interpreter = interpreters.create("legacy")
        failure = interpreters.run_string(interpreter, INSIDE)
    else:
        interpreters, failure = importlib.import_module("_xxsubinterpreters"), None
        interpreter = interpreters.create()
        try:
            interpreters.run_string(interpreter, INSIDE)
        except interpreters.RunFailedError as error:
            failure = error
    interpreters.destroy(interpreter)
    return failure and str(failure)
client, server = neolink.pair(wire="N")
serving = Background(server.serve, lambda request: neolink.Packet(ANSWER, request.packet.payload))
stop = []
def work():
    n = 0
    while not stop:
        assert client.ask(REQUEST, n.to_bytes(4, "big"), timeout=20).payload == n.to_bytes(4, "big")
        n += 1
    return n
workers = [Background(work) for _ in range(2)]
refused = 0
for _ in range(10):
    if failure := run_inside():
        assert "ImportError" in failure, failure
        refused += 1
    before = client.stats().packets_received
    until(lambda: client.stats().packets_received > before + 20)
stop.append(1)
assert all(worker.result() for worker in workers)
client.close()
serving.result()
server.close()
print(refused)
"""


@pytest.mark.no_asan
def test_s59_subinterpreters_come_and_go_beside_a_live_link():
    """Each makes links of its own, or is told at its import that it cannot; the link in the main one works on."""
    done = run_program(SUBINTERPRETERS, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("0", "10")


def test_s59_imported_again_with_a_live_link():
    """A second copy of the module beside the first: the first one's link works on, and both make their own."""
    done = run_program("""
        import sys, neolink
        from scenario_kit import ANSWER, REQUEST
        from support import Background
        client, server = neolink.pair(wire="N")
        serving = Background(server.serve, lambda request: neolink.Packet(ANSWER))
        assert client.ask(REQUEST, timeout=20).code == ANSWER    # it has imported what it needs, of the first copy
        for _ in range(5):
            for name in [name for name in sys.modules if name.split(".")[0] == "neolink"]:
                del sys.modules[name]
            import neolink as again
            assert again is not neolink
            a, b = again.pair()
            a.notify(5)
            assert type(b.recv1(timeout=20).packet) is again.Packet
            a.close(), b.close()
            assert client.ask(REQUEST, timeout=20).code == ANSWER
        client.close()
        serving.result()
        server.close()
        print("all")
        """)
    assert (done.stdout, done.returncode) == ("all\n", 0), done.stderr
