"""A device that an earlier daemon served: taken over, waited for, or given up with a reason."""

from errno import EBUSY, EINVAL, EIO

import pytest

from tests.unit import xenbus_bench
from tests.unit.xenbus_bench import DOMID, ERROR_NODE, NUMBER, Bench, FakeBackend
from xbbd_bsd.errors import GuestError, HostError, XbbdError
from xbbd_bsd.xenbus.states import Queue
from xbbd_bsd.xenstore.client import StoreError

bench = xenbus_bench.bench

NAME = "xbbd7 (vbd/5/51712)"


def left(bench: Bench, ours: int = 4, guest: int = 4) -> None:
    """What there is in the store of a device whose daemon died."""
    bench.family.left["vbd", DOMID, NUMBER] = 7
    bench.attach({"state": str(ours), "hotplug-status": "connected"})
    bench.hotplug()
    bench.guest(guest)


def found(bench: Bench) -> FakeBackend:
    bench.bus.serve(["vbd"])
    bench.until(lambda: bool(bench.family.backends))
    bench.rest()
    return bench.backend


def said(bench: Bench, words: str) -> list[str]:
    return [line for line in bench.lines if words in line]


@pytest.mark.parametrize(("ours", "guest"), [(4, 4), (4, 3), (4, 5), (5, 4), (5, 5)])
def test_it_is_taken_over(bench: Bench, ours: int, guest: int) -> None:
    """Under the number that it had, with nothing but that: its guest need do nothing."""
    left(bench, ours, guest)
    backend = found(bench)
    assert backend.deeds == ["adopt"]
    assert (backend.guest, backend.queue) == ("", Queue.RUNNING)
    assert said(bench, "taken over") == [f"{NAME}: taken over: a ring"]
    assert bench.node("state") == (b"5" if guest == 5 else b"%d" % ours)
    assert bench.toolstack.get(ERROR_NODE) is None


@pytest.mark.parametrize(("ours", "guest"), [(4, 6), (4, 1), (5, 6), (6, 6), (6, 1), (2, 3)])
def test_it_is_not_where_no_guest_waits(bench: Bench, ours: int, guest: int) -> None:
    left(bench, ours, guest)
    assert "adopt" not in found(bench).deeds


def test_it_goes_on_as_any_other(bench: Bench) -> None:
    left(bench)
    backend = found(bench)
    bench.detach()
    bench.guest(5)
    bench.guest(6)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.state(6)
    assert backend.deeds == ["adopt", "drain", "disconnect", "close"]


def test_it_takes_its_time(bench: Bench) -> None:
    """As mapping does where a guest's page is paged out."""
    left(bench)
    bench.family.pending.add("adopt")
    backend = found(bench)
    assert set(backend.deeds) == {"adopt?"}
    assert bench.node("state") == b"4"
    assert not said(bench, "taken over")
    bench.family.pending.clear()
    backend.wake()
    bench.until(lambda: backend.queue is Queue.RUNNING)
    bench.rest()
    assert said(bench, "taken over") == [f"{NAME}: taken over: a ring"]
    assert "abandon" not in backend.deeds
    steps = [line for line in bench.lines if ": adopt, next" in line]
    assert len(steps) == 1, "asked for again it is no other step"


def test_its_guest_leaves_meanwhile(bench: Bench) -> None:
    left(bench)
    bench.family.pending.add("adopt")
    backend = found(bench)
    bench.guest(6)
    bench.state(6)
    assert backend.deeds[-3:] == ["adopt?", "abandon", "drain"]
    assert (backend.queue, backend.adoptable) == (Queue.NONE, False)


def test_the_store_refuses_what_it_takes(bench: Bench) -> None:
    """Tried once: the guest is told, and not served as well."""
    left(bench)
    bench.family.errors["adopt"] = StoreError(EIO, "node mode: Input/output error")
    bench.bus.serve(["vbd"])
    bench.until(lambda: bench.node("state") == b"5")
    bench.rest()
    assert bench.backend.deeds == ["adopt"]
    assert bench.toolstack.get(ERROR_NODE) == b"%d node mode: Input/output error" % EIO


@pytest.mark.parametrize("error", [HostError("cannot be", EINVAL), GuestError("it lies", EBUSY)])
def test_it_cannot_be(bench: Bench, error: XbbdError) -> None:
    """Its guest is told at once, with the reason, and may connect again."""
    left(bench)
    bench.family.errors["adopt"] = error
    bench.bus.serve(["vbd"])
    bench.until(lambda: bench.node("state") == b"5")
    bench.rest()
    assert bench.backend.deeds == ["adopt"]
    assert bench.toolstack.get(ERROR_NODE) == f"{error.errno} {error}".encode()
    assert bench.node("online") == b"1"
    (device,) = bench.bus.devices
    assert device.closed_reason == str(error)
    bench.family.errors.clear()
    bench.guest(6)
    bench.state(6)
    bench.guest(1)
    bench.state(2)
    bench.guest(3)
    bench.state(4)
    assert bench.toolstack.get(ERROR_NODE) is None


def test_it_cannot_be_yet(bench: Bench) -> None:
    """Whoever served it has not ended: its guest waits on, and nobody is told that it is over."""
    left(bench)
    bench.family.errors["adopt"] = HostError("whoever serves it has not ended", EBUSY)
    backend = found(bench)
    (device,) = bench.bus.devices
    bench.until(lambda: backend.deeds.count("adopt") >= 2)
    assert bench.node("state") == b"4"
    assert bench.toolstack.get(ERROR_NODE) is None
    assert said(bench, "has not ended") == [
        f"{NAME}: waits: whoever serves it has not ended; next try within 60 s"
    ]
    assert device.held_back == "whoever serves it has not ended"
    bench.family.errors.clear()
    device.try_again()
    bench.until(lambda: backend.queue is Queue.RUNNING)
    bench.rest()
    assert (device.held_back, backend.deeds[-1]) == ("", "adopt")


def test_what_we_know_of_no_data_path_is_said(bench: Bench) -> None:
    """That nothing can be adopted may have a reason, which is told along."""
    bench.attach({"state": "4"})
    bench.hotplug()
    bench.guest(4)
    create = bench.family.create

    def spoilt(*words: object) -> FakeBackend:
        backend = create(*words)  # type: ignore[arg-type]
        backend.lost = "its state segment is damaged"
        return backend

    bench.family.create = spoilt  # type: ignore[method-assign, assignment]
    bench.bus.serve(["vbd"])
    bench.until(lambda: bench.node("state") == b"5")
    text = "connected by an earlier daemon that is gone; the guest must connect again"
    assert bench.toolstack.get(ERROR_NODE) == (f"0 {text} (its state segment is damaged)".encode())


def test_the_daemon_leaves_while_it_waits(bench: Bench) -> None:
    """It takes over once it can; when time is up, the guest is told that it is over."""
    left(bench)
    bench.family.errors["adopt"] = HostError("whoever serves it has not ended", EBUSY)
    found(bench)
    ended: list[bool] = []
    bench.bus.stop(lambda: ended.append(True))
    bench.rest()
    assert (bench.node("state"), ended) == (b"4", [])
    bench.bus.hurry()
    bench.until(lambda: bool(ended))
    assert bench.node("state") == b"5"
    assert bench.backend.deeds[-1] == "forget"
    assert bench.backend.queue is Queue.NONE


def test_it_is_taken_over_to_be_closed(bench: Bench) -> None:
    """A daemon that is told to leave at once: what the guest has in flight is done first."""
    left(bench)
    bench.bus.serve(["vbd"])
    bench.until(lambda: bool(bench.bus.devices))
    bench.bus.stop(lambda: None)
    bench.until(lambda: bench.node("state") == b"5")
    backend = bench.backend
    assert (backend.deeds[0], backend.queue) == ("adopt", Queue.RUNNING)
    bench.guest(6)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.until(lambda: not bench.bus.devices)
