# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of TLS share: certificates made for the run, and peers that are Python's own ssl module.

A peer keeps its session in memory and moves the records itself, so that it can do what no library would: stop inside a
record, damage one, or say nothing at the end.
"""
import contextlib
import datetime
import functools
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from scenario_kit import Seen, frame, split
from support import PATIENCE, Background

import neolink
from neolink import _core

trustme = pytest.importorskip("trustme", reason="certificates are made with trustme")
if not _core.have_tls:
    pytest.skip("built without OpenSSL", allow_module_level=True)

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(32))
"""How a ClientHello begins; the record's head promises 200 bytes."""


# ---- certificates


class Identity(NamedTuple):
    """Files in the order of neolink.TLS."""

    ca: str
    cert: str
    key: str

    def tls(self, **options: Any) -> neolink.TLS:
        return neolink.TLS(*self, **options)


class House:
    """A CA, and what it signs, as files in a folder."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="neolink-tls-")
        self.ca, self._other = trustme.CA(), trustme.CA()
        self.good = self.issue("good")
        self.foreign = self.issue("foreign", signer=self._other)._replace(ca=self.good.ca)
        self.revoked = self.issue("revoked")
        self.crl = self._crl(self.revoked)

    def path(self, name: str, content: bytes | None = None) -> str:
        """A file of that name, written if there is something to write."""
        path = Path(self._folder.name, name)
        if content is not None:
            path.write_bytes(content)
        return str(path)

    def issue(self, name: str, signer: Any = None, days: tuple[int, int] = (-1, 30)) -> Identity:
        """A certificate that is good from days[0] to days[1], counted from now."""
        now = datetime.datetime.now(datetime.timezone.utc)
        begin, end = (now + datetime.timedelta(days=n) for n in days)
        made = (signer or self.ca).issue_cert("node.example", "127.0.0.1", common_name=name, not_before=begin,
                                              not_after=end)
        return Identity(self.path("ca.pem", self.ca.cert_pem.bytes()),
                        self.path(f"{name}.pem", made.cert_chain_pems[0].bytes()),
                        self.path(f"{name}.key", made.private_key_pem.bytes()))

    def _crl(self, revoked: Identity) -> str:
        """A CRL that names one certificate."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        now = datetime.datetime.now(datetime.timezone.utc)
        ca = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        serial = x509.load_pem_x509_certificate(Path(revoked.cert).read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (x509.CertificateRevocationListBuilder().issuer_name(ca.subject).add_revoked_certificate(entry)
                   .last_update(now - datetime.timedelta(days=1)).next_update(now + datetime.timedelta(days=1))
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False)
                   .add_extension(x509.CRLNumber(1), False))
        key: Any = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        return self.path("crl.pem", builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


@functools.cache
def house() -> House:
    """The one of this run."""
    return House()


# ---- peers


def context(role: str, version: str, identity: Identity | None) -> ssl.SSLContext:
    """Of a peer in that role, with that version only; None shows no certificate."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "client" else ssl.PROTOCOL_TLS_SERVER)
    made.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)     # some versions of Python set it
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(house().good.ca)
    made.minimum_version = made.maximum_version = VERSIONS[version]
    if identity:
        made.load_cert_chain(identity.cert, identity.key)
    return made


class TlsPeer:
    """The other end of a link: a session of Python's ssl over a socket."""

    def __init__(self, sock: socket.socket, role: str, version: str, identity: Identity | None = None) -> None:
        self.sock = sock
        sock.settimeout(PATIENCE)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context(role, version, identity or house().good).wrap_bio(self._in, self._out, role == "server")
        self._rest = b""
        self._seen: list[Seen] = []

    def records(self) -> bytes:
        """What the session has to send."""
        return self._out.read()

    def flush(self) -> None:
        data = self.records()
        if data:                        # to send nothing fails, too, when the other has gone
            self.sock.sendall(data)

    def _step(self, call: Any, *args: Any) -> Any:
        """call(*args), with as many records to and fro as it takes."""
        while True:
            try:
                result = call(*args)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(1 << 16)
                self._in.write(data) if data else self._in.write_eof()
            except ssl.SSLError as error:
                with contextlib.suppress(OSError):
                    self.flush()        # the alert
                if error.reason == "UNEXPECTED_EOF_WHILE_READING" and not isinstance(error, ssl.SSLEOFError):
                    raise ssl.SSLEOFError(*error.args) from error       # as later versions of Python say it
                raise

    def shake(self) -> "TlsPeer":
        self._step(self.session.do_handshake)
        return self

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), 1 << 16):
            self._step(self.session.write, data[at:at + (1 << 16)])

    def read(self) -> bytes:
        """Some plaintext; b"" at close_notify, ssl.SSLEOFError at an end without one."""
        try:
            return self._step(self.session.read, 1 << 16)
        except ssl.SSLZeroReturnError:
            return b""

    def send(self, conn_id: int, code: int, payload: bytes = b"") -> None:
        self.write(frame("M", conn_id, code, payload))

    def recv(self) -> Seen:
        """The next packet; EOFError at close_notify."""
        while not self._seen:
            data = self.read()
            if not data:
                raise EOFError(f"with {self._rest!r} left")
            self._seen, self._rest = split("M", self._rest + data)
        return self._seen.pop(0)

    def rest(self) -> bytes:
        """All plaintext up to close_notify."""
        return self._rest + b"".join(iter(self.read, b""))

    def say_close_notify(self) -> None:
        """Ours, without waiting for the other's."""
        with contextlib.suppress(ssl.SSLError):         # there is none yet, or data come before it
            self.session.unwrap()
        with contextlib.suppress(ConnectionError):      # the other was faster
            self.flush()

    def unwrap(self) -> None:
        """Says close_notify and waits for the answer."""
        self._step(self.session.unwrap)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection over loopback, with small buffers, so that a peer that does not read is soon felt."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dialed = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    for sock in dialed, accepted:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket.SO_SNDBUF, socket.SO_RCVBUF:
            sock.setsockopt(socket.SOL_SOCKET, option, 1 << 16)
    return dialed, accepted


@contextlib.contextmanager
def link_and_peer(peer_role: str, version: str, **options: Any) -> Iterator[tuple[neolink.NodeLink, TlsPeer]]:
    """A link on wire M, and its peer; both have shaken hands."""
    mine, theirs = tcp_pair()
    options = {"wire": "M", "tls": house().good.tls(), **options}
    with theirs:
        making = Background(neolink.NodeLink, mine, "server" if peer_role == "client" else "client", **options)
        peer = TlsPeer(theirs, peer_role, version).shake()
        link = making.result()
        try:
            yield link, peer
        finally:
            link.abort()


@contextlib.contextmanager
def two_ends(**options: Any) -> Iterator[tuple[neolink.NodeLink, neolink.NodeLink]]:
    """(client end, server end), dialed and accepted, on wire M."""
    tls = house().good.tls()
    with neolink.listen("127.0.0.1:0", wire="M", tls=tls, **options) as listener:
        accepting = Background(listener.accept, timeout=PATIENCE)
        client = neolink.dial(listener.address, wire="M", tls=tls, timeout=PATIENCE, **options)
        server = accepting.result()
    try:
        yield client, server
    finally:
        client.abort()
        server.abort()
