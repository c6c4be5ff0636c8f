"""Network cards in the process of their guest, beside its disks; and who dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.native.guestcards import GuestCard, guest_card
from tests.native.guests import (
    BOUNDS,
    Server,
    Worker,
    disk,
    lock_is_free,
    near,
    wait_lost,
    worker,
)
from tests.native.ring import HV, SANITIZED
from tests.native.test_guest_process import can_greet
from tests.unit.family_bench import at_once
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.guests.claims import Claims
from xbbd_bsd.guests.service import GuestProcesses, Terms
from xbbd_bsd.guests.watch import Watch
from xbbd_bsd.native import QueueState, StopReason
from xbbd_bsd.native.addition import CARDS, DISKS
from xbbd_bsd.native.link import DeviceState, Link
from xbbd_bsd.native.processes import Confinement
from xbbd_bsd.native.remote import RemoteDevice

pytestmark = pytest.mark.slow

CARD3 = CARDS.number(3)


def threads_of_cards(process: Worker) -> set[str]:
    return {name for name in process.threads if re.match(r"xnb\d", name)}


def counted(card: GuestCard) -> tuple[int, int]:
    """Packets each way; a frame is there before it is counted."""
    counters = card.state.counters()
    return counters["tx_packets"], counters["rx_packets"]


def test_a_card_and_a_disk_of_one_number(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path) as d, guest_card(tmp_path, queues=2) as c:
        link = process.connect()
        before = process.descriptors
        devices = [d.serve(link, 3), c.serve(link, 3)]
        rings = {"xnb3 ring0", "xnb3 ring1"}
        eventually(lambda: threads_of_cards(process) == rings, "they have their names")
        assert {n: r.state for n, r in link.look(limit=GIVE_UP).items()} == {
            3: DeviceState.RUNNING,
            CARD3: DeviceState.RUNNING,
        }
        d.exercise(200)
        c.pass_frames(1, 2, 3)
        eventually(lambda: counted(c) == (6, 6), "they are counted")
        assert not lock_is_free(c.state.path)
        devices[1].close(limit=GIVE_UP)
        assert lock_is_free(c.state.path)
        assert link.look(limit=GIVE_UP).keys() == {3}
        d.exercise(200)
        devices[0].close(limit=GIVE_UP)
        assert process.descriptors == before
        link.close()


def test_numbers_of_devices_are_units_of_their_families() -> None:
    """A disk's is its unit, as for processes that know disks only."""
    assert [kind.number(7) for kind in (DISKS, CARDS)] == [7, (1 << 30) + 7]


def test_one_device_goes_before_the_other_is_adopted(tmp_path: Path) -> None:
    """The process is where it was, for the daemon that adopts the other one later, or the next."""
    loop = asyncio.new_event_loop()
    confined = Confinement(confined=not SANITIZED)
    guests = [
        GuestProcesses(near(tmp_path), lambda: Terms(HV, BOUNDS, 600, confinement=confined))
        for _ in range(2)
    ]
    with disk(tmp_path) as d, guest_card(tmp_path) as c:
        link = guests[0].reach(7, "web", limit=GIVE_UP)
        d.serve(link, 3)
        c.serve(link, 3)
        guests[0].leave()
        claims = Claims(Watch(guests[1], loop, at_once, lambda loss: None))
        found: list[Link] = []

        def is_found() -> bool:
            with suppress(HostError):
                found.append(guests[1].reach(7, "web", limit=GIVE_UP))
            return bool(found)

        eventually(is_found, "the former daemon is forgotten")
        claims.claim(7, 3)
        RemoteDevice(found[0], 3, d.state, 1).close(limit=GIVE_UP)
        claims.forget(7, 3)
        assert os.path.exists(guests[1].path(7))
        c.pass_frames(1)
        claims.claim(7, CARD3)
        assert guests[1].reach(7, "web", limit=GIVE_UP) is found[0]
        RemoteDevice(found[0], CARD3, c.state, 1).close(limit=GIVE_UP)
        claims.forget(7, CARD3)
        assert not os.path.exists(guests[1].path(7))
        claims.close()
    for made in guests:
        eventually(lambda made=made: not made.close_past(), "its server has ended")  # type: ignore[misc]
    loop.close()


def test_the_daemon_dies_and_frames_go_on(process: Worker, tmp_path: Path) -> None:
    with guest_card(tmp_path) as c:
        link = process.connect()
        c.serve(link)
        c.pass_frames(1)
        link.close()
        c.pass_frames(2)
        eventually(lambda: can_greet(process), "the next daemon is let in")
        c.pass_frames(3)
        next_one = process.connect()
        assert next_one.reports[CARD3].state == DeviceState.RUNNING
        RemoteDevice(next_one, CARD3, c.state, 1).close(limit=GIVE_UP)
        next_one.close()


def test_its_process_is_killed_and_another_one_goes_on(served: Server, tmp_path: Path) -> None:
    with guest_card(tmp_path, queues=2) as c:
        with worker(served, tmp_path / "one") as one:
            link = one.connect()
            c.serve(link)
            c.pass_frames(1, 2)
            os.kill(one.pid, signal.SIGKILL)
            wait_lost(link)
            link.close()
        assert c.state.served == [0, 1]
        with worker(served, tmp_path / "two") as two:
            link = two.connect()
            device = c.serve(link, adopt=True)
            c.pass_frames(3, 4)
            device.close(limit=GIVE_UP)
            link.close()


def test_it_is_handed_over(served: Server, tmp_path: Path) -> None:
    """As to a process of another build: the segment goes on saying that it is served."""
    with (
        guest_card(tmp_path) as c,
        worker(served, tmp_path / "one") as one,
        worker(served, tmp_path / "two") as two,
    ):
        former, link = one.connect(), two.connect()
        c.serve(former)
        c.pass_frames(1)
        former.quiesce(CARD3, limit=GIVE_UP)
        assert (c.state.served, lock_is_free(c.state.path)) == ([0], True)
        device = c.serve(link, adopt=True)
        c.pass_frames(2)
        device.close(limit=GIVE_UP)
        assert c.state.served == []
        former.close()
        link.close()


def test_queues_end_together_and_no_other_device_does(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path) as d, guest_card(tmp_path, queues=2) as c:
        link = process.connect()
        other, device = d.serve(link, 1), c.serve(link)
        c.pass_frames(1)
        device.drain()

        def has_drained() -> bool:
            link.receive()
            return device.report.state == DeviceState.DRAINED

        eventually(has_drained, "both queues end")
        assert device.report.reason == StopReason.NONE
        assert [device.status(n).state for n in (0, 1)] == [QueueState.DRAINED] * 2
        d.exercise(100)
        device.close(limit=GIVE_UP)
        other.close(limit=GIVE_UP)
        link.close()


def test_a_card_has_nothing_to_lend(process: Worker, tmp_path: Path) -> None:
    """Nobody locks an interface: whoever goes on opens it anew."""
    with guest_card(tmp_path) as c:
        link = process.connect()
        device = c.serve(link)
        assert link.give(CARD3, limit=GIVE_UP) == []
        device.close(limit=GIVE_UP)
        link.close()


def test_its_interface_is_waited_for(process: Worker, tmp_path: Path) -> None:
    with guest_card(tmp_path) as c:
        link = process.connect()
        device = c.serve(link)

        def has_rested() -> bool:
            link.receive()
            return c.state.counters()["ring_sleeps"] > 0 or link.lost is not None

        eventually(has_rested, "it has nothing to do")
        assert link.lost is None
        device.close(limit=GIVE_UP)
        link.close()
