"""Guests with disks in a cluster of Ceph, which is played: it is silent, they are fenced.

What a real one does is in tests/ceph.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native import images
from tests.native.images import POOL, new_cluster
from tests.sim.conftest import PROCESSES, XVDA, Machine, running_machine
from tests.sim.test_operator import xbbctl
from tests.sim.test_store import at_work
from tests.sim.test_takeover import check_work, kill, start
from tests.waiting import GIVE_UP, eventually, patience
from xbbd_bsd.errors import HostError
from xbbd_bsd.toolstack import DiskOffer, remove

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images.build(tmp_path_factory.mktemp("library")).parent


@pytest.fixture
def cluster(
    tmp_path: Path, image: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """With that image, for daemons to come."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    made = new_cluster(tmp_path)
    os.link(image, made / POOL / "disk")
    yield made
    (made / "silent").unlink(missing_ok=True)


def section(cluster: Path, more: str = "") -> str:
    conf = cluster / "ceph.conf"
    return f'[store.db]\nuri = "rbd:{POOL}/disk"\nconf = "{conf}"\n{more}'


@pytest.fixture
def machine(cluster: Path) -> Iterator[Machine]:
    with running_machine(section(cluster, "[disk]\nresize_interval = 1\n")) as made:
        yield made


def test_the_daemon_is_killed_under_load(machine: Machine, cluster: Path, image: Path) -> None:
    """The next one has the dead one's lock, and nothing of that one comes late."""
    guest = at_work(machine)
    lock = cluster / POOL / "disk.lock"
    for n in (1, 2):
        dead = lock.read_text()
        kill(machine)
        start(machine)
        machine.log_line(rf"(?s)(taken over.*){{{n}}}")
        guest.event("progress")
        assert dead in (cluster / "blocked").read_text().splitlines()
        assert lock.read_text() != dead
        guest.event("progress")
    assert str(cluster) not in machine.log()
    check_work(machine, guest, image)
    eventually(lambda: not lock.exists(), "the lock is given back")


def test_a_daemon_that_leaves(machine: Machine, cluster: Path, image: Path) -> None:
    guest = at_work(machine)
    machine.daemon.signal(signal.SIGUSR1)
    assert machine.daemon.wait() == 0
    start(machine)
    machine.log_line("taken over: 1 ring, 0 requests in flight")
    guest.event("progress")
    check_work(machine, guest, image)


def test_who_is_shut_out_stops(machine: Machine, cluster: Path) -> None:
    guest = at_work(machine)
    with (cluster / "blocked").open("a") as blocked:
        blocked.write((cluster / POOL / "disk.lock").read_text() + "\n")
    machine.log_line("another client has taken it")
    guest.event("backend closing", GIVE_UP)
    assert not [name for name in os.listdir(machine.chain.layout.run) if "lost" in name]


def test_a_silent_cluster_is_the_problem_of_one(
    machine: Machine, cluster: Path, tmp_path: Path
) -> None:
    guest = at_work(machine)
    (cluster / "silent").touch()
    machine.log_line("hangs: requests at the disk")
    assert int(xbbctl(machine, "-n", "dev.xbbd.0.hung_seconds")) >= 5
    other = tmp_path / "other.img"
    other.write_bytes(bytes(1 << 20))
    second = machine.connected(other, domid=2)
    second.tell("exercise operations=500")
    assert second.event("exercised")["mismatches"] == 0
    (cluster / "silent").unlink()
    machine.log_line("goes on: requests at the disk")
    guest.event("progress")


def test_a_silent_cluster_keeps_no_daemon(cluster: Path) -> None:
    with running_machine(section(cluster)) as machine:
        guest = at_work(machine)
        (cluster / "silent").touch()
        machine.log_line("hangs: requests at the disk")  # a guest may just have had all answers
        begun = time.monotonic()
        machine.daemon.signal(signal.SIGTERM)
        assert machine.daemon.wait() == 1
        assert time.monotonic() - begun < patience(30)
        guest.event("exercised", GIVE_UP)


def test_it_grows_and_shrinks(machine: Machine, cluster: Path, image: Path) -> None:
    guest = at_work(machine)
    size = image.stat().st_size
    os.truncate(image, 2 * size)
    machine.log_line(f"has {2 * size // 512} sectors")
    guest.event("progress")
    os.truncate(image, size)
    machine.log_line(f"has {size // 512} sectors")
    guest.event("progress")
    check_work(machine, guest, image)


def test_another_client_has_it(cluster: Path) -> None:
    """Another guest's is told so by us, another computer's by the cluster."""
    with running_machine(section(cluster)) as machine:
        (cluster / POOL / "disk.lock").write_text(f"played/{os.getpid()}/0")
        machine.guest(1)
        with pytest.raises(HostError, match="another client has its lock"):
            machine.attach(DiskOffer(1, XVDA, "store:db"))
        (cluster / POOL / "disk.lock").unlink()
        remove(machine.chain.store, machine.offers.pop())


def test_names_that_cannot_be_had(machine: Machine, cluster: Path) -> None:
    machine.guest(1)
    for name, reason in (
        ("rbd:xbbd", "must be like rbd:POOL/IMAGE"),
        ("rbd:xbbd/disk:id=admin:key=secret", "without options"),
        ("rbd:xbbd/disk", "configuration cannot be read"),
        ("rbd:xbbd/disk@then", "can be read only"),
    ):
        with pytest.raises(HostError, match=reason) as failed:
            machine.attach(DiskOffer(1, XVDA, name))
        assert "secret" not in str(failed.value)
        assert str(cluster) not in str(failed.value)
        remove(machine.chain.store, machine.offers.pop())
    assert "secret" not in machine.log()


def test_no_process_of_a_guest_has_one(cluster: Path) -> None:
    with running_machine(PROCESSES + section(cluster)) as machine:
        machine.guest(1)
        with pytest.raises(HostError, match="serve the image by NBD"):
            machine.attach(DiskOffer(1, XVDA, "store:db"))
        remove(machine.chain.store, machine.offers.pop())


def test_an_image_takes_the_place_of_a_file_and_back(
    machine: Machine, cluster: Path, image: Path, tmp_path: Path
) -> None:
    """As it is moved into a cluster, and out of it, while its guest is at work."""
    guest = at_work(machine)
    lock = cluster / POOL / "disk.lock"
    for new, store in ((tmp_path / "file", ""), (image, "store:db")):
        xbbctl(machine, "pause", "0")
        if new != image:
            shutil.copyfile(image, new)
        else:
            shutil.copyfile(tmp_path / "file", image)
        xbbctl(machine, "swap", "0", store or str(new))
        xbbctl(machine, "resume", "0")
        assert lock.exists() == bool(store)
        guest.event("progress")
        guest.event("progress")
    kill(machine)
    start(machine)
    machine.log_line("taken over")
    guest.event("progress")
    check_work(machine, guest, image)
