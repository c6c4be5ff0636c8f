"""One device against a real store: whoever ends it, nothing is left and nothing is lost."""

import pytest

from tests.unit import xenbus_bench
from tests.unit.xenbus_bench import DOMID, Bench, FakeBackend
from xbbd_bsd.xenbus.states import Queue

bench = xenbus_bench.bench


def test_the_toolstack_removes_it_while_the_guest_is_connected(bench: Bench) -> None:
    backend = bench.up()
    bench.detach()
    bench.rest()
    assert backend.deeds[3:] == [], "the guest must be able to flush"
    bench.guest(5)
    bench.guest(6)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.state(6)
    bench.delete()
    bench.until(lambda: not bench.bus.devices)
    assert backend.deeds[3:] == ["drain", "disconnect", "close", "forget"]
    assert bench.toolstack.get(bench.path()) is None


def test_closed_is_not_written_while_requests_are_in_flight(bench: Bench) -> None:
    backend = bench.up()
    bench.detach()
    bench.guest(6)
    bench.rest()
    assert bench.node("state") == b"5"
    backend.finish()
    bench.state(6)


@pytest.mark.parametrize("state", [1, 2, 5, 6])
def test_the_toolstack_removes_it_at_any_state_of_ours(bench: Bench, state: int) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    bench.guest(state)
    bench.rest()
    bench.detach()
    bench.guest(6)
    bench.state(6)
    bench.delete()
    bench.until(lambda: not bench.bus.devices)


def test_a_guest_whose_driver_never_came_needs_no_wait(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.until(lambda: bench.node("hotplug-status") == b"connected")
    bench.detach()
    bench.state(6)
    assert not bench.backend.medium_open


def test_the_guest_is_destroyed(bench: Bench) -> None:
    backend = bench.up()
    bench.toolstack.remove("/local/domain/5")
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.state(6)


def test_all_nodes_vanish_at_once(bench: Bench) -> None:
    backend = bench.up()
    bench.delete()
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.until(lambda: not bench.bus.devices)
    assert bench.toolstack.get(bench.path()) is None


@pytest.mark.parametrize("deed", ["capabilities", "open", "connect"])
def test_nodes_that_vanish_part_way_are_not_made_again(bench: Bench, deed: str) -> None:
    def vanish(backend: FakeBackend, name: str) -> None:
        if name == deed:
            bench.delete()
        if name == "drain":
            bench.loop.call_soon(backend.finish)

    bench.family.on_deed = vanish
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.guest(3)
    bench.until(lambda: deed in bench.backend.deeds if bench.family.backends else False)
    bench.until(lambda: not bench.bus.devices)
    assert bench.toolstack.get(bench.path()) is None
    assert bench.backend.deeds[-1] == "forget"


def test_the_daemon_leaves_after_the_guest_has_closed(bench: Bench) -> None:
    backend = bench.up()
    empty: list[bool] = []
    bench.bus.stop(lambda: empty.append(True))
    bench.state(5)
    assert backend.deeds[3:] == []
    bench.guest(5)
    bench.guest(6)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.until(lambda: bool(empty))
    assert bench.node("state") == b"6"
    assert backend.deeds[3:] == ["drain", "disconnect", "close", "forget"]


def test_the_daemon_leaves_a_guest_that_does_not_close(bench: Bench) -> None:
    backend = bench.up()
    empty: list[bool] = []
    bench.bus.stop(lambda: empty.append(True))
    bench.state(5)
    bench.bus.hurry()
    bench.until(lambda: backend.queue is Queue.DRAINING)
    assert not empty
    backend.finish()
    bench.until(lambda: bool(empty))
    assert bench.node("state") == b"5"


def test_the_daemon_leaves_a_guest_that_refuses_to_close(bench: Bench) -> None:
    backend = bench.up()
    empty: list[bool] = []
    bench.bus.stop(lambda: empty.append(True))
    bench.guest(5)
    bench.state(5)
    bench.rest()
    assert backend.deeds[3:] == []
    bench.bus.hurry()
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.until(lambda: bool(empty))
    assert backend.deeds[3:] == ["drain", "disconnect", "close", "forget"]


def test_the_daemon_leaves_what_nobody_has_connected_as_it_is(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.until(lambda: bench.node("hotplug-status") == b"connected")
    empty: list[bool] = []
    bench.bus.stop(lambda: empty.append(True))
    bench.until(lambda: bool(empty))
    assert bench.node("state") == b"2"
    assert bench.backend.deeds[-2:] == ["close", "forget"]


def test_a_lost_store_stops_nothing_and_is_caught_up_with(bench: Bench) -> None:
    backend = bench.up()
    bench.server.stop()
    bench.until(lambda: not bench.store.connected)
    (device,) = bench.bus.devices
    device.look()
    assert "drain" not in backend.deeds
    bench.server.start()
    bench.until(lambda: bench.store.connected and bench.toolstack.connected)
    # A store that starts anew is empty: the device is gone, as far as it says.
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.until(lambda: not bench.bus.devices)


def test_the_daemon_leaves_without_the_store(bench: Bench) -> None:
    backend = bench.up()
    bench.server.stop()
    bench.until(lambda: not bench.store.connected)
    empty: list[bool] = []
    bench.bus.stop(lambda: empty.append(True))
    bench.bus.hurry()
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.until(lambda: bool(empty))
    assert backend.deeds[3:] == ["drain", "disconnect", "close", "forget"]
    bench.server.start()


def test_no_watch_is_left(bench: Bench) -> None:
    base = len(bench.store._watches)
    backend = bench.up()
    assert len(bench.store._watches) == base + 2  # one of the kind, one of the frontend
    bench.delete()
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.until(lambda: not bench.bus.devices)
    bench.bus.serve([])
    assert len(bench.store._watches) == base


def test_a_guest_that_is_gone_takes_its_disk_along(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xbbd_bsd.xenbus.orphan.SECONDS", 0.05)
    backend = bench.up()
    bench.toolstack.remove(f"/local/domain/{DOMID}")
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.until(lambda: not bench.bus.devices)
    assert bench.toolstack.get("backend/vbd") is not None
    assert bench.toolstack.get(f"backend/vbd/{DOMID}") is None
    assert any("its guest is gone" in line for line in bench.lines)


def test_a_living_guest_without_its_frontend_keeps_the_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xbbd_bsd.xenbus.orphan.SECONDS", 0.0)
    bench.toolstack.write(f"/local/domain/{DOMID}/name", b"vm")
    backend = bench.up()
    bench.toolstack.remove(bench.front("state").removesuffix("/state"))
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.state(6)
    bench.rest()
    assert bench.node("state") == b"6"


def test_the_directory_of_a_guest_goes_with_its_last_disk(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.attach(number=51728)
    bench.state(2, number=51728)
    bench.delete()
    bench.until(lambda: len(bench.bus.devices) == 1)
    assert bench.toolstack.get(f"backend/vbd/{DOMID}") is not None
    bench.toolstack.remove(f"backend/vbd/{DOMID}/51728")
    bench.until(lambda: not bench.bus.devices)
    bench.until(lambda: bench.toolstack.get(f"backend/vbd/{DOMID}") is None)
