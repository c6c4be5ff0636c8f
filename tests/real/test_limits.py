"""How much processor time a guest's process gets on a real kernel, and where it runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.dom0 import DOM0
from tests.lab.domu import sh
from tests.real import work
from tests.real.service import Service, command, eventually
from tests.real.work import Bench, process

bench = work.bench
pytestmark = [
    pytest.mark.more,
    pytest.mark.skipif(DOM0.name != "linux", reason="looks on in control groups, in /proc"),
]


@pytest.fixture
def limited(service: Service, tmp_path: Path) -> Iterator[tuple[Service, Path]]:
    """The daemon with a process for each guest, in the root of control groups, and these."""
    mount = tmp_path / "groups"
    mount.mkdir()
    if command("mount", "-t", "cgroup2", "none", str(mount)).returncode != 0:
        pytest.skip("dom0 has no control groups of version 2")
    try:
        if "cpu" not in (mount / "cgroup.controllers").read_text().split():
            pytest.skip("dom0 has the controller cpu elsewhere")
        service.begin_anew('[guest]\nprocesses = true\ncpus = "0"\ncpu_percent = 5')
        service.mark()
        yield service, mount / "xbbd"
        service.begin_anew("")
    finally:
        sh("umount", "-l", str(mount))


def test_a_guests_process_has_its_limits(limited: tuple[Service, Path], bench: Bench) -> None:
    service, groups = limited
    with bench.guest_at_work(service) as guest:
        group = groups / f"guest.{guest.domid}"
        pid = process(service)
        assert (group / "cgroup.procs").read_text().split() == [str(pid)]
        assert (group / "cpu.max").read_text().split() == ["5000", "100000"]
        assert "Cpus_allowed_list:\t0\n" in Path(f"/proc/{pid}/status").read_text()

        def throttled() -> bool:
            found = re.search(r"^nr_throttled (\d+)$", (group / "cpu.stat").read_text(), re.M)
            return found is not None and int(found[1]) > 5

        eventually(throttled, "it has had all that it may")
    eventually(lambda: not group.exists(), "its group goes when it has ended", 120)
