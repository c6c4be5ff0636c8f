"""Guests' processes and daemons die again and again: ``python -m tests.native.guest_siege``.

``LIVES SEED``: so many deaths, of a guest's process, of its daemon, or of both at once, at
random moments, while frontends with all features work on two disks with two rings each
and compare what they read with what they wrote.  Prints what died how often and how long
it took until all was served again; ends with status 1 if anything was lost.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.native.guests import BOUNDS, Disk, disk
from tests.native.ring import HV
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.guests.service import GuestProcesses, Terms
from xbbd_bsd.native import Progress, Workload
from xbbd_bsd.native.remote import RemoteDevice

DOMID = 5
NAME = f"siege{os.getpid()}"
SECTORS = 2048  # of each ring, which has a part of the disk of its own
DEATHS = ("process", "daemon", "both")


class Load(threading.Thread):
    """A frontend's random I/O, until it is told to stop."""

    def __init__(self, served: Disk, ring: int, seed: int) -> None:
        super().__init__()
        self.progress = Progress()
        self._front, self._disk, self._ring = served.fronts[ring], served, ring
        self._model = bytearray(SECTORS * 512)
        self._seed = seed
        self.failed = ""

    def run(self) -> None:
        work = Workload(
            seed=self._seed,
            sectors=SECTORS,
            first_sector=self._ring * SECTORS,
            depth=16,
            seconds=86400,
            model=self._model,
            flush_every=60,
            barrier_every=50,
            discard_every=40,
            indirect_every=3,
            max_sectors=256,
        )
        try:
            self._front.exercise(work, self.progress, timeout=GIVE_UP)
        except OSError as error:
            self.failed = str(error)

    def verdict(self) -> str:
        """What is wrong, "" if nothing is."""
        begin = self._ring * SECTORS * 512
        found = self._disk.file.read_bytes()[begin : begin + len(self._model)]
        p = self.progress
        numbers = (p.mismatches, p.errors, p.bad_responses)
        if self.failed or any(numbers) or found != self._model:
            same = found == self._model
            return f"ring {self._ring}: {self.failed} {numbers}, disk as it should be: {same}"
        return ""


class Siege:
    """The daemon of the moment, and what it serves."""

    def __init__(self, directory: Path, disks: list[Disk]) -> None:
        self._directory, self._disks = str(directory), disks
        self._clock = 0.0
        self.guests = self._daemon()
        self.adopted = 0

    def _daemon(self) -> GuestProcesses:
        return GuestProcesses(
            self._directory, lambda: Terms(HV, BOUNDS, 60), clock=self._now, sleep=lambda _: None
        )

    def _now(self) -> float:
        """Deaths are long ago, whenever they were."""
        self._clock += 1000
        return self._clock

    def serve(self, *, adopt: bool) -> None:
        """All that is not served."""

        def is_reached() -> bool:
            try:
                self.guests.reach(DOMID, NAME, limit=GIVE_UP)
            except HostError:
                return False
            return True

        eventually(is_reached, "its process is reached", limit=GIVE_UP)
        link = self.guests.reach(DOMID, NAME, limit=GIVE_UP)
        for number, served in enumerate(self._disks):
            if number not in link.reports:
                served.serve(link, number, adopt=adopt)
                self.adopted += 1

    def die(self, what: str) -> None:
        if what in ("process", "both"):
            self._kill()
        if what in ("daemon", "both"):
            self.guests.leave()
            eventually(lambda: not self.guests.close_past(), "its servers end")
            self.guests = self._daemon()

    def _kill(self) -> None:
        """One that an earlier daemon has started is nobody's child, and is known by its name."""
        link = self.guests.reach(DOMID, NAME, limit=GIVE_UP)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if path.read_bytes().rstrip(b"\0") == f"xbbd: guest {NAME}".encode():
                    os.kill(int(path.parent.name), signal.SIGKILL)

        def is_dead() -> bool:
            link.receive()
            return link.lost is not None

        eventually(is_dead, "it is dead")

    def end(self) -> None:
        link = self.guests.reach(DOMID, NAME, limit=GIVE_UP)
        for number, served in enumerate(self._disks):
            RemoteDevice(link, number, served.state, 2).close(limit=GIVE_UP)
        self.guests.forget(DOMID)
        self.guests.leave()


def wait_for_writes(disks: list[Disk], count: int) -> None:
    begin = sum(d.writes for d in disks)
    eventually(lambda: sum(d.writes for d in disks) > begin + count, "I/O goes on", GIVE_UP)


def main(lives: int, seed: int) -> int:
    choose = random.Random(seed)
    count = dict.fromkeys(DEATHS, 0)
    took: dict[str, list[float]] = {what: [] for what in DEATHS}
    features = {"max_persistent": 1056, "max_indirect_segments": 64, "discard": True}
    with tempfile.TemporaryDirectory(prefix="siege") as directory, ExitStack() as stack:
        root = Path(directory)
        disks = [
            stack.enter_context(disk(root, name, rings=2, patience=GIVE_UP, **features))
            for name in ("a", "b")
        ]
        siege = Siege(root, disks)
        siege.serve(adopt=False)
        loads = [Load(d, ring, choose.getrandbits(31)) for d in disks for ring in (0, 1)]
        for load in loads:
            load.start()
        for _ in range(lives):
            wait_for_writes(disks, choose.randrange(300))
            what = choose.choice(DEATHS)
            count[what] += 1
            begun = time.perf_counter()
            siege.die(what)
            siege.serve(adopt=True)
            took[what].append((time.perf_counter() - begun) * 1e3)
        for load in loads:
            load.progress.stop()
        for load in loads:
            load.join()
        siege.end()
        wrong = [verdict for load in loads if (verdict := load.verdict())]
    for what in DEATHS:
        if took[what]:
            numbers = sorted(took[what])
            print(
                f"{what}: {count[what]} deaths, until all is served again"
                f" median {statistics.median(numbers):.1f} ms, worst {numbers[-1]:.1f} ms"
            )
    done = sum(load.progress.reads + load.progress.writes for load in loads)
    print(f"{siege.adopted} devices taken over, {done} operations, wrong: {wrong or 'nothing'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    arguments = [int(word) for word in sys.argv[1:3]]
    sys.exit(main(*(arguments + [100, 1][len(arguments) :])))
