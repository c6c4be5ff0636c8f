"""Segments that a daemon left in a directory, and whoever served before, for whoever asks."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from xbbd_bsd.block.heritage import Heritage, Inheritance, Left
from xbbd_bsd.block.marks import Marks
from xbbd_bsd.block.rings import CRAFT
from xbbd_bsd.config import DiskConfig
from xbbd_bsd.events import Event
from xbbd_bsd.native import (
    Abi,
    DiskKind,
    HvKind,
    QueueState,
    SegmentIdentity,
    SegmentMedium,
    State,
)
from xbbd_bsd.serving import Here
from xbbd_bsd.xenbus.family import Identity

DISK = SegmentMedium(("file", 3, 4), "/disks/one", "vm1")
CONFIG = DiskConfig(max_queues=1, max_ring_page_order=0)
MACHINE = "/vm/00000000-1111-2222-3333-444444444444"


class Estate:
    """A directory of segments, and what was logged of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[Event] = []

    def path(self, unit: int) -> Path:
        return self.directory / f"xbbd.{unit}"

    def make(self, unit: int, kind: str = "vbd", domid: int = 5, **whose: object) -> State:
        """A segment as of a daemon that serves two rings, still open."""
        words: dict[str, object] = {"number": 51712, "unit": unit, "machine": MACHINE, **whose}
        who = SegmentIdentity(kind, domid, **words)  # type: ignore[arg-type]
        segment = State.create(str(self.path(unit)), rings=3, table_entries=32, identity=who)
        segment.medium = DISK
        segment.connect(2)
        for number in (0, 1):
            serve(segment, number, domid)
        return segment

    def leave(self, unit: int, kind: str = "vbd", domid: int = 5, **whose: object) -> Path:
        """And of one that is gone."""
        self.make(unit, kind, domid, **whose).close()
        return self.path(unit)

    def heritage(self) -> Heritage:
        directory = str(self.directory)
        return Heritage(directory, Marks(directory), self.events.append)

    def files(self) -> list[str]:
        return sorted(name for name in os.listdir(self.directory) if name.startswith("xbbd"))


def serve(segment: State, number: int, domid: int = 5) -> None:
    """Have a ring look served."""
    ring = segment.handle.ring[number]
    ring.common.connected, ring.common.max_requests = 1, 32
    ring.common.status.state = QueueState.RUNNING
    params = ring.params
    params.conn.hv, params.conn.domid, params.conn.remote_port = HvKind.SIM, domid, 7 + number
    params.conn.ring_pages, params.conn.workers = 2, 3
    params.conn.ring_ref[0:2] = [10 + number, 20 + number]
    params.abi, params.disk_kind = Abi.X86_64, DiskKind.FILE
    params.sector_size = params.block_size = 512
    params.max_batch_segments, params.max_grants = 64, 2816


def identity(domid: int = 5, kind: str = "vbd", number: int = 51712, unit: int = 0) -> Identity:
    return Identity(kind, domid, number, "xbbd", unit)


class FakeFormer:
    """Whoever served before, and does what it is told."""

    def __init__(self) -> None:
        self.inherit = Here(CRAFT, None, None).inherit  # type: ignore[arg-type]
        self.said: list[str] = []
        self.done: Callable[[bool | None], None] = lambda outcome: None

    def release(self, who: Identity, done: Callable[[bool | None], None]) -> None:
        self.said.append("release")
        self.done = done

    def drop(self, who: Identity, done: Callable[[], None]) -> None:
        self.said.append("drop")
        self.dropped = done


def inheritance_of(left: Left | None, former: FakeFormer | None = None) -> Inheritance:
    former = former or FakeFormer()
    return Inheritance(left, former, identity(), lambda: former.said.append("woken"))


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return Estate(tmp_path)
