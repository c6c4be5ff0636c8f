"""Daemon and guests' processes are killed again and again, under guests that check each answer.

    python -m tests.sim.kills --kills 1000 --seed 7 [--here]

A machine with some guests, all at work with everything that a ring can do: several
rings, small and large ones of each layout, indirect requests, grants that stay mapped,
flushes, barriers, discards.  Now a guest's process dies, now the daemon, now both, now the
next one while it takes over; the daemon is restarted, too, and may die in the middle of
that; now and then a guest closes and comes back.  `--here`: rings
are served in the daemon, which is the only one to be killed then.

A wrong byte, an error, an answer that is missing or twice, or anything that is held
afterwards ends it, with the seed and the last steps.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import select
import signal
import sys
import tempfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.sim.conftest import PROCESSES, XVDA, Machine, running_machine
from tests.sim.test_end import sha256
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd import xbbctl
from xbbd_bsd.errors import HostError
from xbbd_bsd.guests.deaths import MOST
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer

LOAD = "exercise seconds=86400 flush_every=40 barrier_every=40 discard_every=40"
DEATHS = ("daemon", "restart", "process")
WRONG = ("errors", "mismatches", "bad_responses", "still_mapped")


@dataclass
class Served:
    """A guest at work; `deaths`: of its process, since it connected."""

    domid: int
    image: Path
    guest: Guest
    offer: DiskOffer
    load: str
    deaths: int = 0


class Kills:
    """One run."""

    def __init__(self, machine: Machine, directory: Path, seed: int, *, here: bool) -> None:
        self.machine = machine
        self.random = random.Random(seed)
        self.seed = seed
        self.here = here
        self.steps: list[str] = []
        self.counts: Counter[str] = Counter()
        self.served = [self._begin(directory, domid) for domid in (1, 2, 3)]

    def note(self, step: str) -> None:
        self.steps.append(step)
        self.counts[step.split()[0]] += 1

    def run(self, kills: int) -> None:
        """So many deaths, then the last comparison."""
        try:
            while sum(self.counts[name] for name in DEATHS) < kills:
                self._round()
            for served in self.served:
                self._check(served)
                served.guest.stop(GIVE_UP)
                self.machine.guests.remove(served.guest)
        except BaseException:
            print(f"seed {self.seed}, last steps:", *self.steps[-30:], sep="\n  ", flush=True)
            print(self.machine.chain.tails(), flush=True)
            raise

    def _begin(self, directory: Path, domid: int) -> Served:
        r = self.random
        image = directory / f"{domid}.img"
        image.write_bytes(r.randbytes(2 << 20))
        options = ["--patience", f"{GIVE_UP:.0f}"]
        options += ["--abi", r.choice(("native", "x86_32", "x86_64"))]
        options += ["--ring-order", str(r.randrange(4))]
        options += ["--queues", str(r.choice((1, 2, 4)))]
        segments, depth = r.choice((11, 32, 256)), r.choice((4, 15, 30))
        options += ["--max-segments", str(segments), "--depth", str(depth)]
        options += ["--persistent"] * r.randrange(2)
        self.note(f"guest {domid} {' '.join(options)}")
        guest = self.machine.guest(domid, *options)
        offer = DiskOffer(domid, XVDA, str(image))
        self.machine.attach(offer)
        agreed = guest.event("connected", GIVE_UP)
        load = f"{LOAD} depth={agreed['depth']}"
        if agreed["max_segments"] > 11:
            load += " indirect_every=20"
        guest.tell(load)
        guest.event("begun", GIVE_UP)
        return Served(domid, image, guest, offer, load)

    def _round(self) -> None:
        served = self.random.choice(self.served)
        chance = self.random.random()
        if self.here or chance < 0.25:
            self._kill_daemon()
        elif chance < 0.35:
            # Before the daemon sees the first death, maybe.
            self._kill_process(served)
            self._kill_daemon()
        elif chance < 0.45:
            self._kill_process(served)
            self._wait(0.05)
            self._kill_process(served)
        else:
            self._kill_process(served)
        if self.random.random() < 0.1 or served.deaths >= MOST - 1:
            self._come_back(served)
        self._wait(0.3)
        self._see_progress(self.random.choice(self.served))

    def _wait(self, most: float) -> None:
        select.select([], [], [], self.random.uniform(0.0, most))

    def _kill_daemon(self) -> None:
        """It dies, or is restarted, which it may not live to finish."""
        leaves = self.random.random() < 0.4
        self.note("restart" if leaves else "daemon")
        if leaves:
            self.machine.daemon.signal(signal.SIGUSR1)
            if self.random.random() < 0.7:
                self.machine.daemon.wait(GIVE_UP)
            self._wait(0.02)
        self.machine.daemon.signal(signal.SIGKILL)
        self.machine.daemon.wait(GIVE_UP)
        self._wait(0.2)
        self.machine.daemon = self.machine.chain.start_daemon()
        if self.random.random() < 0.2:  # and again, at whatever it is doing by then
            self._wait(1.0)
            self._kill_daemon()

    def _kill_process(self, served: Served) -> None:
        """The one that serves it, once one does; the fifth in a minute would be the end."""
        if served.deaths == MOST - 1:
            return
        found: list[int] = []

        def serves() -> bool:
            found.append(self._process(served))
            return found[-1] != 0

        eventually(serves, f"somebody serves guest {served.domid}", GIVE_UP)
        self.note(f"process {served.domid}")
        served.deaths += 1
        with suppress(ProcessLookupError):  # it has died, and nobody has seen it yet
            os.kill(found[-1], signal.SIGKILL)

    def _process(self, served: Served) -> int:
        """The process of a guest, 0 if there is none just now, or nobody says."""
        for name in self.machine.segments():
            unit = int(name.partition(".")[2])
            with suppress(OSError, HostError):
                state = self.machine.state(unit)
                domid = state.identity.domid
                state.close()
                if domid == served.domid:
                    return self._process_of(unit)
        return 0

    def _process_of(self, unit: int) -> int:
        run = self.machine.chain.layout.run
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(io.StringIO()):
            status = xbbctl.main(["--state-dir", run, "-n", f"dev.xbbd.{unit}.process"])
        return int(said.getvalue()) if status == 0 else 0

    def _see_progress(self, served: Served) -> None:
        """It is answered, by whoever serves it by now."""
        self._drain_events(served)
        before = served.guest.event("progress", GIVE_UP)
        eventually(
            lambda: served.guest.event("progress", GIVE_UP)["reads"] > before["reads"],
            f"guest {served.domid} reads",
            GIVE_UP,
        )

    def _drain_events(self, served: Served) -> None:
        """Forget what it said some time ago."""
        stdout = served.guest.child.stdout
        assert stdout is not None
        while select.select([stdout], [], [], 0)[0]:
            event = json.loads(served.guest.line(GIVE_UP))
            assert event["event"] == "progress", event

    def _come_back(self, served: Served) -> None:
        """It ends its work, gives its disk back, and takes it again."""
        self.note(f"reopen {served.domid}")
        self._check(served)
        served.guest.event("closed", GIVE_UP)
        self.machine.attach(served.offer)
        served.guest.tell("open")
        served.guest.event("connected", GIVE_UP)
        served.guest.tell(served.load)
        served.guest.event("begun", GIVE_UP)
        served.deaths = 0

    def _check(self, served: Served) -> None:
        """Detach its disk: all that it was answered was right, and is on the disk."""
        assert self.machine.chain.detach(served.offer), f"guest {served.domid} does not close"
        done = served.guest.event("exercised", GIVE_UP)
        assert {name: done[name] for name in WRONG} == dict.fromkeys(WRONG, 0), done
        assert done["model_sha256"] == sha256(served.image), f"guest {served.domid}"
        self.counts["requests"] += done["reads"] + done["writes"]


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--here", action="store_true", help="rings are served in the daemon")
    options = parser.parse_args()
    config = "" if options.here else PROCESSES
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory, running_machine(config) as machine:
        kills = Kills(machine, Path(directory), options.seed, here=options.here)
        kills.run(options.kills)
        print(dict(kills.counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
