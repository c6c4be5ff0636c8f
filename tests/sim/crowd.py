"""Many disks on one daemon: what one more costs, when there are few and when there are many.

    python -m tests.sim.crowd                                what comes and goes
    python -m tests.sim.crowd --guests 50 --queues 4         what is connected

The first attaches disks that no guest has connected yet, up to 1000, and shows of some
populations what the daemon's processor time is for one more disk, for one less, and for
`xbbctl list` and its like.  The second connects each disk to a guest, a process of
its own, so it needs a few GB and some minutes, and shows the memory and descriptors of
a disk.  Figures for people, no test: tests/unit/test_bus_growth.py counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xbbd_bsd.control.client import Connection
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.host import control_path
from xbbd_bsd.sim.chain import Chain, Guest, Process
from xbbd_bsd.sim.hypervisor import Domain
from xbbd_bsd.toolstack import DiskOffer

XVDA = 51712
POPULATIONS = (10, 100, 1000)
SAMPLE = 10  # disks that come and go for a figure
PER_GUEST = 32  # below max_disks_per_guest
FIRST_DOMID = 1

# What operators ask, by the words of xbbctl.
QUESTIONS = {
    "list": Request(Verb.STAT, "", "guest vdev mode sectors hung_seconds path"),
    "one name": Request(Verb.GET, "dev.xbbd.0.rd_req"),
    "health": Request(Verb.HEALTH, "", "5"),
    "-a": Request(Verb.GET),
}


@dataclass(frozen=True)
class Spent:
    """Milliseconds: processor time of the daemon, and by the clock."""

    cpu: float
    wall: float


class Clock:
    """The processor time of another process."""

    def __init__(self, process: Process) -> None:
        # What clock_getcpuclockid(3) makes of a process on Linux.
        self._id = (~process.pid << 3) | 2

    def spent(self, work: Callable[[], object], times: int = 1) -> Spent:
        """What it spends while we do something, for each time that we do it."""
        cpu, wall = time.clock_gettime(self._id), time.monotonic()
        for _ in range(times):
            work()
        cpu, wall = time.clock_gettime(self._id) - cpu, time.monotonic() - wall
        return Spent(cpu * 1e3 / times, wall * 1e3 / times)


def resident(pid: int) -> tuple[int, int]:
    """KiB of a process in memory: private, and shared with files (state segments, guests)."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Rss"):
            found[name] = int(value.split()[0])
    return found["RssAnon"], found["RssFile"] + found["RssShmem"]


def descriptors(pid: int) -> int:
    """How many a process has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


class Crowd:
    """Disks that nobody is connected to, one after the other, of guests that do nothing."""

    def __init__(self, chain: Chain, images: Path) -> None:
        self._chain = chain
        self._images = images
        self._guests: list[Domain] = []
        self.disks: list[DiskOffer] = []

    def attach(self, count: int = 1) -> None:
        """So many more."""
        for _ in range(count):
            self._attach()

    def _attach(self) -> None:
        number = len(self.disks)
        domid, slot = FIRST_DOMID + number // PER_GUEST, number % PER_GUEST
        if domid >= FIRST_DOMID + len(self._guests):
            self._guests.append(Domain(self._chain.layout, domid))
        image = self._images / f"{number}.img"
        with image.open("wb") as file:
            file.truncate(1 << 20)
        disk = DiskOffer(domid, XVDA + 16 * slot, str(image))
        self._chain.attach(disk)
        self.disks.append(disk)

    def close(self) -> None:
        """The guests die."""
        for guest in self._guests:
            guest.close()

    def detach(self, count: int = 1) -> None:
        """So many, the last ones that came."""
        for _ in range(count):
            assert self._chain.detach(self.disks.pop())


def come_and_go(most: int) -> None:
    """The table of populations."""
    with tempfile.TemporaryDirectory() as directory, Chain() as chain:
        daemon = chain.start_daemon()
        clock, crowd = Clock(daemon), Crowd(chain, Path(directory))
        crowd.attach()
        crowd.detach()
        base, held = resident(daemon.pid), descriptors(daemon.pid)
        print("processor time of the daemon, ms (by the clock)")
        print(
            "   disks            attach            detach" + "".join(f"{q:>12}" for q in QUESTIONS)
        )
        whole = []
        for population in (n for n in POPULATIONS if n <= most):
            more = population - SAMPLE - len(crowd.disks)
            whole.append(clock.spent(partial(crowd.attach, more)))
            come = clock.spent(crowd.attach, SAMPLE)
            with Connection(control_path(chain.layout.run)) as connection:
                asked = [
                    clock.spent(partial(connection.whole, request), 3)
                    for request in QUESTIONS.values()
                ]
            go = clock.spent(crowd.detach, SAMPLE)
            whole.append(clock.spent(partial(crowd.attach, SAMPLE)))
            print(
                f"{population:8}{come.cpu:9.2f} ({come.wall:6.1f}){go.cpu:9.2f} ({go.wall:6.1f})"
                + "".join(f"{spent.cpu:12.2f}" for spent in asked),
                flush=True,
            )
        count = len(crowd.disks)
        late, fds = resident(daemon.pid), descriptors(daemon.pid) - held
        cpu, wall = (sum(getattr(part, of) for part in whole) / 1e3 for of in ("cpu", "wall"))
        print(f"{count} disks attached: {cpu:.1f} s ({wall:.0f})")
        idle = clock.spent(partial(time.sleep, 10))
        print(f"{count} idle disks: {idle.cpu / 100:.2f} % of a processor", flush=True)
        private = (late[0] - base[0]) / count
        print(f"a disk that is open: {private:.1f} KiB private, {fds / count:.1f} descriptors")
        gone = clock.spent(partial(crowd.detach, count))
        print(f"{count} disks detached: {gone.cpu / 1e3:.1f} s ({gone.wall / 1e3:.0f})")
        crowd.close()


def connect(chain: Chain, guest: Guest, disk: DiskOffer) -> None:
    """Give a guest a disk, which it uses."""
    chain.attach(disk)
    guest.event("connected")


def connected(count: int, queues: int) -> None:
    """What a disk has that its guest uses."""
    with tempfile.TemporaryDirectory() as directory, Chain() as chain:
        daemon = chain.start_daemon()
        clock, guests, cpu, base, held = Clock(daemon), [], 0.0, (0, 0), 0
        for number in range(count + 1):
            domid = number + 1
            image = Path(directory) / f"{domid}.img"
            with image.open("wb") as file:
                file.truncate(16 << 20)
            guest = chain.start_guest(domid, XVDA, "--queues", str(queues))
            offer = DiskOffer(domid, XVDA, str(image))

            if number == 1:  # by then the daemon has all that a first disk makes it have
                base, held = resident(daemon.pid), descriptors(daemon.pid)
                cpu = 0.0
            cpu += clock.spent(partial(connect, chain, guest, offer)).cpu
            guest.tell("exercise operations=1000 sectors=4096")
            guest.event("exercised")
            guests.append(guest)
        late = resident(daemon.pid)
        private, mapped = ((b - a) / count for a, b in zip(base, late, strict=True))
        print(f"{count} disks of {queues} rings, each exercised")
        print(f"attached and connected: {cpu / count:.2f} ms of processor time a disk")
        print(f"memory of the daemon: {base[0]} KiB private with one disk, {late[0]} with all;")
        print(f"a disk: {private:.0f} KiB private, {mapped:.0f} KiB mapped of files, of which")
        segment = Path(chain.layout.state_segment(0)).stat().st_size >> 10
        print(f"{segment} KiB are its state segment, the rest is memory of the simulated guest")
        print(f"a disk: {(descriptors(daemon.pid) - held) / count:.1f} descriptors")
        with Connection(control_path(chain.layout.run)) as connection:
            for words, request in QUESTIONS.items():
                times = [clock.spent(partial(connection.whole, request)) for _ in range(5)]
                print(f"xbbctl {words}: {statistics.median(t.cpu for t in times):.2f} ms")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--disks", type=int, default=POPULATIONS[-1], help="most that there are")
    parser.add_argument("--guests", type=int, default=0, help="connect so many, in place of that")
    parser.add_argument("--queues", type=int, default=1)
    options = parser.parse_args()
    if options.guests:
        connected(options.guests, options.queues)
    else:
        come_and_go(options.disks)


if __name__ == "__main__":
    main()
