# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The network and who else is on it: S54 to S56."""
import contextlib
import os
import socket

import pytest
from leaks import at_rest, balanced  # noqa: F401
from scenario_kit import REQUEST, body, each_wire, frame, raw_peer, run_program
from support import PATIENCE, Background, until, waiting

import neolink

pytestmark = pytest.mark.usefixtures("balanced")


@each_wire
@pytest.mark.parametrize("cut", [1, 5, 9, 11, 30])
def test_s54_reset_and_end_of_file_inside_a_packet(wire, cut):
    data = frame(wire, 2, REQUEST, body(wire, bytes(100)))[:cut]
    for reset in (False, True):
        with raw_peer(wire, tcp=True) as (link, peer):
            accepting = Background(link.accept)
            waiting(link)
            peer.sock.sendall(data)
            until(lambda link=link: link.stats().bytes_received == cut)
            if reset:
                peer.reset()
            else:
                peer.sock.close()
            with pytest.raises(neolink.LinkDown) as caught:
                accepting.result()
            assert not caught.value.clean
            assert isinstance(caught.value.__cause__, ConnectionResetError) == reset
            with pytest.raises(neolink.LinkDown):
                next(link)                          # iteration does not hide it


STRANGERS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "garbage": b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8",
    "text": b"hello there, anybody home?\r\n",
    "version": b"\x92\xa3NEO\x63",
    "version of N": b"\0\0\0\x63",
}


@pytest.mark.parametrize("what", STRANGERS)
@pytest.mark.parametrize("wire", ["auto", "N", "M"])
def test_s54_strangers_at_a_listener(wire, what, caplog):
    """One line in the log for it, our opening for the stranger where it was to have one, and the next peer is served."""
    if wire == "auto" and what in ("garbage", "text"):
        pytest.skip("a stream of 2016 may begin so")
    with neolink.listen("127.0.0.1:0", wire=wire) as listener:
        accepting = Background(listener.accept, timeout=PATIENCE)
        with socket.create_connection(listener.address) as sock:
            sock.settimeout(PATIENCE)
            sock.sendall(STRANGERS[what])
            said = b""
            try:
                while data := sock.recv(1000):
                    said += data
            except ConnectionResetError:
                pass
        with neolink.dial(listener.address, wire="M" if wire == "auto" else wire, timeout=PATIENCE) as link, \
                accepting.result():
            assert link.version is not None

        def reported() -> bool:                     # by accept, which may have returned the peer before
            with contextlib.suppress(neolink.Timeout):
                listener.accept(timeout=0)
            return len(caplog.records) == 1

        until(reported)
        assert caplog.records[0].name == "neolink"
        if what.startswith("version"):
            assert said                             # ours, before we closed


@pytest.mark.parametrize("what", STRANGERS)
@pytest.mark.parametrize("wire", ["N", "M"])
def test_s54_strangers_that_we_dial(wire, what):
    def answer():
        sock, _ = server.accept()
        with sock:
            sock.settimeout(PATIENCE)
            heard = sock.recv(6)
            sock.sendall(STRANGERS[what])
            try:
                while sock.recv(1000):
                    pass
            except ConnectionResetError:
                pass
            return heard

    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = Background(answer)
        with pytest.raises(neolink.HandshakeError) as caught:
            neolink.dial(server.getsockname(), wire=wire, timeout=PATIENCE)
        assert answering.result()[:4] == (b"\x92\xa3NE" if wire == "M" else b"\0\0\0\6")      # ours came first
    error = caught.value
    assert error.op == "dial" and error.ours and error.theirs
    assert wire in error.ours
    if what in ("HTTP", "TLS"):
        assert what in error.theirs
    if what.startswith("version"):
        assert "99" in error.theirs


@pytest.mark.parametrize("ours, theirs", [("N", "M"), ("M", "N")])
def test_s54_one_wire_meets_the_other(ours, theirs, caplog):
    """A clear error at each side."""
    with neolink.listen("127.0.0.1:0", wire=theirs) as listener:
        accepting = Background(listener.accept, timeout=PATIENCE)
        with pytest.raises(neolink.HandshakeError) as caught:
            neolink.dial(listener.address, wire=ours, timeout=PATIENCE)
        assert f"NEO {theirs}" in caught.value.theirs and f"NEO {ours}" in caught.value.ours
        until(lambda: caplog.text)
        assert f"NEO {ours}" in caplog.text
        listener.close()
        with pytest.raises(neolink.LinkClosed):
            accepting.result()


def test_s54_other_protocol_numbers():
    with neolink.listen("127.0.0.1:0", wire="M", version=5) as listener:
        accepting = Background(listener.accept, timeout=PATIENCE)
        with pytest.raises(neolink.HandshakeError) as caught:
            neolink.dial(listener.address, wire="M", version=77, timeout=PATIENCE)
        assert "77" in caught.value.ours and "5" in caught.value.theirs
        with neolink.dial(listener.address, wire="M", version=5) as link, accepting.result() as served:
            assert link.version == served.version == 5


def test_s55_the_descriptor_is_closed_under_us():
    """In a process of its own, which may not survive it otherwise: every call ends with an error, none hangs."""
    done = run_program("""
        import os, neolink
        from scenario_kit import REQUEST, NOTIFY
        for use in ("ask", "recv1", "notify"):
            client, server = neolink.pair(wire="N")
            fd = client.fileno()
            os.close(fd)
            try:
                while True:
                    if use == "ask":
                        client.ask(REQUEST, timeout=1)
                    elif use == "recv1":
                        client.recv1(timeout=1)
                    else:
                        client.notify(NOTIFY, timeout=1)
            except neolink.Timeout:
                assert use == "recv1", use
            except neolink.LinkDown as error:
                print(use, type(error.__cause__).__name__)
            client.abort()
            server.abort()
        print("end")
        """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "end" and "ask OSError" in done.stdout and "notify OSError" in done.stdout


def test_s56_no_descriptors_left():
    """accept() of the kernel fails with EMFILE: the listener does not spin, and serves those who waited when it can."""
    done = run_program("""
        import os, resource, socket, time, neolink
        from support import Background
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        listener = neolink.listen("127.0.0.1:0", wire="N")
        accepting = Background(listener.accept, timeout=20)
        waiting = [socket.socket() for _ in range(3)]
        hoard = []
        try:
            while True:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for sock in waiting:
            sock.connect(listener.address)
            sock.sendall(bytes([0, 0, 0, 6]))
        begin, cpu = time.monotonic(), time.process_time()
        while time.monotonic() < begin + 0.5:       # measured, not waited for: how busy is it meanwhile?
            time.sleep(0.01)
        busy = time.process_time() - cpu
        assert not accepting.done()
        for fd in hoard:
            os.close(fd)
        begin = time.monotonic()
        links = [accepting.result()] + [listener.accept(timeout=20) for _ in waiting[1:]]
        print(busy < 0.2, time.monotonic() - begin < 10, len(links))
        for link in links:
            link.close()
        listener.close()
        """)
    assert (done.stdout, done.returncode) == ("True True 3\n", 0), done.stderr


def test_s55_a_link_knows_its_descriptor_only_while_it_has_it():
    with raw_peer("M") as (link, _):
        fd = link.fileno()
        assert os.fstat(fd)
        link.close()
        assert link.fileno() == -1
        at_rest(link)


def test_s55_a_descriptor_number_that_is_used_again():
    """A link is closed with input on the way, and the next one has its number: it sees nothing of what was for the first."""
    numbers = set()
    for turn in range(200):
        with raw_peer("N") as (link, peer):
            number = link.fileno()
            numbers.add(number)
            until(lambda link=link: link.stats().rx_arms or turn)       # the poller watches, at first
            peer.sock.sendall(frame("N", 2, REQUEST, b"old" * 1000)[:-1])
            link.abort()
            with raw_peer("N") as (new, new_peer):
                if new.fileno() == number:
                    numbers.add("again")
                with pytest.raises(neolink.Timeout):
                    new.recv1(timeout=0.001)
                assert new.stats().bytes_received == 0
                new_peer.send(2, REQUEST, b"new")
                with new.recv1(timeout=PATIENCE) as request:
                    assert request.packet.payload == b"new"
    assert "again" in numbers


def test_s55_another_socket_put_in_its_place():
    """Somebody else's mistake: what comes from the other socket is taken for the peer's, and refused for what it is."""
    done = run_program("""
        import os, socket, neolink
        from scenario_kit import REQUEST
        from support import Background, waiting
        client, server = neolink.pair(wire="N")
        fd = client.fileno()
        ours, theirs = socket.socketpair()
        os.dup2(ours.fileno(), fd)
        asking = Background(client.ask, REQUEST)
        print(theirs.recv(100)[4:6].hex())              # a stranger has read our request: nobody can prevent that
        theirs.sendall(b"GET / HTTP/1.1" + bytes([255]) * 20)
        try:
            asking.result()
        except neolink.ProtocolError as error:
            print(type(error).__name__)
        client.abort()
        server.abort()
        """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1234", "ProtocolError"]
