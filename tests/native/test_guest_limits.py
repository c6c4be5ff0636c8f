"""On which processors a guest's process runs: all its threads, those of rings too."""

from __future__ import annotations

import os
import sys
from errno import EINVAL
from pathlib import Path

import pytest

from tests.native.guests import Server, disk, near, worker
from tests.waiting import GIVE_UP
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import HvKind
from xbbd_bsd.native.link import listen_at
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
        left = Confinement(cpus=frozenset(cpus))
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
