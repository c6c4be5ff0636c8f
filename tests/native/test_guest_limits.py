"""On which processors a guest's process runs, with all its threads, and for how long."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from errno import EINVAL
from pathlib import Path

import pytest

from tests.native.guests import Server, disk, near, server, worker
from tests.native.ring import SANITIZED
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.host.cgroups import mounted_at
from xbbd_bsd.native import HvKind
from xbbd_bsd.native.packets import listen_at
from xbbd_bsd.native.processes import Confinement, how_it_ended

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc says on which"),
]


def allowed(pid: int) -> set[str]:
    """What the kernel says of each thread of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    lines = (line for task in tasks for line in (task / "status").read_text().splitlines())
    return {line.split()[1] for line in lines if line.startswith("Cpus_allowed_list")}


def test_each_thread_keeps_to_the_processors_that_are_named(served: Server, tmp_path: Path) -> None:
    """And one of which none is named runs wherever its server may."""
    everywhere = allowed(os.getpid())
    last = max(os.sched_getaffinity(0))
    for name, cpus, found in (
        ("first", {0}, {"0"}),
        ("last", {last}, {str(last)}),
        ("all", set(), everywhere),
    ):
        left = Confinement(cpus=frozenset(cpus), confined=not SANITIZED)
        with (
            disk(tmp_path, name, rings=2) as d,
            worker(served, tmp_path / f"guest-{name}", confinement=left) as made,
        ):
            link = made.connect()
            device = d.serve(link)
            d.exercise(200, ring=0)
            d.exercise(200, ring=1)
            assert len(os.listdir(f"/proc/{made.pid}/task")) >= 3
            assert allowed(made.pid) == found
            device.close(limit=GIVE_UP)
            link.close()


def test_nobody_runs_elsewhere_because_there_is_no_such_processor(
    served: Server, tmp_path: Path
) -> None:
    with listen_at(near(tmp_path / "guest")) as listener:
        serial = served.processes.start(
            "x",
            listener,
            hv=HvKind.SIM,
            idle_seconds=600,
            confinement=Confinement(cpus=frozenset({1023})),
        )
        pid = served.wait_for(serial)
        assert how_it_ended(served.wait_end(pid)) == "left with status 71"
        with pytest.raises(HostError, match="processors are 0 to 1023") as refused:
            served.processes.start(
                "x",
                listener,
                hv=HvKind.SIM,
                idle_seconds=600,
                confinement=Confinement(cpus=frozenset({0, 1024})),
            )
        assert refused.value.errno == EINVAL


class Place:
    """A file that a process is to write 0 to, and whether anybody has that place."""

    def __init__(self, path: Path, flags: int = os.O_WRONLY) -> None:
        self.path = path
        self.fd = os.open(path, flags | os.O_CLOEXEC)
        self.removed = 0

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        os.close(self.fd)

    def remove(self) -> None:
        self.removed += 1


def start(served: Server, path: Path, place: Place | None, percent: int = 50) -> int:
    """A process that nobody talks to; its number."""
    left = Confinement(cpu_percent=percent, confined=not SANITIZED)
    with listen_at(near(path)) as listener:
        serial = served.processes.start(
            "x", listener, hv=HvKind.SIM, idle_seconds=600, confinement=left, place=place
        )
    return served.wait_for(serial)


def test_a_process_is_in_its_place_before_anything_else(served: Server, tmp_path: Path) -> None:
    (tmp_path / "procs").touch()
    place = Place(tmp_path / "procs")
    pid = start(served, tmp_path / "guest", place, 0)
    eventually(lambda: (tmp_path / "procs").read_text() == "0", "it is there")
    assert place.removed == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(place.fd)
    served.processes.kill(pid)
    served.wait_end(pid)
    assert place.removed == 1


@pytest.mark.parametrize("placed", [True, False])
def test_without_its_limit_it_does_not_begin(served: Server, tmp_path: Path, placed: bool) -> None:
    """It cannot go where it should, or there is no such place, or the kernel does not count."""
    (tmp_path / "procs").touch()
    place = Place(tmp_path / "procs", os.O_RDONLY) if placed else None
    pid = start(served, tmp_path / "guest", place)
    assert how_it_ended(served.wait_end(pid)) == "left with status 71"
    assert place is None or place.removed == 1


def test_a_process_that_is_not_even_asked_for(served: Server, tmp_path: Path) -> None:
    (tmp_path / "procs").touch()
    place = Place(tmp_path / "procs")
    with (
        listen_at(near(tmp_path / "guest")) as listener,
        pytest.raises(HostError, match="too long"),
    ):
        served.processes.start(
            "x", listener, hv=HvKind.SIM, idle_seconds=1, grant_path="/" + "x" * 99, place=place
        )
    assert place.removed == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(place.fd)


def test_places_of_whom_nobody_will_tell(tmp_path: Path) -> None:
    (tmp_path / "procs").touch()
    with server() as served:
        place = Place(tmp_path / "procs")
        pid = start(served, tmp_path / "guest", place, 0)
        os.kill(pid, 0)
        assert place.removed == 0
    assert place.removed == 1, "which a group with a process in it ignores"
    os.kill(pid, 9)


def test_a_real_control_group(served: Server, tmp_path: Path) -> None:
    """Whatever controllers it has: who is in it, and that it can be taken away at once."""
    mount = mounted_at()
    group = Path(mount or "/", f"xbbd-test.{os.getpid()}")
    with suppress(OSError):
        if mount is not None:
            group.mkdir()
    if not (group / "cgroup.procs").exists():
        pytest.skip("no control group can be made here")
    try:
        place = Place(group / "cgroup.procs")
        pid = start(served, tmp_path / "guest", place, 0)
        eventually(
            lambda: f"0::/{group.name}" in Path(f"/proc/{pid}/cgroup").read_text().splitlines(),
            "it is in its group",
        )
        assert (group / "cgroup.procs").read_text().split() == [str(pid)]
        with pytest.raises(OSError, match="busy"):
            group.rmdir()
        served.processes.kill(pid)
        served.wait_end(pid)
        assert place.removed == 1
    finally:
        group.rmdir()
