"""How disks are, from real marks, limits and a block device; and what clears it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.unit.family_bench import IDENTITY, Bench
from tests.unit.slow_run import SlowRun
from xbbd_bsd.block.condition import Condition
from xbbd_bsd.block.disk import key_of
from xbbd_bsd.block.health import DiskFacts, SharedFacts
from xbbd_bsd.block.shown import disk_facts
from xbbd_bsd.deeds import DiskCleared, ErrorsCleared
from xbbd_bsd.errands import HUNG_SECONDS, Run
from xbbd_bsd.errors import GuestError, HostError, OperatorError, XbbdError
from xbbd_bsd.ledger import Errors, Ledger
from xbbd_bsd.native import SegmentMedium, State
from xbbd_bsd.oids import Value
from xbbd_bsd.xenbus.family import Standing
from xbbd_bsd.xenbus.pace import RESTLESS

WHO = "root"


@dataclass
class FakeDevice:
    """What a device says of itself."""

    held_back: str = ""
    failed: XbbdError | None = None


@dataclass
class FakeNumbers:
    """The numbers of a device that counts what a test says."""

    errors: dict[str, Value] = field(default_factory=dict)
    medium: dict[str, Value] = field(default_factory=dict)

    def group(self, name: str) -> Mapping[str, Value]:
        return {"medium": self.medium, "errors": self.errors, "pause": {}}[name]

    def ages(self) -> list[float]:
        return [3.0]


def facts_of(device: FakeDevice, numbers: FakeNumbers, *, segment: bool = True) -> DiskFacts:
    known = numbers if segment else None
    standing = Standing.of(device.held_back, device.failed)
    unit = IDENTITY.unit
    return disk_facts(unit, standing, numbers.group, known, Ledger())  # type: ignore[arg-type]


def test_a_device_that_is_well() -> None:
    medium: dict[str, Value] = {"guest": "vm1", "vdev": "xvda", "path": "/a", "hung_seconds": 0}
    numbers = FakeNumbers(medium=medium)
    well = DiskFacts(0, "vm1", "xvda", "/a", ages=[3.0])
    assert facts_of(FakeDevice(), numbers) == well
    assert facts_of(FakeDevice(), numbers, segment=False) == replace(well, ages=())


def test_what_is_wrong_with_a_device() -> None:
    numbers = FakeNumbers(
        {"errors.write": 2, "errors.guest.malformed": 1}, {"hung_seconds": 7, "path_state": "gone"}
    )
    found = facts_of(FakeDevice(), numbers)
    assert found.errors == Errors({"write": 2})
    assert found.guest_errors == Errors({"malformed": 1})
    assert (found.hung_seconds, found.path_state) == (7, "gone")


@pytest.mark.parametrize(
    ("held_back", "failed", "expected"),
    [
        ("", HostError("the disk is gone"), ("", "the disk is gone", False)),
        ("", GuestError("no ring"), ("", "no ring", True)),
        ("no memory", None, ("no memory", "", False)),
        (RESTLESS, None, (RESTLESS, "", True)),
        ("no memory", GuestError("no ring"), ("no memory", "", False)),
    ],
)
def test_whose_turn_it_is(
    held_back: str, failed: XbbdError | None, expected: tuple[str, str, bool]
) -> None:
    found = facts_of(FakeDevice(held_back=held_back, failed=failed), FakeNumbers())
    assert (found.held_back, found.closed, found.by_guest) == expected


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


class Clears:
    """The condition of a bench, and who was told that a disk may be opened again."""

    def __init__(self, bench: Bench, run: Run | None = None) -> None:
        self.bench = bench
        self.tries = 0
        self.condition = Condition(
            marks=bench.family.marks,
            ledger=bench.family.ledger,
            devices=bench.family.devices,
            run=run or bench.family.run,
            loop=bench.loop,
            journal=bench.events.append,
            try_again=self._try,
        )

    def _try(self) -> None:
        self.tries += 1

    def clear(self, path: str | os.PathLike[str]) -> None:
        assert self.condition.clear(os.fspath(path), WHO)()

    def told(self) -> list[object]:
        return [e for e in self.bench.events if isinstance(e, DiskCleared | ErrorsCleared)]

    def facts(self) -> SharedFacts:
        return self.condition.facts()


def fail(bench: Bench, monkeypatch: pytest.MonkeyPatch, **counts: int) -> dict[str, int]:
    """The device of a bench that has a disk counts errors from now on: these."""
    errors = {f"errors.{name}": n for name, n in counts.items()}
    numbers = bench.family.devices[IDENTITY.unit]
    monkeypatch.setitem(numbers._groups, "errors", lambda: errors)
    return errors


def lose(bench: Bench, disk: Path) -> None:
    """A daemon before this one has left a segment that tells of a flush that failed."""
    path = bench.run / "xbbd.99"
    state = State.create(str(path), table_entries=32)
    state.medium = SegmentMedium(key_of(disk.stat()), str(disk), "vm1")
    state.lose(errno.EIO)
    state.close()
    assert bench.family.marks.take_over(str(path)) is not None
    path.unlink()


def test_nothing_is_wrong_at_first(bench: Bench) -> None:
    assert Clears(bench).facts() == SharedFacts(losses=[], past=[])


def test_a_loss_is_known_until_it_is_cleared(bench: Bench) -> None:
    clears = Clears(bench)
    lose(bench, bench.disk)
    (loss,) = clears.facts().losses
    assert (loss.path, loss.guest) == (str(bench.disk), "vm1")
    assert loss.reason == "a flush failed (Input/output error)"
    clears.clear(bench.disk)
    assert clears.facts().losses == []
    assert clears.told() == [DiskCleared(str(bench.disk), WHO)]
    assert clears.tries == 1


def test_a_loss_is_cleared_by_another_name_of_the_disk(bench: Bench) -> None:
    clears = Clears(bench)
    lose(bench, bench.disk)
    other = bench.disk.with_name("other")
    other.symlink_to(bench.disk)
    clears.clear(other)
    assert clears.facts().losses == []


def test_errors_without_a_loss_are_cleared(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the path of a device; what comes after counts again."""
    clears = Clears(bench)
    bench.open()
    errors = fail(bench, monkeypatch, write=3)
    numbers = bench.family.devices[IDENTITY.unit]
    clears.clear(bench.disk)
    assert clears.told() == [ErrorsCleared(str(bench.disk), 3, 0, WHO)]
    assert clears.tries == 0, "nothing waits for that"
    assert bench.family.ledger.errors(IDENTITY.unit, numbers.group).total == 0
    with pytest.raises(OperatorError, match="not known to have lost anything, nor to have had"):
        clears.clear(bench.disk)
    errors["errors.write"] = 5
    assert bench.family.ledger.errors(IDENTITY.unit, numbers.group).counts == {"write": 2}


def test_what_only_the_guest_did_wrong_is_cleared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clears = Clears(bench)
    bench.open()
    fail(bench, monkeypatch, **{"guest.grants": 2})
    clears.clear(bench.disk)
    assert clears.told() == [ErrorsCleared(str(bench.disk), 0, 2, WHO)]
    with pytest.raises(OperatorError, match="not known to have lost anything, nor to have had"):
        clears.clear(bench.disk)


def test_what_is_cleared_is_told_also_if_nobody_waits_for_the_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clears = Clears(bench, SlowRun())
    bench.open()
    fail(bench, monkeypatch, write=3)
    clears.condition.clear(str(bench.disk), WHO)
    assert clears.told() == [ErrorsCleared(str(bench.disk), 3, 0, WHO)]


def test_errors_and_a_loss_are_cleared_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clears = Clears(bench)
    bench.open()
    fail(bench, monkeypatch, flush=1)
    lose(bench, bench.disk)
    clears.clear(bench.disk)
    path = str(bench.disk)
    assert clears.told() == [ErrorsCleared(path, 1, 0, WHO), DiskCleared(path, WHO)]
    assert clears.facts().losses == []


def test_errors_of_other_disks_stay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    clears = Clears(bench)
    bench.open()
    fail(bench, monkeypatch, write=3)
    with pytest.raises(OperatorError):
        clears.clear("/other")
    numbers = bench.family.devices[IDENTITY.unit]
    assert bench.family.ledger.errors(IDENTITY.unit, numbers.group).total == 3


def test_a_device_that_goes_leaves_its_errors(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its guest starts again, maybe for them."""
    clears = Clears(bench)
    bench.open()
    fail(bench, monkeypatch, write=3)
    bench.down()
    bench.backend.forget()
    (past,) = clears.facts().past
    assert (past.path, past.guest, past.errors.counts) == (str(bench.disk), "vm", {"write": 3})
    clears.clear(bench.disk)
    assert clears.facts().past == []
    bench.backend = bench.create(IDENTITY)


def test_numbers_of_a_damaged_segment_are_not_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clears = Clears(bench)
    bench.open()
    fail(bench, monkeypatch, write=3)
    monkeypatch.setattr(State, "damaged", True)
    bench.down()
    bench.backend.forget()
    assert clears.facts().past == []
    bench.backend = bench.create(IDENTITY)


@pytest.mark.parametrize("count", [0, 3])
def test_a_path_that_does_not_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Whether it is a disk that has lost something cannot be known; that it had errors can."""
    clears = Clears(bench, SlowRun())
    bench.open()
    fail(bench, monkeypatch, write=count)
    ended: Callable[[], bool] = clears.condition.clear(str(bench.disk), WHO)
    assert not ended()
    now = bench.loop.time()
    monkeypatch.setattr(bench.loop, "time", lambda: now + HUNG_SECONDS)
    if count:
        assert ended()
        assert clears.told() == [ErrorsCleared(str(bench.disk), count, 0, WHO)]
    else:
        with pytest.raises(HostError, match="it does not answer"):
            ended()
