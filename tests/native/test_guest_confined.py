"""What code that has taken over a guest's process can do: serve its disks, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from errno import EMFILE, ENOENT, ENOSYS, EPERM
from pathlib import Path

import pytest

from tests.native.guestcards import guest_card
from tests.native.guests import BOUNDS, Server, disk, near, worker
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import HvKind, QueueState
from xbbd_bsd.native.link import Link
from xbbd_bsd.native.packets import listen_at
from xbbd_bsd.native.processes import Confinement

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="what capsicum leaves differs"),
]

ROOT = Path(__file__).parents[2]
# By a directory that it has the simulator's process opens files: see hv.h.
OF_FILES = {"open by a descriptor"}
# A filter lets that pass, and root's process finds an empty directory.
BY_PATH = {"open by a descriptor and a path", "see a file"}
FOUND = ENOENT if os.geteuid() == 0 else 0
# What needs no more than to be tried where nothing confines.
COMMON = {"open a file", "make a socket", "fork", "see a process", "map memory to run"}


class Hostile:
    """A process with an adversary in it."""

    def __init__(self, path: str, orders: int, answers: int) -> None:
        self._path, self._orders, self._answers = path, orders, answers

    def connect(self) -> Link:
        links: list[Link] = []

        def listens() -> bool:
            link = Link.connect(self._path)
            try:
                link.meet(limit=GIVE_UP)
                link.hello(BOUNDS, idle_seconds=600, limit=GIVE_UP)
            except HostError:
                link.close()
                return False
            links.append(link)
            return True

        eventually(listens, "the process listens")
        return links[0]

    def attack(self) -> dict[str, int]:
        """What it tries, and the errno that it gets for it."""
        os.write(self._orders, b"!")
        said = b""
        while piece := os.read(self._answers, 65536):
            said += piece
        return {
            what: int(errnum)
            for what, _, errnum in (line.partition("\t") for line in said.decode().splitlines())
        }


@contextmanager
def hostile(tmp_path: Path, hv: HvKind, *, confined: bool, grants: int = -1) -> Iterator[Hostile]:
    orders, order = os.pipe()
    answer, answers = os.pipe()
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    with listen_at(near(tmp_path / "guest")) as listener:
        passed = [listener.fileno(), orders, answers, directory]
        numbers = [int(hv), int(confined), *passed, grants]
        passed += [grants] if grants >= 0 else []
        words = [sys.executable, "-m", "tests.native.hostile", *map(str, numbers)]
        process = subprocess.Popen(words, pass_fds=passed, cwd=ROOT)
    for fd in (orders, answers, directory):
        os.close(fd)
    try:
        yield Hostile(near(tmp_path / "guest"), order, answer)
    finally:
        process.kill()
        process.wait()
        os.close(order)
        os.close(answer)


def test_hostile_code_is_refused_everything_while_its_guest_is_served(tmp_path: Path) -> None:
    with disk(tmp_path) as d, hostile(tmp_path, HvKind.SIM, confined=True) as found:
        link = found.connect()
        device = d.serve(link)
        d.exercise(300)
        refused = found.attack()
        left = {what: n for what, n in refused.items() if n not in (EPERM, ENOSYS)}
        assert {what: left.pop(what) for what in BY_PATH} == dict.fromkeys(BY_PATH, FOUND)
        assert left.keys() == OF_FILES
        assert refused["clone3"] == ENOSYS
        assert len(refused) == 31
        d.exercise(300)  # and goes on being served
        assert device.status(0).state is QueueState.RUNNING
        device.close(limit=GIVE_UP)
        link.close()


def test_what_a_card_needs_is_left_to_it(tmp_path: Path) -> None:
    with guest_card(tmp_path, queues=2) as c, hostile(tmp_path, HvKind.SIM, confined=True) as found:
        link = found.connect()
        device = c.serve(link)
        c.pass_frames(1, 2)
        assert all(n != 0 for what, n in found.attack().items() if what not in OF_FILES | BY_PATH)
        c.pass_frames(3, 4)
        device.close(limit=GIVE_UP)
        link.close()


def test_on_real_xen_it_opens_no_file_by_a_directory_either(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    with hostile(tmp_path, HvKind.XEN, confined=True) as found:
        link = found.connect()
        refused = found.attack()
        left = {what: n for what, n in refused.items() if n not in (EPERM, ENOSYS)}
        assert left == {"see a file": FOUND}
        link.look(limit=GIVE_UP)
        link.close()


def test_without_being_confined_it_could(tmp_path: Path) -> None:
    """So that what is refused above is refused by that."""
    (tmp_path / "disk").touch()
    with hostile(tmp_path, HvKind.XEN, confined=False) as found:
        found.connect().close()
        tried = found.attack()
        assert {
            what for what, errnum in tried.items() if errnum == 0
        } >= COMMON | OF_FILES | BY_PATH


def test_one_that_has_opened_the_grant_device_itself(tmp_path: Path) -> None:
    """As it must where only who has opened it may map; it is given none, and all rings use it."""
    with (
        disk(tmp_path, rings=2) as d,
        hostile(tmp_path, HvKind.SIM, confined=True, grants=d.domain_fd) as found,
    ):
        link = found.connect()
        with pytest.raises(HostError, match="not as many descriptors"):
            d.serve(link)
        d.params = replace(d.params, grant_fd=-1)
        for _ in range(2):
            device = d.serve(link)
            d.exercise(200, ring=0)
            d.exercise(200, ring=1)
            device.close(limit=GIVE_UP)
        link.close()


def test_limits_and_another_user(served: Server, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    left = Confinement(uid=12345, gid=54321, descriptors=64, address_space=1 << 30)
    with worker(served, tmp_path / "guest", confinement=left) as made:
        made.connect().close()
        status = Path(f"/proc/{made.pid}/status").read_text()
        for line in ("Uid:\t12345\t12345\t12345", "Gid:\t54321\t54321\t54321", "Groups:\t \n",
                     "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):  # fmt: skip
            assert line in status
        limits = Path(f"/proc/{made.pid}/limits").read_text()
        assert [line.split()[3:5] for line in limits.splitlines() if "open files" in line] == [
            ["64", "64"]
        ]


def test_one_that_is_short_of_descriptors_says_so_and_serves_on(
    served: Server, tmp_path: Path
) -> None:
    left = Confinement(descriptors=20)
    with (
        disk(tmp_path, "a") as a,
        disk(tmp_path, "b", rings=4) as b,
        worker(served, tmp_path / "guest", confinement=left) as made,
    ):
        link = made.connect()
        device = a.serve(link, 1)
        with pytest.raises(HostError) as short:
            b.serve(link, 2)
        assert short.value.errno == EMFILE
        a.exercise(200)
        device.close(limit=GIVE_UP)
        link.close()
