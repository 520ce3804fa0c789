# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of the requirement table: what each compares, and its goal. README.rst says what limits them."""
from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from contend import Hose
from programs import HERE, folder, go_program, have_openssl, have_python_headers, library, program
from race import (
    ANYWHERE,
    ONE_CORE,
    PLACES,
    TWO_CORES,
    Contender,
    Place,
    Result,
    Server,
    Settings,
    Spread,
    cpu_ratio,
    micros,
    million_per_second,
    race,
    recast,
    speed_ratio,
    time_ratio,
)

SIZE = "64"                     # bytes of payload of a small packet


class Skipped(Exception):
    """A row that cannot run here, and why."""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    number: int
    title: str
    run: Callable[[Settings], Iterator[Result]]


ROWS: list[Row] = []


def row(number: int, title: str) -> Callable[[Callable[[Settings], Iterator[Result]]], object]:
    """Decorator: enter a function in the table."""
    def enter(run: Callable[[Settings], Iterator[Result]]) -> object:
        ROWS.append(Row(number, title, run))
        return run
    return enter


def installed(module: str) -> bool:
    """Whether it can be imported."""
    return importlib.util.find_spec(module) is not None


def need(*modules: str) -> None:
    """Skip the row unless these can be imported."""
    for module in modules:
        if not installed(module):
            raise Skipped(f"{module} is not installed")


def node(place: Place) -> Server:
    """The bare server of most rows."""
    return Server([program("peer"), "node"], place)


def in_c(source: str, what: str, server: Server, place: Place, *arguments: str, step: int = 1,
         **environment: str) -> Contender:
    """A contender of peer.c or core.c."""
    return Contender(f"{source} {what}", [program(source), what, server.port, *arguments], place, step, **environment)


def time_of(title: str, place: Place, ours: Contender, theirs: Contender, goal: float | None = None, /,
            **notes: str) -> Result:
    """Our time over theirs; at most the goal."""
    return Result(f"time of {title}", place.name, time_ratio(ours, theirs), "x", goal, notes=notes)


def speed_of(title: str, place: Place, ours: Contender, theirs: Contender, goal: float | None = None, /,
             **notes: str) -> Result:
    """Our speed over theirs; at least the goal."""
    return Result(f"speed of {title}", place.name, speed_ratio(ours, theirs), "x", goal, at_least=True, notes=notes)


def rate_of(title: str, place: Place, contender: Contender, goal: float | None = None, by_cpu: bool = False) -> Result:
    """Operations per second of wall time, or of CPU time; at least the goal. The other one as a note."""
    other = f"{million_per_second(contender, not by_cpu)} M/s"
    return Result(title, place.name, million_per_second(contender, by_cpu), "M/s", goal, at_least=True,
                  notes={"of wall time" if by_cpu else "of CPU time": other})


def in_python(what: str, server: Server, place: Place, *arguments: str, step: int = 1,
              **environment: str) -> Contender:
    """A contender of contend.py."""
    command = [sys.executable, str(HERE / "contend.py"), what, server.port, *arguments]
    return Contender(f"python {what}", command, place, step, **environment)


def in_go(place: Place, stack: ExitStack) -> Iterator[Contender]:
    """The contenders of gopeer, each with its server in Go, where Go can build it."""
    if go := go_program("gopeer"):
        for what in ("bare", "yamux"):
            server = stack.enter_context(Server([go, f"{what}_server"], place))
            yield stack.enter_context(Contender(what, [go, what, server.port, SIZE], place))


def python_server(what: str, place: Place) -> Server:
    """A server of contend.py."""
    return Server([sys.executable, str(HERE / "contend.py"), what], place)


def gib_per_second(contender: Contender) -> str:
    """Of operations of 1 MiB."""
    return f"{million_per_second(contender).median * 1e6 / 1024:.2f} GiB/s"


@row(1, "C core: ask, one outstanding, against blocking C")
def core_ask(settings: Settings) -> Iterator[Result]:
    def cast(stack: ExitStack) -> list[Contender]:
        server = stack.enter_context(node(place))
        return [stack.enter_context(in_c(source, "ask", server, place, SIZE)) for source in ("peer", "core")]

    for place, goal in zip(PLACES, (1.06, 0.75)):
        bare, ours = recast(cast, settings)
        yield time_of("nl_ask / blocking C", place, ours, bare, goal, ours=micros(ours), C=micros(bare))


@row(2, "Python: link.ask(code, payload), one outstanding")
def python_ask(settings: Settings) -> Iterator[Result]:
    need("neolink")
    peers = [peer for peer in (("zmq", "zmq_ask", "zmq_server"), ("pynng", "nng_ask", "nng_server"),
                               ("grpc", "grpc_ask", "grpc_server"), ("uvloop", "uvloop_ask", None))
             if installed(peer[0])]
    for place, goal in zip(PLACES, (1.15, 0.80)):
        with ExitStack() as stack:
            server = stack.enter_context(node(place))
            bare = stack.enter_context(in_c("peer", "ask", server, place, SIZE))
            python = stack.enter_context(in_python("socket_ask", server, place, SIZE))
            ours = stack.enter_context(in_python("link_ask", server, place, SIZE))
            others = []
            for _, what, echo in peers:
                its_server = stack.enter_context(python_server(echo, place)) if echo else server
                others.append(stack.enter_context(in_python(what, its_server, place, SIZE)))
            names = [module for module, *_ in peers]
            for what in in_go(place, stack):
                names.append(f"Go {what.name}")
                others.append(what)
            race([bare, python, ours, *others], settings)
            yield time_of("link.ask / blocking C", place, ours, bare, goal, ours=micros(ours), C=micros(bare))
            yield time_of("link.ask / bare Python socket", place, ours, python, None if place is ONE_CORE else 0.8,
                          Python=micros(python))
            for name, other in zip(names, others, strict=True):
                yield time_of(f"link.ask / {name}", place, ours, other, None, it=micros(other))
    yield from never_costs(settings)


def never_costs(settings: Settings) -> Iterator[Result]:
    """Where nothing is pinned, client and server run on one core or on two, as the kernel likes, and while they share
    one a try is for nothing."""
    place = ANYWHERE

    def cast(stack: ExitStack) -> list[Contender]:
        server = stack.enter_context(node(place))
        return [stack.enter_context(each) for each in (
            in_python("socket_ask", server, place, SIZE), in_python("link_ask", server, place, SIZE),
            in_python("link_ask", server, place, SIZE, BENCH_SPIN_NS="0"))]

    python, ours, ours_off = recast(cast, settings)
    yield time_of("link.ask / bare Python socket", place, ours, python, None, Python=micros(python))
    yield time_of("link.ask, trying / not", place, ours, ours_off, 1.05, trying=micros(ours), off=micros(ours_off))


@row(3, "Python serving: recv1 and reply, serve; a bare C client")
def python_serving(settings: Settings) -> Iterator[Result]:
    need("neolink")
    place = ONE_CORE
    with ExitStack() as stack:
        servers = [stack.enter_context(server) for server in (
            node(place), *(python_server(what, place) for what in ("socket_server", "recv1_server", "serve_server")))]
        clients = [stack.enter_context(in_c("peer", "ask", server, place, SIZE)) for server in servers]
        race(clients, settings)
        bare, python, recv1, serve = clients
        yield time_of("recv1+reply / server in C", place, recv1, bare, 1.3, ours=micros(recv1), C=micros(bare))
        yield time_of("serve(handler) / server in C", place, serve, bare, 1.3, ours=micros(serve))
        yield time_of("bare Python server / server in C", place, python, bare)


@row(4, "Typed ask: proto.AskClusterState against the same packets raw")
def typed_ask(settings: Settings) -> Iterator[Result]:
    need("neolink", "msgspec")
    place = ONE_CORE
    # what follows the id: how long it is in the request, and what it is in the answer, AnswerClusterState(RUNNING)
    for wire, request, answer in (("M", "2", "cd802e91d40102"), ("N", "6", "802e0000000102")):
        with (Server([program("peer"), "canned", wire, request, answer], place) as server,
              in_python("link_ask_state", server, place, "raw", wire) as raw,
              in_python("link_ask_state", server, place, "typed", wire) as typed):
            race([raw, typed], settings)
            yield time_of(f"typed ask / raw ask, wire {wire}", place, typed, raw, 1.35, typed=micros(typed),
                          raw=micros(raw))


@row(5, "ask_many, 64 in flight")
def many(settings: Settings) -> Iterator[Result]:
    need("neolink")
    for place in PLACES:
        by_cpu = place is not ONE_CORE      # there both sides' work is in the time that passes
        with (node(place) as server, in_c("core", "many", server, place, SIZE, "64", step=64) as core,
              in_python("socket_window", server, place, SIZE, "64", step=64) as python,
              in_python("link_many", server, place, SIZE, "64", step=64) as ours,
              in_python("link_many", server, place, SIZE, "64", step=64, BENCH_SPIN_NS="0") as ours_off,
              in_python("link_many", server, place, SIZE, "6400", step=6400) as longer,
              in_c("peer", "window", server, place, SIZE, "64", step=64) as bare):
            race([core, python, ours, ours_off, longer, bare], settings)
            what = "of the client's CPU time" if by_cpu else "of time"
            yield rate_of(f"asks, {what}", place, ours, None if by_cpu else 2.0, by_cpu)
            if by_cpu:
                yield rate_of(f"asks without trying, {what}", place, ours_off, None, by_cpu)
            yield rate_of(f"nl_ask_many in C, {what}", place, core, None, by_cpu)
            yield rate_of(f"bare window in C, {what}", place, bare, None, by_cpu)
            yield rate_of(f"6400 at a time, {what}", place, longer, None, by_cpu)
            # A machine is fast or slow: where these two million were asked for, the window made 1.3.
            yield speed_of("ask_many / bare Python window", place, ours, python, 2.0 / 1.3)
            if by_cpu:
                yield Result("asks a second of CPU time, ask_many / bare Python window", place.name,
                             cpu_ratio(python, ours), "x", 2.0 / 1.3, at_least=True)


def for_crowds(settings: Settings) -> Settings:
    """Longer rounds: all threads of a crowd begin and end each one together, at a barrier of Python's, which is not what is
    to be measured."""
    return replace(settings, round_seconds=5 * settings.round_seconds)


@row(6, "64 threads that ask on one link")
def threads(settings: Settings) -> Iterator[Result]:
    need("neolink")
    settings = for_crowds(settings)
    for place in (ONE_CORE, ANYWHERE):
        with ExitStack() as stack:
            server = stack.enter_context(node(place))
            ours = stack.enter_context(in_python("link_threads", server, place, SIZE, "64", step=64))
            bare = stack.enter_context(in_python("socket_threads", server, place, SIZE, "64", step=64))
            leader = zmq = None
            if have_python_headers():
                leader = stack.enter_context(in_python("leader_threads", server, place, SIZE, "64", library("leader"),
                                                       step=64))
            if installed("zmq"):
                echo = stack.enter_context(python_server("zmq_server", place))
                zmq = stack.enter_context(in_python("zmq_threads", echo, place, SIZE, "64", step=64))
            race([each for each in (ours, bare, leader, zmq) if each], settings)
            yield speed_of("one link / a bare socket per thread", place, ours, bare, 2.5, ours=micros(ours),
                           bare=micros(bare))
            if leader:
                yield speed_of("one link / the bare leader design", place, ours, leader, 0.9, leader=micros(leader))
            if zmq:
                yield speed_of("one link / pyzmq, REQ per thread", place, ours, zmq, 4.0, pyzmq=micros(zmq))


@row(7, "Notifications")
def notes(settings: Settings) -> Iterator[Result]:
    need("neolink")
    place = TWO_CORES
    with (node(place) as server, in_c("peer", "notes", server, place, SIZE) as bare,
          in_c("core", "notes", server, place, SIZE) as core,
          in_c("core", "notes_many", server, place, SIZE, "1000", step=1000) as core_many,
          in_python("link_notes", server, place, SIZE) as ours,
          in_python("link_notes_many", server, place, SIZE, "1000", step=1000) as ours_many):
        race([bare, core, core_many, ours, ours_many], settings)
        yield rate_of("link.notify in a loop", place, ours, 1.5)
        yield rate_of("link.notify_many, 1000 packets at a time", place, ours_many, 10.0)
        yield rate_of("nl_link_notify in C", place, core)
        yield rate_of("nl_link_notify_many in C", place, core_many)
        yield rate_of("a write per packet in C", place, bare)


CASTS_OF_BULK = 12      # five of them tell its median to two hundredths only


@row(8, "Bulk: payloads of 1 MiB")
def bulk(settings: Settings) -> Iterator[Result]:
    need("neolink")
    def out(stack: ExitStack) -> list[Contender]:
        server = stack.enter_context(node(place))
        return [stack.enter_context(each) for each in (
            in_c("peer", "bulk", server, place), in_c("core", "bulk", server, place),
            in_python("link_notes", server, place, str(1 << 20)))]

    def back(stack: ExitStack) -> list[Contender]:
        server = stack.enter_context(node(place))
        return [stack.enter_context(each) for each in (
            in_c("peer", "take", server, place), in_c("core", "take", server, place),
            in_python("link_take", server, place))]

    for place in PLACES:
        bare, core, python = recast(out, settings, CASTS_OF_BULK)
        yield speed_of("nl_link_notify / C sendmsg", place, core, bare, 0.95, C=gib_per_second(bare))
        yield speed_of("link.notify / C sendmsg", place, python, bare, 0.95)
        bare, core, python = recast(back, settings, CASTS_OF_BULK)
        yield speed_of("nl_conn_recv / C recv", place, core, bare, 0.95, C=gib_per_second(bare))
        yield speed_of("conn.recv / C recv", place, python, bare, 0.95)


def state(what: str, count: int) -> dict[str, float]:
    """What state.c finds."""
    done = subprocess.run([program("state"), what, str(count)], check=True, text=True, stdout=subprocess.PIPE,
                          timeout=120)
    return {name: float(number) for name, number in (line.split() for line in done.stdout.splitlines())}


def single(value: float) -> Spread:
    """A value without a spread."""
    return Spread(value, value, value)


PYTHON_STATE = """
import gc, os, socket, sys, neolink
def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
pairs = [socket.socketpair() for _ in range(int(sys.argv[1]))]
links = [neolink.NodeLink(a, "client") for a, b in pairs[:100]]
before = resident()
links += [neolink.NodeLink(a, "client") for a, b in pairs[100:]]
print("bytes_per_link", (resident() - before) / (len(pairs) - 100), flush=True)
before = resident()
conns = [links[0].new_conn() for _ in range(int(sys.argv[2]))]
print("bytes_per_conn", (resident() - before) / len(conns), flush=True)
os._exit(0)     # without closing each
"""


def python_state(links: int, conns: int) -> dict[str, float]:
    """Resident memory per idle link and Conn of a Python program, objects of Python included."""
    done = subprocess.run([sys.executable, "-c", PYTHON_STATE, str(links), str(conns)], cwd=HERE, check=True, text=True,
                          stdout=subprocess.PIPE)
    return {name: float(number) for name, number in (line.split() for line in done.stdout.splitlines())}


@row(9, "Memory of what is idle, and the table of Conns")
def memory(settings: Settings) -> Iterator[Result]:
    scale = 10 if settings.short else 1
    links, conns = state("links", 10_000 // scale), state("conns", 1_000_000 // scale)
    yield Result("idle link", "", single(links["bytes_per_link"]), "B", 4096, notes={"links": f"{links['links']:.0f}"})
    yield Result("idle Conn", "", single(conns["bytes_per_conn"]), "B", 256, notes={"Conns": f"{conns['conns']:.0f}"})
    if installed("neolink"):
        python = python_state(400, 50_000 // scale)     # few links: the limit of open files is often 1024
        yield Result("idle link of a Python program, resident", "", single(python["bytes_per_link"]), "B", 4096)
        yield Result("idle Conn of a Python program, resident", "", single(python["bytes_per_conn"]), "B", 256)
    few, crowded = conns["ns_per_conn_beside_few"], conns["ns_per_conn_beside_many"]
    yield Result("make and end a Conn beside them / beside none", "", single(crowded / few), "x", None,
                 notes={"beside": f"{crowded:.0f} ns", "none": f"{few:.0f} ns"})
    with (node(ONE_CORE) as server, in_c("core", "ask", server, ONE_CORE, SIZE) as alone,
          in_c("core", "crowd", server, ONE_CORE, SIZE, str(1_000_000 // scale)) as crowd):
        race([alone, crowd], settings)
        yield Result("time of an ask beside them / beside none", ONE_CORE.name, time_ratio(crowd, alone), "x", 1.1)


@row(10, "Idle links sleep, and end cheaply")
def idle(settings: Settings) -> Iterator[Result]:
    asleep, ended = state("idle", 1000), state("ends", 2000)
    yield Result("wake-ups in a second, 1,000 idle links", "", single(asleep["wakeups"]), "", 0)
    if ended["closed"] != ended["links"]:
        raise RuntimeError(f"only {ended['closed']:.0f} of {ended['links']:.0f} links noticed the end of their peer")
    yield Result("CPU time until 2,000 ended links are closed", "", single(ended["cpu_seconds"]), "s", 0.2)


@row(11, "Round trip beside a thread that computes: what it adds")
def beside_busy(settings: Settings) -> Iterator[Result]:
    need("neolink")
    place = TWO_CORES
    with (node(place) as server, in_python("socket_ask", server, place, SIZE) as bare,
          in_python("link_ask", server, place, SIZE) as ours,
          in_python("busy", server, place, "socket_ask", SIZE) as bare_busy,
          in_python("busy", server, place, "link_ask", SIZE) as ours_busy):
        race([bare, ours, bare_busy, ours_busy], settings)
        added = [[with_busy - alone for with_busy, alone in zip(a.wall_ns, b.wall_ns, strict=True)]
                 for a, b in ((ours_busy, ours), (bare_busy, bare))]
        yield Result("added to link.ask / added to bare socket", place.name,
                     Spread.of([a / b for a, b in zip(*added, strict=True)]), "x", 0.3,
                     notes={"ours": f"{micros(ours)} -> {micros(ours_busy)}",
                            "bare": f"{micros(bare)} -> {micros(bare_busy)}"})


def fresh(command: list[str], **variables: str) -> str:
    """What a program in Python prints that is started anew: with its modules compiled, as they are where users have
    them, whatever this program's environment says about that."""
    environment = {**os.environ, **variables, "PYTHONPYCACHEPREFIX": str(folder() / "pycache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(command, cwd=HERE, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout


def in_turns(settings: Settings, *programs: Callable[[], int]) -> list[list[int]]:
    """The nanoseconds that these say they took, in the rounds; a first one does not count."""
    rounds = [[program() for program in programs] for _ in range(settings.rounds + 1)]
    return [list(column) for column in zip(*rounds[1:], strict=True)]


def time_of_programs(title: str, ours: list[int], theirs: list[int], goal: float) -> Result:
    """Our time over theirs, round by round."""
    return Result(title, "", Spread.of([a / b for a, b in zip(ours, theirs, strict=True)]), "x", goal,
                  notes={name: f"{statistics.median(times) / 1e6:.1f} ms"
                         for name, times in (("ours", ours), ("theirs", theirs))})


@row(12, "Import time")
def import_time(settings: Settings) -> Iterator[Result]:
    need("neolink")
    measure = "import time; t = time.perf_counter_ns(); import {}; print(time.perf_counter_ns() - t)"

    def importing(modules: str) -> Callable[[], int]:
        return lambda: int(fresh([sys.executable, "-c", measure.format(modules)]))

    ours, bare = in_turns(settings, importing("neolink"), importing("socket, struct"))
    yield time_of_programs("import neolink / import socket, struct", ours, bare, 1.5)


def certificates() -> list[str]:
    """The paths of a CA, and of a certificate and a key that both ends use; made by the openssl command."""
    ca, ca_key, cert, key, request = (str(folder() / name)
                                      for name in ("ca.pem", "ca.key", "node.pem", "node.key", "node.csr"))
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (["req", "-x509", *new_key, "-keyout", ca_key, "-out", ca, "-days", "2", "-subj", "/CN=bench CA",
                     "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
                    ["req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=bench node"],
                    ["x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-out", cert,
                     "-days", "2"]):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return [ca, cert, key]


@row(13, "TLS, against bare OpenSSL in C")
def tls(settings: Settings) -> Iterator[Result]:
    if not have_openssl() or not shutil.which("openssl"):
        raise Skipped("OpenSSL's headers or its command are not installed")
    files = certificates()
    peer = program("tlspeer")
    for place in PLACES:
        for what, arguments in (("ask", [SIZE]), ("bulk", [])):
            with (Server([peer, "node", *files], place) as server,
                  Contender(f"tlspeer {what}", [peer, what, *files, server.port, *arguments], place) as bare,
                  in_c("core", what, server, place, *arguments, BENCH_TLS=str(folder())) as ours):
                race([bare, ours], settings)
                notes = {"ours": micros(ours), "OpenSSL": micros(bare)}
                if what == "ask":
                    yield time_of("nl_ask / OpenSSL in C", place, ours, bare, 1.15, **notes)
                else:
                    yield speed_of("1 MiB packets / OpenSSL in C", place, ours, bare, 0.9, **notes)


def duration(command: list[str], **variables: str) -> int:
    """The nanoseconds from the start of a program in Python to its end, which prints the state of a cluster."""
    start = time.perf_counter_ns()
    if (said := fresh(command, **variables).strip()) != "RUNNING":
        raise RuntimeError(f"{' '.join(command)} printed {said}")
    return time.perf_counter_ns() - start


def neopy_peers() -> ModuleType:
    """tests/interop/peers.py, which knows how to find and start NEO/py."""
    sys.path.insert(0, str(HERE.parent / "tests" / "interop"))
    return importlib.import_module("peers")


@row(14, "Live NEO/py admin: typed AskClusterState against NEO/py's NeoCTL, and ctl against neoctl")
def live_admin(settings: Settings) -> Iterator[Result]:
    need("neolink", "msgspec")
    peers = neopy_peers()
    if (software := peers.find_neopy("M")) is None:
        raise Skipped("no NEO/py: set NEOLINK_NEOPY to a checkout and NEOLINK_NEOPY_PYTHON to an interpreter for it")
    place = ANYWHERE
    contend = str(HERE / "contend.py")
    with tempfile.TemporaryDirectory() as directory:
        cluster = peers.Cluster(software, Path(directory))
        cluster.start()
        try:
            address = peers.join(cluster.admin)
            its_command = [software.python, contend, "neoctl_ask", address]
            with (Contender("NeoCTL", its_command, place, **software.env()) as theirs,
                  Contender("neolink", [sys.executable, contend, "link_ctl", address], place) as ours):
                race([theirs, ours], settings)
                yield time_of("link.ask(message) / NeoCTL", place, ours, theirs, 0.5, ours=micros(ours),
                              NeoCTL=micros(theirs))
            words = ["-a", address, "print", "cluster"]
            ctl = [sys.executable, "-c", "from neolink.cli import main; main()", "ctl", *words]
            neoctl = software.command("neoctl", *words)
            ours_ns, theirs_ns = in_turns(settings, lambda: duration(ctl), lambda: duration(neoctl, **software.env()))
            yield time_of_programs("neolink ctl print cluster / neoctl", ours_ns, theirs_ns, 0.35)
        finally:
            cluster.stop()


PERCENTILES = ("p50", "p99", "p99.9")


def half_load(place: Place, contenders: list[Callable[[Server, str], Contender]], server: Server,
              settings: Settings) -> list[Contender]:
    """Let them race by a schedule that takes half of the slowest one's time: a round trip by schedule costs a sleep and
    a wake-up more than one of many in a row, about as much again."""
    gap = 0.0
    for make in contenders:
        with make(server, "") as full:
            full.calibrate(settings.round_seconds)
            gap = max(gap, 4 * full.round(full.operations)[0])
    with ExitStack() as stack:
        paced = [stack.enter_context(make(server, str(round(gap)))) for make in contenders]
        for contender in paced:
            contender.operations = 100 if settings.short else 5000      # of which 5 are over p99.9
            contender.round(contender.operations)
        for _ in range(min(settings.rounds, 9)):
            for contender in paced:
                contender.measure()
    return paced


@row(15, "Under half load: percentiles, with adaptive trying and without")
def latency(settings: Settings) -> Iterator[Result]:
    need("neolink")

    def contender(what: str, **environment: str) -> Callable[[Server, str], Contender]:
        """Made twice: to see how fast it can go, and for the schedule."""
        def make(server: Server, gap: str) -> Contender:
            by_schedule = {"BENCH_GAP_NS": gap} if gap else {}
            source, _, kind = what.partition(" ")
            if source == "python":
                return in_python(kind, server, place, SIZE, **environment, **by_schedule)
            return in_c(source, kind, server, place, SIZE, **environment, **by_schedule)
        return make

    names = ["C", "nl_ask", "nl_ask, no trying", "Python socket", "link.ask", "link.ask, no trying"]
    for place in PLACES:
        with node(place) as server:
            paced = half_load(place, [contender("peer ask"), contender("core ask"),
                                      contender("core ask", BENCH_SPIN_NS="0"), contender("python socket_ask"),
                                      contender("python link_ask"), contender("python link_ask", BENCH_SPIN_NS="0")],
                              server, settings)
        bare, core, core_off, python, ours, ours_off = paced
        for index, percentile in enumerate(PERCENTILES):
            notes = {name: f"{statistics.median(late[index] for late in each.late_ns) / 1e3:.1f} us"
                     for name, each in zip(names, paced, strict=True)}
            yield Result(f"{percentile} of nl_ask / blocking C", place.name, late_ratio(core, bare, index), "x", None,
                         notes=notes)
            yield Result(f"{percentile} of link.ask / Python socket", place.name, late_ratio(ours, python, index), "x",
                         None)
            yield Result(f"{percentile} of link.ask, trying / not", place.name, late_ratio(ours, ours_off, index), "x",
                         None)
        cpu = {name: f"{statistics.median(each.cpu_ns) / 1e3:.1f} us" for name, each in zip(names, paced, strict=True)}
        yield Result("CPU time of nl_ask, trying / not", place.name, cpu_ratio(core, core_off), "x", None, notes=cpu)
        yield Result("CPU time of link.ask, trying / not", place.name, cpu_ratio(ours, ours_off), "x", None)


def late_ratio(ours: Contender, theirs: Contender, index: int) -> Spread:
    """A percentile of ours over that of theirs, round by round."""
    return Spread.of([a[index] / b[index] for a, b in zip(ours.late_ns, theirs.late_ns, strict=True)])


@row(16, "Beside floods of packets that nobody wants")
def beside_floods(settings: Settings) -> Iterator[Result]:
    need("neolink")
    for place in PLACES:
        floods = {kind: ",".join([kind] * 4) for kind in Hose.KINDS}
        with (node(place) as server, in_python("link_ask", server, place, SIZE) as alone,
              in_python("flooded", server, place, floods["answers"], "bound", SIZE) as answers,
              in_python("flooded", server, place, floods["opens"], "bound", SIZE) as opens,
              in_python("flooded", server, place, floods["answers"], "unbound", SIZE) as unbound):
            race([alone, answers, opens, unbound], settings)
            yield speed_of("link.ask beside four floods of answers / alone", place, answers, alone, 0.9,
                           alone=micros(alone), beside=micros(answers))
            yield speed_of("link.ask beside four floods of opens / alone", place, opens, alone, 0.9,
                           beside=micros(opens))
            yield speed_of("with answers that are not bounded / alone", place, unbound, alone, beside=micros(unbound))
