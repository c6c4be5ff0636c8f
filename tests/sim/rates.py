"""What limits let through, in whole simulated machines: figures, and how tests measure.

    python -m tests.sim.rates [SECONDS [NAME]]

prints how far what is done is from what may be, in the daemon and in processes of guests,
on one ring and on four, of two disks in a group, of a guest's; and what a tenant at its
limit costs a neighbour.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from glob import glob
from pathlib import Path
from statistics import median

from tests.sim.conftest import PROCESSES, XVDA, Machine, running_machine
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.native import State
from xbbd_bsd.sim.chain import Guest
from xbbd_bsd.toolstack import DiskOffer

SIZE = 8 << 20
READS = "exercise seconds=120 verify=0 depth=32 read_percent=100 min_sectors=8 max_sectors=8"
WRITES = READS.replace("read_percent=100", "read_percent=0")
ONE_BY_ONE = READS.replace("depth=32", "depth=1")
MIXED = READS.replace("read_percent=100", "read_percent=50")
LARGE = READS.replace("min_sectors=8 max_sectors=8", "min_sectors=88 max_sectors=88")


def work(machine: Machine, image: Path, load: str, *options: str, domid: int = 1) -> Guest:
    """A guest that does that on a disk of its own."""
    guest = machine.connected(image, *options, domid=domid)
    begin(guest, load)
    return guest


def begin(guest: Guest, load: str) -> None:
    guest.tell(load)
    guest.event("begun")


def image_of(directory: Path, number: int = 0) -> Path:
    path = directory / f"disk{number}.img"
    with path.open("wb") as file:
        file.write(bytes(SIZE))
    return path


def totals(state: State) -> tuple[int, int]:
    """Operations and bytes that were done."""
    done = state.devstat(received=True)
    return sum(done.operations), sum(done.bytes)


def held(state: State) -> bool:
    return state.counters()["throttled"] > 0


def measured(
    states: Sequence[State], wanted: int, *, of_bytes: bool = False
) -> tuple[float, list[float]]:
    """How much a second all did together, while they did so much, and how much each did of it.

    In operations, or bytes; once something is held back.
    """

    def done() -> list[int]:
        return [totals(state)[of_bytes] for state in states]

    eventually(lambda: any(held(state) for state in states), "a limit holds something back")
    before, begun = done(), time.monotonic()
    eventually(lambda: sum(done()) - sum(before) >= wanted, f"{wanted} are done", GIVE_UP)
    after, took = done(), time.monotonic() - begun
    parts = [now - then for now, then in zip(after, before, strict=True)]
    return sum(parts) / took, [part / sum(parts) for part in parts]


def figures(seconds: float, wanted: str = "") -> None:
    """Print all of them, or those whose names begin so."""
    for where, processes in (("daemon", ""), ("process", PROCESSES)):
        guests = processes or "[guest]\n"
        for name, limit, load, options, domids, config in (
            ("1 ring", 500, READS, (), (1,), f"{processes}[disk]\niops_max = 500\n"),
            ("4 rings", 2000, READS, ("--queues", "4"), (1,),
             f"{processes}[disk]\niops_max = 2000\n"),
            ("4 rings, writes", 20000, WRITES, ("--queues", "4"), (1,),
             f"{processes}[disk]\nwrite_iops_max = 20000\n"),
            ("4 rings, bytes", -(40 << 20), LARGE, ("--queues", "4"), (1,),
             f'{processes}[disk]\nbytes_max = "40M"\n'),
            ("group of 2", 3000, READS, (), (1, 2),
             f'{processes}[disk]\nlimit_group = "g"\n[group.g]\niops_max = 3000\n'),
            ("group of 2, 4 rings", -(30 << 20), LARGE, ("--queues", "4"), (1, 2),
             f'{processes}[disk]\nlimit_group = "g"\n[group.g]\nbytes_max = "30M"\n'),
            ("guest", 1000, MIXED, (), (1,), f"{guests}iops_max = 1000\n"),
        ):  # fmt: skip
            if not name.startswith(wanted):
                continue
            with tempfile.TemporaryDirectory() as scratch, running_machine(config) as machine:
                for number, domid in enumerate(domids):
                    image = image_of(Path(scratch), number)
                    work(machine, image, load, *options, domid=domid)
                with ExitStack() as stack:
                    states = [machine.state(unit) for unit in range(len(domids))]
                    for state in states:
                        stack.callback(state.close)
                    amount = int(abs(limit) * seconds)
                    got, parts = measured(states, amount, of_bytes=limit < 0)
                print(
                    f"{where:8} {name:20} {abs(limit):9} {got:12.1f}"
                    f" {100 * (got / abs(limit) - 1):+6.2f} % "
                    + " ".join(f"{part:.3f}" for part in parts),
                    flush=True,
                )
        if "neighbour".startswith(wanted):
            neighbour(where, processes, seconds)


def neighbour(where: str, processes: str, seconds: float) -> None:
    """What one gets beside an idle tenant, and beside one that is at its limit, in turns.

    And the processor time that serving the latter takes, of one processor: on a machine that
    does other things that says more.
    """
    config = f'{processes}[[override]]\nguest = "2"\niops_max = 500\n'
    with tempfile.TemporaryDirectory() as scratch, running_machine(config) as machine:
        begin(machine.connected(image_of(Path(scratch), 0)), ONE_BY_ONE)
        other = machine.guest(2)
        machine.attach(DiskOffer(2, XVDA, str(image_of(Path(scratch), 1))))
        other.event("connected")
        state, busy = machine.state(0), machine.state(1)
        alone, beside, took = [], [], []
        for _ in range(10):
            alone.append(pace(state, seconds / 10))
            begin(other, READS.replace("seconds=120", f"seconds={seconds / 10 + 0.5}"))
            other.event("progress")
            before, begun = cpu_seconds(busy), time.monotonic()
            beside.append(pace(state, seconds / 10))
            took.append((cpu_seconds(busy) - before) / (time.monotonic() - begun))
            other.event("exercised")
        state.close()
        busy.close()
        print(
            f"{where:8} neighbour: alone {median(alone):.0f} a second, beside one at its limit"
            f" {median(beside):.0f}, {100 * (median(beside) / median(alone) - 1):+.2f} %;"
            f" {100 * median(took):.2f} % of a processor",
            flush=True,
        )


def cpu_seconds(state: State) -> float:
    """What the thread of a disk's ring has had, wherever it is (Linux)."""
    name = f"xbbd{state.identity.unit} ring0"
    for task in glob("/proc/[0-9]*/task/*/comm"):
        with suppress(OSError), open(task) as comm:
            if comm.read().strip() == name:
                with open(task.replace("comm", "schedstat")) as stat:
                    return int(stat.read().split()[0]) / 1e9
    return 0.0


def pace(state: State, seconds: float) -> float:
    before, begun = totals(state), time.monotonic()
    eventually(lambda: time.monotonic() - begun >= seconds, "time has gone by", GIVE_UP)
    return (totals(state)[0] - before[0]) / (time.monotonic() - begun)


if __name__ == "__main__":
    figures(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0, *sys.argv[2:])
