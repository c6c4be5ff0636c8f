"""Guests' processes as the daemon keeps them: found, started again, given up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from errno import EAGAIN, EBUSY, EIO
from pathlib import Path

import pytest

from tests.descriptors import descriptors_taken, open_descriptors
from tests.native.guests import BOUNDS, Disk, disk, lock_is_free, near
from tests.native.ring import HV, SANITIZED
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.guests.deaths import FIRST_WAIT, MOST
from xbbd_bsd.guests.service import GuestProcesses, Loss, Terms
from xbbd_bsd.native.link import DeviceState, Link
from xbbd_bsd.native.packets import listen_at
from xbbd_bsd.native.processes import Confinement
from xbbd_bsd.native.remote import RemoteDevice

pytestmark = pytest.mark.slow


class Clock:
    """Time passes when somebody sleeps."""

    now = 1000.0

    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def terms() -> Terms:
    return Terms(HV, BOUNDS, 600, confinement=Confinement(confined=not SANITIZED))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guests(tmp_path: Path, clock: Clock) -> Iterator[GuestProcesses]:
    before = open_descriptors()
    made = GuestProcesses(near(tmp_path), terms, clock=clock, sleep=clock.sleep)
    yield made
    for domid in list(made._guests):
        made.forget(domid)
    made.leave()
    eventually(lambda: not made.close_past(), "its servers have ended")
    assert open_descriptors() == before


def sockets(guests: GuestProcesses) -> list[str]:
    return sorted(name for name in os.listdir(guests._directory) if name.startswith("guest."))


@contextmanager
def ours(guests: GuestProcesses) -> Iterator[GuestProcesses]:
    """Guest 7's processes, of which none is left afterwards."""
    yield guests
    guests.forget(7)
    guests.leave()
    eventually(lambda: not guests.close_past(), "its servers have ended")
    assert sockets(guests) == []


def reach(guests: GuestProcesses) -> Link:
    """Once the process that there is has noticed that the former daemon is gone."""
    found: list[Link] = []

    def is_found() -> bool:
        with suppress(HostError):
            found.append(guests.reach(7, "web", limit=GIVE_UP))
        return bool(found)

    eventually(is_found, "there is a process")
    return found[0]


def adopt(d: Disk, guests: GuestProcesses, device: int) -> RemoteDevice:
    """As whoever connects rings again does it (serving.py)."""
    link = reach(guests)
    guests.hand_over(7, device, limit=GIVE_UP)
    return d.serve(link, device, adopt=True)


def pid_of(guests: GuestProcesses, domid: int) -> int:
    return guests._guests[domid].pid


def test_each_has_the_place_that_is_made_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none if that fails, as of a control group that cannot be made."""
    asked: list[int] = []

    def place(domid: int) -> None:
        asked.append(domid)
        if domid == 8:
            raise HostError("no limit of processor time", EBUSY)

    made = GuestProcesses(near(tmp_path), lambda: replace(terms(), place=place))
    try:
        made.reach(7, "web", limit=GIVE_UP)
        with pytest.raises(HostError, match="no limit of processor time"):
            made.reach(8, "db", limit=GIVE_UP)
        made.reach(7, "web", limit=GIVE_UP)
        assert asked == [7, 8]
        made.forget(7)
    finally:
        made.leave()
        eventually(lambda: not made.close_past(), "its server has ended")


def wait_loss(guests: GuestProcesses) -> Loss:
    losses: list[Loss] = []

    def is_lost() -> bool:
        losses.extend(guests.look())
        return bool(losses)

    eventually(is_lost, "a process is lost")
    (loss,) = losses
    return loss


def test_one_a_guest(guests: GuestProcesses) -> None:
    first = guests.reach(7, "web", limit=GIVE_UP)
    assert guests.reach(7, "web", limit=GIVE_UP) is first
    assert guests.reach(8, "db", limit=GIVE_UP) is not first
    assert pid_of(guests, 7) != pid_of(guests, 8)
    assert guests.look() == []


def test_descriptors_from_1024_on(guests: GuestProcesses) -> None:
    """As a daemon with many disks has them, whose server of processes is not its first one."""
    with descriptors_taken(below=1024):
        guests.reach(7, "web", limit=GIVE_UP)
    assert guests.look() == []


def test_the_next_daemon_finds_it(guests: GuestProcesses, tmp_path: Path) -> None:
    with disk(tmp_path) as d:
        d.serve(guests.reach(7, "web", limit=GIVE_UP), 3)
        guests.leave()
        d.exercise(200)
        next_one = GuestProcesses(near(tmp_path), terms)
        link: list[Link] = []

        def is_found() -> bool:
            try:
                link.append(next_one.reach(7, "web", limit=GIVE_UP))
            except HostError:
                return False
            return True

        eventually(is_found, "the former daemon is forgotten")
        assert pid_of(next_one, 7) == 0, "another server's child"
        assert link[0].reports[3].state == DeviceState.RUNNING
        RemoteDevice(link[0], 3, d.state, 1).close(limit=GIVE_UP)
        next_one.forget(7)
        next_one.leave()
        assert not os.path.exists(next_one.path(7))


def test_which_devices_it_has(guests: GuestProcesses, tmp_path: Path) -> None:
    """A dead one has none, whatever it has said."""
    assert guests.devices(7) == set()
    with disk(tmp_path) as d:
        d.serve(guests.reach(7, "web", limit=GIVE_UP), 3)
        assert guests.devices(7) == {3}
        os.kill(pid_of(guests, 7), signal.SIGKILL)
        wait_loss(guests)
        assert guests.devices(7) == set()


def test_started_again_and_given_up(guests: GuestProcesses, clock: Clock) -> None:
    for number in range(1, MOST + 1):
        guests.reach(7, "web", limit=GIVE_UP)
        os.kill(pid_of(guests, 7), signal.SIGKILL)
        loss = wait_loss(guests)
        assert loss.domid == 7
        eventually(lambda: not guests.look() and not pid_of(guests, 7), "its end is heard")
        assert bool(guests._guests[7].deaths.reason) == (number == MOST)
    waits = [FIRST_WAIT * 2**n for n in range(MOST - 2)]
    assert clock.slept == [0.0, 0.0, *map(pytest.approx, waits)]
    with pytest.raises(HostError, match=r"died 5 times in .* killed by signal 9") as given_up:
        guests.reach(7, "web", limit=GIVE_UP)
    assert given_up.value.errno == EIO
    guests.reach(8, "db", limit=GIVE_UP)
    guests.forgive(7)
    guests.reach(7, "web", limit=GIVE_UP)


def test_a_death_that_nobody_has_heard_of_yet_counts(guests: GuestProcesses, clock: Clock) -> None:
    for _ in range(2):
        guests.reach(7, "web", limit=GIVE_UP)
        guests.kill(7)
        eventually(lambda: not is_alive(guests, 7), "it does not listen any more")
    guests.reach(7, "web", limit=GIVE_UP)
    assert clock.slept == [0.0, 0.0, pytest.approx(FIRST_WAIT)]


def is_alive(guests: GuestProcesses, domid: int) -> bool:
    link = guests._guests[domid].link
    assert link is not None
    link.receive()
    return link.lost is None


def test_one_that_talks_nonsense_is_killed(guests: GuestProcesses, tmp_path: Path) -> None:
    """A connection that was lost is made again; who will not be greeted has to go."""
    guests.reach(7, "web", limit=GIVE_UP)
    first = pid_of(guests, 7)
    link = guests._guests[7].link
    assert link is not None
    link._lose("it talks nonsense")
    assert wait_loss(guests).how.endswith("it talks nonsense")
    again: list[Link] = []

    def is_reached() -> bool:
        try:
            again.append(guests.reach(7, "web", limit=GIVE_UP))
        except HostError as error:
            if error.errno != EAGAIN:
                raise
        return bool(again)

    eventually(is_reached, "it is reached again")
    assert pid_of(guests, 7) == first

    again[0]._lose("and again")
    # In its place somebody who accepts, and never answers.
    with listen_at(guests.path(7)), pytest.raises(HostError):
        guests.reach(7, "web", limit=0.2)
    eventually(lambda: guests.look() is not None and pid_of(guests, 7) == 0, "it is killed")


def test_an_earlier_daemons_that_will_not_talk_is_killed(
    guests: GuestProcesses, tmp_path: Path
) -> None:
    """Its guest waits then, and another one goes on."""
    with disk(tmp_path, patience=GIVE_UP) as d:
        d.serve(guests.reach(7, "web", limit=GIVE_UP), 1)
        pid = pid_of(guests, 7)
        guests.leave()
        os.kill(pid, signal.SIGSTOP)
        with ours(GuestProcesses(near(tmp_path), terms)) as later:
            with pytest.raises(HostError):
                later.reach(7, "web", limit=0.2)
            eventually(lambda: lock_is_free(d.state.path), "it is killed")
            device = adopt(d, later, 1)
            d.exercise(50)
            device.close(limit=GIVE_UP)


def test_one_that_has_another_daemon_is_left_alone(guests: GuestProcesses) -> None:
    guests.reach(7, "web", limit=GIVE_UP)
    pid, link = pid_of(guests, 7), guests._guests[7].link
    assert link is not None
    link._lose("for some reason")
    other = Link.connect(guests.path(7))
    other.meet(limit=GIVE_UP)
    other.hello(BOUNDS, idle_seconds=0, limit=GIVE_UP)
    with pytest.raises(HostError, match="another daemon") as busy:
        guests.reach(7, "web", limit=GIVE_UP)
    assert busy.value.errno == EAGAIN
    other.look(limit=GIVE_UP)
    assert pid_of(guests, 7) == pid
    other.close()
    link.close()


def test_without_its_server_a_process_serves_on(guests: GuestProcesses, tmp_path: Path) -> None:
    with disk(tmp_path) as d:
        link = guests.reach(7, "web", limit=GIVE_UP)
        device = d.serve(link)
        assert guests._processes is not None
        server = guests._processes.pid
        os.kill(server, signal.SIGKILL)
        eventually(lambda: not guests.look() and guests._processes is None, "it is missed")
        d.exercise(200)
        assert pid_of(guests, 7) == 0, "nobody would tell of its end"
        assert guests.reach(7, "web", limit=GIVE_UP) is link
        guests.reach(8, "db", limit=GIVE_UP)  # of a server of its own
        device.close(limit=GIVE_UP)
        guests.forget(7)


def test_one_that_is_forgotten_while_it_is_reached_ends(
    guests: GuestProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would send it away."""
    greet = GuestProcesses._greet

    def forgotten_first(self: GuestProcesses, link: Link, end: float) -> Link:
        found = greet(self, link, end)
        self.forget(7)
        return found

    monkeypatch.setattr(GuestProcesses, "_greet", forgotten_first)
    with pytest.raises(HostError, match="its guest is gone"):
        guests.reach(7, "web", limit=GIVE_UP)
    assert sockets(guests) == []
    eventually(lambda: guests.look() == [] and not guests._children, "it ends")


def test_one_that_is_forgotten_ends(guests: GuestProcesses) -> None:
    guests.reach(7, "web", limit=GIVE_UP)
    pid = pid_of(guests, 7)
    guests.forget(7)
    eventually(lambda: guests.look() == [] and pid not in guests._children, "it ends")
