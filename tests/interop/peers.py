# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""Real NEO peers as child processes: where to find them, how to start them, how to end them.

Nothing here knows neolink: a peer is started, watched and ended with the operating system's means and the peer's own
control tool, so that a fault in neolink shows in a test and not in its set-up.

Which peers there are is up to the machine. A peer is used when it is installed, or when the environment points at it:

=========================  ==========================================================================================
NEOLINK_NEOPY              path of a NEO/py checkout (wire M)
NEOLINK_NEOPY_PYTHON       the interpreter to run it with; alone: an interpreter that can import NEO/py
NEOLINK_NEOPY_PYTHON2      a Python 2.7 that can run the checkout: its nodes open wire M in a form of their own
NEOLINK_NEO112_PYTHON      a Python 2.7 that can import neoppod 1.12 (wire N)
NEOLINK_NEOGO              a folder with prebuilt Go test programs, see GoProgram
=========================  ==========================================================================================

Without these, the interpreter that runs the tests and the one behind a `neomaster` on PATH are asked for the package
`neo`. What is not found is skipped, with the reason.
"""
from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

Address = tuple[str, int]

START_SECONDS = 30.0        # a cluster is up in about 2 s; the rest is for a loaded machine
ZODB_SECONDS = 60.0         # NEO/py's client waits for its masters for ever
END_SECONDS = 10.0          # between asking a process to end and ending it
POLL_SECONDS = 0.02         # how often a condition is looked at

# Answers "M 5" or "N 6". Only the generation M keeps its opening as a packet; runs on Python 2 and 3.
_PROBE = """
from neo.lib import protocol as p
print('%s %d' % ('M' if hasattr(p, 'HANDSHAKE_PACKET') else 'N', p.PROTOCOL_VERSION))
"""


class PeerFailure(Exception):
    """A peer did not start, or died. The text has what it printed."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    """Look at `condition` until it holds; PeerFailure names `what` when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise PeerFailure(f"{what}: not within {seconds:g} s")
        time.sleep(POLL_SECONDS)


@contextmanager
def free_addresses(count: int = 1) -> Iterator[list[Address]]:
    """Loopback addresses where nobody listens, held meanwhile: no socket is given one by chance, and a peer, which like
    NEO sets SO_REUSEADDR, can listen there all the same."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", 0))
        yield [s.getsockname() for s in sockets]


def join(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def numbered(name: str, nth: int) -> str:
    return f"{name}{nth + 1}" if nth else name


class Process:
    """One peer process. What it prints goes to a file, which is shown when something fails."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=subprocess.STDOUT)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def alive(self) -> bool:
        return self._popen.poll() is None

    def check_alive(self) -> None:
        if not self.alive():
            raise PeerFailure(f"{self.name} ended with status {self._popen.returncode}:\n{self.output()}")

    def output(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def wait_output(self, text: str) -> None:
        """Wait until the process has printed `text`."""
        def printed() -> bool:
            found = text in self.log.read_text(errors="replace")
            if not found:
                self.check_alive()
            return found
        wait_until(printed, f"{self.name} prints {text!r}")

    def wait_listening(self, address: Address) -> None:
        """Wait until a connect to `address` succeeds."""
        def reached() -> bool:
            self.check_alive()
            with socket.socket() as s:
                return s.connect_ex(address) == 0
        wait_until(reached, f"{self.name} listens on {join(address)}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While it is paused it reads nothing and answers nothing; its sockets stay open."""
        self._popen.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._popen.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end (SIGTERM), then insist. Fine on one that has ended."""
        self._popen.terminate()
        try:
            self._popen.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it without a chance to say good-bye."""
        self._popen.kill()
        self._popen.wait()


# ---- NEO/py ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class NeoPy:
    """An installed NEO/py: the interpreter, a checkout if it is not in the interpreter's path, and what it speaks."""

    python: str
    checkout: str | None
    wire: str = ""
    version: int = 0

    def env(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        if self.checkout:
            env["PYTHONPATH"] = self.checkout
        return env

    def command(self, program: str, *arguments: str) -> list[str]:
        # Not -m: the scripts of 1.12 do nothing when run as modules.
        return [self.python, "-c", f"from neo.scripts.{program} import main; main()", *arguments]

    def lacks_zodb(self) -> str:
        """Why zodb_client.py cannot run on this interpreter; "" if it can."""
        done = subprocess.run([self.python, "-c", "import ZODB, neo.client.Storage"], env=self.env(), cwd=os.sep,
                              capture_output=True, text=True, timeout=START_SECONDS, check=False)
        return done.stderr.strip().splitlines()[-1] if done.returncode else ""

    def zodb(self, what: str, masters: str, name: str, *more: str) -> str:
        """What zodb_client.py prints, given the masters and the name of any cluster."""
        done = subprocess.run([self.python, str(Path(__file__).with_name("zodb_client.py")), what, masters, name, *more],
                              env=self.env(), cwd=os.sep, capture_output=True, text=True, timeout=ZODB_SECONDS,
                              check=False)
        if done.returncode:
            raise PeerFailure(f"zodb_client.py {what} ended with status {done.returncode}:\n{done.stderr}")
        return done.stdout

    def probed(self) -> NeoPy | None:
        """Self with wire and version, or None when this interpreter has no NEO/py."""
        try:
            done = subprocess.run([self.python, "-c", _PROBE], env=self.env(), cwd=os.sep, capture_output=True,
                                  text=True, timeout=START_SECONDS, check=False)
        except OSError:
            return None
        if done.returncode:
            return None
        wire, version = done.stdout.split()
        return NeoPy(self.python, self.checkout, wire, int(version))


def _interpreter_on_path() -> str | None:
    """The interpreter in the first line of the `neomaster` on PATH."""
    script = shutil.which("neomaster")
    if script is None:
        return None
    with open(script, "rb") as f:
        first = f.readline().decode(errors="replace").strip()
    return first.removeprefix("#!").split()[0] if first.startswith("#!/") and "env" not in first else None


def _candidates(wire: str) -> Iterator[NeoPy]:
    checkout = os.environ.get("NEOLINK_NEOPY")
    python = os.environ.get("NEOLINK_NEOPY_PYTHON")
    if wire == "M2":
        if python := os.environ.get("NEOLINK_NEOPY_PYTHON2"):
            yield NeoPy(python, checkout)
        return
    if wire == "M" and (checkout or python):
        yield NeoPy(python or sys.executable, checkout)
    if wire == "N" and (python := os.environ.get("NEOLINK_NEO112_PYTHON")):
        yield NeoPy(python, None)
    yield NeoPy(sys.executable, None)
    if python := _interpreter_on_path():
        yield NeoPy(python, None)


def find_neopy(wire: str) -> NeoPy | None:
    """The first NEO/py on this machine that speaks `wire`; "M2" is M by nodes on Python 2."""
    return next((found for c in _candidates(wire) if (found := c.probed()) and found.wire == wire[0]), None)


class TlsFiles(NamedTuple):
    """What each node of a cluster with TLS is given; in the order of neolink.TLS."""

    ca: str
    cert: str
    key: str


def tls_options(files: TlsFiles | None) -> list[str]:
    return ["--ca", files.ca, "--cert", files.cert, "--key", files.key] if files else []


@dataclass
class Cluster:
    """A master, a storage on SQLite and an admin of NEO/py, on free loopback ports, RUNNING when start() returns.

    More of them when asked for: masters[0] and storages[0] are then `master` and `storage`. Without `autostart` the
    cluster waits in RECOVERING for its storages to be put to use. One with an `upstream` can become its backup.
    """

    software: NeoPy
    directory: Path
    tls: TlsFiles | None = None
    name: str = "test"          # the cluster name in the identification vectors
    partitions: int = 1
    replicas: int = 0
    counts: tuple[int, int] = (1, 1)    # of masters, of storages
    autostart: bool = True
    upstream: Cluster | None = None
    processes: list[Process] = field(default_factory=list)
    _held: ExitStack = field(default_factory=ExitStack, init=False, repr=False)     # the addresses

    def process(self, name: str) -> Process:
        return next(process for process in self.processes if process.name == name)

    def start(self) -> None:
        masters, storages = self.counts
        self.admin, *others = self._held.enter_context(free_addresses(1 + masters + storages))
        self.masters, self.storages = others[:masters], others[masters:]
        self.master, self.storage = self.masters[0], self.storages[0]
        try:
            for nth, address in enumerate(self.masters):
                self.run("neomaster", address, *self._master_options(), name=numbered("neomaster", nth)
                         ).wait_listening(address)
            for nth, address in enumerate(self.storages):
                name = numbered("neostorage", nth)
                self.run("neostorage", address, "-a", "SQLite", "-d", f"{name}.sqlite", name=name)
            self.run("neoadmin", self.admin).wait_listening(self.admin)
            for nth, address in enumerate(self.storages):
                self.process(numbered("neostorage", nth)).wait_listening(address)
            wait_until(self._started, "the cluster runs" if self.autostart else "the storages are there")
        except BaseException:
            self.stop()
            raise

    def _master_options(self) -> list[str]:
        options = ["-p", str(self.partitions), "-r", str(self.replicas)]
        if self.autostart:              # a new cluster starts by itself with so many storages
            options += ["-A", str(len(self.storages))]
        if self.upstream:
            options += ["-C", self.upstream.name, "-M", join(self.upstream.master)]
        return options

    def _started(self) -> bool:
        self.check_alive()
        if self.autostart:
            return self.ctl("print", "cluster").stdout.strip() == "RUNNING"
        return self.ctl("print", "node", "storage").stdout.count("PENDING") == len(self.storages)

    def all_masters(self) -> str:
        return " ".join(map(join, self.masters))

    def run(self, program: str, bind: Address, *arguments: str, master: Address | None = None,
            name: str | None = None) -> Process:
        """Start one more node of this cluster."""
        command = self.software.command(program, "-c", self.name, "-b", join(bind), "-m",
                                        join(master) if master else self.all_masters(),
                                        *tls_options(self.tls), *arguments)
        process = Process(name or program, command, self.directory, self.software.env())
        self.processes.append(process)
        return process

    def forget(self, process: Process) -> None:
        process.stop()
        if process in self.processes:
            self.processes.remove(process)

    @contextmanager
    def another(self, program: str, *arguments: str, name: str, master: Address | None = None
                ) -> Iterator[tuple[Process, Address]]:
        """One more node while the body runs, at an address of its own."""
        with free_addresses() as [address]:
            process = self.run(program, address, *arguments, name=name, master=master)
            try:
                yield process, address
            finally:
                self.forget(process)

    def start_ctl(self, *arguments: str, admin: Address | None = None,
                  tls: TlsFiles | None | Literal["cluster"] = "cluster") -> subprocess.Popen[str]:
        """neoctl as a child, for tests that play its admin. It knows no timeout: whoever starts it bounds it."""
        options = tls_options(self.tls if tls == "cluster" else tls)
        command = self.software.command("neoctl", "-a", join(admin or self.admin), *options, *arguments)
        return subprocess.Popen(command, env=self.software.env(), cwd=self.directory, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        child = self.start_ctl(*arguments)
        try:
            out, err = child.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise PeerFailure(f"neoctl {' '.join(arguments)}: no answer within {END_SECONDS:g} s") from None
        return subprocess.CompletedProcess(child.args, child.returncode, out, err)

    def check_alive(self) -> None:
        for process in self.processes:
            process.check_alive()

    def check_well(self) -> None:
        """Every process lives, and the admin and the master it asks still answer."""
        self.check_alive()
        done = self.ctl("print", "ids")
        if done.returncode:
            raise PeerFailure(f"neoctl print ids: {done.stdout}{done.stderr}")

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.processes.clear()
        self._held.close()


# ---- Go --------------------------------------------------------------------------------------------------------------

class GoProgram:
    """Small programs around the two Go implementations, prebuilt, in the folder NEOLINK_NEOGO. Their command lines:

    ``neonet-echo [-node] [-refuse] ADDRESS``
        Listens with NEO/go's package neonet and prints ``listening HOST:PORT``. Answers (Recv1, Reply) Ping with
        Pong, AskClusterState with RUNNING, AskLastTransaction with 0123456789abcdef, and AskObject(oid, at, before)
        with AnswerObject(oid, serial=at, next_serial=before, data=oid as 16 hex digits); any other message with Error.
        CloseClient closes the link. -node: behind cmux, as NEO/go's node programs are, silent until the dialer's first
        four bytes. -refuse: CloseAccept on every link.

    ``neonet-ask ADDRESS COUNT``
        Dials with neonet, asks COUNT AskObject(oid=i, at=i, before=i+1) at once (Ask1), checks oid and serial of each
        answer, prints ``ok COUNT``; or prints what went wrong to stderr and exits with status 1.

    ``proto2016-echo ADDRESS``, ``proto2016-ask ADDRESS COUNT``
        The same idea for the prototype of 2016. The echo returns every packet with bit 0x8000 set in its code; the ask
        sends COUNT packets of code 3 with i as 4-byte payload, one after another, each on a new Conn.
    """

    @staticmethod
    def find(name: str) -> str | None:
        folder = os.environ.get("NEOLINK_NEOGO")
        return shutil.which(name, path=folder) if folder else None

    @staticmethod
    def listen(directory: Path, program: str, *flags: str) -> tuple[Process, Address]:
        """Start an echo program; its process and the address it chose."""
        process = Process(Path(program).name + "".join(flags), [program, *flags, "127.0.0.1:0"], directory)
        try:
            process.wait_output("listening 127.0.0.1:")
            wait_until(lambda: "\n" in process.output(), "the whole first line")
        except PeerFailure:
            process.stop()
            raise
        host, port = process.output().split("\n", 1)[0].removeprefix("listening ").rsplit(":", 1)
        return process, (host, int(port))
