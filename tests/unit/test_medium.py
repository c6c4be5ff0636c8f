"""A disk that takes its time: what is asked of it comes back when the test says so."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.descriptors import open_descriptors
from tests.unit.family_bench import PORT, Bench
from tests.unit.slow_run import SlowRun
from xbbd_bsd.errands import HUNG_SECONDS, Pending
from xbbd_bsd.errors import GuestError, HostError, OperatorError
from xbbd_bsd.events import HangEnded, Hangs
from xbbd_bsd.native import Op, sim_mapped
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue


class SlowBench(Bench):
    """A bench whose disk does nothing before it is told to."""

    def __init__(self, directory: Path) -> None:
        self.slow = SlowRun()
        super().__init__(directory, self.slow)

    def opened(self) -> str:
        with pytest.raises(Pending):
            self.open()
        self.slow.finish()
        return self.open()

    def connected(self) -> None:
        with pytest.raises(Pending):
            self.connect()
        self.slow.finish()
        self.connect()

    def close(self) -> None:
        self.slow.finish_all()
        if self.backend.queue is Queue.RUNNING:
            self.backend.drain()
            self.drained()
        self.backend.disconnect()
        if self.backend.medium_open:
            with pytest.raises(Pending):
                self.backend.close()
            self.slow.finish_all()
        super().close()


@pytest.fixture
def bench(short_path: Path) -> Iterator[SlowBench]:
    before = open_descriptors()
    bench = SlowBench(short_path)
    yield bench
    bench.close()
    assert open_descriptors() == before


def test_up_and_down(bench: SlowBench) -> None:
    for _ in range(2):
        with pytest.raises(Pending):
            bench.open()
    assert bench.slow.waiting == ["opening the disk"]
    assert not bench.backend.medium_open
    bench.slow.finish()
    assert bench.wakes == 1
    assert "writable" in bench.open()
    assert bench.backend.medium_open
    with pytest.raises(Pending):
        bench.connect()
    assert bench.queue() is Queue.NONE
    bench.slow.finish()
    bench.connect()
    bench.front.transfer(Op.WRITE, 0, 1, bytearray(512), 10)
    bench.backend.drain()
    bench.drained()
    bench.backend.disconnect()
    with pytest.raises(Pending):
        bench.backend.close()
    assert bench.backend.medium_open, "it may still have something to write"
    bench.slow.finish()
    assert not bench.backend.medium_open


def test_a_disk_that_is_being_closed_is_still_in_use(bench: SlowBench) -> None:
    bench.opened()
    other = bench.create(Identity("vbd", 6, 51712, "xbbd", 1))
    other.introduce(bench.backend_nodes.get, "vm2", "/vm/2")
    other.capabilities(bench.backend_nodes.get)
    with pytest.raises(Pending):
        bench.backend.close()
    with pytest.raises(Pending):
        other.open(bench.backend_nodes.get)
    waiting = bench.slow.waiting.copy()
    assert waiting == ["closing the disk", "opening the disk"]
    bench.slow.finish_last()
    with pytest.raises(OperatorError, match="in use by xbbd0"):
        other.open(bench.backend_nodes.get)
    bench.slow.finish_all()
    with pytest.raises(Pending):
        other.open(bench.backend_nodes.get)
    bench.slow.finish()
    assert "writable" in other.open(bench.backend_nodes.get)
    with pytest.raises(Pending):
        other.close()
    bench.slow.finish()
    other.forget()


def test_who_is_not_waited_for_leaves_nothing(bench: SlowBench) -> None:
    bench.backend.capabilities(bench.backend_nodes.get)
    descriptors = open_descriptors()
    with pytest.raises(Pending):
        bench.open()
    bench.backend.abandon()
    bench.slow.finish_all()
    assert open_descriptors() == descriptors
    bench.opened()
    descriptors = open_descriptors()
    with pytest.raises(Pending):
        bench.connect()
    bench.backend.abandon()
    bench.slow.finish_all()
    assert open_descriptors() == descriptors
    assert sim_mapped(bench.host.domain_fd) == 0


def test_a_guest_that_says_something_else_meanwhile(bench: SlowBench) -> None:
    """One connection at a time: the first is given back before the second is begun."""
    bench.opened()
    with pytest.raises(Pending):
        bench.connect()
    bench.frontend_nodes["event-channel"] = b"%d" % (PORT + 1)
    with pytest.raises(Pending):
        bench.connect()
    assert bench.slow.waiting == ["mapping the guest's pages"]
    bench.slow.finish()
    with pytest.raises(Pending):
        bench.connect()
    bench.slow.finish()
    assert sim_mapped(bench.host.domain_fd) == 0
    with pytest.raises(Pending):
        bench.connect()
    bench.slow.finish()
    with pytest.raises(GuestError, match="no event channel 4"):
        bench.connect()


def test_a_look_waits_for_what_is_being_done(bench: SlowBench) -> None:
    bench.opened()
    with pytest.raises(Pending):
        bench.connect()
    os.truncate(bench.disk, 2 << 20)
    ended = bench.backend.measure()
    assert not ended()
    assert bench.slow.waiting == ["mapping the guest's pages"]
    bench.slow.finish()
    bench.connect()
    assert bench.slow.waiting == ["measuring the disk"]
    later = bench.backend.measure()
    bench.slow.finish()
    assert ended()
    assert bench.backend.news == {"sectors": b"4096"}
    assert not later(), "it was asked for when that one had begun"
    bench.slow.finish()
    assert later()


def test_a_look_that_does_not_come_back(bench: SlowBench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.opened()
    ended = bench.backend.measure()
    now = bench.loop.time()
    monkeypatch.setattr(bench.loop, "time", lambda: now + HUNG_SECONDS + 1)
    with pytest.raises(HostError, match=r"xbbd0 .*: the disk does not answer"):
        ended()
    assert bench.backend.medium_facts()["hung_seconds"] == HUNG_SECONDS + 1
    bench.slow.finish()
    assert bench.backend.medium_facts()["hung_seconds"] == 0
    (said,) = [event for event in bench.events if isinstance(event, HangEnded)]
    assert said.what == "measuring the disk"


def test_requests_that_do_not_come_back(bench: SlowBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the segment shows, as no queue can be made to wait here."""
    bench.opened()
    waits = [0.0]
    monkeypatch.setattr(bench.backend, "_waits", lambda: waits[0])
    for seconds, said in ((4.0, 0), (5.0, 1), (9.0, 1), (0.0, 2), (1.0, 2)):
        waits[0] = seconds
        bench.backend.measure()
        bench.slow.finish_all()
        events = [e for e in bench.events if isinstance(e, Hangs | HangEnded)]
        assert len(events) == said
        assert bench.backend.medium_facts()["hung_seconds"] == (seconds if seconds >= 5 else 0)
    assert events == [
        Hangs(bench.backend.name, "requests at the disk"),
        HangEnded(bench.backend.name, "requests at the disk", 9.0),
    ]


def test_a_device_that_is_gone_is_not_spoken_of(
    bench: SlowBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk was being opened, and hangs still."""
    other = bench.create(Identity("vbd", 6, 51712, "xbbd", 1))
    other.introduce(bench.backend_nodes.get, "vm2", "/vm/2")
    other.capabilities(bench.backend_nodes.get)
    with pytest.raises(Pending):
        other.open(bench.backend_nodes.get)
    other.forget()
    now = bench.loop.time()
    monkeypatch.setattr(bench.loop, "time", lambda: now + HUNG_SECONDS + 1)
    bench.slow.finish_all()
    assert bench.events == []


def test_a_close_for_which_there_is_no_thread_is_tried_again(
    bench: SlowBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xbbd_bsd.block.medium.AGAIN_SECONDS", 0.0)
    bench.opened()
    bench.slow.refuses = True
    with pytest.raises(Pending):
        bench.backend.close()
    bench.slow.refuses = False
    bench.drained()
    with pytest.raises(Pending):
        bench.backend.close()
    assert bench.slow.waiting == ["closing the disk"]


def test_a_disk_that_may_not_be_had_is_closed(bench: SlowBench) -> None:
    bench.opened()
    other = bench.create(Identity("vbd", 6, 51712, "xbbd", 1))
    other.introduce(bench.backend_nodes.get, "vm2", "/vm/2")
    other.capabilities(bench.backend_nodes.get)
    with pytest.raises(Pending):
        other.open(bench.backend_nodes.get)
    bench.slow.finish()
    descriptors = open_descriptors()
    with pytest.raises(OperatorError, match="in use by xbbd0"):
        other.open(bench.backend_nodes.get)
    assert bench.slow.waiting == ["undoing: closing the disk"]
    bench.slow.finish()
    assert len(open_descriptors()) == len(descriptors) - 1
    other.forget()


def test_a_disk_that_goes_before_it_is_locked_is_closed(
    bench: SlowBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(fd: int, *, writable: bool) -> int | None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    bench.backend.capabilities(bench.backend_nodes.get)
    descriptors = open_descriptors()
    monkeypatch.setattr(bench.host, "lock_disk", stale)
    with pytest.raises(OperatorError, match=f"unable to lock {bench.disk}: Stale file handle"):
        bench.opened()
    assert open_descriptors() == descriptors
