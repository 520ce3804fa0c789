# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The process around the links: its end, its forks, its other interpreters. (S15, S58, S59)"""
import os
import subprocess
import sys
import time
import traceback

import pytest
from support import PATIENCE, Background

import neolink


def run(script, *options):
    """Run a script with this package; its output. It must end in time and in order."""
    begin = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-P", "-W", "error::ResourceWarning", *options, "-c", script], text=True,
                          capture_output=True, timeout=PATIENCE, env=environment)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout, time.monotonic() - begin


EXIT = """
import neolink, threading
client, server = neolink.pair()
listener = neolink.listen("127.0.0.1:0")
for wait in (client.accept, client.new_conn().recv, lambda: client.ask(0x2E), listener.accept):
    threading.Thread(target=wait, daemon=True).start()
server.handle_new_conn(lambda conn: [conn.recv(), conn.recv()])          # takes the request and waits for another
while client.stats().waiters < 3 or server.stats().waiters < 2: pass     # that handler, and an idle worker
print("end")
"""


def test_exit_with_everything_open():
    output, seconds = run(EXIT)
    assert output == "end\n"
    assert seconds < 10                 # starting Python on a busy machine included


def test_exit_inside_atexit():
    output, _ = run("import atexit, neolink\na, b = neolink.pair()\n"
                    "atexit.register(lambda: (a.close(), b.close(), print('closed')))")
    assert output == "closed\n"


def in_child(function):
    """Run in a forked child, which ends there; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.no_asan
@pytest.mark.filterwarnings("ignore::DeprecationWarning")       # from 3.12 on: fork with threads
def test_fork(links):
    client, server = links
    conn = client.new_conn()
    conn.send(1)
    receiving = Background(conn.recv)

    def child():
        for use in (client.new_conn, lambda: client.ask(1), lambda: conn.send(1), conn.recv, client.accept):
            with pytest.raises(neolink.ForkedLink) as caught:
                use()
            assert isinstance(caught.value, RuntimeError) and caught.value.link is client
        repr(client), repr(conn)
        conn.close()
        client.close()
        client.abort()
        for link in neolink.pair():                             # links of its own work
            link.close()

    assert in_child(child) == 0
    peer = server.accept(timeout=20)
    assert peer.recv(timeout=20).code == 1
    peer.send(0x802E)
    assert receiving.result().code == 0x802E


@pytest.mark.no_asan
def test_fork_and_exit_in_order():
    output, _ = run("""
import gc, os, neolink
client, server = neolink.pair()
conn = client.new_conn()
if os.fork() == 0:
    del conn, client
    gc.collect()
    raise SystemExit
assert os.wait()[1] == 0
conn.send(1)
assert server.recv1(timeout=20).packet.code == 1
client.close(); server.close()
print("parent")
""", "-W", "ignore::DeprecationWarning")
    assert output == "parent\n"


def test_import_does_not_start_or_load_what_is_not_needed():
    output, _ = run("import sys, threading, neolink\n"
                    "print(len(__import__('os').listdir('/proc/self/task')), 'neolink.proto' in sys.modules,"
                    " 'asyncio' in sys.modules)")
    assert output == "1 False False\n"


def test_imported_again():
    output, _ = run("""
import sys, neolink
first = neolink
for name in [name for name in sys.modules if name.startswith("neolink")]: del sys.modules[name]
import neolink
assert neolink is not first
for package in (first, neolink):
    a, b = package.pair()
    a.notify(6)
    assert type(b.recv1(timeout=20).packet) is package.Packet
    a.close(); b.close()
print("both")
""")
    assert output == "both\n"


def test_with_blocks_leave_no_objects():
    """The interpreter's method cache keeps each name it was asked for: one made anew each time stayed there."""
    output, _ = run("""
import gc, sys, neolink
held = []
def blocks(times):
    for i in range(times):
        a, b = neolink.pair()
        with a, b:
            pass
        held.append(f"{i:05}")      # of the size of such a name, so that the next one lies elsewhere
    gc.collect()
    return sys.getallocatedblocks() - len(held)
before = blocks(10)
print(blocks(100) - before)
""")
    assert int(output) < 20             # 60 when each looks a new name up; some hundreds fill the cache
