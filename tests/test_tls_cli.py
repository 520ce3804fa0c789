# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink ping and demo with --tls CA CERT KEY."""
import pytest
from support import Background, serve_who_asks
from tls_kit import house

import neolink
from neolink import cli


def answer(listener: neolink.Listener) -> None:
    """Who asks first; every request gets an answer with its own code."""
    serve_who_asks(listener, lambda request: neolink.Packet(request.packet.code | 0x8000, b"\x90"))


def test_ping(capsys):
    with neolink.listen("127.0.0.1:0", wire="M", tls=house().good.tls()) as listener:
        node = Background(answer, listener)
        address = f"127.0.0.1:{listener.address[1]}"
        assert not cli.main(["ping", address, "-c", "3", "--tls", *house().good])
        node.result()
    output = capsys.readouterr().out
    assert "TLS" in output and "3 round trips" in output


def test_demo(capsys):
    assert not cli.main(["demo", "--seconds", "0.05", "--tls", *house().good])
    assert "handshake done, TLS" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["ping", "127.0.0.1:1"], ["demo"]])
def test_bad_file_is_named(command, capsys):
    good = house().good
    assert cli.main([*command, "--tls", good.ca, good.cert, house().path("absent.pem")])
    assert "absent.pem" in capsys.readouterr().err
