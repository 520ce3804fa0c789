# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The Python contenders and servers: `python contend.py NAME ARGUMENT...`, started by rows.py.

A contender is a function here that returns another one, which does n operations. See bench.h for the rounds, and for
the codes of the packets. What a contender needs is imported inside it, so that neolink need not be there to
run its peers.
"""
from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

if TYPE_CHECKING:
    import neolink

NOTE, ASK, TAKE, ANSWER = 1, 2, 3, 0x8000
BULK = 1 << 20
HEAD = struct.Struct(">IHI")
PR_SET_TIMERSLACK = 29
Operations = Callable[[int], None]


def connect(port: str) -> socket.socket:
    """A TCP connection without delay to a server of this run."""
    sock = socket.create_connection(("127.0.0.1", int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def socket_ask(port: str, size: str) -> Operations:
    """The round trip as one writes it with a bare socket: pack, sendall, recv, unpack."""
    sock, payload = connect(port), bytes(int(size))

    def run(n: int) -> None:
        send, recv, pack, unpack = sock.sendall, sock.recv, HEAD.pack, HEAD.unpack_from
        for i in range(n):
            send(pack(2 * i + 1, ASK, HEAD.size + len(payload)) + payload)
            answer = recv(65536)
            while len(answer) < HEAD.size or len(answer) < unpack(answer)[2]:
                answer += recv(65536)
    return run


def link_to(port: str) -> neolink.NodeLink:
    """A link, which tries for BENCH_SPIN_NS, if that is set, as in core.c."""
    import neolink
    limits = neolink.Limits()
    if "BENCH_SPIN_NS" in os.environ:
        limits = limits._replace(spin_seconds=int(os.environ["BENCH_SPIN_NS"]) / 1e9)
    return neolink.NodeLink(connect(port), "client", limits=limits)


def link_ask(port: str, size: str) -> Operations:
    """link.ask(code, payload)"""
    link, payload = link_to(port), bytes(int(size))

    def run(n: int) -> None:
        ask = link.ask
        for _ in range(n):
            ask(ASK, payload)
    return run


def link_ask_state(port: str, kind: str, wire: Literal["M", "N"]) -> Operations:
    """AskClusterState to a server that knows its answer: as raw packets, or as typed messages."""
    import neolink
    from neolink import proto
    link = neolink.NodeLink(connect(port), "client", wire=wire)
    message = proto.AskClusterState()
    code, payload = proto.encode(message, wire)
    assert link.ask(message) == proto.AnswerClusterState(state=proto.ClusterStates.RUNNING)

    def raw(n: int) -> None:
        ask = link.ask
        for _ in range(n):
            ask(code, payload)

    def typed(n: int) -> None:
        ask = link.ask
        for _ in range(n):
            ask(proto.AskClusterState())
    return typed if kind == "typed" else raw


def link_ctl(address: str) -> Operations:
    """AskClusterState to a NEO admin."""
    import neolink
    from neolink import proto
    link = neolink.dial(address)

    def run(n: int) -> None:
        for _ in range(n):
            link.ask(proto.AskClusterState())
    return run


def neoctl_ask(address: str) -> Operations:
    """The same with NEO/py's own class. Runs in NEO/py's interpreter."""
    from neo.neoctl.neoctl import NeoCTL    # type: ignore[import-not-found,unused-ignore]
    host, port = address.rsplit(":", 1)
    ctl = NeoCTL((host.encode(), int(port)))
    ctl.getClusterState()

    def run(n: int) -> None:
        for _ in range(n):
            ctl.getClusterState()
    return run


# ---- many at once


def socket_window(port: str, size: str, count: str) -> Operations:
    """What ask_many does, with a bare socket: one write of all requests, then their answers, told apart by id."""
    sock, payload, window = connect(port), bytes(int(size)), int(count)
    length = HEAD.size + len(payload)

    def run(n: int) -> None:
        for first in range(0, n, window):
            ids = range(2 * first + 1, 2 * (first + window) + 1, 2)
            answers: dict[int, bytes] = {}
            sock.sendall(b"".join([HEAD.pack(i, ASK, length) + payload for i in ids]))
            data = b""
            while len(answers) < window:
                data += sock.recv(1 << 16)
                at = 0
                while len(data) - at >= HEAD.size:
                    conn_id, _, size = HEAD.unpack_from(data, at)
                    if len(data) - at < size:
                        break
                    answers[conn_id] = data[at + HEAD.size:at + size]
                    at += size
                data = data[at:]
    return run


def link_many(port: str, size: str, count: str) -> Operations:
    """link.ask_many(packets)"""
    import neolink
    link, window = link_to(port), int(count)
    packets = [neolink.Packet(ASK, bytes(int(size))) for _ in range(window)]

    def run(n: int) -> None:
        for _ in range(0, n, window):
            link.ask_many(packets)
    return run


# ---- many threads


class Hose:
    """A process that pours packets which nobody wants into a link of this one, as fast as it can while the valve is open,
    and reads what it is answered. Make it before there are threads. It ends with its maker."""

    KINDS = {"opens": (0, ASK), "answers": (1, ANSWER)}    # on a client's link: requests that are refused; strays
    PIECE = 20_000

    def __init__(self, kind: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.sock = socket.create_connection(server.getsockname())
            far, _ = server.accept()
        inlet, self._valve = os.pipe()
        if os.fork() == 0:
            self.sock.close()
            os.close(self._valve)
            try:
                self._pour(far, inlet, *self.KINDS[kind])
            finally:
                os._exit(0)
        far.close()
        os.close(inlet)

    def turn(self, is_open: bool) -> None:
        """Open or shut the valve. What is in the pipe by then still comes out."""
        os.write(self._valve, b"+" if is_open else b"-")

    @classmethod
    def _pour(cls, sock: socket.socket, inlet: int, first_id: int, code: int) -> None:
        piece = b"".join(HEAD.pack(first_id + 2 * i, code, HEAD.size) for i in range(cls.PIECE))
        valve = threading.Event()

        def pour() -> None:
            with contextlib.suppress(OSError):      # the end of the link
                while valve.wait():
                    sock.sendall(piece)

        def drain() -> None:
            with contextlib.suppress(OSError):
                while sock.recv(1 << 18):
                    pass

        for run in (pour, drain):
            threading.Thread(target=run, daemon=True).start()
        while command := os.read(inlet, 1):
            (valve.set if command == b"+" else valve.clear)()


def flooded(port: str, kinds: str, bound: str, size: str) -> Operations:
    """link.ask, while floods of these kinds pour into other links of the process, with Limits.stray_share or without."""
    hoses = [Hose(kind) for kind in kinds.split(",")]
    import neolink
    share = neolink.Limits().stray_share if bound == "bound" else None
    limits = neolink.Limits(accept_backlog=0, stray_share=share)
    links = [neolink.NodeLink(hose.sock, "client", limits=limits) for hose in hoses]
    operations = link_ask(port, size)

    def run(n: int) -> None:
        for hose in hoses:
            hose.turn(True)
        operations(n)
        for hose in hoses:
            hose.turn(False)
        if any(link.closed for link in links):
            raise RuntimeError("a flood ended before its time")
    return run


class Crowd:
    """Threads that do their share of the operations of each round."""

    def __init__(self, count: int, make: Callable[[int], Operations]) -> None:
        self._count, self._share = count, 0
        self._start, self._end = threading.Barrier(count + 1), threading.Barrier(count + 1)
        for number in range(count):
            threading.Thread(target=self._work, args=(make, number), daemon=True).start()
        self._end.wait()                # everybody is connected

    def _work(self, make: Callable[[int], Operations], number: int) -> None:
        pin_self()
        operations = make(number)
        self._end.wait()
        while True:
            self._start.wait()
            operations(self._share)
            self._end.wait()

    def run(self, n: int) -> None:
        """n operations by all together."""
        self._share = n // self._count
        self._start.wait()
        self._end.wait()


def socket_threads(port: str, size: str, count: str) -> Operations:
    """Each thread with a socket of its own, since a bare socket cannot be shared by askers."""
    return Crowd(int(count), lambda number: socket_ask(port, size)).run


def link_threads(port: str, size: str, count: str) -> Operations:
    """All threads ask on one link."""
    import neolink
    link, payload = neolink.NodeLink(connect(port), "client"), bytes(int(size))

    def make(number: int) -> Operations:
        def run(n: int) -> None:
            for _ in range(n):
                link.ask(ASK, payload)
        return run
    return Crowd(int(count), make).run


def leader_threads(port: str, size: str, count: str, path: str) -> Operations:
    """As link_threads, on the one socket of leader.c, compiled at that path."""
    spec = importlib.util.spec_from_file_location("leader", path)
    assert spec is not None and spec.loader is not None
    leader, payload = importlib.util.module_from_spec(spec), bytes(int(size))
    spec.loader.exec_module(leader)
    leader.connect(port)

    def make(number: int) -> Operations:
        def run(n: int) -> None:
            for _ in range(n):
                leader.ask(ASK, payload)
        return run
    return Crowd(int(count), make).run


def zmq_threads(port: str, size: str, count: str) -> Operations:
    """Each thread with a REQ socket of one context, since sockets of ZeroMQ are not for sharing."""
    import zmq
    context, payload = zmq.Context(), bytes(int(size))

    def make(number: int) -> Operations:
        sock = context.socket(zmq.REQ)
        sock.connect(f"tcp://127.0.0.1:{port}")

        def run(n: int) -> None:
            for _ in range(n):
                sock.send(payload)
                sock.recv()
        run(1)
        return run
    return Crowd(int(count), make).run


def zmq_ask(port: str, size: str) -> Operations:
    """One REQ socket, one request after the other."""
    import zmq
    sock, payload = zmq.Context().socket(zmq.REQ), bytes(int(size))
    sock.connect(f"tcp://127.0.0.1:{port}")

    def run(n: int) -> None:
        for _ in range(n):
            sock.send(payload)
            sock.recv()
    return run


def nng_ask(port: str, size: str) -> Operations:
    """One Req0 socket of nng, one request after the other."""
    import pynng
    sock, payload = pynng.Req0(dial=f"tcp://127.0.0.1:{port}"), bytes(int(size))

    def run(n: int) -> None:
        for _ in range(n):
            sock.send(payload)
            sock.recv()
    return run


def grpc_ask(port: str, size: str) -> Operations:
    """A unary call of gRPC, whose messages are bytes."""
    import grpc
    channel, payload = grpc.insecure_channel(f"127.0.0.1:{port}"), bytes(int(size))
    call = channel.unary_unary("/bench/ask")

    def run(n: int) -> None:
        for _ in range(n):
            call(payload)
    return run


def uvloop_ask(port: str, size: str) -> Operations:
    """A bare asyncio protocol on uvloop's loop, which a coroutine waits for."""
    import asyncio

    import uvloop

    class Peer(asyncio.Protocol):
        transport: asyncio.Transport

        def __init__(self) -> None:
            self.data = b""
            self.answer: asyncio.Future[bytes] = loop.create_future()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)     # uvloop's is one, but does not derive from it

        def data_received(self, data: bytes) -> None:
            self.data += data
            if len(self.data) >= HEAD.size and len(self.data) >= HEAD.unpack_from(self.data)[2]:
                self.answer.set_result(self.data)
                self.data = b""

    loop, payload = uvloop.new_event_loop(), bytes(int(size))
    _, peer = loop.run_until_complete(loop.create_connection(Peer, "127.0.0.1", int(port)))

    async def asks(n: int) -> None:
        for i in range(n):
            peer.answer = loop.create_future()
            peer.transport.write(HEAD.pack(2 * i + 1, ASK, HEAD.size + len(payload)) + payload)
            await peer.answer

    return lambda n: loop.run_until_complete(asks(n))


# ---- one way


def link_notes(port: str, size: str) -> Operations:
    """link.notify in a loop, and an ask: the peer has read them all."""
    import neolink
    link, payload = neolink.NodeLink(connect(port), "client"), bytes(int(size))

    def run(n: int) -> None:
        notify = link.notify
        for _ in range(n):
            notify(NOTE, payload)
        link.ask(ASK)
    return run


def link_notes_many(port: str, size: str, count: str) -> Operations:
    """link.notify_many of packets that are made already."""
    import neolink
    link, batch = neolink.NodeLink(connect(port), "client"), int(count)
    packets = [neolink.Packet(NOTE, bytes(int(size))) for _ in range(batch)]

    def run(n: int) -> None:
        for _ in range(0, n, batch):
            link.notify_many(packets)
        link.ask(ASK)
    return run


def link_take(port: str) -> Operations:
    """Packets of 1 MiB from a Conn."""
    import neolink
    link = neolink.NodeLink(connect(port), "client")

    def run(n: int) -> None:
        with link.new_conn() as conn:
            recv = conn.recv
            conn.send(TAKE, struct.pack(">II", n, BULK))
            for _ in range(n):
                assert len(recv().payload) == BULK
    return run


# ---- beside a thread that computes


def busy(port: str, inner: str, size: str) -> Operations:
    """The contender `inner`, while another thread of the process runs Python code all the time."""
    operations, go, idle = CONTENDERS[inner](port, size), threading.Event(), threading.Event()
    stop = False

    def compute() -> None:
        while True:
            idle.set()
            go.wait()
            while not stop:
                sum(range(100))

    threading.Thread(target=compute, daemon=True).start()

    def run(n: int) -> None:
        nonlocal stop
        idle.wait()
        idle.clear()
        stop = False
        go.set()
        operations(n)
        go.clear()
        stop = True
    return run


# ---- servers


def accept_one() -> socket.socket:
    """Listen, tell the port, and take a connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def socket_server() -> None:
    """recv, unpack, pack, sendall."""
    sock = accept_one()
    while request := sock.recv(65536):
        conn_id, code, length = HEAD.unpack_from(request)
        while len(request) < length:
            request += sock.recv(65536)
        sock.sendall(HEAD.pack(conn_id, code | ANSWER, length) + request[HEAD.size:])


def recv1_server() -> None:
    """link.recv1() and request.reply() in a loop."""
    import neolink
    link = neolink.NodeLink(accept_one(), "server")
    with contextlib.suppress(neolink.LinkDown):
        while True:
            with link.recv1() as request:
                packet = request.packet
                request.reply(packet.code | ANSWER, packet.payload)


def serve_server() -> None:
    """link.serve(handler)"""
    import neolink
    link = neolink.NodeLink(accept_one(), "server")
    link.serve(lambda request: neolink.Packet(request.packet.code | ANSWER, request.packet.payload))


def zmq_server() -> None:
    """An echo without Python in its way: a proxy that returns what comes to a ROUTER to where it came from."""
    import zmq
    router = zmq.Context().socket(zmq.ROUTER)
    print(router.bind_to_random_port("tcp://127.0.0.1"), flush=True)
    zmq.proxy(router, router)


def nng_server() -> None:
    """An echo by Rep0, in Python."""
    import pynng
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sock = pynng.Rep0(listen=f"tcp://127.0.0.1:{port}")
    print(port, flush=True)
    while True:
        sock.send(sock.recv())


def grpc_server() -> None:
    """An echo as a generic handler of gRPC, in Python."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    def echo(request: bytes, context: object) -> bytes:
        return request

    handlers = {"ask": grpc.unary_unary_rpc_method_handler(echo)}
    server = grpc.server(ThreadPoolExecutor(4), handlers=[grpc.method_handlers_generic_handler("bench", handlers)])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


CONTENDERS: dict[str, Callable[..., Operations]] = {
    function.__name__: function
    for function in (socket_ask, link_ask, link_ask_state, link_ctl, neoctl_ask, socket_window, link_many,
                     socket_threads, link_threads, leader_threads, zmq_threads, zmq_ask, nng_ask, grpc_ask,
                     uvloop_ask, link_notes, link_notes_many, link_take, busy, flooded)
}
SERVERS: dict[str, Callable[[], None]] = {
    function.__name__: function for function in (socket_server, recv1_server, serve_server, zmq_server, nng_server,
                                         grpc_server)
}


def pin_self() -> None:
    """As pin_self of bench.h."""
    if os.environ.get("BENCH_CPU"):
        os.sched_setaffinity(0, {int(os.environ["BENCH_CPU"])})


def by_schedule(operations: Operations, n: int, gap: float) -> None:
    """As by_schedule of bench.h."""
    late = []
    due = time.monotonic_ns() / 1.0
    for _ in range(n):
        due += random.expovariate(1 / gap)
        time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
        operations(1)
        late.append(time.monotonic_ns() - round(due))
    late.sort()
    print(late[n // 2], late[n * 99 // 100], late[n * 999 // 1000], end=" ")


def do_rounds(operations: Operations) -> None:
    """As do_rounds of bench.h."""
    gap = os.environ.get("BENCH_GAP_NS")
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    pin_self()
    print("ready", flush=True)
    for line in sys.stdin:
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        if gap:
            by_schedule(operations, int(line), float(gap))
        else:
            operations(int(line))
        wall = time.perf_counter_ns() - wall
        print(wall, time.process_time_ns() - cpu, flush=True)


def main() -> None:
    """Be the contender or server that the command line names."""
    name, *arguments = sys.argv[1:]
    if name in SERVERS:
        SERVERS[name]()
    else:
        do_rounds(CONTENDERS[name](*arguments))


if __name__ == "__main__":
    main()
