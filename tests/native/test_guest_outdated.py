"""Guests' processes of another build: they hand over, device by device, and end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EBUSY
from pathlib import Path

import pytest

from tests.native.guests import Disk, disk, lock_is_free, near
from tests.native.test_guest_service import (
    adopt,
    clock,
    guests,
    ours,
    pid_of,
    reach,
    sockets,
    terms,
)
from tests.waiting import GIVE_UP, eventually, lives
from xbbd_bsd.errors import HostError
from xbbd_bsd.guests import outdated, service
from xbbd_bsd.guests.outdated import Outdated
from xbbd_bsd.guests.service import GuestProcesses
from xbbd_bsd.native.link import BUILD, DeviceState, Link
from xbbd_bsd.native.remote import RemoteDevice

__all__ = ["clock", "guests"]  # fixtures

pytestmark = pytest.mark.slow


@contextmanager
def rebuilt(former: GuestProcesses, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuestProcesses]:
    """The next daemon, of another build than the processes that it finds."""
    former.leave()
    monkeypatch.setattr(service, "BUILD", BUILD ^ 1)
    with ours(GuestProcesses(former._directory, terms)) as guests:
        yield guests


@contextmanager
def two_disks(guests: GuestProcesses, tmp_path: Path) -> Iterator[tuple[Disk, Disk]]:
    """Devices 1 and 2 of guest 7, in one process."""
    with disk(tmp_path, "a", patience=GIVE_UP) as a, disk(tmp_path, "b", patience=GIVE_UP) as b:
        link = guests.reach(7, "web", limit=GIVE_UP)
        a.serve(link, 1)
        b.serve(link, 2)
        yield a, b


def ended(pid: int) -> bool:
    return not lives(pid)


def wait_met(left: Outdated) -> None:
    """Until the one that was left talks to us, and says that it has device 1."""

    def is_met() -> bool:
        left.find(GIVE_UP)
        return left.holder(1) is not None

    eventually(is_met, "it is met")


def end_process(died: GuestProcesses) -> None:
    """Guest 7's, of a daemon that is gone."""
    link = Link.connect(died.path(7))
    link.meet(limit=GIVE_UP)
    link.bye(limit=GIVE_UP)
    link.close()


def test_one_of_another_build_hands_over_device_by_device(
    guests: GuestProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves what it still has, and ends with the last."""
    with two_disks(guests, tmp_path) as (a, b):
        pid = pid_of(guests, 7)
        with rebuilt(guests, monkeypatch) as later:
            first = adopt(a, later, 1)
            assert pid_of(later, 7) not in (0, pid)
            assert (holder := later.holder(7, 2, limit=GIVE_UP)) is not None
            assert holder.process.pid == pid
            assert sockets(later) == ["guest.7", "guest.7.1"]
            a.exercise(50)
            b.exercise(50)
            assert later.devices(7)
            second = adopt(b, later, 2)
            assert second.link is first.link
            eventually(lambda: ended(pid), "the old one has ended")
            assert sockets(later) == ["guest.7"]
            b.exercise(50)
            first.close(limit=GIVE_UP)
            second.close(limit=GIVE_UP)
            assert not later.devices(7)


def test_one_of_another_build_that_takes_its_time_hands_over_all_the_same(
    guests: GuestProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has by the time that it is asked again, and with nothing unanswered."""
    with disk(tmp_path, patience=GIVE_UP) as d:
        d.serve(guests.reach(7, "web", limit=GIVE_UP), 1)
        with rebuilt(guests, monkeypatch) as later:
            reach(later)
            monkeypatch.setattr(outdated, "LIMIT", 0.0)
            with pytest.raises(HostError, match="has not answered all requests") as busy:
                later.hand_over(7, 1, limit=GIVE_UP)
            assert busy.value.errno == EBUSY
            eventually(lambda: lock_is_free(d.state.path), "it has handed over")
            eventually(lambda: later.holder(7, 1, limit=GIVE_UP) is None, "and has said so")
            assert later.hand_over(7, 1, limit=GIVE_UP)
            assert not later.hand_over(7, 1, limit=GIVE_UP), "nobody has it any more"
            assert sockets(later) == ["guest.7"]


def test_a_daemon_that_dies_while_devices_are_handed_over(
    guests: GuestProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes next finds both processes, and goes on where that one was."""
    with two_disks(guests, tmp_path) as (a, b):
        pid = pid_of(guests, 7)
        guests.leave()
        monkeypatch.setattr(service, "BUILD", BUILD ^ 1)
        dies = GuestProcesses(near(tmp_path), terms)
        adopt(a, dies, 1)
        monkeypatch.undo()
        dies.leave()
        next_one = GuestProcesses(near(tmp_path), terms)
        link = reach(next_one)
        assert link.reports[1].state == DeviceState.RUNNING
        assert sockets(next_one) == ["guest.7", "guest.7.1"]
        second = adopt(b, next_one, 2)
        eventually(lambda: ended(pid), "the old one has ended")
        RemoteDevice(link, 1, a.state, 1).close(limit=GIVE_UP)
        second.close(limit=GIVE_UP)
        next_one.forget(7)
        next_one.leave()
        eventually(lambda: not next_one.close_past() and not dies.close_past(), "servers end")


def test_one_of_another_build_that_dies_first(
    guests: GuestProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with disk(tmp_path, patience=GIVE_UP) as d:
        d.serve(guests.reach(7, "web", limit=GIVE_UP), 1)
        pid = pid_of(guests, 7)
        with rebuilt(guests, monkeypatch) as later:
            reach(later)
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: lock_is_free(d.state.path), "nobody serves it")
            device = adopt(d, later, 1)
            d.exercise(50)
            device.close(limit=GIVE_UP)


def test_one_that_has_not_noticed_that_it_was_left_is_met_later(
    guests: GuestProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was set aside, and has the connection of whoever did that still."""
    with disk(tmp_path) as d:
        d.serve(guests.reach(7, "web", limit=GIVE_UP), 1)
        with rebuilt(guests, monkeypatch) as dies:
            reach(dies)
            left = Outdated(dies.path(7))
            left.find(GIVE_UP)
            assert left.holder(1) is None
            dies.leave()
            wait_met(left)
            left.find(GIVE_UP)
            left.drop(1, limit=GIVE_UP)
            assert not left.devices
            eventually(lambda: sockets(dies) == ["guest.7"], "it is sent away")
            end_process(dies)


def test_one_that_hangs_is_tried_often_and_not_taken_for_gone(
    guests: GuestProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries that were given up wait to be accepted.  Once there are too many, connect(2) says on
    FreeBSD what it says where nobody listens.
    """
    with disk(tmp_path) as d:
        d.serve(guests.reach(7, "web", limit=GIVE_UP), 1)
        pid = pid_of(guests, 7)
        with rebuilt(guests, monkeypatch) as dies:
            reach(dies)
            left = Outdated(dies.path(7))
            os.kill(pid, signal.SIGSTOP)
            try:
                for _ in range(40):
                    Link.connect(f"{dies.path(7)}.1").close()
            finally:
                os.kill(pid, signal.SIGCONT)
            dies.leave()
            wait_met(left)
            left.drop(1, limit=GIVE_UP)
            eventually(lambda: ended(pid), "the old one has ended")
            end_process(dies)


def test_what_nobody_goes_on_with_is_given_back_by_whoever_has_it(
    guests: GuestProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with disk(tmp_path) as d:
        d.serve(guests.reach(7, "web", limit=GIVE_UP), 1)
        pid = pid_of(guests, 7)
        with rebuilt(guests, monkeypatch) as later:
            reach(later)
            later.drop(7, 1, limit=GIVE_UP)
            assert d.mapped == 0
            assert not later.devices(7)
            eventually(lambda: ended(pid), "the old one has ended")
