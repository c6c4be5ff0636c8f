"""A machine with a daemon for each test, and the proof that nothing is left of it.

Everything is a process of its own.  When the test is over, guests and offers
are taken away, and the daemon must hold what it held before: no mapped grant,
no event channel, no state segment, no descriptor and no thread more.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from errno import ENOENT
from pathlib import Path
from typing import Any

import pytest

from tests.sim.small import Small, mounted_at
from tests.waiting import at_rest, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import State, sim_mapped
from xbbd_bsd.sim.chain import Chain, Guest, Process
from xbbd_bsd.toolstack import DiskOffer, remove

XVDA = 51712
# The files that play a guest's memory are ours.
PROCESSES = f'[guest]\nprocesses = true\nuser = "{pwd.getpwuid(os.geteuid()).pw_name}"\n'


def command_lines() -> str:
    """What runs on this computer; ps(1) is spelled alike everywhere."""
    return subprocess.run(["ps", "-axww", "-o", "args"], capture_output=True, text=True).stdout


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A TMPDIR short enough for sockets; a command under test must leave nothing in it."""
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        path = Path(directory)
        yield path
        assert list(path.iterdir()) == []
        assert directory not in command_lines()


LOGGING: list[Machine] = []  # whose log a failure shows


class Machine:
    """A chain with a running daemon, and what the test did to it."""

    def __init__(self, chain: Chain, daemon: str) -> None:
        self.chain = chain
        self.daemon: Process = chain.start_daemon(daemon)
        self.offers: list[DiskOffer] = []
        self.guests: list[Guest] = []
        eventually(lambda: "serving" in self.log(), "the daemon serves")
        self.base = at_rest(self.daemon.pid, self.holds)

    def log(self) -> str:
        """What the daemon has logged."""
        return Path(self.daemon.log).read_text()

    @contextmanager
    def log_in_failures(self) -> Iterator[None]:
        """What fails meanwhile shows what the daemon has logged, also where this is a fixture's."""
        LOGGING.append(self)
        try:
            yield
        except Exception as error:
            error.add_note(self.log())
            raise
        finally:
            LOGGING.remove(self)

    def log_line(self, pattern: str) -> None:
        """Wait for a line in the daemon's log."""
        eventually(lambda: re.search(pattern, self.log()) is not None, f"log line {pattern}")

    def holds(self) -> dict[str, int]:
        """What the daemon's process holds, as far as the platform tells."""
        found = {}
        for name, directory in (("descriptors", "fd"), ("threads", "task")):
            path = f"/proc/{self.daemon.pid}/{directory}"
            if os.path.isdir(path):
                found[name] = len(os.listdir(path))
        if not found and shutil.which("procstat"):  # FreeBSD: one line a descriptor, or thread
            for name, option in (("descriptors", "-f"), ("threads", "-t")):
                shown = subprocess.run(
                    ["procstat", "-h", option, str(self.daemon.pid)], capture_output=True
                )
                found[name] = len(shown.stdout.splitlines())
        return found

    def descriptors(self) -> list[str]:
        """What the daemon's descriptors are, on Linux: to be read in a failure."""
        directory = f"/proc/{self.daemon.pid}/fd"
        found = []
        if os.path.isdir(directory):
            for fd in sorted(os.listdir(directory), key=int):
                with suppress(FileNotFoundError):  # closed meanwhile
                    found.append(f"{fd} {os.readlink(os.path.join(directory, fd))}")
        return found

    def check_held(self) -> None:
        """The daemon holds what it did in the beginning."""
        try:
            eventually(lambda: self.holds() == self.base, "as in the beginning")
        except AssertionError as error:
            error.add_note(f"{self.base} held first, now {self.holds()}: {self.descriptors()}")
            raise

    def guest(self, domid: int, *options: str, vdev: int = XVDA) -> Guest:
        """A guest that waits for its disk."""
        guest = self.chain.start_guest(domid, vdev, *options)
        self.guests.append(guest)
        return guest

    def attach(self, offer: DiskOffer) -> None:
        """Offer a disk; HostError with the backend's reason."""
        self.offers.append(offer)
        self.chain.attach(offer)

    def connected(self, image: Path, *options: str, domid: int = 1, mode: str = "w") -> Guest:
        """A guest with a disk."""
        guest = self.guest(domid, *options)
        self.attach(DiskOffer(domid, XVDA, str(image), mode=mode))
        guest.event("connected")
        return guest

    def node(self, path: str) -> str | None:
        """A node of the store as text."""
        value = self.chain.store.get(path)
        return None if value is None else value.decode()

    def state(self, unit: int = 0) -> State:
        """The state segment of a device; the test closes it."""
        return State.open(self.chain.layout.state_segment(unit), writable=True)

    def mapped(self) -> int:
        """Grants mapped of all living domains."""
        count = 0
        for domid in os.listdir(self.chain.layout.domains):
            try:
                fd = os.open(os.path.join(self.chain.layout.domains, domid), os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                count += sim_mapped(fd)
            except HostError as error:
                if error.errno != ENOENT:  # as in a domain that is just being removed
                    raise
            finally:
                os.close(fd)
        return count

    def segments(self) -> list[str]:
        """The state segments there are."""
        return [name for name in os.listdir(self.chain.layout.run) if re.match(r"xbbd\.\d+$", name)]

    def check_nothing_left(self) -> None:
        """Take everything away; the daemon must notice and hold nothing more."""
        for offer in self.offers:
            remove(self.chain.store, offer)
        if self.daemon.child.poll() is None:
            eventually(lambda: not self.segments(), "no state segment left")
            eventually(lambda: self.mapped() == 0, "no grant mapped")
            self.check_held()
            assert self.daemon.stop() == 0, self.log()
        assert "internal error" not in self.log().lower(), self.log()
        assert "Traceback" not in self.log(), self.log()
        assert "[Errno" not in self.log(), self.log()
        for guest in self.guests:  # at once: one may wait for what nobody answers any more
            guest.signal(signal.SIGKILL)
            guest.wait()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    """A failure under which machines of fixtures still run shows their logs."""
    report = (yield).get_result()
    if report.failed:
        report.sections += [("What a daemon has logged", machine.log()) for machine in LOGGING]


@contextmanager
def running_machine(config: str = "", daemon: str = "xbbd_bsd.daemon") -> Iterator[Machine]:
    """A machine whose daemon runs with this configuration; afterwards nothing may be left.

    `daemon` is the module that is its program.
    """
    with Chain(config) as chain:
        running = Machine(chain, daemon)
        with running.log_in_failures():
            yield running
            running.check_nothing_left()


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A running machine; afterwards nothing may be left."""
    with running_machine() as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk of 4 MiB with something on it."""
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(4 << 20))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    """A disk on a file system that is soon full."""
    with mounted_at(tmp_path / "small") as found:
        yield found
