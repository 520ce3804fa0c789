# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""The error tree, as promised."""
import pytest

import neolink

TREE = {
    "LinkError": ("Error", ConnectionError), "LinkClosed": ("LinkError", ConnectionError),
    "LinkDown": ("LinkError", ConnectionError), "ProtocolError": ("LinkDown", ConnectionError),
    "DialError": ("LinkError", ConnectionError), "HandshakeError": ("DialError", ConnectionError),
    "ConnError": ("Error", ConnectionError), "ConnClosed": ("ConnError", ConnectionError),
    "ConnClosedByPeer": ("ConnError", ConnectionResetError), "ConnRefused": ("ConnError", ConnectionRefusedError),
    "NotAccepting": ("Error", Exception), "Timeout": ("Error", TimeoutError), "TooBig": ("Error", ValueError),
    "TooManyConns": ("Error", OSError), "ForkedLink": ("Error", RuntimeError), "RemoteError": ("Error", Exception),
    "UnexpectedMessage": ("Error", Exception), "DecodeError": ("Error", ValueError),
    "EncodeError": ("Error", ValueError),
}


@pytest.mark.parametrize("name", TREE)
def test_tree(name):
    cls, (parent, standard) = getattr(neolink, name), TREE[name]
    assert getattr(neolink, parent) in cls.__bases__
    assert issubclass(cls, standard) and issubclass(cls, neolink.Error)
    error = cls("what happened")
    assert str(error) == "what happened"
    assert (error.link, error.conn_id, error.op) == (None, None, None)


def test_attributes_of_their_own():
    assert neolink.Timeout("x").maybe_sent is False
    assert neolink.HandshakeError("x").ours is neolink.HandshakeError("x").theirs is None


def test_text_says_what_where_and_why(links):
    conn = links[0].new_conn()
    with pytest.raises(neolink.Timeout) as caught:
        conn.recv(timeout=0)
    assert str(caught.value) == f"recv on Conn {conn.conn_id} of link unnamed -> unnamed: timed out"
