"""Random everything against an oracle: operations, sizes, queues, resets, resizes, faults.

    python -m tests.sim.soak --seconds 1800 --seed 7

A machine with a real daemon whose disk fails on demand, and a few guests.  Each
guest has an image and a model of its first sectors, which outlives guest and
connection: what a guest wrote before it was killed is what the next one reads.
Sectors whose write failed or was never answered are unknown until written again.
Meanwhile tunables, configuration and the size of the image change, disks are
detached and attached again, the daemon is stopped and started.  Now and then one
disk has an accident, of which the guests of the others must not notice anything:
its flushes fail, it is gone, full, or cut off behind its guest's back.  Some guests
refuse to close.

A wrong byte, an answer out of the blue, an error that nobody caused, or anything
that is held afterwards ends it, with the seed and the last steps.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from tests.sim.conftest import XVDA, Machine, running_machine
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd import toolstack, xbbctl
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import State
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer, remove

SECTORS = 8192  # that have a model, at the beginning of each image
FAULTS = struct.Struct("9I")


def build_faulty_disk(directory: Path) -> Path:
    """The library to preload."""
    library = directory / "faulty_disk.so"
    source = Path(__file__).with_name("faulty_disk.c")
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


TUNABLES = (
    ("disable_flush", (0, 1)),
    ("flush_interval", (0, 1, 7)),
    ("no_coalesce_reqs", (0, 1)),
    ("poll_max_us", (0, 50, 1000)),
    ("persistent_grant_unused_seconds", (0, 1, 60)),
)


class Accident(IntEnum):
    """What happens to one disk; the numbers are those of faulty_disk.c, which has no last one."""

    FLUSHES_FAIL = 1
    GONE = 2
    FULL = 3
    CUT_OFF = 4


@dataclass
class Disk:
    """A guest, its image, and what the image should hold."""

    domid: int
    image: Path
    model: Path
    guest: Guest | None = None
    offer: DiskOffer | None = None
    agreed: dict[str, Any] = field(default_factory=dict)  # when it connected
    refuses: bool = False

    def lose(self, sector: int) -> None:
        """Nobody knows any more what there is from a sector on."""
        with self.model.open("r+b") as file:
            file.seek(SECTORS * 512 + sector)
            file.write(b"\1" * (SECTORS - sector))

    def check(self) -> int:
        """Compare image and model; how many sectors are unknown."""
        model = self.model.read_bytes()
        data, unknown = model[: SECTORS * 512], model[SECTORS * 512 :]
        image = self.image.read_bytes()[: SECTORS * 512]
        if image != data:
            for sector in range(SECTORS):
                at = slice(sector * 512, sector * 512 + 512)
                assert unknown[sector] or image[at] == data[at], f"{self.image}: sector {sector}"
        return sum(map(bool, unknown))


class Soak:
    """One run."""

    def __init__(self, machine: Machine, directory: Path, faults: Path, seed: int) -> None:
        self.machine = machine
        self.random = random.Random(seed)
        self.seed = seed
        self.steps: list[str] = []
        self.counts: Counter[str] = Counter()
        self.faulty = False
        with faults.open("r+b") as file:
            self.faults = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.disks = [self._make_disk(directory, domid) for domid in (1, 2, 3)]

    def _make_disk(self, directory: Path, domid: int) -> Disk:
        image, model = directory / f"{domid}.img", directory / f"{domid}.model"
        data = self.random.randbytes(SECTORS * 512)
        image.write_bytes(data)
        os.truncate(image, 2 * SECTORS * 512)
        model.write_bytes(data + bytes(SECTORS))
        return Disk(domid, image, model)

    def note(self, step: str) -> None:
        self.steps.append(step)
        self.counts[step.split()[0]] += 1

    def run(self, seconds: float, deeds: Sequence[str]) -> None:
        """Rounds until the time is over and these deeds are done, then the last comparison."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end or not all(self.counts[deed] for deed in deeds):
                self._round()
            self.set_faults()
            for disk in self.disks:
                self._end_guest(disk, "close")
                self.counts["unknown sectors at the end"] += disk.check()
        except BaseException:
            print(f"seed {self.seed}, last steps:", *self.steps[-40:], sep="\n  ", flush=True)
            print(self.machine.chain.tails(), flush=True)
            for unit in range(len(self.machine.segments())):
                state = self.machine.state(unit)
                print({name: n for name, n in state.counters().items() if n}, flush=True)
                state.close()
            raise

    def _round(self) -> None:
        """Something for each guest, then all at work at once, with disturbances."""
        self.set_faults()  # attaching is not what is tested here
        for disk in self.disks:  # an odd size is refused then
            os.truncate(disk.image, disk.image.stat().st_size // 512 * 512)
        if self.random.random() < 0.1:
            self._reconfigure()
        if self.random.random() < 0.05:
            self._restart_daemon()
        for disk in self.disks:
            self._change(disk)
        working = [disk for disk in self.disks if disk.guest is not None]
        self.faulty = False
        victim = self._draw_victim(working)
        accident = self.random.choice(list(Accident))
        cut = self.random.randrange(SECTORS)
        if victim is not None and accident is Accident.CUT_OFF:
            # Not under a write, which is answered otherwise (tests/c/test_disk.c).
            before = victim.image.stat().st_size
            os.truncate(victim.image, cut * 512)
        for disk in working:
            self._begin_exercise(disk, long=disk is victim)
        if victim is not None:
            others = [disk for disk in working if disk is not victim]
            self._have_accident(accident, victim, others, cut)
            if accident is Accident.CUT_OFF:
                os.truncate(victim.image, before)
                victim.lose(cut)
                for segment in self.machine.segments():  # it may have seen the shrink
                    # 1: it has, and the disk is closed.
                    assert self._control("resize", segment.replace(".", "")) in (0, 1)
            return
        for _ in range(self.random.randrange(6)):
            self._disturb()
            select.select([], [], [], self.random.uniform(0.01, 0.2))
        for disk in working:
            chance = self.random.random()
            if chance < 0.05:
                self._end_guest(disk, "kill")
            elif chance < 0.10:
                self._end_guest(disk, "detach")
            else:
                self._end_exercise(disk)

    # Accidents.

    def _draw_victim(self, working: list[Disk]) -> Disk | None:
        able = [disk for disk in working if not disk.refuses]
        return self.random.choice(able) if able and self.random.random() < 0.2 else None

    def _have_accident(
        self, accident: Accident, victim: Disk, others: list[Disk], cut: int
    ) -> None:
        """One disk fails; the others are at work all the while, without an error."""
        self.note(f"{accident.name.lower()} {victim.domid}")
        select.select([], [], [], self.random.uniform(0.01, 0.2))
        if accident is not Accident.CUT_OFF:
            for name in ("disable_flush", "flush_interval"):  # else none may fail
                self._tune(name, 0)
            self.set_faults(victim=(victim.image.stat().st_ino & 0xFFFFFFFF, accident))
        for disk in others:
            self._end_exercise(disk)
        if accident in (Accident.FLUSHES_FAIL, Accident.GONE):
            self._recover(victim, accident)
        else:
            self._end_exercise(victim, fails=True)
            assert accident is Accident.FULL or victim.image.stat().st_size == cut * 512
        self.set_faults()

    def _recover(self, victim: Disk, accident: Accident) -> None:
        """Its connection ends; after the repair it comes back, after a flush only if we say so."""
        assert victim.guest is not None
        try:
            self._judge(victim, victim.guest.event("exercised", GIVE_UP), fails=True)
        except HostError as error:
            if "Broken pipe" not in str(error):  # the backend went away under it
                raise
        victim.guest.event("closed", GIVE_UP)
        self.set_faults()
        victim.guest.tell("open")
        if accident is Accident.FLUSHES_FAIL:
            self.machine.log_line(f"unable to open {victim.image}: a flush failed")
            assert self._control("clear", str(victim.image)) == 0
        victim.agreed = victim.guest.event("connected", GIVE_UP)

    def _control(self, *words: str) -> int:
        return xbbctl.main(["--state-dir", self.machine.chain.layout.run, *words])

    # Between exercises.

    def _change(self, disk: Disk) -> None:
        chance = self.random.random()
        if disk.guest is None:
            self._begin_guest(disk)
        elif chance < 0.15:
            self._reopen(disk)
        elif chance < 0.20:
            self._end_guest(disk, "close")
        elif chance < 0.23:
            self._end_guest(disk, "kill")

    def _begin_guest(self, disk: Disk) -> None:
        r = self.random
        options = ["--abi", r.choice(("native", "x86_32", "x86_64"))]
        options += ["--ring-order", str(r.randrange(5))]
        options += ["--queues", str(r.choice((1, 1, 2, 4)))]
        options += ["--max-segments", str(r.choice((11, 11, 32, 64, 256)))]
        options += ["--depth", str(r.choice((1, 4, 15)))]
        options += ["--persistent"] * r.randrange(2)
        disk.refuses = r.random() < 0.2
        options += ["--refuse"] * disk.refuses
        self.note(f"guest {disk.domid} {' '.join(options)}")
        disk.guest = self.machine.guest(disk.domid, *options)
        kind = r.choice(("vbd", "vbd3"))
        disk.offer = DiskOffer(disk.domid, XVDA, str(disk.image), kind=kind)
        self.machine.attach(disk.offer)
        disk.agreed = disk.guest.event("connected", GIVE_UP)

    def _end_guest(self, disk: Disk, how: str) -> None:
        guest, offer = disk.guest, disk.offer
        if guest is None or offer is None:
            return
        self.note(f"{how} {disk.domid}")
        if how == "kill":
            guest.signal(signal.SIGKILL)
            guest.wait(GIVE_UP)
            remove(self.machine.chain.store, offer)
        else:
            if disk.refuses:
                self._be_refused(disk, guest, offer, at_work=how == "detach")
            assert self.machine.chain.detach(offer), "the backend does not close"
            if how == "detach" and not disk.refuses:  # in the middle of an exercise
                self._end_exercise(disk)
            guest.stop(GIVE_UP)
        self.machine.offers.remove(offer)
        self.machine.guests.remove(guest)
        disk.guest = disk.offer = None
        living = sum(other.guest is not None for other in self.disks)
        eventually(
            lambda: len(self.machine.segments()) == living,
            f"the device of guest {disk.domid} is forgotten",
            GIVE_UP,
        )

    def _be_refused(self, disk: Disk, guest: Guest, offer: DiskOffer, *, at_work: bool) -> None:
        """A guest with its disk in use keeps it, and goes on, until the last user is gone."""
        chain = self.machine.chain
        assert not toolstack.detach(chain.store, chain.loop, offer, 0.5)
        wanted = {"refused to close", "exercised"} if at_work else {"refused to close"}
        while wanted:
            event = guest.next_event(GIVE_UP)
            assert event["event"] not in ("failed", "closed"), event
            wanted.discard(event["event"])
            if event["event"] == "exercised":
                self._judge(disk, event)
        self.counts["refusals"] += 1
        guest.tell("release")

    def _reopen(self, disk: Disk) -> None:
        assert disk.guest is not None
        self.note(f"reopen {disk.domid}")
        disk.guest.tell("close")
        disk.guest.event("closed", GIVE_UP)
        disk.guest.tell("open")
        disk.agreed = disk.guest.event("connected", GIVE_UP)

    def _reconfigure(self) -> None:
        r = self.random
        keys = {
            "resize_interval": 1,
            "workers": r.choice((1, 2, 8)),
            "max_batch_segments": r.choice((11, 64, 256)),
            "max_indirect_segments": r.choice((0, 11, 64, 256)),
            "max_persistent_grants": r.choice((0, 16, 1056)),
            "max_ring_page_order": r.randrange(5),
            "transport": r.choice(('"best"', '"map"', '"copy"')),
            "discard": r.choice(("true", "true", "false")),
        }
        text = "\n".join(f"{key} = {value}" for key, value in keys.items())
        self.note("configure " + text.replace("\n", ", "))
        Path(self.machine.chain.config_file).write_text(f"[disk]\n{text}\n")
        self.machine.daemon.signal(signal.SIGHUP)

    def _restart_daemon(self) -> None:
        """Guests are asked to close, and come back to the next daemon."""
        self.note("restart")
        for disk in self.disks:
            if disk.guest is not None and disk.refuses:
                disk.guest.tell("release")
                disk.guest.event("released", GIVE_UP)
        assert self.machine.daemon.stop() == 0, self.machine.log()
        self.machine.daemon = self.machine.chain.start_daemon()
        guests = [disk for disk in self.disks if disk.guest is not None]
        for disk in guests:
            assert disk.guest is not None
            disk.guest.event("closed", GIVE_UP)
            disk.guest.tell("open")
        for disk in guests:
            assert disk.guest is not None
            disk.agreed = disk.guest.event("connected", GIVE_UP)

    # During exercises.

    def set_faults(
        self,
        fail: int = 0,
        interrupt: int = 0,
        cut: int = 0,
        delay: int = 0,
        victim: tuple[int, int] = (0, 0),
    ) -> None:
        """So many of 65536 calls each; `victim`: one disk's inode, and its accident."""
        self.faulty |= fail > 0
        delay_us = self.random.choice((50, 500, 5000))
        seed = self.random.getrandbits(32)
        self.faults[: FAULTS.size] = FAULTS.pack(
            fail, interrupt, cut, delay, delay_us, seed, 0, *victim
        )

    def _disturb(self) -> None:
        r = self.random
        what = r.choice(("tune", "tune", "resize", "faults", "faults", "calm"))
        if what == "tune":
            name, values = r.choice(TUNABLES)
            value = r.choice(values)
            self.note(f"tune {name}={value}")
            self._tune(name, value)
        elif what == "resize":
            disk = r.choice(self.disks)
            sectors = r.randrange(SECTORS, 4 * SECTORS)
            self.note(f"resize {disk.domid} to {sectors}")
            os.truncate(disk.image, sectors * 512 + r.choice((0, 0, 100)))
        elif what == "faults":
            fail, interrupt, cut = (r.choice((0, 0, 50, 1000)) for _ in range(3))
            delay = r.choice((0, 0, 200, 2000))
            self.note(f"faults {fail} {interrupt} {cut} {delay}")
            self.set_faults(fail, interrupt, cut, delay)
        else:
            self.note("calm")
            self.set_faults()

    def _tune(self, name: str, value: int) -> None:
        """A tunable of all disks."""
        for segment in self.machine.segments():
            path = os.path.join(self.machine.chain.layout.run, segment)
            state = State.open(path, writable=True)
            state.set_tunable(name, value)
            state.close()

    def _begin_exercise(self, disk: Disk, *, long: bool = False) -> None:
        """`long`: with flushes, and until something has happened to it."""
        r = self.random
        assert disk.guest is not None
        largest = min(r.choice((1, 8, 88, 88, 512, 2048)), 8 * disk.agreed["max_segments"])
        least = min(r.choice((1, 1, 8)), largest)
        words: dict[str, object] = {
            "seed": r.getrandbits(32),
            "sectors": SECTORS,
            "model": disk.model,
            "depth": r.randint(1, disk.agreed["depth"]),
            "seconds": 3 if long else round(r.uniform(0.2, 1.0), 2),
            "read_percent": r.choice((10, 50, 90)),
            "min_sectors": least,
            "align_sectors": least,
            "max_sectors": largest,
            "flush_every": r.choice((3, 20) if long else (0, 3, 100)),
            "barrier_every": r.choice((0, 5, 100)),
            "discard_every": r.choice((0, 10, 100)) if disk.agreed["discard"] else 0,
            "indirect_every": r.choice((0, 1, 4)),
        }
        text = " ".join(f"{name}={value}" for name, value in words.items())
        self.note(f"exercise {disk.domid} {text}")
        disk.guest.tell(f"exercise {text}")
        disk.guest.event("begun", GIVE_UP)

    def _end_exercise(self, disk: Disk, *, fails: bool = False) -> None:
        """`fails`: it may have errors."""
        assert disk.guest is not None
        self._judge(disk, disk.guest.event("exercised", GIVE_UP), fails=fails)

    def _judge(self, disk: Disk, result: dict[str, Any], *, fails: bool = False) -> None:
        wrong = ("mismatches", "still_mapped", "bad_responses")
        assert [result[name] for name in wrong] == [0, 0, 0], (disk.domid, result)
        assert self.faulty or fails or result["errors"] == 0, (disk, result)
        for name in ("reads", "writes", "flushes", "barriers", "discards", "errors"):
            self.counts[name] += result[name]


def soak(seconds: float, seed: int, deeds: Sequence[str] = ()) -> Counter[str]:
    """Do it, so long, and longer until these deeds are done; what was done.

    AssertionError or HostError when something is wrong.
    """
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    faults = directory / "faults"
    faults.write_bytes(bytes(mmap.PAGESIZE))
    before = dict(os.environ)
    os.environ |= {"XBBD_FAULTS": str(faults), "LD_PRELOAD": str(build_faulty_disk(directory))}
    try:
        with running_machine("[disk]\nresize_interval = 1\n") as machine:
            run = Soak(machine, directory, faults, seed)
            run.run(seconds, deeds)
        return run.counts
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(directory)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="random everything against an oracle")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    counts = soak(options.seconds, options.seed)
    print(*(f"{count:12} {name}" for name, count in sorted(counts.items())), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
