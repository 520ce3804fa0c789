# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""TLS: mutual, one CA for the cluster; bad files are errors where they are named."""
import pathlib

import pytest
from support import Background

import neolink
from neolink import _core

trustme = pytest.importorskip("trustme")
pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(not _core.have_tls, reason="built without OpenSSL"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of a CA, a certificate and key it made, another CA, and files that are none."""
    folder = tmp_path_factory.mktemp("tls")
    ours, theirs = trustme.CA(), trustme.CA()
    made = ours.issue_cert("localhost", "127.0.0.1")
    names = "ca", "other_ca", "cert", "key", "other_key", "garbage", "missing"
    paths = {name: folder / f"{name}.pem" for name in names}
    ours.cert_pem.write_to_path(str(paths["ca"]))
    theirs.cert_pem.write_to_path(str(paths["other_ca"]))
    made.cert_chain_pems[0].write_to_path(str(paths["cert"]))
    made.private_key_pem.write_to_path(str(paths["key"]))
    theirs.issue_cert("localhost").private_key_pem.write_to_path(str(paths["other_key"]))
    paths["garbage"].write_text("this is no certificate")
    return paths


def tls(files, ca="ca", cert="cert", key="key", **options):
    return neolink.TLS(str(files[ca]), str(files[cert]), str(files[key]), **options)


@pytest.mark.parametrize("wire", ["M", "N"])
@pytest.mark.parametrize("hostname", [None, "localhost"])
def test_link(files, wire, hostname):
    with neolink.listen("127.0.0.1:0", tls=tls(files)) as listener:
        accepting = Background(listener.accept, timeout=20)
        with neolink.dial(listener.address, tls=tls(files, hostname=hostname), wire=wire, timeout=20) as link:
            with accepting.result() as peer:
                asking = Background(link.ask, 0x2E, timeout=20)
                with peer.recv1(timeout=20) as request:
                    request.reply(0x802E)
                assert asking.result().code == 0x802E


def test_paths_may_be_path_objects(files):
    made = neolink.TLS(pathlib.Path(files["ca"]), files["cert"], files["key"])
    assert "ca.pem" in repr(made)


@pytest.mark.parametrize("place", ["ca", "cert", "key"])
def test_file_that_cannot_be_read(files, place):
    with pytest.raises(OSError, match="missing.pem"):
        tls(files, **{place: "missing"})


def test_crl_that_cannot_be_read(files):
    with pytest.raises(OSError, match="missing.pem"):
        tls(files, crl=str(files["missing"]))


@pytest.mark.parametrize("place", ["ca", "cert", "key"])
def test_file_that_cannot_be_used(files, place):
    with pytest.raises(ValueError, match="garbage.pem"):
        tls(files, **{place: "garbage"})


def test_key_of_another_certificate(files):
    with pytest.raises(ValueError, match="other_key.pem"):
        tls(files, key="other_key")


def test_plain_to_tls_and_back(files):
    """S54"""
    with neolink.listen("127.0.0.1:0", tls=tls(files)) as listener:
        with pytest.raises((neolink.HandshakeError, neolink.Timeout)):
            neolink.dial(listener.address, wire="M", timeout=20)
    with neolink.listen("127.0.0.1:0") as listener:
        with pytest.raises(neolink.HandshakeError):
            neolink.dial(listener.address, tls=tls(files), timeout=20)


def test_wrong_hostname(files):
    with neolink.listen("127.0.0.1:0", tls=tls(files)) as listener:
        with pytest.raises(neolink.HandshakeError):
            neolink.dial(listener.address, tls=tls(files, hostname="example.org"), timeout=20)


def test_not_picklable(files):
    with pytest.raises(TypeError, match="cannot pickle"):
        tls(files).__reduce__()
