# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""`neolink ctl`: the lines and the status of the real neoctl, and what is ours: data, tables, statuses, waiting."""
from __future__ import annotations

import json
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_fakes import CAPTURES, M1, NODES, OUT, S1, S2, UP, FakeAdmin, Hangup, Replay, ack, denied, not_ready, table

from neolink import proto
from neolink.cli import _ctl_quick, _parser, main
from neolink.cli.ctl import _parsed
from neolink.proto import ClusterStates, ErrorCodes, NodeStates

Said = tuple[int, str, str]


class Ctl:
    """Runs `neolink ctl -a ADMIN WORDS` in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, admin: FakeAdmin | str, *words: str) -> Said:
        self._capture.readouterr()
        try:
            status = main(["ctl", "-a", admin if isinstance(admin, str) else admin.address, *words])
        except SystemExit as exit:
            assert isinstance(exit.code, int)
            status = exit.code
        said = self._capture.readouterr()
        assert "Traceback" not in said.err
        return status, said.out, said.err

    def data(self, admin: FakeAdmin | str, *words: str) -> Any:
        status, out, _ = self(admin, "--json", *words)
        return json.loads(out)


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str]) -> Ctl:
    return Ctl(capsys)


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with FakeAdmin() as admin:
        yield admin


# ---- as neoctl


OURS = {"ctl-check-bad-partition", "ctl-print-pt-out-of-range"}
"""neoctl shows a traceback there: after it has ended the master, and for an Error that it does not know."""


def recorded(wire: str, pattern: str) -> list[str]:
    return sorted(path.stem for path in (CAPTURES / wire).glob(pattern) if path.stem not in OURS)


@pytest.mark.parametrize("capture", recorded("wire-M", "ctl-*.jsonl"))
def test_neoctl_said_the_same(capture: str, ctl: Ctl) -> None:
    """Each recorded run of the real tool: what it asked is asked, what it printed is printed, success is success."""
    for seconds in ("1", "5", "25"):                # one of them uses up what it is given: see in_time
        with Replay(f"wire-M/{capture}") as admin:
            questions = admin.questions
            status, out, err = ctl(admin, "--timeout", seconds, *admin.head["what"].split()[1:])
        said = (out + err).rstrip("\n")
        if said == admin.head["printed"]:
            break
    assert said == admin.head["printed"]
    assert (status != 0) == (admin.head["exit"] != 0)
    assert all(question in admin.asked for question in questions if type(question) is not proto.AskPartitionList)


OF_1_12 = [one for one in recorded("wire-N", "neoctl-*.jsonl")
           if not one.endswith(("not-ready", "pt-9-99", "truncate-tid"))]


@pytest.mark.parametrize("capture", OF_1_12)
def test_neoctl_of_1_12_asked_the_same(capture: str, ctl: Ctl) -> None:
    with Replay(f"wire-N/{capture}") as admin:
        questions = admin.questions
        status, _, err = ctl(admin, *admin.head["what"].split()[1:])
        answers = [answer for _, answer in admin._recorded]
        refused = any(type(one) is proto.Error and one.code is ErrorCodes.DENIED for one in answers)
        assert (status != 0) == refused, err
        assert all(question in admin.asked for question in questions if type(question) is not proto.AskPartitionList)


def test_the_dates_of_1_12_have_six_digits(ctl: Ctl) -> None:
    with FakeAdmin("N") as admin:
        said = ctl(admin, "print", "ids")[1]
        assert said == "last_oid = 0x0\nlast_tid = 0x0 (1900-01-01 00:00:00.000000)\nlast_ptid = 1\n"


def test_the_chart_of_many_partitions(admin: FakeAdmin, ctl: Ctl) -> None:
    """As neoctl draws 48 of them; a running storage without cells has a line, one that is down has none."""
    admin.nodes += [NODES[0]._replace(nid=3), NODES[0]._replace(nid=4, state=NodeStates.DOWN)]
    admin.on(proto.AskPartitionList, table(*([{S1: UP}, {}, {S2: OUT, S1: UP}] * 7), ptid=5))
    assert ctl(admin, "print", "pt")[1] == (
        "# ptid: 5, replicas: 1\n"
        "             10v       20v\n"
        "S1 R U.UU.UU.UU.UU.UU.UU.U\n"
        "S2 R ..O..O..O..O..O..O..O\n"
        "S3 R .....................\n")


def test_an_unidentified_node(admin: FakeAdmin, ctl: Ctl) -> None:
    admin.nodes = [NODES[1]._replace(nid=None, state=NodeStates.DOWN), NODES[1]]
    assert ctl(admin, "print", "node", "master")[1] == ("M1   | MASTER | 127.0.0.1:24410 | RUNNING | None\n"
                                                        "None | MASTER | 127.0.0.1:24410 | DOWN    | None\n")


def test_no_nodes(admin: FakeAdmin, ctl: Ctl) -> None:
    assert ctl(admin, "print", "node", "client")[1] == "Empty list!\n"


@pytest.mark.parametrize("wire,word,tid", [
    ("M", "tid:0x3937af2eeeeeeee", "03937af2eeeeeeee"), ("M", "TID:257684787499560686", "03937af2eeeeeeee"),
    ("M", "1325421296", "03937af2eeeeeeee"), ("N", "1325421296.", "03937af2eeeeeeee"),
    ("N", "257684787499560686", "03937af2eeeeeeee"), ("N", "0x3937af2eeeeeeee", "03937af2eeeeeeee"),
    ("N", "tid:7", "0000000000000007"),
])
def test_tids_in_the_spelling_of_the_clusters_neoctl(wire: str, word: str, tid: str, ctl: Ctl) -> None:
    with FakeAdmin(wire) as admin:
        admin.on(proto.Truncate, ack())
        assert ctl(admin, "truncate", word) == (0, "", "")
        assert admin.asked[-1] == proto.Truncate(bytes.fromhex(tid))


@pytest.mark.parametrize("words,partitions,low,high", [
    ([":"], {0: None, 1: None, 2: None, 3: None}, 0, None),
    ([":S1"], {0: 1, 1: 1, 2: 1, 3: 1}, 0, None),
    (["0:", "3:S2", "tid:5", "tid:9"], {0: None, 3: 2}, 5, 9),
    (["2:", "tid:5"], {2: None}, 5, None),
])
def test_check(words: list[str], partitions: Any, low: int, high: int | None, admin: FakeAdmin, ctl: Ctl) -> None:
    """`check :` fails inside neoctl itself."""
    admin.on(proto.CheckReplicas, ack())
    assert ctl(admin, "check", *words)[0] == 0
    high_tid = None if high is None else proto.id_from_int(high)
    assert admin.asked[-1] == proto.CheckReplicas(partitions, proto.id_from_int(low), high_tid)


def test_print_cluster_does_without_the_messages(admin: FakeAdmin) -> None:
    """It is asked in loops: what it imports is most of what it costs."""
    program = ("import sys\nfrom neolink.cli import main\nstatus = main(sys.argv[1:])\n"
               "assert 'msgspec' not in sys.modules and 'neolink.proto' not in sys.modules\nsys.exit(status)")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program, "ctl", "-a", admin.address, "print", "cluster"], env=env,
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "RUNNING\n", "")


@pytest.mark.parametrize("wire", ["M", "N"])
@pytest.mark.parametrize("state", list(ClusterStates))
def test_every_state_is_printed_by_its_name(state: ClusterStates, wire: str, ctl: Ctl) -> None:
    with FakeAdmin(wire) as admin:
        admin.on(proto.AskClusterState, proto.AnswerClusterState(state))
        assert ctl(admin, "print", "cluster") == (0, f"{state}\n", "")
        assert len(admin.asked) == 1


def in_time(ctl: Ctl, admin: FakeAdmin, words: str, status: int) -> tuple[int, str, str]:
    """Run a command that may use all the time it is given, with more of it until it ends with that status: a second may
    pass on a busy machine before there is an answer at all."""
    for seconds in ("1", "5", "25"):
        done = ctl(admin, "--timeout", seconds, *words.split())
        if done[0] == status:
            break
    return done


def test_a_state_that_the_admin_does_not_know(admin: FakeAdmin, ctl: Ctl) -> None:
    admin.on(proto.AskClusterState, proto.AnswerClusterState(None))
    assert in_time(ctl, admin, "print cluster", 3)[0] == 3


# ---- wrong words


WRONG = ["frob", "print", "print frob", "set cluster", "set cluster frob", "set replicas many", "set replicas -1",
         "drop", "drop S1 S2", "drop X1", "kill", "add", "add S0", "prune_orphan 2 S1", "prune_orphan 0", "truncate",
         "truncate yesterday", "truncate tid:", "truncate 1e400", "check", "check 0", "check x:", "check 0: :",
         "check : :", "check 0: 1 2 3", "check 0: 1 1:", "print pt x", "print pt 0 0 S1 S2", "print node frob",
         "print ids now", "wait", "wait frob", "-n drop S1", "print ids --wait", "start --watch",
         "print pt --watch --every 0", "print --frob"]


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words_are_told_before_anything_is_dialed(words: str, ctl: Ctl) -> None:
    status, out, err = ctl("127.0.0.1:1", *words.split())
    assert status == 2 and not out and err


def test_no_words_list_the_commands(ctl: Ctl) -> None:
    status, out, _ = ctl("127.0.0.1:1")
    assert status == 0 and "prune_orphan" in out and "print pt [MIN [MAX [NODE]]]" in out


# ---- status


def error(code: str, text: str) -> proto.Error:
    return proto.Error(ErrorCodes[code], text)


@pytest.mark.parametrize("words,question,reply,status,text", [
    ("print cluster", proto.AskClusterState, not_ready, 3, "ERROR: Not connected to a primary master."),
    ("start", proto.SetClusterState, denied("Can not switch to this state"), 1, "Can not switch to this state"),
    ("drop S9", proto.SetNodeState, denied("unknown node"), 4, "unknown node"),
    ("check 77:", proto.Ping, None, 4, "there is no partition 77"),
    ("print pt 7 9", proto.Ping, None, 4, "the table has 4"),
    ("check 0:S9", proto.Ping, None, 4, "there is no storage S9"),
    ("print primary", proto.AskPrimary, None, 5, "timed out"),
    ("wait stopping", proto.Ping, None, 5, "the cluster is RUNNING"),
    ("print cluster", proto.AskClusterState, error("PROTOCOL_ERROR", "unexpected packet: …"), 6, "not an admin"),
    ("kill S1", proto.SetNodeState, error("PROTOCOL_ERROR", "connection to master lost"), 8, "may or may not"),
    ("print ids", proto.AskRecovery, error("REPLICATION_ERROR", "odd"), 1, "odd"),
])
def test_status(words: str, question: type, reply: Any, status: int, text: str, admin: FakeAdmin, ctl: Ctl) -> None:
    admin.on(question, reply)
    got, out, err = in_time(ctl, admin, words, status)
    assert (got, out) == (status, "") and text in err
    data = ctl.data(admin, "--timeout", "1", *words.split())
    assert text in data["error"]["message"] or text in err


def test_status_of_a_command_whose_answer_was_lost(admin: FakeAdmin, ctl: Ctl) -> None:
    def hang_up(_: Any) -> Any:
        raise Hangup

    admin.on(proto.SetNodeState, hang_up)
    assert ctl(admin, "kill", "S1")[0] == 8


@pytest.mark.parametrize("words,question,reply", [
    ("add S9", proto.AddPendingNodes, ack("No node added")),
    ("kill S2", proto.SetNodeState, ack("node already in DOWN state")),
    ("tweak", proto.TweakPartitionTable, proto.AnswerTweakPartitionTable(False, [])),
    ("set replicas 1", proto.SetNumReplicas, ack()),
])
def test_nothing_to_do(words: str, question: type, reply: Any, admin: FakeAdmin, ctl: Ctl) -> None:
    admin.on(question, reply)
    assert ctl(admin, *words.split())[0] == 0                       # as neoctl
    assert ctl(admin, "--exit-code", *words.split())[0] == 7
    assert ctl.data(admin, *words.split())["changed"] is False


def test_nobody_there(ctl: Ctl) -> None:
    with FakeAdmin() as gone:
        address = gone.address
    status, _, err = ctl(address, "print", "cluster")
    assert status == 6 and address in err


def test_a_web_server_is_no_admin(ctl: Ctl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        import threading

        def serve() -> None:
            link, _ = server.accept()
            with link:
                link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                link.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        status, _, err = ctl("{}:{}".format(*server.getsockname()), "print", "cluster")
        thread.join()
        assert status == 6 and "HTTP" in err


def test_an_admin_that_speaks_tls(ctl: Ctl, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    import neolink

    ca = trustme.CA()
    leaf = ca.issue_cert("node.example")
    files = [str(tmp_path / name) for name in ("ca", "cert", "key")]
    ca.cert_pem.write_to_path(files[0])
    leaf.cert_chain_pems[0].write_to_path(files[1])
    leaf.private_key_pem.write_to_path(files[2])
    with FakeAdmin(tls=neolink.TLS(*files)) as admin:
        assert ctl(admin, "--tls", *files, "print", "cluster") == (0, "RUNNING\n", "")
        status, _, err = ctl(admin, "--timeout", "3", "print", "cluster")
        assert status in (5, 6) and "--tls CA CERT KEY" in err
    with FakeAdmin() as plain:
        status, _, err = ctl(plain, "--tls", *files, "print", "cluster")
        assert status == 6 and "leave --tls out" in err
    assert ctl("127.0.0.1:1", "--tls", *reversed(files), "print", "cluster")[0] == 1


def test_the_admin_of_the_environment(admin: FakeAdmin, capsys: pytest.CaptureFixture[str],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEOLINK_ADMIN", admin.address)
    assert main(["ctl", "print", "cluster"]) == 0
    assert capsys.readouterr().out == "RUNNING\n"


@pytest.mark.parametrize("given,dialed", [
    ("10.0.0.1", "10.0.0.1:9999"), ("[::1]", "[::1]:9999"), ("[::1]:1", "[::1]:1"), ("a:1,b", "a:1 b:9999"),
    ("unix:/a,b", "unix:/a,b")])
def test_the_port_may_be_left_out(given: str, dialed: str) -> None:
    import argparse

    from neolink.cli.ctl import _address

    assert _address(argparse.Namespace(address=given)) == dialed


@pytest.mark.parametrize("words", [
    "print cluster", "-a h:1 print cluster", "print cluster -a h:1", "--timeout 3 print -a g:2 --address h:1 cluster",
    "--tls ca cert key -a h:1 print cluster --timeout 0.5"])
def test_the_quick_way_reads_as_the_long_one_does(words: str) -> None:
    args = _parsed(_parser("ctl").parse_args(["ctl", *words.split()]))
    assert args.words == ["print", "cluster"]
    long = {"address": args.address and [args.address], "timeout": args.timeout, "tls": args.tls}
    quick = _ctl_quick._plain(words.split())
    assert quick is not None
    seconds = {"timeout": float(quick["timeout"][0])} if "timeout" in quick else {}
    assert {**quick, **seconds} == {name: value for name, value in long.items() if value is not None}


@pytest.mark.parametrize("words", [
    "", "print", "print node", "print cluster storage", "cluster print", "--json print cluster",
    "print cluster --watch", "-a", "print cluster -a", "--tls ca cert print cluster", "--address=h:1 print cluster", "-a -h print cluster",
    "-ah:1 print cluster", "--help print cluster", "-- print cluster"])
def test_all_else_is_for_the_long_way(words: str) -> None:
    assert _ctl_quick._plain(words.split()) is None


def test_a_cluster_of_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ctl", "--embedded", "print", "pt"]) == 0
    assert capsys.readouterr().out.startswith("# ptid: 1, replicas: 0\nS1 R U")


# ---- data


def test_data(admin: FakeAdmin, ctl: Ctl) -> None:
    assert ctl.data(admin, "print", "cluster") == {"state": "RUNNING"}
    assert ctl.data(admin, "print", "primary") == {"nid": "M1", "address": "127.0.0.1:24410"}
    assert ctl.data(admin, "print", "node", "master") == {"nodes": [
        {"nid": "M1", "type": "MASTER", "address": "127.0.0.1:24410", "state": "RUNNING", "id_timestamp": None}]}
    admin.on(proto.AskPartitionList, table({S1: UP}, {S1: UP, S2: OUT}))
    assert ctl.data(admin, "print", "pt") == {"ptid": 1, "num_replicas": 1, "partitions": [
        {"partition": 0, "cells": {"S1": "UP_TO_DATE"}},
        {"partition": 1, "cells": {"S1": "UP_TO_DATE", "S2": "OUT_OF_DATE"}}]}
    assert [row["partition"] for row in ctl.data(admin, "print", "pt", "0", "0", "S2")["partitions"]] == [1]
    now = ctl.data(admin, "print", "snapshot")
    assert now["consistent"] and now["operational"] and now["table"]["ptid"] == 1 and len(now["nodes"]) == 4
    admin.on(proto.AddPendingNodes, ack("Nodes added: S3"))
    assert ctl.data(admin, "add", "S3") == {"changed": True, "message": "Nodes added: S3", "nids": ["S3"]}


def test_data_of_ids(ctl: Ctl) -> None:
    with Replay("wire-M/ctl-print-ids-after-restart") as admin:
        assert ctl.data(admin, "print", "ids") == {
            "ptid": 14, "backup_tid": None, "truncate_tid": None, "last_oid": "0000000000000192",
            "last_tid": "040d308fc1f08122", "first_tid": "040d308f61d53703",
            "last_time": "2026-11-22T15:43:45.454563+00:00"}


# ---- waiting and watching


def test_wait_for_what_was_begun(admin: FakeAdmin, ctl: Ctl) -> None:
    states = [ClusterStates.VERIFYING, ClusterStates.RUNNING]
    admin.on(proto.SetClusterState, ack("Cluster state changed"))
    admin.on(proto.AskClusterState, *[proto.AnswerClusterState(state) for state in states])
    assert ctl(admin, "--wait", "start") == (0, "Cluster state changed\n", "")
    assert len(admin.asked_of(proto.AskClusterState)) == 2


def test_wait_for_a_tweak(admin: FakeAdmin, ctl: Ctl) -> None:
    rows = table({S1: UP, S2: OUT}).rows
    admin.on(proto.TweakPartitionTable, proto.AnswerTweakPartitionTable(True, rows))
    admin.on(proto.AskPartitionList, *3 * [table({S1: UP, S2: OUT})], table({S1: UP, S2: UP}, ptid=2))
    assert ctl(admin, "tweak", "--wait")[:2] == (0, "S1 R U\nS2 R O\n")


def test_wait_until_it_stopped(admin: FakeAdmin, ctl: Ctl) -> None:
    admin.on(proto.SetClusterState, ack("Cluster state changed"))
    admin.on(proto.AskClusterState, proto.AnswerClusterState(ClusterStates.STOPPING), not_ready)
    assert ctl(admin, "--wait", "set", "cluster", "stopping")[0] == 0


def test_wait_that_ends_before(admin: FakeAdmin, ctl: Ctl) -> None:
    admin.on(proto.SetNodeState, ack("state changed"))
    for seconds in ("1", "5", "25"):                # see in_time
        status, out, err = ctl(admin, "--wait", "--timeout", seconds, "kill", "S2")
        if out:
            break
    assert (status, out) == (5, "state changed\n") and "time is up" in err


def test_watch_prints_changes(admin: FakeAdmin, ctl: Ctl) -> None:
    states = [ClusterStates.RECOVERING, ClusterStates.RECOVERING, ClusterStates.VERIFYING, ClusterStates.RUNNING]
    admin.on(proto.AskClusterState, *[proto.AnswerClusterState(state) for state in states])
    assert ctl(admin, "print", "cluster", "--watch", "--every", "0.001", "--count", "3")[1] == \
        "RECOVERING\nVERIFYING\nRUNNING\n"
    admin.on(proto.AskPrimary, proto.AnswerPrimary(M1))
    _, out, _ = ctl(admin, "--json", "--watch", "--count", "1", "print", "primary")
    assert out.count("\n") == 1


# ---- terminals, shells


def on_a_terminal(command: list[str], env: dict[str, str]) -> str:
    """What the command prints on a terminal of its own."""
    ours, theirs = pty.openpty()
    try:
        child = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], 20)[0]:
            try:
                said += os.read(ours, 65536)
            except OSError:                     # the last of them has closed it
                break
        assert child.wait(20) == 0, said
    finally:
        os.close(ours)
    return said.decode()


@pytest.mark.parametrize("rich", [True, False], ids=["rich", "plain"])
def test_on_a_terminal(rich: bool, admin: FakeAdmin, tmp_path: Path) -> None:
    if rich:
        pytest.importorskip("rich")
    else:
        (tmp_path / "rich").mkdir()
        (tmp_path / "rich" / "__init__.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "120"}
    base = [sys.executable, "-m", "neolink", "ctl", "-a", admin.address, "print"]
    nodes = on_a_terminal([*base, "node"], env)
    assert "since (UTC)" in nodes and "127.0.0.1:24421" in nodes
    assert ("\x1b[" in nodes) == rich
    for what in ("ids", "pt", "cluster", "primary", "snapshot"):
        assert on_a_terminal([*base, what], env).strip()
    assert "S1 R UUUU" in on_a_terminal([*base, "pt", "--lines"], env)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, ctl: Ctl) -> None:
    status, out, _ = ctl("127.0.0.1:1", "--completion", shell)
    assert status == 0 and "prune_orphan" in out and "starting_backup" in out


@pytest.mark.parametrize("words,expected", [
    ("ctl pri", "print"), ("ctl print p", "pt primary"), ("ctl set cluster sta", "starting_backup"),
    ("ctl --js", "--json"), ("p", "ping")])
def test_completion_in_bash(words: str, expected: str, ctl: Ctl) -> None:
    _, script, _ = ctl("127.0.0.1:1", "--completion", "bash")
    asked = f"COMP_WORDS=(neolink {words}); COMP_CWORD={len(words.split())}; _neolink_ctl; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", f"{script}\n{asked}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected.split()


TYPED = [("pi", "ping"), ("ctl pri", "ctl print"), ("ctl print nod", "ctl print node"), ("ctl --js", "ctl --json"),
         ("ctl print node stor", "ctl print node storage"), ("ctl prune", "ctl prune_orphan"),
         ("ctl -a localhost set cluster starting", "ctl -a localhost set cluster starting_backup")]


def typed_in(shell: list[str], prepare: str, words: str) -> str:
    """What a shell on a terminal of its own makes of "neolink WORDS", the tabulator key, and return."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "PS1": "$ ", "INPUTRC": os.devnull}
    child = subprocess.Popen(shell, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    said = ""

    def until(text: str) -> None:
        nonlocal said
        while text not in said:
            assert select.select([ours], [], [], 20)[0], said
            said += os.read(ours, 65536).decode()

    try:
        # The words are put together by the shell, so that the echo of the line is not taken for what it prints.
        os.write(ours, f"{prepare}; neolink() {{ echo '<''<'$*'>''>'; }}; echo rea''dy\n".encode())
        until("ready")
        os.write(ours, f"neolink {words}\t\n".encode())
        until(">>")
        return said.rpartition("<<")[2].partition(">>")[0]
    finally:
        child.kill()
        child.wait()
        os.close(ours)


@pytest.mark.parametrize("words,expected", TYPED)
@pytest.mark.parametrize("shell", [["bash", "--norc", "--noprofile", "-i"], ["zsh", "-f", "-i"]],
                         ids=lambda shell: str(shell[0]))
def test_completion_at_the_keyboard(shell: list[str], words: str, expected: str, ctl: Ctl, tmp_path: Path) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"no {shell[0]} on this machine")
    (tmp_path / "completion").write_text(ctl("127.0.0.1:1", "--completion", shell[0])[1])
    assert typed_in(shell, f"source {tmp_path}/completion", words).rstrip() == expected


@pytest.mark.parametrize("words,expected", [*TYPED, ("ctl print p", "ctl print primary"), ("ctl print p", "ctl print pt")])
def test_completion_in_fish(words: str, expected: str, ctl: Ctl, tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish on this machine")
    (tmp_path / "completion").write_text(ctl("127.0.0.1:1", "--completion", "fish")[1])
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(["fish", "--no-config", "-c", f"source {tmp_path}/completion; complete -C 'neolink {words}'"],
                          env=env, capture_output=True, text=True, timeout=60, check=True)
    assert expected.split()[-1] in [line.split("\t")[0] for line in done.stdout.splitlines()], done


def test_a_reader_that_goes_away(admin: FakeAdmin) -> None:
    """`neolink ctl print node | true`"""
    command = [sys.executable, "-m", "neolink", "ctl", "-a", admin.address, "print", "node"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    child.wait(20)
