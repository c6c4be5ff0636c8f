"""Guests, and rings alone, with disks in a real cluster of Ceph: `make test-ceph`."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ceph.cluster import POOL, Cluster
from tests.ceph.old_client import SIZE
from tests.native.images import Image
from tests.native.ring import ring
from tests.sim.conftest import XVDA, Machine, running_machine
from tests.sim.test_operator import xbbctl
from tests.sim.test_store import at_work
from tests.sim.test_takeover import kill, start
from tests.waiting import GIVE_UP, eventually, patience
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import Op, RbdImage
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer, remove

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture
def name(cluster: Cluster) -> str:
    """A fresh image."""
    made = uuid.uuid4().hex
    cluster.create(made, SIZE)
    return made


def section(cluster: Cluster, name: str) -> str:
    store = f'[store.db]\nuri = "rbd:{POOL}/{name}"\nconf = "{cluster.conf}"\n'
    return f"{store}[disk]\nresize_interval = 1\n"


@pytest.fixture
def machine(cluster: Cluster, name: str) -> Iterator[Machine]:
    with running_machine(section(cluster, name)) as made:
        yield made


def check_work(machine: Machine, guest: Guest, cluster: Cluster, name: str) -> None:
    assert machine.chain.detach(machine.offers[0])
    done = guest.event("exercised", GIVE_UP)
    wrong = ("errors", "mismatches", "bad_responses", "still_mapped")
    assert {name: done[name] for name in wrong} == dict.fromkeys(wrong, 0)
    assert done["model_sha256"] == hashlib.sha256(cluster.content(name)).hexdigest()


def test_what_every_store_does(cluster: Cluster) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", "rbd", "tests/native/test_stores.py"],
        cwd=ROOT,
        env={**os.environ, "XBBD_TEST_CEPH_CONF": str(cluster.conf)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " skipped" not in done.stdout


def test_one_thread_has_the_answers(machine: Machine) -> None:
    """And not two, which librados would have."""
    at_work(machine)
    threads = Path(f"/proc/{machine.daemon.pid}/task").glob("*/comm")
    assert [comm.read_text() for comm in threads].count("io_context_pool\n") == 1


def test_an_osd_that_stands_still(machine: Machine, cluster: Cluster, name: str) -> None:
    """It is seen, and hurts nobody else."""
    guest = at_work(machine)
    cluster.signal_osd(signal.SIGSTOP)
    try:
        machine.log_line("hangs: requests at the disk")
        assert int(xbbctl(machine, "-n", "dev.xbbd.0.hung_seconds")) >= 5
    finally:
        cluster.signal_osd(signal.SIGCONT)
    machine.log_line("goes on: requests at the disk")
    guest.event("progress")
    check_work(machine, guest, cluster, name)


def test_an_osd_that_is_killed(machine: Machine, cluster: Cluster, name: str) -> None:
    guest = at_work(machine)
    cluster.kill_osd()
    cluster.start_osd()
    guest.event("progress", GIVE_UP)
    guest.event("progress", GIVE_UP)
    check_work(machine, guest, cluster, name)


def test_the_daemon_is_killed_under_load(machine: Machine, cluster: Cluster, name: str) -> None:
    guest = at_work(machine)
    for n in (1, 2):
        kill(machine)
        start(machine)
        machine.log_line(rf"(?s)(taken over.*){{{n}}}")
        guest.event("progress")
        guest.event("progress")
    assert "127.0.0.1" in cluster.ceph("osd", "blocklist", "ls")
    assert str(cluster.directory) not in machine.log()
    check_work(machine, guest, cluster, name)


def test_a_daemon_that_leaves(machine: Machine, cluster: Cluster, name: str) -> None:
    guest = at_work(machine)
    machine.daemon.signal(signal.SIGUSR1)
    assert machine.daemon.wait() == 0
    start(machine)
    machine.log_line("taken over: 1 ring, 0 requests in flight")
    guest.event("progress")
    check_work(machine, guest, cluster, name)


def test_the_daemon_ends_though_an_osd_stands_still(cluster: Cluster, name: str) -> None:
    with running_machine(section(cluster, name)) as machine:
        guest = at_work(machine)
        cluster.signal_osd(signal.SIGSTOP)
        try:
            machine.log_line("hangs: requests at the disk")  # a guest may just have had all answers
            begun = time.monotonic()
            machine.daemon.signal(signal.SIGTERM)
            assert machine.daemon.wait() == 1
            assert time.monotonic() - begun < patience(30)
            guest.event("exercised", GIVE_UP)
        finally:
            cluster.signal_osd(signal.SIGCONT)


def test_it_is_resized(machine: Machine, cluster: Cluster, name: str) -> None:
    guest = at_work(machine)
    cluster.rbd("resize", "--size", str(2 * SIZE >> 20), f"{POOL}/{name}")
    machine.log_line(f"has {2 * SIZE // 512} sectors")
    guest.event("progress")
    cluster.rbd("resize", "--allow-shrink", "--size", str(SIZE >> 20), f"{POOL}/{name}")
    machine.log_line(f"has {SIZE // 512} sectors")
    guest.event("progress")
    check_work(machine, guest, cluster, name)


def test_another_computer_has_it(machine: Machine, cluster: Cluster, name: str) -> None:
    """It is told so, and has it once that one has gone."""
    other = Image(RbdImage(POOL, name, conf=str(cluster.conf)), Path("/nowhere"))
    other.open()
    try:
        machine.guest(1)
        with pytest.raises(HostError, match="another client has its lock"):
            machine.attach(DiskOffer(1, XVDA, "store:db"))
        remove(machine.chain.store, machine.offers.pop())
        eventually(lambda: not machine.segments(), "it is forgotten")
    finally:
        other.close()


def test_who_stood_still_is_refused(cluster: Cluster, name: str, tmp_path: Path) -> None:
    """With writes out; another takes its place, and what it has to say later is in vain."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    command = [sys.executable, "-m", "tests.ceph.old_client", str(tmp_path / "old")]
    with subprocess.Popen(
        [*command, str(cluster.conf), name], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as old:
        assert old.stdout is not None
        holder = old.stdout.readline().strip()
        eventually(lambda: b"o" in cluster.content(name), "it writes")
        cluster.signal_osd(signal.SIGSTOP)
        old.send_signal(signal.SIGSTOP)
        cluster.signal_osd(signal.SIGCONT)
        wanted = RbdImage(POOL, name, conf=str(cluster.conf))
        image = Image(wanted, tmp_path / "new" / "disk", former=holder)
        with ring(tmp_path / "new", size=SIZE, image=image) as r:
            r.front.transfer(Op.WRITE, 0, SIZE // 512, bytearray(b"n" * SIZE))
            r.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
            old.send_signal(signal.SIGCONT)
            assert old.stdout.readline() == "MEDIUM\n"
            assert old.wait(GIVE_UP) == 0
            back = bytearray(SIZE)
            r.front.transfer(Op.READ, 0, SIZE // 512, back)
            assert back == b"n" * SIZE
    assert cluster.content(name) == b"n" * SIZE
