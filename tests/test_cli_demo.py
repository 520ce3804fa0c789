# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""`neolink demo` and `neolink ping`, in this process and as programs: what they print, how they exit, never a traceback."""
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from leaks import balanced  # noqa: F401
from scenario_kit import ANSWER, WIRES
from support import PATIENCE, Background, serve_who_asks

import neolink
from neolink import cli
from neolink.cli import main

pytestmark = pytest.mark.usefixtures("balanced")
PING = {"2016": 3, "N": 2, "M": 2}


def text(address) -> str:
    return f"{address[0]}:{address[1]}"


def program(*args: str) -> subprocess.CompletedProcess[str]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(neolink.__file__)))
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, "-m", "neolink", *args], text=True, capture_output=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": path})


def serve_one(listener: neolink.Listener, wire: str) -> None:
    """A node that answers Ping with Pong and everything else with an Error-like answer, to the first who asks."""
    def answer(request):
        code = request.packet.code
        return neolink.Packet(code | 0x8000 if code == PING[wire] else ANSWER, request.packet.payload)

    serve_who_asks(listener, answer)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """[CA, CERT, KEY] as files."""
    trustme = pytest.importorskip("trustme", reason="certificates are made with trustme")
    if not neolink._core.have_tls:
        pytest.skip("built without OpenSSL")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    leaf = authority.issue_cert("node.example")
    names = [str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem")]
    authority.cert_pem.write_to_path(names[0])
    leaf.cert_chain_pems[0].write_to_path(names[1])
    leaf.private_key_pem.write_to_path(names[2])
    return names


# ---- demo


@pytest.mark.parametrize("wire", [*WIRES, "auto"])
def test_demo_on_loopback(wire, capsys):
    assert main(["demo", "--seconds", "0.05", "--wire", wire]) == 0
    out, err = capsys.readouterr()
    spoken = "M" if wire == "auto" else wire
    assert err == ""
    assert [line.split("  ")[0].strip() for line in out.splitlines()] == [
        "listening", "linked", "one by one", "16 threads", "ask_many", "notify_many", "closed",
        "cluster", "cluster", "node", "node", "node", "node", "pt", "ids", "store", "load", "add", "tweak", "pt"]
    assert f"wire {spoken}" in out and "cleanly" in out and "nothing left queued (0)" in out


def test_demo_dials_the_wire_that_it_listens_on(monkeypatch):
    """On auto a dialer that had to wait for the processor leaves one connection for another, and the demo has both ends
    of one."""
    really_dial, wires = neolink.dial, []

    def dial(address, **options):
        wires.append(options.get("wire"))
        return really_dial(address, **options)

    monkeypatch.setattr(neolink, "dial", dial)
    assert main(["demo", "--seconds", "0"]) == 0
    assert wires[0] == "M"


def test_demo_with_tls(certificates, capsys):
    assert main(["demo", "--seconds", "0.05", "--tls", *certificates]) == 0
    out, err = capsys.readouterr()
    assert "TLS" in out and "cleanly" in out and err == ""


def test_demo_as_a_program():
    done = program("demo", "--seconds", "0.05")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cleanly" in done.stdout


@pytest.mark.parametrize("wire", WIRES)
def test_demo_against_a_node(wire, capsys):
    with neolink.listen("127.0.0.1:0", wire=wire) as listener:
        serving = Background(serve_one, listener, wire)
        assert main(["demo", text(listener.address), "--seconds", "0.05", "--wire", wire]) == 0
        serving.result()
    out, err = capsys.readouterr()
    assert "answered" in out and f"wire {wire}" in out and "closed" in out and err == ""


# ---- ping


@pytest.mark.parametrize("wire", WIRES)
def test_ping(wire, capsys):
    with neolink.listen("127.0.0.1:0", wire=wire) as listener:
        serving = Background(serve_one, listener, wire)
        assert main(["ping", text(listener.address), "--wire", wire, "-c", "3"]) == 0
        serving.result()
    out, err = capsys.readouterr()
    assert f"wire {wire}" in out and "3 round trips" in out and "node: " in out and err == ""


@pytest.mark.parametrize("wire", ["N", "M"])
def test_ping_finds_the_wire_out(wire):
    with neolink.listen("127.0.0.1:0", wire=wire) as listener:
        serving = Background(serve_one, listener, wire)
        done = program("ping", text(listener.address), "-c", "1")
        serving.result()
    assert (done.returncode, done.stderr) == (0, "") and f"wire {wire}" in done.stdout


def test_ping_an_unix_socket(tmp_path, capsys):
    address = f"unix:{tmp_path}/socket"
    with neolink.listen(address, wire="M") as listener:
        serving = Background(serve_one, listener, "M")
        assert main(["ping", address, "-c", "1"]) == 0
        serving.result()
    assert "1 round trips" in capsys.readouterr().out


# ---- what goes wrong


@pytest.fixture
def nobody():
    """An address where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield text(sock.getsockname())


@pytest.mark.parametrize("command", ["demo", "ping"])
@pytest.mark.parametrize("address", ["nonsense", "host:port", "127.0.0.1:99999", "::1:80", "unix:", "", "[::1]",
                                     "unix:/nowhere/at/all"])
def test_bad_addresses(command, address, capsys):
    if command == "demo" and not address:
        pytest.skip("demo without an address is on loopback")
    assert main([command, address]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("neolink: ") and "Traceback" not in err and err.count("\n") == 1
    assert address in err


@pytest.mark.parametrize("command", ["demo", "ping"])
def test_nobody_there(command, nobody):
    done = program(command, nobody)
    assert (done.returncode, done.stdout) == (1, "")
    assert nobody in done.stderr and "refused" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("args", [[], ["nonsense"], ["ping"], ["ping", "a:1", "--wire", "X"], ["ping", "a:1", "-c", "many"],
                                  ["demo", "--seconds", "long"], ["demo", "--tls", "one"]])
def test_called_wrongly(args, capsys):
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["ping", "127.0.0.1:1", "-c", "0"], ["ping", "127.0.0.1:1", "--timeout", "-1"],
                                  ["demo", "--tls", "/nowhere/ca", "/nowhere/cert", "/nowhere/key"]])
def test_bad_values_are_said_in_words(args, capsys):
    assert main(args) == 1
    assert capsys.readouterr().err.startswith("neolink: ")


def test_not_a_node(capsys):
    def answer():
        sock, _ = server.accept()
        with sock:
            sock.recv(100)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = Background(answer)
        assert main(["ping", text(server.getsockname()), "--wire", "M"]) == 1
        answering.result()
    assert "HTTP" in capsys.readouterr().err


def test_silence_and_its_timeout(capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert main(["ping", text(server.getsockname()), "--wire", "M", "--timeout", "0.1"]) == 1
    assert "timed out" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help(option, capsys):
    with pytest.raises(SystemExit) as caught:
        main([option])
    assert caught.value.code == 0
    assert "neolink" in capsys.readouterr().out


def test_ctrl_c():
    """Status 130, and not a word."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(neolink.__file__)))
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen([sys.executable, "-m", "neolink", "demo", "--seconds", "30"], text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as process:
        assert process.stdout.readline().startswith("listening")
        assert process.stdout.readline().startswith("linked")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "Traceback" not in err, err


def test_ctrl_c_in_the_midst_of_a_lock(monkeypatch, capsys):
    """It may interrupt threading where that holds a lock for an instant, and comes out as another exception."""
    def interrupted(_):
        try:
            raise KeyboardInterrupt
        finally:
            threading.Lock().release()

    monkeypatch.setattr(cli, "_run", interrupted)
    assert main([]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_of_ours_has_its_traceback(monkeypatch):
    def bug(_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "_run", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        main([])


def test_the_reader_of_our_output_goes_away():
    root = os.path.dirname(os.path.dirname(os.path.abspath(neolink.__file__)))
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen([sys.executable, "-m", "neolink", "demo", "--seconds", "0.05"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        process.wait(PATIENCE)
    assert b"Traceback" not in err, err
    assert process.returncode == 1
