# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""What neolink must do with NEO/py nodes, whichever wire they speak: test_neopy_m and test_neopy_n fill in the bytes.

Raw packets only: the payloads are vectors, so a fault in the typed messages cannot hide or fake one here. Take care
what you send: a live node exits on many malformed messages, and a dead node fails the test that killed it.
"""
from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import neolink

from .peers import Address, Cluster, TlsFiles, free_addresses, join, wait_until

SECONDS = 20.0              # longer than anything here takes; a lost wake-up shows as Timeout

ANSWER = 0x8000
ERROR = 0x8000
REQUEST_IDENTIFICATION = 0x01
PING = 0x02
NOTIFY_NODE_INFORMATION = 0x06
SEND_PARTITION_TABLE = 0x0A
ASK_NODE_LIST = 0x25
ASK_CLUSTER_STATE = 0x2E


def dial(address: Address | str, **options: Any) -> neolink.NodeLink:
    return neolink.dial(address, timeout=SECONDS, **options)


def listen(**options: Any) -> neolink.Listener:
    return neolink.listen(("127.0.0.1", 0), **options)


@contextmanager
def bounded(child: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """neoctl knows no timeout; whatever the test does, the child ends with it."""
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run work(0 … count - 1) at once, started by a barrier; the first exception is raised here."""
    barrier = threading.Barrier(count)
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            barrier.wait(SECONDS)
            work(index)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SECONDS)
        assert not thread.is_alive(), "a worker hangs"
    if failures:
        raise failures[0]


class NodeBytes:
    """What a wire's test module fills in: its name, and the payloads as they are on that wire."""

    wire: str
    version: int
    other_wire: str
    empty: bytes                    # the payload of a message without fields, as it is received
    identify_client: bytes          # RequestIdentification(CLIENT, cluster "test")
    identify_stranger: bytes        # the same for the cluster "nope"
    accept_identification: bytes    # AcceptIdentification(MASTER, M1, A1)
    node_information: bytes         # NotifyNodeInformation: the admin A1 and the master M1, both RUNNING
    partition_table: bytes          # SendPartitionTable(None, 0, [[], []])
    cluster_running: bytes          # AnswerClusterState(RUNNING)
    cluster_backing_up: bytes       # AnswerClusterState(BACKINGUP)
    no_tid: bytes                   # AnswerLastTransaction of an empty database
    recovery: bytes                 # AnswerRecovery(5, None, None)
    ask_storages: bytes             # AskNodeList(STORAGE)
    ask_last_transaction: int       # its code, which moved between the catalogues


def check_clean_end(link: neolink.NodeLink) -> None:
    """An end of file between packets: LinkDown for a call, the end of an iteration, no ProtocolError."""
    with pytest.raises(neolink.LinkDown) as caught:
        link.accept(SECONDS)
    assert not isinstance(caught.value, neolink.ProtocolError)
    assert list(link) == []
    assert link.closed and isinstance(link.fault, neolink.LinkDown)
    with pytest.raises(neolink.LinkDown):
        link.new_conn()


def accept_nobody(listener: neolink.Listener) -> None:
    """For a thread: accept() waits through peers that fail their handshake, until the listener is closed."""
    with pytest.raises(neolink.LinkClosed):
        listener.accept(2 * SECONDS)


class NeoPyCases(NodeBytes):
    """A cluster without TLS."""

    with_tls = False

    # -- dialing

    @pytest.mark.parametrize("node", ["master", "storage", "admin"])
    def test_auto_dial_finds_wire_and_version(self, cluster: Cluster, node: str) -> None:
        address = getattr(cluster, node)
        with dial(address) as link:
            assert (link.wire, link.version) == (self.wire, self.version)
            assert link.role is neolink.Role.CLIENT
            assert link.peer_address == address
            assert link.fault is None and not link.closed

    def test_dial_with_the_wire_named(self, cluster: Cluster) -> None:
        with dial(cluster.admin, wire=self.wire) as link:
            assert (link.wire, link.version) == (self.wire, self.version)
            assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER

    def test_dial_by_text_tries_several_masters(self, cluster: Cluster) -> None:
        with free_addresses() as [(host, dead)]:
            for separator in ",", " ":
                with dial(f"{host}:{dead}{separator}{join(cluster.master)}") as link:
                    assert link.peer_address == cluster.master

    def test_wrong_version_names_both(self, cluster: Cluster) -> None:
        with pytest.raises(neolink.HandshakeError) as caught:
            dial(cluster.master, version=99)
        assert "99" in str(caught.value.ours)
        assert f"{self.wire} protocol {self.version}" in str(caught.value.theirs)
        assert "99" in str(caught.value) and f"protocol {self.version}" in str(caught.value)

    def test_wrong_wire_is_a_handshake_error(self, cluster: Cluster) -> None:
        # The node may close before its opening left, so what it speaks is not always known.
        with pytest.raises(neolink.HandshakeError) as caught:
            dial(cluster.master, wire=self.other_wire)
        assert f"{self.other_wire} protocol" in str(caught.value.ours)

    def test_nobody_there_is_a_dial_error_not_a_handshake_error(self, cluster: Cluster) -> None:
        with free_addresses() as [nobody], pytest.raises(neolink.DialError) as caught:
            dial(nobody)
        assert not isinstance(caught.value, neolink.HandshakeError)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)

    def test_tls_dial_meets_a_plain_node(self, cluster: Cluster, tls_files: TlsFiles) -> None:
        with pytest.raises(neolink.HandshakeError):
            dial(cluster.master, tls=neolink.TLS(*tls_files))

    # -- asking

    @pytest.mark.parametrize("node", ["master", "storage", "admin"])
    def test_ping_is_answered(self, cluster: Cluster, node: str) -> None:
        with dial(getattr(cluster, node)) as link:
            packet = link.ask(PING, timeout=SECONDS)
            assert (packet.code, bytes(packet.payload)) == (PING | ANSWER, self.empty)
            assert packet.conn_id % 2 == 1

    def test_conn_keeps_its_id_over_several_pings(self, cluster: Cluster) -> None:
        with dial(cluster.master) as link, link.new_conn() as conn:
            for _ in range(3):
                conn.send(PING, timeout=SECONDS)
                packet = conn.recv(SECONDS)
                assert (packet.code, packet.conn_id) == (PING | ANSWER, conn.conn_id)

    def test_cluster_state_from_the_admin(self, cluster: Cluster) -> None:
        with dial(cluster.admin) as link:
            packet = link.ask(ASK_CLUSTER_STATE, timeout=SECONDS)
            assert (packet.code, bytes(packet.payload)) == (ASK_CLUSTER_STATE | ANSWER, self.cluster_running)

    def test_node_list_from_the_admin_has_the_storage(self, cluster: Cluster) -> None:
        with dial(cluster.admin) as link:
            packet = link.ask(ASK_NODE_LIST, self.ask_storages, timeout=SECONDS)
            assert packet.code == ASK_NODE_LIST | ANSWER
            assert struct.pack(">H", cluster.storage[1]) in bytes(packet.payload)

    def test_threads_ask_at_once(self, cluster: Cluster) -> None:
        rounds, threads = 100, 8
        with dial(cluster.admin) as link:
            def ask(index: int) -> None:
                code = (PING, ASK_CLUSTER_STATE)[index % 2]
                payload = (self.empty, self.cluster_running)[index % 2]
                for _ in range(rounds):
                    packet = link.ask(code, timeout=SECONDS)
                    assert (packet.code, bytes(packet.payload)) == (code | ANSWER, payload)

            in_threads(threads, ask)
            stats = link.stats()
            assert stats.packets_sent == stats.packets_received == rounds * threads
            assert (stats.conns, stats.rx_bytes_queued, stats.tx_bytes_queued) == (0, 0, 0)
            assert (stats.late_answers, stats.ignored_packets) == (0, 0)

    def test_many_asks_pipelined_in_order(self, cluster: Cluster) -> None:
        codes = [PING, ASK_CLUSTER_STATE] * 250
        with dial(cluster.admin) as link:
            answers = link.ask_many([neolink.Packet(code) for code in codes], timeout=SECONDS)
            assert [packet.code for packet in answers] == [code | ANSWER for code in codes]

    def test_late_answers_are_counted_and_harm_nobody(self, cluster: Cluster) -> None:
        """S28. The master is paused while we ask, and answers after we gave up."""
        count = 10
        with dial(cluster.master) as link:
            with cluster.process("neomaster").paused():
                for _ in range(count):
                    with pytest.raises(neolink.Timeout) as caught:
                        link.ask(PING, timeout=0.01)
                    assert caught.value.maybe_sent
            # Answers to pings come in order: when this one is here, all others are too.
            assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER
            stats = link.stats()
            assert stats.packets_received == stats.packets_sent == count + 1
            assert (stats.late_answers, stats.ignored_packets, stats.conns) == (count, 0, 0)

    # -- identification, and what the master pushes

    def identified(self, cluster: Cluster, **options: Any) -> neolink.NodeLink:
        link = dial(cluster.master, **options)
        packet = link.ask(REQUEST_IDENTIFICATION, self.identify_client, timeout=SECONDS)
        assert packet.code == REQUEST_IDENTIFICATION | ANSWER
        return link

    def test_pushes_after_identification_by_recv1(self, cluster: Cluster) -> None:
        with self.identified(cluster) as link:
            for expected_id, code in enumerate([NOTIFY_NODE_INFORMATION, SEND_PARTITION_TABLE]):
                with link.recv1(SECONDS) as request:
                    assert (request.packet.code, request.packet.conn_id) == (code, expected_id)

    def test_pushes_after_identification_by_accept(self, cluster: Cluster) -> None:
        with self.identified(cluster) as link:
            for code in NOTIFY_NODE_INFORMATION, SEND_PARTITION_TABLE:
                with link.accept(SECONDS) as conn:
                    packet = conn.recv(SECONDS)
                    assert (packet.code, packet.conn_id) == (code, conn.conn_id)

    def test_same_id_is_open_in_both_directions(self, cluster: Cluster) -> None:
        """S31. The master's push number 1 has the id of our first Conn, and is not for it."""
        with dial(cluster.master) as link, link.new_conn() as ours:
            assert ours.conn_id == 1
            ours.send(REQUEST_IDENTIFICATION, self.identify_client, timeout=SECONDS)
            assert ours.recv(SECONDS).code == REQUEST_IDENTIFICATION | ANSWER
            pushes = {conn.conn_id: conn for conn in (link.accept(SECONDS), link.accept(SECONDS))}
            assert sorted(pushes) == [0, 1]
            assert pushes[1].recv(SECONDS).code == SEND_PARTITION_TABLE
            ours.send(PING, timeout=SECONDS)
            assert ours.recv(SECONDS).code == PING | ANSWER
            with pytest.raises(neolink.Timeout):
                pushes[1].recv(0)

    def test_handler_takes_the_pushes(self, cluster: Cluster) -> None:
        codes: list[int] = []
        both = threading.Event()

        def take(conn: neolink.Conn) -> None:
            codes.append(conn.recv(SECONDS).code)
            if len(codes) == 2:
                both.set()

        with dial(cluster.master) as link:
            link.handle_new_conn(take)
            assert link.ask(REQUEST_IDENTIFICATION, self.identify_client, timeout=SECONDS).code != ERROR
            assert both.wait(SECONDS)
        assert sorted(codes) == [NOTIFY_NODE_INFORMATION, SEND_PARTITION_TABLE]

    def test_nobody_accepts_and_asks_still_complete(self, cluster: Cluster) -> None:
        """S45."""
        with self.identified(cluster) as link:
            packet = link.ask(self.ask_last_transaction, timeout=SECONDS)
            assert (packet.code, bytes(packet.payload)) == (self.ask_last_transaction | ANSWER, self.no_tid)

    @pytest.mark.parametrize("accept", ["refuse", "ignore"])
    def test_pushes_to_a_link_that_does_not_accept_are_not_answered(self, cluster: Cluster, accept: str) -> None:
        """S23. A NEO/py node is hurt by an Error in reply to its notification; it must see none and stay connected."""
        with self.identified(cluster, accept=accept) as link:
            sent = link.stats().packets_sent
            assert sent == 1
            assert link.ask(self.ask_last_transaction, timeout=SECONDS).code == self.ask_last_transaction | ANSWER
            assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER
            stats = link.stats()
            assert stats.packets_sent == sent + 2, "something went to the master besides our asks"
            assert stats.packets_received == 5
            assert not link.closed

    def test_close_accept_after_identification_leaves_the_master_alone(self, cluster: Cluster) -> None:
        with self.identified(cluster) as link:
            link.close_accept()
            assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER
            with pytest.raises(neolink.NotAccepting):
                link.accept(SECONDS)
            assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER
            assert link.stats().packets_sent == 3

    def test_wrong_cluster_name_is_an_error_answer_and_a_clean_end(self, cluster: Cluster) -> None:
        with dial(cluster.master) as link:
            packet = link.ask(REQUEST_IDENTIFICATION, self.identify_stranger, timeout=SECONDS)
            assert packet.code == ERROR
            assert b"invalid cluster name" in bytes(packet.payload)
            check_clean_end(link)

    # -- the node goes away

    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_end_of_a_node_wakes_everyone(self, cluster: Cluster, how: str) -> None:
        """S5, S7, S16. Blocked recv, accept and an iteration all end when the node's process does."""
        with cluster.another("neoadmin", name=f"neoadmin-{how}") as (node, address):
            node.wait_listening(address)
            with dial(address) as link:
                assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER
                conns = [link.new_conn() for _ in range(4)]
                ready = threading.Barrier(len(conns) + 2)

                def wait(index: int) -> None:
                    ready.wait(SECONDS)
                    if index == len(conns):
                        assert list(link) == []
                    else:
                        with pytest.raises(neolink.LinkDown) as caught:
                            conns[index].recv(SECONDS)
                        assert not isinstance(caught.value, neolink.ProtocolError)

                ender = threading.Thread(target=lambda: (ready.wait(SECONDS), getattr(node, how)()))
                ender.start()
                in_threads(len(conns) + 1, wait)
                ender.join(SECONDS)
                check_clean_end(link)

    # -- nodes that dial us

    def test_neoctl_asks_us(self, cluster: Cluster) -> None:
        """neolink plays an admin, by hand."""
        with listen() as listener, bounded(
                cluster.start_ctl("print", "cluster", admin=listener.address)) as ctl:
            with listener.accept(SECONDS) as link:
                assert (link.wire, link.version) == (self.wire, self.version)
                assert link.role is neolink.Role.SERVER
                with link.recv1(SECONDS) as request:
                    assert request.packet.code == ASK_CLUSTER_STATE
                    assert bytes(request.packet.payload) == self.empty
                    request.reply(ASK_CLUSTER_STATE | ANSWER, self.cluster_backing_up, timeout=SECONDS)
                out, _ = ctl.communicate(timeout=SECONDS)
                assert (out, ctl.returncode) == ("BACKINGUP\n", 0)
                check_clean_end(link)

    def test_neoctl_is_served_by_a_handler(self, cluster: Cluster) -> None:
        """The same by serve(), one link after the other, each of neoctl's runs a link of its own."""
        def answer(request: neolink.Request) -> None:
            request.reply(request.packet.code | ANSWER, self.cluster_running, timeout=SECONDS)

        with listen() as listener:
            for _ in range(3):
                with bounded(cluster.start_ctl("print", "cluster", admin=listener.address)) as ctl:
                    with listener.accept(SECONDS) as link:
                        link.serve(answer)
                    assert ctl.communicate(timeout=SECONDS)[0] == "RUNNING\n"

    def wait_refused(self, link: neolink.NodeLink) -> None:
        """Wait until the peer's one request was refused with one packet."""
        wait_until(lambda: link.stats().refused_conns == link.stats().packets_sent == 1, "one refusal", SECONDS)

    def test_neoctl_refused_ends_and_the_next_is_served(self, cluster: Cluster) -> None:
        """S23. neoctl's request meets "connection refused", once; neoctl reports and ends, we live on."""
        with listen(accept="refuse") as listener:
            for _ in range(2):
                with bounded(cluster.start_ctl("print", "primary", admin=listener.address)) as ctl:
                    with listener.accept(SECONDS) as link:
                        # Nobody reads on this link: the refusal is sent in the background. neoctl of 1.12 does not
                        # know what to do with it and leaves when we close.
                        self.wait_refused(link)
                    ctl.communicate(timeout=SECONDS)
                    assert ctl.returncode is not None

    def test_admin_refused_by_its_master_survives_and_dials_again(self, cluster: Cluster) -> None:
        """S23. A real admin takes our refusing listener for its master: our Error does not hurt it."""
        with listen(accept="refuse") as listener:
            with cluster.another("neoadmin", master=listener.address, name="neoadmin-refused") as (node, _):
                with listener.accept(SECONDS) as link:
                    self.wait_refused(link)
                # It comes back, and it still serves: it says that it has no master.
                with listener.accept(SECONDS):
                    node.check_alive()

    def test_we_are_the_master_of_an_admin(self, cluster: Cluster) -> None:
        """neolink plays the primary master for a real admin, well enough for a real neoctl to get its answer there."""
        with listen() as listener:
            with cluster.another("neoadmin", master=listener.address, name="neoadmin-ours") as (node, address):
                with listener.accept(SECONDS) as link:
                    self.welcome_admin(link)
                    server = threading.Thread(target=link.serve, args=(self.play_master,), daemon=True)
                    server.start()
                    node.wait_listening(address)
                    ctl = cluster.start_ctl("print", "cluster", admin=address)
                    with bounded(ctl):
                        assert ctl.communicate(timeout=SECONDS)[0] == "RUNNING\n"
                    node.check_alive()
                    cluster.forget(node)
                    server.join(SECONDS)
                    assert not server.is_alive(), "serve() outlived its link"

    def welcome_admin(self, link: neolink.NodeLink) -> None:
        with link.recv1(SECONDS) as request:
            assert request.packet.code == REQUEST_IDENTIFICATION
            assert b"test" in bytes(request.packet.payload)
            request.reply(REQUEST_IDENTIFICATION | ANSWER, self.accept_identification, timeout=SECONDS)
        link.notify(NOTIFY_NODE_INFORMATION, self.node_information, timeout=SECONDS)
        link.notify(SEND_PARTITION_TABLE, self.partition_table, timeout=SECONDS)

    def play_master(self, request: neolink.Request) -> None:
        answers = {ASK_CLUSTER_STATE: self.cluster_running, self.ask_last_transaction: self.no_tid, 7: self.recovery}
        code = request.packet.code
        request.reply(code | ANSWER, answers[code], timeout=SECONDS)

    def test_a_stranger_at_our_listener_does_not_cost_neoctl_its_turn(self, cluster: Cluster) -> None:
        """S54. One peer is silent, one speaks HTTP, one goes at once; the node behind them is served."""
        with listen() as listener, socket.create_connection(listener.address), \
                socket.create_connection(listener.address) as browser:
            browser.sendall(b"GET / HTTP/1.1\r\n\r\n")
            socket.create_connection(listener.address).close()
            with bounded(cluster.start_ctl("print", "cluster", admin=listener.address)) as ctl:
                with listener.accept(SECONDS) as link:
                    assert link.wire == self.wire
                    with link.recv1(SECONDS) as request:
                        request.reply(ASK_CLUSTER_STATE | ANSWER, self.cluster_running, timeout=SECONDS)
                    assert ctl.communicate(timeout=SECONDS)[0] == "RUNNING\n"

    def test_listener_with_another_version_says_so(self, cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
        """S54. The node is turned away, the log tells both numbers, and accept() waits for somebody better."""
        caplog.set_level("DEBUG", logger="neolink")
        with listen(version=99) as listener, bounded(
                cluster.start_ctl("print", "cluster", admin=listener.address)) as ctl:
            accepting = threading.Thread(target=accept_nobody, args=(listener,))
            accepting.start()
            ctl.communicate(timeout=SECONDS)
            wait_until(lambda: f"{self.wire} protocol {self.version}" in caplog.text, "the log names theirs", SECONDS)
            assert "99" in caplog.text
            listener.close()
            accepting.join(SECONDS)
            assert not accepting.is_alive()

    # -- many links

    def test_many_links_to_one_node(self, cluster: Cluster) -> None:
        links = [dial(cluster.master) for _ in range(50)]
        try:
            for link in links:
                link.notify(PING, timeout=SECONDS)          # its answer is a stray
            for link in links:
                assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER
                assert link.stats().ignored_packets == 1
        finally:
            for link in links:
                link.close(SECONDS)


class NeoPyTlsCases(NodeBytes):
    """A cluster where every node uses TLS: the same bytes inside, other ways to meet and to part."""

    with_tls = True

    @pytest.fixture
    def tls(self, tls_files: TlsFiles) -> neolink.TLS:
        return neolink.TLS(*tls_files)

    @pytest.mark.parametrize("node", ["master", "storage", "admin"])
    def test_auto_dial_finds_wire_and_version(self, cluster: Cluster, tls: neolink.TLS, node: str) -> None:
        with dial(getattr(cluster, node), tls=tls) as link:
            assert (link.wire, link.version) == (self.wire, self.version)
            packet = link.ask(PING, timeout=SECONDS)
            assert (packet.code, bytes(packet.payload)) == (PING | ANSWER, self.empty)

    def test_threads_ask_at_once(self, cluster: Cluster, tls: neolink.TLS) -> None:
        with dial(cluster.admin, tls=tls) as link:
            def ask(_: int) -> None:
                for _ in range(100):
                    packet = link.ask(ASK_CLUSTER_STATE, timeout=SECONDS)
                    assert bytes(packet.payload) == self.cluster_running

            in_threads(8, ask)
            assert link.stats().packets_received == 800

    def test_many_asks_pipelined(self, cluster: Cluster, tls: neolink.TLS) -> None:
        with dial(cluster.master, tls=tls) as link:
            answers = link.ask_many([neolink.Packet(PING)] * 1000, timeout=SECONDS)
            assert {packet.code for packet in answers} == {PING | ANSWER} and len(answers) == 1000

    def test_pushes_after_identification(self, cluster: Cluster, tls: neolink.TLS) -> None:
        with dial(cluster.master, tls=tls) as link:
            packet = link.ask(REQUEST_IDENTIFICATION, self.identify_client, timeout=SECONDS)
            assert packet.code == REQUEST_IDENTIFICATION | ANSWER
            for code in NOTIFY_NODE_INFORMATION, SEND_PARTITION_TABLE:
                with link.recv1(SECONDS) as request:
                    assert request.packet.code == code

    def test_end_without_close_notify_is_clean(self, cluster: Cluster, tls: neolink.TLS) -> None:
        """S17. NEO/py just closes the socket."""
        with dial(cluster.master, tls=tls) as link:
            packet = link.ask(REQUEST_IDENTIFICATION, self.identify_stranger, timeout=SECONDS)
            assert packet.code == ERROR and b"invalid cluster name" in bytes(packet.payload)
            check_clean_end(link)

    @pytest.mark.parametrize("node", ["master", "storage", "admin"])
    def test_our_close_does_not_hurt_the_node(self, cluster: Cluster, tls: neolink.TLS, node: str) -> None:
        """NEO 1.12 loops for ever on a close_notify; its own way is to close the socket, and so must ours be."""
        for _ in range(3):
            with dial(getattr(cluster, node), tls=tls) as link:
                assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER
        dial(getattr(cluster, node), tls=tls).abort()
        with dial(getattr(cluster, node), tls=tls) as link:
            assert link.ask(PING, timeout=SECONDS).code == PING | ANSWER

    def test_neoctl_asks_us(self, cluster: Cluster, tls: neolink.TLS) -> None:
        with listen(tls=tls) as listener, bounded(
                cluster.start_ctl("print", "cluster", admin=listener.address)) as ctl:
            self.answer_ctl(listener, ctl)

    def answer_ctl(self, listener: neolink.Listener, ctl: subprocess.Popen[str]) -> None:
        with listener.accept(SECONDS) as link:
            assert (link.wire, link.version) == (self.wire, self.version)
            with link.recv1(SECONDS) as request:
                request.reply(ASK_CLUSTER_STATE | ANSWER, self.cluster_backing_up, timeout=SECONDS)
            assert ctl.communicate(timeout=SECONDS)[0] == "BACKINGUP\n"
            check_clean_end(link)

    def test_plain_dial_meets_tls(self, cluster: Cluster) -> None:
        """S54. The node closes on our first byte; that is a failed handshake, not a link that goes down."""
        for wire in "auto", self.wire:
            with pytest.raises(neolink.HandshakeError):
                dial(cluster.master, wire=wire)

    def test_wrong_version_names_both(self, cluster: Cluster, tls: neolink.TLS) -> None:
        with pytest.raises(neolink.HandshakeError) as caught:
            dial(cluster.master, tls=tls, version=99)
        assert "99" in str(caught.value.ours)
        assert f"{self.wire} protocol {self.version}" in str(caught.value.theirs)

    def test_foreign_certificate_is_refused_by_us(self, cluster: Cluster, foreign_tls_files: TlsFiles) -> None:
        with pytest.raises(neolink.HandshakeError):
            dial(cluster.master, tls=neolink.TLS(*foreign_tls_files))

    def test_foreign_certificate_is_refused_by_the_node(
            self, cluster: Cluster, tls_files: TlsFiles, foreign_tls_files: TlsFiles) -> None:
        """We trust its CA, it does not trust ours."""
        mixed = neolink.TLS(tls_files.ca, foreign_tls_files.cert, foreign_tls_files.key)
        with pytest.raises(neolink.HandshakeError):
            dial(cluster.master, tls=mixed)

    def test_strangers_at_our_listener_cost_nobody_their_turn(
            self, cluster: Cluster, tls: neolink.TLS, foreign_tls_files: TlsFiles) -> None:
        """S54. A plain neoctl and one with a foreign certificate are turned away; the next one is served."""
        with listen(tls=tls) as listener:
            for strange in None, foreign_tls_files:
                with bounded(cluster.start_ctl("print", "cluster", admin=listener.address, tls=strange)) as ctl:
                    accepting = threading.Thread(target=self.accept_only_good, args=(listener,))
                    accepting.start()
                    assert "BACKINGUP" not in ctl.communicate(timeout=SECONDS)[0]
                    with bounded(cluster.start_ctl("print", "cluster", admin=listener.address)) as good:
                        assert good.communicate(timeout=SECONDS)[0] == "BACKINGUP\n"
                    accepting.join(SECONDS)
                    assert not accepting.is_alive()

    def accept_only_good(self, listener: neolink.Listener) -> None:
        with listener.accept(SECONDS) as link, link.recv1(SECONDS) as request:
            request.reply(ASK_CLUSTER_STATE | ANSWER, self.cluster_backing_up, timeout=SECONDS)
