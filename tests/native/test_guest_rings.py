"""Rings of a connection that are served elsewhere, as the family of disks has them."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from errno import EPROTO
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import open_descriptors
from tests.native.guests import BOUNDS, Disk, disk, near
from tests.native.ring import HV, SANITIZED
from tests.native.slots import REQ_PROD, RawRing
from tests.waiting import GIVE_UP, eventually, patience
from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.block.rings import fault_of, named
from xbbd_bsd.errands import Threads
from xbbd_bsd.errors import GuestError, HostError
from xbbd_bsd.guests.service import GuestProcesses, Loss, Terms
from xbbd_bsd.guests.watch import Watch
from xbbd_bsd.host import RingDescriptors
from xbbd_bsd.native import Abi, Op, QueueParams, QueueState, StopReason
from xbbd_bsd.native.addition import DISKS
from xbbd_bsd.native.link import DeviceState, Link
from xbbd_bsd.native.processes import Confinement
from xbbd_bsd.remoterings import RemoteRings
from xbbd_bsd.ringset import OfferedRing

pytestmark = pytest.mark.slow

DOMID = 7


class Daemon:
    """As much of one as this takes: a loop, processes, and who looks at them."""

    def __init__(self, directory: str) -> None:
        self.loop = asyncio.new_event_loop()
        confinement = Confinement(confined=not SANITIZED)
        self.guests = GuestProcesses(
            directory, lambda: Terms(HV, BOUNDS, 0, confinement=confinement)
        )
        self.losses: list[Loss] = []
        self.watch = Watch(self.guests, self.loop, Threads(self.loop), self.losses.append)
        self.calls = 0

    def woken(self) -> None:
        self.calls += 1

    def connect(self, served: Disk, *, adopt: bool = False) -> RemoteRings:
        """By a thread, as an errand is."""

        def make(number: int, given: RingDescriptors, wake: int, held: ExitStack) -> QueueParams:
            return replace(
                served.params,
                ring=number,
                ring_refs=served.fronts[number].ring_refs,
                grant_fd=given.grants,
                event_fd=given.events,
                adopt=adopt,
            )

        rings: RemoteRings = self.run(
            lambda: RemoteRings(
                offered_by(served),
                make,
                kind=DISKS,
                fault_of=fault_of,
                host=Simulated(served),  # type: ignore[arg-type]
                domid=DOMID,
                segment=served.state,
                unit=3,
                link=self.guests.reach(DOMID, "web", limit=GIVE_UP),
                adopts=adopt,
                limit=GIVE_UP,
            )
        )
        rings.listen(lambda woken: self.watch.subscribe(DOMID, woken), self.woken)
        return rings

    def run(self, work: Callable[[], Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(asyncio.to_thread(work), GIVE_UP))

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Run the loop until something holds; it is looked at when somebody is woken."""

        async def wait() -> None:
            while not holds():
                await asyncio.sleep(0.005)

        try:
            self.loop.run_until_complete(asyncio.wait_for(wait(), patience(15)))
        except TimeoutError:
            pytest.fail(f"not in time: {what}")

    def close(self) -> None:
        self.watch.close()
        self.guests.leave()
        self.until(lambda: not self.guests.close_past(), "its servers end")
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


def offered_by(served: Disk) -> dict[int, OfferedRing]:
    """What its frontend offers."""
    return {
        number: OfferedRing(number + 1, named(number, RingParams(number + 1, front.ring_refs)))
        for number, front in enumerate(served.fronts)
    }


class Simulated:
    """A host's part in that: it opens what a ring needs."""

    grant_path = ""

    def __init__(self, served: Disk) -> None:
        self._served = served

    def open_ring(self, domid: int, port: int, grants: int = -1) -> RingDescriptors:
        assert domid == DOMID
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(self._served.listeners[port - 1].getsockname())
        channel.setblocking(False)
        if grants < 0:
            grants = os.dup(self._served.domain_fd)
        return RingDescriptors(grants, channel.detach())


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    before = open_descriptors()
    made = Daemon(near(tmp_path))
    yield made
    made.close()
    assert open_descriptors() == before


def test_served_drained_and_closed(daemon: Daemon, tmp_path: Path) -> None:
    with disk(tmp_path, rings=2) as d:
        rings = daemon.connect(d)
        assert rings.status.state is QueueState.RUNNING
        assert rings.fault is None
        d.exercise(300, ring=1)
        rings.drain()
        daemon.until(lambda: rings.status.state is QueueState.DRAINED, "it drains")
        assert daemon.calls > 0
        assert rings.fault is None
        daemon.run(rings.close)
        daemon.watch.forget(DOMID)


def take_drained(daemon: Daemon, rings: RemoteRings) -> None:
    """Whoever asks the process for something else hears that they have drained."""
    link = daemon.guests.link(DOMID)
    assert link is not None
    rings.drain()
    eventually(lambda: link.look(limit=GIVE_UP) != {} and is_drained(link), "they drain")


def is_drained(link: Link) -> bool:
    return link.reports[3].state == DeviceState.DRAINED


def test_what_another_thread_has_taken_is_heard(daemon: Daemon, tmp_path: Path) -> None:
    """The loop is told, for nothing is left for it to read."""
    with disk(tmp_path) as d:
        rings = daemon.connect(d)
        daemon.until(lambda: daemon.calls > 0, "it listens")
        daemon.calls = 0
        take_drained(daemon, rings)
        daemon.until(lambda: daemon.calls > 0, "it hears of it")
        daemon.run(rings.close)
        daemon.watch.forget(DOMID)


def test_what_a_look_for_the_dead_has_taken_is_heard(daemon: Daemon, tmp_path: Path) -> None:
    """Which is had whenever the process of any guest says something."""
    with disk(tmp_path) as d:
        rings = daemon.connect(d)
        daemon.until(lambda: daemon.calls > 0, "it listens")
        link = daemon.guests.link(DOMID)
        assert link is not None
        daemon.calls = 0
        rings.drain()
        eventually(lambda: bool(select.select([link], [], [], 0)[0]), "it is answered")
        eventually(lambda: daemon.guests.look() == [] and is_drained(link), "they drain")
        daemon.until(lambda: daemon.calls > 0, "it hears of it")
        daemon.run(rings.close)
        daemon.watch.forget(DOMID)


def test_what_was_said_before_is_heard(daemon: Daemon, tmp_path: Path) -> None:
    """Whoever begins to listen is told once."""
    with disk(tmp_path) as d:
        rings = daemon.connect(d)
        take_drained(daemon, rings)
        daemon.run(lambda: None)
        late: list[int] = []
        rings.listen(lambda woken: daemon.watch.subscribe(DOMID, woken), lambda: late.append(1))
        daemon.until(lambda: bool(late), "it hears of it")
        daemon.run(rings.close)
        daemon.watch.forget(DOMID)


def test_a_ring_that_lies_is_named(daemon: Daemon, tmp_path: Path) -> None:
    with disk(tmp_path, rings=2) as d:
        rings = daemon.connect(d)
        d.fronts[1].transfer(Op.READ, 0, 1, bytearray(512))
        raw = RawRing(d.fronts[1], Abi.NATIVE)
        raw.set_index(REQ_PROD, raw.index(REQ_PROD) + 33)
        d.fronts[1].notify()
        daemon.until(lambda: rings.status.state is QueueState.DRAINED, "they end")
        assert (rings.status.reason, rings.status.errno) == (StopReason.RING, EPROTO)
        assert isinstance(rings.fault, GuestError)
        assert str(rings.fault).startswith("ring 1 (reference ")
        del raw
        daemon.run(rings.close)
        daemon.watch.forget(DOMID)


def test_its_process_dies_and_they_are_adopted(daemon: Daemon, tmp_path: Path) -> None:
    """Nothing is lost of what was under way, and the daemon hears of it by itself."""
    with disk(tmp_path, patience=GIVE_UP) as d:
        rings = daemon.connect(d)
        failed: list[OSError] = []

        def write(sector: int) -> None:
            try:
                d.fronts[0].transfer(Op.WRITE, sector, 8, bytearray(b"y" * 4096), timeout=GIVE_UP)
            except OSError as error:
                failed.append(error)

        write(0)
        daemon.guests.kill(DOMID)
        thread = threading.Thread(target=write, args=(8,))
        daemon.until(lambda: rings.lost is not None, "its end is heard")
        thread.start()
        daemon.until(lambda: bool(daemon.losses), "its end is told")
        assert daemon.losses[0].domid == DOMID
        assert rings.status.state is QueueState.DRAINED
        rings.drain()  # which is no error
        rings.close()  # nor this

        again = daemon.connect(d, adopt=True)
        thread.join(GIVE_UP)
        assert not failed
        assert d.file.read_bytes()[:8192] == b"y" * 8192
        daemon.run(again.close)
        daemon.watch.forget(DOMID)


def test_the_next_daemon_goes_on_with_what_is_served(tmp_path: Path) -> None:
    """Without adopting anything: the rings have never stopped."""
    with disk(tmp_path) as d, ExitStack() as stack:
        first = Daemon(near(tmp_path))
        first.connect(d)
        first.close()
        d.exercise(300)
        second = Daemon(near(tmp_path))
        stack.callback(second.close)
        link = None

        def is_in() -> bool:
            nonlocal link
            try:
                link = second.guests.reach(DOMID, "web", limit=GIVE_UP)
            except HostError:
                return False
            return True

        second.until(is_in, "the former daemon is forgotten")
        assert link is not None
        assert 3 in link.reports
        second.run(lambda: link.close_device(3, limit=GIVE_UP))
        second.watch.forget(DOMID)
