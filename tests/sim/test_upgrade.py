"""A daemon of another version leaves its guests at work, and one of this goes on; and back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.lab.dom0 import DOM0
from tests.sim import earlier
from tests.sim.conftest import PROCESSES, Machine, running_machine
from tests.sim.test_end import state_of
from tests.sim.test_operator import xbbctl
from tests.sim.test_restart import leave, reads
from tests.sim.test_takeover import OPTIONS, PATIENT, at_work, check_work, kill, start
from tests.waiting import eventually, lives

pytestmark = pytest.mark.slow

EARLIER = "tests.sim.earlier"


@pytest.fixture(scope="module")
def another_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return earlier.of_another_version(tmp_path_factory.mktemp("version"))


@pytest.fixture
def before(another_version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons of that module are of the other version."""
    monkeypatch.setenv(earlier.DIRECTORY, str(another_version))


def start_other(machine: Machine) -> None:
    machine.daemon = machine.chain.start_daemon(EARLIER)


def build_of(pid: int) -> str:
    """The extension that a process has loaded."""
    found = re.search(r"\S*/xbbd_bsd/native/_xbb\S*", "\n".join(DOM0.mappings(pid)))
    assert found is not None
    return found[0]


def pid_of_server(machine: Machine, unit: int = 0) -> int:
    return int(xbbctl(machine, "-n", f"dev.xbbd.{unit}.process"))


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("options", [OPTIONS["rings"], in_more(OPTIONS["persistent"])])
def test_another_version_goes_on_after_a_clean_hand_over(
    image: Path, options: tuple[str, ...], another_version: Path
) -> None:
    """Up and down again, with what was agreed, and counters that go on."""
    with running_machine(daemon=EARLIER) as machine:
        guest = at_work(machine, image, *options)
        assert str(another_version) in build_of(machine.daemon.pid)
        done = 0
        for n, begin in enumerate((start, start_other, start), 1):
            leave(machine)
            assert sorted(machine.segments()) == ["xbbd.0"]
            begin(machine)
            machine.log_line(rf"(?s)(taken over: \d rings?, 0 requests in flight\n.*){{{n}}}")
            reads(guest)
            assert state_of(machine) == "4"
            before, done = done, int(xbbctl(machine, "-n", "dev.xbbd.0.reqs_completed"))
            assert done > before
        assert "of no use" not in machine.log()
        kill(machine)  # and what stands in the store is this version's by now
        start(machine)
        machine.log_line(r"(?s)(taken over.*){4}")
        check_work(machine, guest, image)


@pytest.mark.usefixtures("before")
def test_after_a_death_another_version_is_an_obstacle_that_is_said(image: Path) -> None:
    with running_machine(daemon=EARLIER) as machine:
        machine.connected(image, *PATIENT, "--hold")
        kill(machine)
        start(machine)
        machine.log_line("xbbd.0: left by an earlier daemon, and of no use: ")
        eventually(lambda: state_of(machine) == "5", "the guest is told")


@pytest.mark.usefixtures("before")
@pytest.mark.parametrize("rings", [in_more("1"), "4"])
def test_processes_of_another_version_hand_over(
    image: Path, rings: str, another_version: Path
) -> None:
    with running_machine(PROCESSES, EARLIER) as machine:
        second = image.with_suffix(".2")
        second.write_bytes(image.read_bytes())
        guest = at_work(machine, image, "--queues", rings)
        other = at_work(machine, second, domid=2)
        pids = {pid_of_server(machine, unit) for unit in (0, 1)}
        assert all(str(another_version) in build_of(pid) for pid in pids)
        leave(machine)
        reads(guest)  # nobody waits
        start(machine)
        machine.log_line(r"(?s)(taken over: \d rings?, 0 requests in flight\n.*){2}")
        reads(guest)
        reads(other)
        eventually(lambda: not any(map(lives, pids)), "the old processes have ended")
        assert str(earlier.ROOT) in build_of(pid_of_server(machine))
        check_work(machine, guest, image, 0)
        check_work(machine, other, second, 1)
        assert not list(Path(machine.chain.layout.run).glob("*.left"))


@pytest.mark.usefixtures("before")
def test_a_process_of_another_version_has_died_meanwhile(image: Path) -> None:
    """It left requests unanswered, which nobody can read."""
    with running_machine(PROCESSES, EARLIER) as machine:
        guest = at_work(machine, image)
        pid = pid_of_server(machine)
        leave(machine)
        os.kill(pid, signal.SIGKILL)
        start(machine)
        machine.log_line(r"must connect again \(another version left requests unanswered\)")
        eventually(lambda: state_of(machine) == "5", "the guest is told")
        eventually(lambda: machine.mapped() == 0, "nobody serves it")
        guest.signal(signal.SIGKILL)


def can_follow() -> bool:
    """Whether there is a commit before, of one that leaves guests at work as we do."""
    words = ["git", "-C", str(earlier.ROOT), "cat-file", "-e", "HEAD~1:xbbd_bsd/block/passport.py"]
    try:
        return subprocess.run(words, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def commit_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return earlier.of_commit(tmp_path_factory.mktemp("commit"), "HEAD~1")


@pytest.mark.more
@pytest.mark.skipif(not can_follow(), reason="there is no commit before that could be followed")
@pytest.mark.parametrize("config", ["", PROCESSES], ids=["here", "processes"])
def test_from_the_commit_before(
    image: Path, commit_before: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    monkeypatch.setenv(earlier.DIRECTORY, str(commit_before))
    with running_machine(config, EARLIER) as machine:
        guest = at_work(machine, image, "--queues", "2", "--persistent")
        assert str(commit_before) in build_of(pid_of_server(machine))
        leave(machine)
        start(machine)
        machine.log_line("taken over: 2 rings")
        reads(guest)
        check_work(machine, guest, image)
