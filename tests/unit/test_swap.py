"""A disk is exchanged under a real queue, and whoever serves it dies at each moment of that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from errno import EBUSY, EINVAL, EIO, ENOTCONN
from pathlib import Path
from typing import Any

import pytest

from tests.unit.family_bench import IDENTITY, Bench
from tests.unit.test_family_takeover import is_served, served
from tests.waiting import GIVE_UP
from xbbd_bsd.block import swap as swap_module
from xbbd_bsd.block.disk import Disk, open_disk
from xbbd_bsd.block.fit import check_fits
from xbbd_bsd.block.medium import Medium
from xbbd_bsd.block.named import named_anew
from xbbd_bsd.block.negotiate import Discard, DiskInfo
from xbbd_bsd.block.passport import NOTE
from xbbd_bsd.block.queues import info_of
from xbbd_bsd.block.stores import store_named
from xbbd_bsd.deeds import DiskSwapped
from xbbd_bsd.errands import Pending
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import DiskGeometry
from xbbd_bsd.host.choice import platform
from xbbd_bsd.native import DiskKind, Op
from xbbd_bsd.ringset import RingSet
from xbbd_bsd.xenbus.states import Queue

UNIT = IDENTITY.unit


@pytest.fixture
def other(bench: Bench) -> Path:
    """What is to take the place of its disk, once a guest has written to that."""
    served(bench)
    path = bench.disk.with_name("other")
    shutil.copyfile(bench.disk, path)
    return path


class Swap:
    """An exchange that is under way, and the device's part in it, step by step."""

    def __init__(self, bench: Bench, path: Path) -> None:
        self.bench = bench
        self.steps = bench.family.perform("swap", UNIT, "root", str(path))
        self.moments: list[str] = []
        self.ended = False

    def step(self) -> str:
        """Until the next moment that is worth a death; "" when it has ended."""
        bench = self.bench
        end = bench.loop.time() + GIVE_UP
        while not self.ended:
            assert bench.loop.time() < end
            if next(self.steps, bench) is bench:
                self.ended = True
            elif bench.backend.news and bench.backend.queue is Queue.RUNNING:
                return self.at("parked") or self.write()
            elif bench.backend.adoptable and bench.queue() is Queue.NONE:
                return self.at("told") or self.adopt()
            else:
                bench.loop.call_later(0.001, bench.loop.stop)
                bench.loop.run_forever()
                if (found := self.at("paused" if self.segment.paused else "")) != "":
                    return found
        return ""

    @property
    def segment(self) -> Any:
        return self.bench.family.devices[UNIT].segment

    def at(self, moment: str) -> str:
        """The moment, once."""
        if moment == "" or moment in self.moments:
            return ""
        self.moments.append(moment)
        return moment

    def write(self) -> str:
        """As the device does in one transaction."""
        for name, value in self.bench.backend.news.items():
            self.bench.backend_nodes.pop(name, None)
            if value is not None:
                self.bench.backend_nodes[name] = value
        if (found := self.at("written")) != "":
            return found
        self.bench.backend.told()
        return self.at("let go")

    def adopt(self) -> str:
        self.bench.adopt()
        return self.at("adopted")

    def finish(self) -> None:
        """To its end."""
        while self.step():
            pass


def swapped(bench: Bench, path: Path) -> None:
    Swap(bench, path).finish()


def resume(bench: Bench) -> None:
    for _ in bench.family.perform("resume", UNIT, "root"):
        pass


def disk_of(bench: Bench) -> Path:
    return Path(str(bench.backend.medium_facts()["path"]))


def die(bench: Bench, swap: Swap | None = None) -> None:
    """As Bench.die, with all that lay there; an exchange gives back what it has open."""
    last = {path: path.read_bytes() for path in bench.run.iterdir()}
    bench.down()
    bench.backend.forget()
    with suppress(HostError):
        for _ in swap.steps if swap is not None else ():
            bench.loop.call_later(0.001, bench.loop.stop)
            bench.loop.run_forever()
    for path in bench.run.iterdir():
        path.unlink()
    for path, content in last.items():
        path.write_bytes(content)
    bench.follow()


def test_it_is_exchanged(bench: Bench, other: Path) -> None:
    old, before = bench.disk.read_bytes(), len(os.listdir("/dev/fd"))
    swapped(bench, other)
    assert bench.events[-1] == DiskSwapped(bench.backend.name, str(bench.disk), str(other), "root")
    assert disk_of(bench) == other
    assert bench.backend_nodes["physical-device-path"] == os.fsencode(other)
    assert is_served(bench)
    bench.front.transfer(Op.WRITE, 8, 8, bytearray(b"x" * 4096), GIVE_UP)
    assert bench.disk.read_bytes() == old
    assert other.read_bytes()[4096:8192] == b"x" * 4096
    assert len(os.listdir("/dev/fd")) == before
    assert f"xbbd.{UNIT}{NOTE}" not in os.listdir(bench.run)
    assert bench.family.devices[UNIT].group("takeovers")["takeovers"] == 0
    swapped(bench, bench.disk)  # which is free again
    assert disk_of(bench) == bench.disk


MOMENTS = ("parked", "written", "let go", "told", "adopted", "")


@pytest.mark.parametrize("leaves", [False, True], ids=["dies", "leaves"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_serves_it_ends(bench: Bench, other: Path, moment: str, *, leaves: bool) -> None:
    """The next one has the disk that our node says, and whichever that is, only one."""
    swap = Swap(bench, other)
    seen = []
    while (found := swap.step()) != moment:
        seen.append(found)
    before = bench.disk if moment == "parked" else other
    if leaves:
        bench.backend.leave()
        bench.family.leave()
    die(bench, swap)
    assert bench.backend.lost == "", seen
    bench.adopt()
    assert disk_of(bench) == before
    medium = bench.family.devices[UNIT].segment.medium
    assert medium is not None
    assert medium.path == str(before)
    assert not (bench.run / f"xbbd.{UNIT}{NOTE}").exists()
    assert bench.family.devices[UNIT].segment.paused is None  # nobody else had paused it
    assert is_served(bench)
    swapped(bench, bench.disk if before == other else other)
    die(bench)
    bench.adopt()
    assert is_served(bench)


@pytest.mark.parametrize("failed", [False, True], ids=["operator", "error"])
def test_another_ones_pause_is_there_after_a_death(
    bench: Bench, other: Path, *, failed: bool
) -> None:
    """That of whoever died is not."""
    bench.family.devices[UNIT].segment.pause(failed=failed)
    swap = Swap(bench, other)
    while swap.step() != "parked":
        pass
    assert swap.segment.paused.swapped
    die(bench, swap)
    bench.adopt()
    found = bench.family.devices[UNIT].segment.paused
    assert found is not None
    assert (found.asked, found.failed, found.swapped) == (not failed, failed, False)
    resume(bench)
    assert is_served(bench)


def test_an_errors_pause_ends_with_its_disk(bench: Bench, other: Path) -> None:
    """Though whoever exchanged that has died."""
    bench.family.devices[UNIT].segment.pause(failed=True)
    swap = Swap(bench, other)
    while swap.step() != "told":
        pass
    die(bench, swap)
    bench.adopt()
    assert disk_of(bench) == other
    assert bench.family.devices[UNIT].segment.paused is None
    assert is_served(bench)


def test_the_store_does_not_take_it(bench: Bench, other: Path) -> None:
    """What was to be written is not: the old disk, and what waited goes on."""
    swap = Swap(bench, other)
    while swap.step() != "parked":
        pass
    bench.backend.told()  # as after a refusal, when nobody is left to tell
    with pytest.raises(HostError, match="XenStore has not taken what names the disk"):
        swap.finish()
    assert disk_of(bench) == bench.disk
    assert bench.family.devices[UNIT].segment.paused is None
    assert is_served(bench)
    assert f"xbbd.{UNIT}{NOTE}" not in os.listdir(bench.run)


def test_its_guest_closes_it_meanwhile(bench: Bench, other: Path) -> None:
    swap = Swap(bench, other)
    while swap.step() != "parked":
        pass
    bench.backend.drain()
    assert bench.queue() is Queue.NONE
    assert bench.backend.adoptable
    bench.adopt()
    assert disk_of(bench) == bench.disk
    with pytest.raises(HostError, match="XenStore has not taken"):
        swap.finish()


def test_nobody_else_may_resume_it(bench: Bench, other: Path) -> None:
    swap = Swap(bench, other)
    assert swap.step() in ("paused", "parked")
    for verb in ("pause", "resume", "swap"):
        with pytest.raises(OperatorError, match="its disk is being exchanged") as raised:
            next(bench.family.perform(verb, UNIT, "root", str(other)))
        assert raised.value.errno == EBUSY
    swap.finish()
    assert is_served(bench)


def test_who_serves_it_is_lost_meanwhile(
    bench: Bench, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a process that dies when it was told to hand over: another one adopts the old disk."""
    lost = property(lambda rings: None if rings.queues else HostError("it has ended"))
    swap = Swap(bench, other)
    with monkeypatch.context() as patch:
        patch.setattr(RingSet, "lost", lost)
        with pytest.raises(HostError, match="whoever served it has ended"):
            swap.finish()
    assert bench.backend.adoptable
    bench.adopt()
    assert disk_of(bench) == bench.disk
    assert is_served(bench)


def test_one_that_hangs(bench: Bench, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its guest goes on with the old disk; what is under way for the new one is given back."""
    monkeypatch.setattr(swap_module, "LIMIT", 0.01)
    monkeypatch.setattr(Medium, "open", pending)
    with pytest.raises(HostError, match="one of the disks does not answer"):
        swapped(bench, other)
    assert is_served(bench)


def test_one_that_cannot_be_flushed(
    bench: Bench, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one has lost something then, and is not to be believed by anybody."""

    def fails(fd: int, kind: DiskKind) -> bool:
        raise HostError("flush: Input/output error", EIO)

    monkeypatch.setattr(swap_module, "can_flush", fails)
    with pytest.raises(HostError, match="flush: Input/output error"):
        swapped(bench, other)
    assert bench.family.devices[UNIT].segment.lost_errno == EIO
    bench.down()
    assert list(bench.family.perform("clear", str(bench.disk), "root")) == []


def pending(*given: Any) -> Disk:
    raise Pending


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("fits", [False, True])
def test_whose_pause_it_ends(
    bench: Bench, other: Path, asked: bool, failed: bool, fits: bool
) -> None:
    """An error's, with its disk; an operator's never."""
    segment = bench.family.devices[UNIT].segment
    if asked:
        segment.pause()
    if failed:
        segment.pause(failed=True)
    if fits:
        swapped(bench, other)
    else:
        with pytest.raises(OperatorError):
            swapped(bench, bench.disk)
    found = segment.paused
    assert (found is not None and found.asked) == asked
    assert (found is not None and found.failed) == (failed and not fits)
    if found is not None:
        segment.resume()


def test_one_that_nobody_uses(bench: Bench) -> None:
    bench.open()
    with pytest.raises(OperatorError, match="no guest is connected") as raised:
        next(bench.family.perform("swap", UNIT, "root", "/nowhere"))
    assert raised.value.errno == ENOTCONN


@pytest.mark.parametrize("path", ["", "disk", f"/{1001 * 'x'}", "tcp://me:secret@host/x"])
def test_no_name(bench: Bench, other: Path, path: str) -> None:
    with pytest.raises(OperatorError, match="neither a path from the root") as raised:
        next(bench.family.perform("swap", UNIT, "root", path))
    assert raised.value.errno == EINVAL
    assert "secret" not in str(raised.value)


def test_one_of_a_server_has_one_ring(disk: Disk) -> None:
    store = store_named(b"nbd://host/name", {})
    with pytest.raises(OperatorError, match="can have one ring, and its guest has 2"):
        check_fits(replace(disk, store=store), disk, replace(TOLD, discard=None), 2)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    found = open_disk(os.fsencode(path), read_only=False, prepare=platform().prepare_disk)
    yield found
    found.close()


def with_geometry(**changed: Any) -> Callable[[DiskGeometry], DiskGeometry]:
    return lambda geometry: replace(geometry, **changed)


TOLD = DiskInfo(2048, discard=Discard(512, 0, False))


@pytest.mark.parametrize(
    ("told", "change", "why"),
    [
        (TOLD, with_geometry(), ""),
        (TOLD, with_geometry(size=2 << 20), ""),
        (TOLD, with_geometry(sector_size=4096), "its sectors are of 4096 bytes"),
        (TOLD, with_geometry(size=1 << 19), "it has 1024 sectors of 512 bytes, less than the 2048"),
        (TOLD, with_geometry(discard=None), "it cannot discard, which"),
        (TOLD, with_geometry(cdrom=True), "another kind of medium"),
        (TOLD, with_geometry(removable=True), "another kind of medium"),
        (replace(TOLD, cdrom=True), with_geometry(), ""),
        (replace(TOLD, discard=None), with_geometry(discard=None), ""),
        (replace(TOLD, discard=Discard(512, 0, True)), with_geometry(discard_secure=False),
         "it cannot discard securely"),
        (replace(TOLD, durable=True), with_geometry(durable=False, flushes=True),
         "it has to be flushed"),
        (replace(TOLD, durable=True), with_geometry(flushes=False), ""),
        (TOLD, with_geometry(durable=True), ""),
    ],
)  # fmt: skip
def test_what_fits(
    disk: Disk, told: DiskInfo, change: Callable[[DiskGeometry], DiskGeometry], why: str
) -> None:
    able = replace(disk.geometry, discard=disk.geometry.discard or (512, 0))
    new = replace(disk, geometry=change(able))
    if not why:
        check_fits(new, disk, told)
        return
    with pytest.raises(OperatorError, match=f"file does not fit: .*{why}"):
        check_fits(new, disk, told)


def test_a_disk_fits_itself(disk: Disk) -> None:
    told = info_of(disk, 0, cdrom=False, removable=False, discard=True)
    check_fits(disk, disk, told)


def test_how_it_is_named(disk: Disk) -> None:
    """What the toolstack's own node says it says on, unless it is the old path."""
    gone = {"physical-device": None}
    assert named_anew("physical-device-path", b"/a", disk, "/a", "/b") == {
        "params": b"/b", "physical-device-path": b"/b", **gone
    }  # fmt: skip
    assert named_anew("physical-device-path", b"store:db", disk, "/a", "/b") == {
        "physical-device-path": b"/b", **gone
    }  # fmt: skip
    assert named_anew("params", b"aio:/a", disk, "/a", "/b") == {"params": b"aio:/b"}
    with pytest.raises(OperatorError, match="is a file, and physical-device names devices only"):
        named_anew("physical-device", b"/a", disk, "/a", "/b")
