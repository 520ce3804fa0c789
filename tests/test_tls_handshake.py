# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Who is let in over TLS and who is told why not, on both sides; and what a hostile handshake costs others: nothing."""
import contextlib
import datetime
import logging
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from scenario_kit import ANSWER, REQUEST
from support import PATIENCE, Background, alarm, until
from tls_kit import HELLO, TlsPeer, context, house, trustme, two_ends

import neolink

pytestmark = pytest.mark.usefixtures("no_leaks")
each_version = pytest.mark.parametrize("version", ["1.2", "1.3"])


@contextlib.contextmanager
def accepting(**options) -> Iterator[tuple[neolink.Listener, Background]]:
    """A listener with TLS, and a thread in its accept."""
    options = {"tls": house().good.tls(), "wire": "M", **options}
    with neolink.listen("127.0.0.1:0", **options) as listener:
        accept = Background(listener.accept)
        yield listener, accept
        listener.close()
        with pytest.raises(neolink.LinkClosed):     # nobody came through
            accept.result()


def told(caplog) -> str:
    """What the listener has logged, once there is something: its text, which is there a moment after the record."""
    until(lambda: caplog.text, "a line in the log")
    return caplog.text


def refused(address, **options) -> str:
    """What dial says about the peer that refuses."""
    with pytest.raises(neolink.HandshakeError) as caught:
        neolink.dial(address, wire="M", timeout=PATIENCE, **options)
    return str(caught.value)


# ---- files


def test_file_is_not_readable_or_not_usable():
    good = house().good
    locked = house().path("locked.key", locked_key(Path(good.key).read_bytes()))
    stale, early = house().issue("stale", days=(-9, -2)), house().issue("early", days=(2, 9))
    text = house().path("text.pem", b"this is no PEM\n")
    cases = [
        (good._replace(key=house().path("absent.pem")), OSError, "absent.pem: No such file"),
        (good._replace(ca=str(Path(good.ca).parent)), OSError, "Is a directory"),
        (good._replace(ca=text), ValueError, "text.pem has no certificate in PEM form"),
        (good._replace(cert=text), ValueError, "text.pem has no certificate in PEM form"),
        (good._replace(key=text), ValueError, "text.pem has no private key"),
        (good._replace(key=house().revoked.key), ValueError, "revoked.key is not the key of the certificate in .*good"),
        (good._replace(key=locked), ValueError, "locked.key is an encrypted key"),
        (stale, ValueError, "stale.pem: the certificate expired on"),
        (early, ValueError, "early.pem: the certificate is not valid before"),
    ]
    for identity, error, words in cases:
        with pytest.raises(error, match=words) as caught:
            identity.tls()
        assert isinstance(caught.value, OSError) == (error is OSError)
    with pytest.raises(ValueError, match="good.pem has no CRL"):
        good.tls(crl=good.cert)


def locked_key(pem: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(pem, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret"))


def test_files_are_read_when_the_object_is_made():
    made = house().issue("short-lived")
    tls = made.tls()
    for path in made[1:]:
        Path(path).unlink()
    with neolink.listen("127.0.0.1:0", tls=tls) as listener:
        accept = Background(listener.accept, PATIENCE)
        with neolink.dial(listener.address, tls=tls, timeout=PATIENCE), accept.result():
            pass


# ---- certificates


@each_version
def test_s57_dialer_without_certificate(version, caplog):
    made = context("client", version, None)
    with accepting() as (listener, _), socket.create_connection(listener.address, PATIENCE) as sock:
        with pytest.raises(ssl.SSLError, match="(?i)certificate.required|handshake.failure"):
            with made.wrap_socket(sock) as peer:
                peer.recv(1)
        assert "the peer showed no certificate" in told(caplog)


@pytest.mark.parametrize("who, words", [("foreign", "unable to get local issuer certificate"),
                                        ("stale", "certificate has expired")])
@each_version
def test_s57_dialer_with_a_bad_certificate(version, who, words, caplog):
    identity = house().issue("stale", days=(-9, -2)) if who == "stale" else house().foreign
    with accepting() as (listener, _), socket.create_connection(listener.address, PATIENCE) as sock:
        peer = TlsPeer(sock, "client", version, identity)
        with pytest.raises(ssl.SSLError, match="(?i)unknown.ca|certificate.expired"):
            peer.shake().read()
        assert words in told(caplog) and f"CN={who}" in caplog.text


def test_s57_foreign_ends_name_it_on_both_sides(caplog):
    foreign, good = house().foreign.tls(), house().good.tls()
    with accepting() as (listener, _):
        assert "the peer sent a TLS alert: unknown CA" in refused(listener.address, tls=foreign)
        assert "CN=foreign is refused" in told(caplog)
    caplog.clear()
    with accepting(tls=foreign) as (listener, _):
        said = refused(listener.address, tls=good)
        assert "the peer's certificate" in said and "CN=foreign is refused" in said
        assert "the peer sent a TLS alert: unknown CA" in told(caplog)


def test_s57_revoked_ends_name_it_on_both_sides(caplog):
    revoked, strict = house().revoked.tls(), house().good.tls(crl=house().crl)
    with accepting(tls=strict) as (listener, _):
        assert "TLS alert: certificate revoked" in refused(listener.address, tls=revoked)
        assert "CN=revoked is refused: certificate revoked" in told(caplog)
    caplog.clear()
    with accepting(tls=revoked) as (listener, _):
        assert "CN=revoked is refused: certificate revoked" in refused(listener.address, tls=strict)
        assert "TLS alert: certificate revoked" in told(caplog)
    with two_ends():                                            # the CRL is asked only where it was given
        pass


@pytest.mark.parametrize("wire", ["2016", "N", "M"])
def test_no_wire_has_links_without_certificates(wire, caplog):
    """Wire 2016 has no opening that could fail; what is left is TLS."""
    foreign, good = house().foreign.tls(), house().good.tls()
    with accepting(tls=foreign, wire=wire) as (listener, _):
        with pytest.raises(neolink.HandshakeError, match="CN=foreign is refused"):
            neolink.dial(listener.address, wire=wire, tls=good, timeout=PATIENCE)
        assert "the peer sent a TLS alert: unknown CA" in told(caplog)


@pytest.mark.parametrize("wire", ["2016", "N", "M"])
@pytest.mark.parametrize("said", [0, 100])
def test_end_of_file_in_the_handshake(wire, said):
    """Nothing, or a part of a record, and then the end."""
    def leave(server):
        sock, _ = server.accept()
        with sock:
            hello = sock.recv(1 << 16)
            sock.sendall(hello[:said])

    with socket.create_server(("127.0.0.1", 0)) as server:
        leaving = Background(leave, server)
        with pytest.raises(neolink.HandshakeError, match="the peer closed") as caught:
            neolink.dial(server.getsockname(), wire=wire, tls=house().good.tls(), timeout=PATIENCE)
        assert caught.value.ours.startswith("TLS, NEO") and caught.value.theirs == ("TLS" if said else "nothing")
        leaving.result()


def test_timeout_in_the_handshake_on_2016():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(neolink.Timeout, match=r"\(TLS\).*nothing, we speak TLS, NEO 2016"):
            neolink.dial(server.getsockname(), wire="2016", tls=house().good.tls(), timeout=0.05)


def lax_ca() -> tuple[bytes, bytes]:
    """A CA that does not say it may sign, as the strict rules want, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lax CA")])
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256()))
    return (made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def test_certificates_are_checked_strictly():
    """A lax CA signed both ends; what OpenSSL lets pass by default does not pass here."""
    cert, key = lax_ca()
    identity = house().issue("node of the lax CA", signer=trustme.CA.from_pem(cert, key))
    tls = identity._replace(ca=house().path("lax.pem", cert)).tls()
    with accepting(tls=tls) as (listener, _):
        assert "CA cert does not include key usage extension" in refused(listener.address, tls=tls)


@pytest.mark.parametrize("hostname", [None, "node.example", "127.0.0.1"])
def test_hostname_that_fits(hostname):
    with neolink.listen("127.0.0.1:0", tls=house().good.tls()) as listener:
        accept = Background(listener.accept, PATIENCE)
        tls = house().good.tls(hostname=hostname)
        with neolink.dial(listener.address, tls=tls, timeout=PATIENCE), accept.result():
            pass


@pytest.mark.parametrize("hostname, words", [("other.example", "hostname mismatch"),
                                             ("127.0.0.2", "IP address mismatch")])
def test_hostname_that_does_not_fit(hostname, words):
    with accepting() as (listener, _):
        assert words in refused(listener.address, tls=house().good.tls(hostname=hostname))


# ---- TLS to plain and plain to TLS (S54)


def test_s54_plain_dialer_at_a_tls_listener(caplog):
    with accepting() as (listener, _):
        refused(listener.address)
        assert "NEO M without TLS, where we speak TLS" in told(caplog)


def test_s54_tls_dialer_at_a_plain_listener(caplog):
    with accepting(tls=None) as (listener, _):
        assert "NEO M without TLS, where we speak TLS" in refused(listener.address, tls=house().good.tls())
        assert "the peer speaks TLS; we speak NEO M" in told(caplog)


def test_s54_other_strangers_at_a_tls_listener(caplog):
    for sent, words in [(b"GET / HTTP/1.1\r\n\r\n", "the peer speaks HTTP, where we speak TLS"),
                        (b"", "without a word"), (HELLO[:20], "during the TLS handshake"),
                        (HELLO + b"\xff" * 200, "TLS handshake: TLS: ")]:
        caplog.clear()
        with accepting() as (listener, _), socket.create_connection(listener.address, PATIENCE) as sock:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
            assert words in told(caplog)


@pytest.mark.parametrize("role", ["client", "server"])
def test_s54_bare_socket_whose_peer_is_plain(role):
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.sendall(b"\x92\xc4\x03NEO\x05")
        with pytest.raises(neolink.HandshakeError, match="does not speak TLS"):
            neolink.NodeLink(mine, role, wire="M", tls=house().good.tls(), timeout=PATIENCE)


@each_version
def test_s54_dialed_node_breaks_off(version):
    """After the handshake of TLS, and before the one of NEO."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        dialing = Background(refused, server.getsockname(), tls=house().good.tls())
        for _ in range(2):                      # once more, in case it wanted the other form of M's opening
            sock, _ = server.accept()
            with sock:
                TlsPeer(sock, "server", version).shake().say_close_notify()
        assert "closed without a word" in dialing.result()


# ---- time and hostility


def test_s12_dial_runs_out_in_the_tls_handshake():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(neolink.Timeout, match=r"shaking hands \(TLS\)"):
            neolink.dial(server.getsockname(), wire="M", tls=house().good.tls(), timeout=0.05)


def test_s12_dial_is_interrupted_in_the_tls_handshake():
    class Enough(Exception):
        pass

    def handler():
        raise Enough

    tls = house().good.tls()                        # the first of a run takes longer than the alarm
    with socket.create_server(("127.0.0.1", 0)) as server, alarm(handler):
        begin = time.monotonic()
        with pytest.raises(Enough):
            neolink.dial(server.getsockname(), wire="M", tls=tls, timeout=PATIENCE)
        assert time.monotonic() - begin < PATIENCE / 2


@pytest.mark.parametrize("role", ["client", "server"])
def test_s12_bare_socket_runs_out_in_the_tls_handshake(role):
    mine, theirs = socket.socketpair()
    with mine, theirs:
        with pytest.raises(neolink.Timeout, match="TLS handshake"):
            neolink.NodeLink(mine, role, tls=house().good.tls(), timeout=0.05)
        assert mine.fileno() >= 0                   # it stays with the caller


@contextlib.contextmanager
def storm(handler) -> Iterator[None]:
    """A signal each millisecond."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("role", ["client", "server"])
def test_s40_bare_socket_is_interrupted_in_the_tls_handshake(role):
    """At the twentieth signal: the nineteen before it, whose handler returns, let it go on."""
    def handler():
        handled.append(1)
        if len(handled) == 20:
            raise KeyboardInterrupt

    handled, tls = [], house().good.tls()
    mine, theirs = socket.socketpair()
    with mine, theirs:
        with pytest.raises(KeyboardInterrupt), storm(handler):
            neolink.NodeLink(mine, role, tls=tls, timeout=PATIENCE)
        assert mine.fileno() >= 0                   # it stays with the caller


@each_version
@pytest.mark.parametrize("role", ["client", "server"])
def test_s41_bare_socket_goes_on_with_its_tls_handshake(role, version):
    """The peer takes part when signals have come; the session is the one that was begun before them."""
    def shake():
        peer = TlsPeer(theirs, "server" if role == "client" else "client", version)
        until(lambda: len(handled) > 20)
        return peer.shake()

    handled, tls = [], house().good.tls()
    mine, theirs = socket.socketpair()
    with mine, theirs, storm(lambda: handled.append(1)):
        shaking = Background(shake)
        link = neolink.NodeLink(mine, role, wire="M", tls=tls, timeout=PATIENCE)
        peer = shaking.result()
        link.notify(REQUEST)
        assert peer.recv().code == REQUEST
        link.abort()


@pytest.mark.parametrize("role", ["client", "server"])
def test_s39_storm_of_signals_in_the_tls_handshake_of_a_bare_socket(role):
    """It neither shortens the time nor begins it anew."""
    handled, tls = [], house().good.tls()
    mine, theirs = socket.socketpair()
    with mine, theirs, storm(lambda: handled.append(1)):
        begin = time.monotonic()
        with pytest.raises(neolink.Timeout, match="TLS handshake"):
            neolink.NodeLink(mine, role, tls=tls, timeout=0.2)
        assert 0.2 <= time.monotonic() - begin < PATIENCE and len(handled) > 5


def test_s12_listener_closes_while_handshakes_are_half_done():
    with contextlib.ExitStack() as stack:
        with neolink.listen("127.0.0.1:0", tls=house().good.tls()) as listener:
            peers = [stack.enter_context(socket.create_connection(listener.address, PATIENCE)) for _ in range(9)]
            for number, peer in enumerate(peers):
                peer.sendall(HELLO[:5 * number])
            begin = time.monotonic()
        for peer in peers:
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b""
        assert time.monotonic() - begin < PATIENCE / 2  # none of them waits until its own time is over


def test_patience_of_the_listener_ends():
    """A slow loris: a byte whenever there is a chance, and yet it is over when the time for the handshake is."""
    with accepting(handshake_timeout=0.2) as (listener, _), socket.create_connection(listener.address) as peer:
        end, ended = time.monotonic() + PATIENCE, False
        peer.settimeout(0.01)
        crumbs = iter(HELLO + bytes(1 << 16))
        while not ended and time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                try:
                    peer.sendall(bytes([next(crumbs)]))
                    ended = peer.recv(1) == b""
                except ConnectionError:
                    ended = True
        assert ended


def hostile(address, number: int) -> socket.socket:
    """One of five ways to be a nuisance; the socket stays open."""
    peer = socket.create_connection(address, PATIENCE)
    peer.sendall([b"", HELLO[:3], HELLO, HELLO + b"\xff" * 200, b"\x16\x03\x01\xff\xff" + bytes(100)][number % 5])
    return peer


def test_a_crowd_of_hostile_handshakes_holds_up_nobody(caplog):
    caplog.set_level(logging.CRITICAL, "neolink")
    tls = house().good.tls()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(neolink.listen("127.0.0.1:0", tls=tls, handshake_timeout=PATIENCE))
        established = Background(listener.accept)
        link = stack.enter_context(neolink.dial(listener.address, tls=tls, wire="M", timeout=PATIENCE))
        server = stack.enter_context(established.result())
        server.handle_new_conn(lambda conn: [conn.send(ANSWER) for _ in conn])
        for number in range(300):
            stack.enter_context(hostile(listener.address, number))
        first = Background(listener.accept)         # behind all of them, so what they give to do is done when this is in
        stack.enter_context(neolink.dial(listener.address, tls=tls, wire="M", timeout=PATIENCE))
        stack.enter_context(first.result())
        times = [time.monotonic()]                  # of five turns: dialed, accepted, asked, closed
        for _ in range(5):                          # who comes now, and who was there before
            accept = Background(listener.accept)
            with neolink.dial(listener.address, tls=tls, timeout=PATIENCE):
                times.append(time.monotonic())
                with accept.result():
                    times.append(time.monotonic())
                    assert link.ask(REQUEST, timeout=PATIENCE).code == ANSWER
                    times.append(time.monotonic())
            times.append(time.monotonic())
        took = " ".join(f"{late - early:.2f}" for early, late in pairwise(times))
        assert times[-1] - times[0] < PATIENCE / 4, took


def test_many_at_once():
    tls = house().good.tls()
    with neolink.listen("127.0.0.1:0", tls=tls) as listener, contextlib.ExitStack() as stack:
        # a wire, for on auto a dialer with no processor time leaves one connection for another
        dialing = [Background(neolink.dial, listener.address, tls=tls, wire="M", timeout=PATIENCE) for _ in range(40)]
        served = [stack.enter_context(listener.accept(PATIENCE)) for _ in dialing]
        links = [stack.enter_context(one.result()) for one in dialing]
        for link in served:
            link.handle_new_conn(lambda conn: [conn.send(ANSWER) for _ in conn])
        assert all(link.ask(REQUEST, timeout=PATIENCE).code == ANSWER for link in links)
