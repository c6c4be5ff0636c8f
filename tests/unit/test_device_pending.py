"""A device whose disk or ring takes its time: the guest, the toolstack and we go on meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.xenbus_bench import Bench, FakeBackend
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.xenbus.states import Queue


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    bench = Bench(short_path)
    yield bench
    bench.close()


def begun(bench: Bench, deed: str) -> FakeBackend:
    backends = bench.family.backends
    bench.until(lambda: any(f"{deed}?" in backend.deeds for backend in backends.values()))
    return bench.backend


def finish(bench: Bench, deed: str) -> None:
    bench.family.pending.discard(deed)
    bench.backend.wake()


def offered(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()


def test_a_disk_that_is_being_opened(bench: Bench) -> None:
    bench.family.pending.add("open")
    offered(bench)
    backend = begun(bench, "open")
    bench.guest(3)
    bench.rest()
    assert (bench.node("state"), bench.node("hotplug-status")) == (b"2", None)
    steps = [line for line in bench.lines if "open the medium" in line]
    assert len(steps) == 1, "asked for again it is no other step"
    assert "abandon" not in backend.deeds
    finish(bench, "open")
    bench.state(4)
    assert bench.node("hotplug-status") == b"connected"


def test_an_opening_that_fails_in_the_end(bench: Bench) -> None:
    bench.family.pending.add("open")
    offered(bench)
    begun(bench, "open")
    bench.family.errors["open"] = OperatorError("unable to open it: Stale file handle")
    finish(bench, "open")
    bench.state(5)
    assert bench.node("hotplug-error") == b"unable to open it: Stale file handle"


def test_a_guest_that_leaves_while_its_disk_is_opened(bench: Bench) -> None:
    bench.family.pending.add("open")
    offered(bench)
    backend = begun(bench, "open")
    bench.guest(5)
    bench.state(5)
    bench.guest(6)
    bench.state(6)
    assert backend.deeds[-2:] == ["open?", "abandon"]
    bench.guest(1)
    bench.state(2)
    bench.until(lambda: backend.deeds.count("open?") >= 2)
    finish(bench, "open")
    bench.guest(3)
    bench.state(4)


def test_a_device_that_is_removed_while_its_disk_is_opened(bench: Bench) -> None:
    bench.family.pending.add("open")
    offered(bench)
    backend = begun(bench, "open")
    bench.delete()
    bench.until(lambda: not bench.bus.devices)
    assert backend.deeds[-3:] == ["open?", "abandon", "forget"]


def test_the_daemon_leaves_while_a_disk_is_opened(bench: Bench) -> None:
    bench.family.pending.add("open")
    offered(bench)
    backend = begun(bench, "open")
    ended: list[bool] = []
    bench.bus.stop(lambda: ended.append(True))
    bench.until(lambda: bool(ended))
    assert backend.deeds[-3:] == ["open?", "abandon", "forget"]


def test_a_ring_that_is_being_connected(bench: Bench) -> None:
    bench.family.pending.add("connect")
    offered(bench)
    bench.guest(3)
    begun(bench, "connect")
    bench.rest()
    assert bench.node("state") == b"2"
    finish(bench, "connect")
    bench.state(4)


def test_a_guest_that_dies_while_its_ring_is_connected(bench: Bench) -> None:
    bench.family.pending.add("connect")
    offered(bench)
    bench.guest(3)
    backend = begun(bench, "connect")
    bench.toolstack.remove(bench.front())
    bench.state(6)
    assert "abandon" in backend.deeds
    assert backend.queue is Queue.NONE
    assert not backend.medium_open


def test_a_disk_that_is_being_closed(bench: Bench) -> None:
    """Closed means that nothing is held: somebody may open it elsewhere then."""
    backend = bench.up()
    bench.family.pending.add("close")
    bench.guest(5)
    bench.guest(6)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    begun(bench, "close")
    bench.rest()
    assert bench.node("state") == b"5"
    bench.delete()
    bench.rest()
    assert len(bench.bus.devices) == 1, "an operator sees what is still held"
    finish(bench, "close")
    bench.until(lambda: not bench.bus.devices)
    assert backend.deeds[-2:] == ["close", "forget"]


def test_a_store_that_is_lost_while_a_disk_is_opened(bench: Bench) -> None:
    bench.family.pending.add("open")
    offered(bench)
    backend = begun(bench, "open")
    bench.server.stop()
    bench.until(lambda: not bench.store.connected)
    bench.family.pending.clear()
    backend.wake()
    bench.server.start()
    bench.until(lambda: bench.store.connected)
    bench.until(lambda: not bench.bus.devices)  # an empty store
    assert not backend.medium_open
