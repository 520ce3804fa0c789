# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""A network of the tests' own, in which packets are lost when the test says so.

Two network namespaces with a TUN interface each; between the two runs a thread, the `Cable`, that carries IP packets
from one to the other, and can be told to delay them, to lose every n-th, to lose all, or to slip in a reset. So it
needs no module of the kernel but TUN, and what it loses is the same each time.

A namespace belongs to a thread: what makes sockets runs in one of its own (`Host.run`), and the sockets stay where they
were made whoever uses them. All this needs CAP_SYS_ADMIN; `Network` skips the test where that is not to be had.
"""
from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import Background

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN_NO_PI = 0x400454CA, 0x1001
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS = 0x8916, 0x891C, 0x8914
IFF_UP = 1
NAME = b"net0"
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _inet(address: str) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


class Host:
    """A network namespace with one interface, whose packets come out of `tun`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.tun = self.namespace = -1
        Background(self._make).result()

    def _make(self) -> None:
        _check(_libc.unshare(CLONE_NEWNET))
        self.namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH22x", NAME, IFF_TUN_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16s16s", NAME, _inet(self.address)))
            fcntl.ioctl(control, SIOCSIFNETMASK, struct.pack("16s16s", NAME, _inet("255.255.255.0")))
        self._set_flags(IFF_UP)

    def _set_flags(self, flags: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", NAME, flags))

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of function(*args), called in this namespace."""
        return self.start(function, *args, **kwargs).result()

    def start(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Background:
        """The same, not waited for."""
        def enter() -> Any:
            _check(_libc.setns(self.namespace, CLONE_NEWNET))
            return function(*args, **kwargs)

        return Background(enter)

    def link_down(self) -> None:
        """Take the interface down."""
        self.run(self._set_flags, 0)

    def close(self) -> None:
        for fd in (self.tun, self.namespace):
            if fd >= 0:
                os.close(fd)


def checksum(data: bytes) -> int:
    """Of the internet, RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def reset_after(packet: bytes) -> bytes:
    """The IP packet by which its sender would reset that connection, right behind this TCP packet."""
    begin = (packet[0] & 15) * 4
    ports, seq, ack, offset, flags = struct.unpack_from(">4sIIBB", packet, begin)
    length = len(packet) - begin - (offset >> 4) * 4 + bool(flags & 3)          # SYN and FIN take a number each
    tcp = struct.pack(">4sIIBBHHH", ports, (seq + length) & 0xFFFFFFFF, ack, 5 << 4, 0x14, 0, 0, 0)
    ends = packet[12:20]
    tcp = tcp[:16] + struct.pack(">H", checksum(ends + struct.pack(">HH", 6, len(tcp)) + tcp)) + tcp[18:]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + ends
    return ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:] + tcp


class Cable:
    """Carries packets between two hosts, both ways. Its attributes may be set while it does."""

    def __init__(self, near: Host, far: Host) -> None:
        self.delay = 0.0                        # seconds each way
        self.lose_each = 0                      # every so many packets one is lost; 0: none
        self.cut = False                        # all are
        self.carried = self.lost = 0
        self._ends = {near.tun: far.tun, far.tun: near.tun}
        self._last: dict[int, bytes] = {}       # tun -> the last TCP packet for it
        self._late: list[tuple[float, int, int, bytes]] = []
        self._stop, self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _take(self, tun: int) -> None:
        with contextlib.suppress(OSError):      # an interface that is down
            packet = os.read(tun, 1 << 16)
            if packet[0] >> 4 != 4:
                return                          # IPv6 looks for its neighbours
            self.carried += 1
            if self.cut or (self.lose_each and self.carried % self.lose_each == 0):
                self.lost += 1
                return
            to = self._ends[tun]
            if packet[9] == socket.IPPROTO_TCP:
                self._last[to] = packet
            heapq.heappush(self._late, (time.monotonic() + self.delay, self.carried, to, packet))

    def _run(self) -> None:
        while True:
            timeout = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            ready = select.select([*self._ends, self._stop], [], [], timeout)[0]
            if self._stop in ready:
                return
            for tun in ready:
                self._take(tun)
            while self._late and self._late[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(self._late)
                with contextlib.suppress(OSError):
                    os.write(to, packet)

    def reset(self, host: Host) -> None:
        """A reset arrives at that host, as if its peer had sent it."""
        os.write(host.tun, reset_after(self._last[host.tun]))

    def close(self) -> None:
        os.write(self._wake, b"x")
        self._thread.join()
        os.close(self._stop)
        os.close(self._wake)


class Network:
    """Two hosts and the cable between them."""

    def __init__(self, near: Host, far: Host) -> None:
        self.near, self.far = near, far
        self.cable = Cable(near, far)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A Network, or a skip that says what is lacking."""
    with contextlib.ExitStack() as stack:
        try:
            hosts = []
            for address in ("10.77.0.1", "10.77.0.2"):
                host = Host(address)
                stack.callback(host.close)
                hosts.append(host)
        except OSError as error:
            pytest.skip(f"network namespaces with TUN are not permitted here: {error}")
        made = Network(*hosts)
        stack.callback(made.cable.close)
        yield made
