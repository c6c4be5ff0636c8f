"""Errors of a server, as opposed to its absence: each policy, on what nbdkit fails on purpose.

It fails as long as a file is there, and the connection lives on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.circumstances import in_more
from tests.native.stores import Server, require_nbdkit
from tests.sim.conftest import PROCESSES, Machine, running_machine
from tests.sim.test_operator import tool, values, xbbctl
from tests.sim.test_pause import all_back, paused, resume, silent, wait_paused
from tests.sim.test_store import at_work, connected, section
from tests.sim.test_swap import copied
from tests.sim.test_takeover import check_work
from tests.waiting import GIVE_UP, eventually

pytestmark = pytest.mark.slow


class Flaky:
    """A server that fails what it is told to, while `fails`."""

    def __init__(self, temporary: Path, image: Path, what: str, errno: str) -> None:
        require_nbdkit("error")
        self._switch = temporary / "fails"
        self.server = Server(temporary)
        self.server.start(
            *("-e", "db", "--filter=error", "file", str(image)),
            *(f"error-{what}={errno}", f"error-{what}-rate=100%"),
            f"error-{what}-file={self._switch}",
        )

    def fail(self) -> None:
        self._switch.touch()

    def heal(self) -> None:
        self._switch.unlink(missing_ok=True)

    def end(self) -> None:
        self.heal()
        self.server.kill()
        self.server.socket.unlink()


Makes = Callable[[str, str], Flaky]


@pytest.fixture
def flaky(temporary: Path, image: Path) -> Iterator[Makes]:
    made: list[Flaky] = []

    def make(what: str, errno: str) -> Flaky:
        made.append(Flaky(temporary, image, what, errno))
        return made[-1]

    yield make
    for one in made:
        one.end()


@contextmanager
def machine_of(flaky: Flaky, disk: str, by: str = "") -> Iterator[Machine]:
    with running_machine(f"{by}[disk]\n{disk}{section(flaky.server)}") as machine:
        yield machine


def count(machine: Machine, name: str) -> int:
    found = values(machine, "dev.xbbd.0")[f"dev.xbbd.0.{name}"]
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("by", ["", in_more(PROCESSES)], ids=["daemon", "process"])
@pytest.mark.parametrize(
    ("what", "errno", "key", "words"),
    [
        ("pwrite", "ENOSPC", "on_full", r"write of .* No space left on device \(ENOSPC\)"),
        ("pread", "EIO", "on_error", r"read of .* Input/output error \(EIO\)"),
    ],
)
def test_a_pause(
    flaky: Makes, image: Path, by: str, what: str, errno: str, key: str, words: str
) -> None:
    """Nothing fails, and nothing is forgotten, however often it is tried too early."""
    bad = flaky(what, errno)
    with machine_of(bad, f'{key} = "pause"\n', by) as machine:
        guest = at_work(machine)
        bad.fail()
        wait_paused(machine)
        machine.log_line(f"paused, its guest waits: {words}")
        silent(machine)
        resume(machine)
        wait_paused(machine)
        all_back(machine)
        bad.heal()
        resume(machine)
        guest.event("progress")
        guest.event("progress")
        assert paused(machine) == ""
        assert count(machine, "reconnects") == 0
        check_work(machine, guest, image)


def test_a_pause_ends_with_another_disk(flaky: Makes, image: Path) -> None:
    bad = flaky("pwrite", "EIO")
    with machine_of(bad, 'on_error = "pause"\n') as machine:
        guest = at_work(machine)
        bad.fail()
        wait_paused(machine)
        new = copied(image)
        assert xbbctl(machine, "swap", "xbbd0", str(new)) == ""
        assert paused(machine) == ""
        guest.event("progress")
        guest.event("progress")
        check_work(machine, guest, new)


@pytest.mark.parametrize("what", ["pread", "pwrite"])
def test_it_is_tried_again(flaky: Makes, image: Path, what: str) -> None:
    bad = flaky(what, "EIO")
    with machine_of(bad, 'on_error = "retry"\n') as machine:
        guest = at_work(machine)
        bad.fail()
        eventually(lambda: count(machine, "io_retries") > 3, "it is tried again")
        bad.heal()
        guest.event("progress")
        guest.event("progress")
        check_work(machine, guest, image)


def test_a_full_one_is_tried_for_no_time(flaky: Makes, image: Path) -> None:
    """Where errors are tried again, want of room is a pause."""
    bad = flaky("pwrite", "ENOSPC")
    with machine_of(bad, 'on_error = "retry"\n') as machine:
        guest = at_work(machine)
        bad.fail()
        wait_paused(machine)
        all_back(machine)
        bad.heal()
        resume(machine)
        guest.event("progress")
        check_work(machine, guest, image)


def test_a_report(flaky: Makes) -> None:
    """The request alone fails; what comes after it does not."""
    bad = flaky("pwrite", "EIO")
    with machine_of(bad, 'on_error = "report"\n') as machine:
        guest = connected(machine)
        bad.fail()
        guest.tell("exercise operations=200 depth=4")
        assert guest.event("exercised", GIVE_UP)["errors"] != 0
        machine.log_line(r"write of .* of store:db failed: Input/output error \(EIO\)")
        bad.heal()
        guest.tell("exercise operations=200 depth=4")
        assert guest.event("exercised", GIVE_UP)["errors"] == 0
        assert count(machine, "errors.write") != 0
        assert "store:db" in tool(machine, "xbbctl", "health").stdout


def test_an_end(flaky: Makes) -> None:
    bad = flaky("pread", "EIO")
    with machine_of(bad, 'on_error = "stop"\n') as machine:
        at_work(machine)
        bad.fail()
        machine.log_line("the disk has failed, and is to stop then: Input/output error")
        state = f"{machine.offers[0].backend}/state"
        # The guest waits half a minute for its requests before it looks up.
        eventually(lambda: machine.node(state) == "6", "Closed", GIVE_UP)
