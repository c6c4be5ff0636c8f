"""One device against a real store: what fails, whose fault it was, and who is told."""

from errno import EBUSY, EMFILE, ENOENT, ENOMEM

import pytest

from tests.unit import xenbus_bench
from tests.unit.xenbus_bench import ERROR_NODE, Bench
from xbbd_bsd.errors import GuestError, HostError, OperatorError, XbbdError
from xbbd_bsd.events import ConnectionFailed, Event, GuestFailed
from xbbd_bsd.journal import Journal
from xbbd_bsd.xenbus.family import Nodes
from xbbd_bsd.xenbus.states import Queue

bench = xenbus_bench.bench


def test_what_xl_prints_has_no_control_character(bench: Bench) -> None:
    bench.family.errors["open"] = OperatorError("unable to open /\x1b[2J\n\udcff: gone", ENOENT)
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.state(5)
    text = b"unable to open /\\x1b[2J\\x0a\\xff: gone"
    assert bench.node("hotplug-error") == text
    assert bench.toolstack.get(ERROR_NODE) == b"2 " + text


@pytest.mark.parametrize(
    ("error", "kind"),
    [(GuestError("node is missing"), GuestFailed), (HostError("no memory"), ConnectionFailed)],
)
def test_who_is_to_blame_for_a_connection_is_known_to_the_log(
    bench: Bench, error: XbbdError, kind: type[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guest's own faults must not use up what is kept for those of others."""
    seen: list[type[Event]] = []
    told = Journal.__call__

    def tell(journal: Journal, event: Event) -> None:
        seen.append(type(event))
        told(journal, event)

    monkeypatch.setattr(Journal, "__call__", tell)
    bench.family.errors["connect"] = error
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.guest(3)
    bench.state(5)
    assert [event for event in seen if issubclass(event, ConnectionFailed)] == [kind]


def test_a_disk_that_does_not_open(bench: Bench) -> None:
    bench.family.errors["open"] = OperatorError("unable to open /dev/null: gone", ENOENT)
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.attach(number=51728)
    bench.hotplug()
    bench.state(5)
    assert bench.node("hotplug-error") == b"unable to open /dev/null: gone"
    assert bench.node("hotplug-status") == b"error"
    assert bench.node("online") == b"0"
    assert bench.toolstack.get(ERROR_NODE) == b"2 unable to open /dev/null: gone"
    said = [line for line in bench.lines if "unable to open" in line]
    assert said == ["xbbd0 (vbd/5/51712): attach failed: unable to open /dev/null: gone"]
    reasons = {device.identity.number: device.closed_reason for device in bench.bus.devices}
    assert reasons == {51712: "unable to open /dev/null: gone", 51728: ""}
    # The other device goes on.
    bench.family.errors.clear()
    bench.guest(3, number=51728)
    bench.hotplug(number=51728)
    bench.state(4, number=51728)


def test_why_it_failed_is_known_until_it_is_offered_again(bench: Bench) -> None:
    error = bench.family.errors["open"] = OperatorError("no")
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.until(lambda: bool(bench.bus.devices))
    (device,) = bench.bus.devices
    assert device.failed is None
    bench.hotplug()
    bench.state(5)
    assert device.failed is error
    bench.family.errors.clear()
    bench.toolstack.write(bench.path("state"), b"1")
    bench.until(lambda: bench.node("hotplug-status") == b"connected")
    assert device.failed is None
    spoilt = bench.family.errors["connect"] = GuestError("no ring")
    bench.guest(3)
    bench.state(5)
    assert device.failed is spoilt


def test_a_failed_attach_is_removed_without_the_guest(bench: Bench) -> None:
    bench.family.errors["open"] = OperatorError("no")
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.state(5)
    bench.detach()
    bench.state(6)


def test_a_failed_attach_is_offered_again(bench: Bench) -> None:
    bench.family.errors["open"] = OperatorError("no")
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.state(5)
    bench.family.errors.clear()
    bench.toolstack.write(bench.path("state"), b"1")
    bench.until(lambda: bench.node("hotplug-status") == b"connected")
    bench.guest(3)
    bench.state(4)
    assert bench.node("hotplug-error") is None
    assert bench.toolstack.get(ERROR_NODE) is None


def test_a_connection_that_the_guest_spoils_is_its_own_to_mend(bench: Bench) -> None:
    bench.family.errors["connect"] = GuestError("frontend node ring-ref is missing")
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.guest(3)
    bench.state(5)
    assert bench.toolstack.get(ERROR_NODE) == b"0 frontend node ring-ref is missing"
    assert bench.node("online") == b"1"
    assert bench.node("hotplug-status") == b"connected"
    bench.family.errors.clear()
    bench.guest(6)
    bench.state(6)
    bench.guest(1)
    bench.state(2)
    assert bench.toolstack.get(ERROR_NODE) is None
    bench.guest(3)
    bench.state(4)


@pytest.mark.parametrize("error", [GuestError("its ring indices lie"), HostError("disk gone", 6)])
def test_a_queue_that_fails(bench: Bench, error: GuestError) -> None:
    backend = bench.up()
    backend.finish(Queue.FAILED, error)
    bench.state(5)
    assert bench.toolstack.get(ERROR_NODE) == f"{error.errno} {error}".encode()
    assert backend.deeds[3:] == ["disconnect", "close"]
    bench.guest(6)
    bench.state(6)


@pytest.mark.parametrize("seen", [Queue.DRAINING, Queue.FAILED])
def test_a_queue_that_fails_while_the_nodes_are_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, seen: Queue
) -> None:
    """Its threads wait for nobody: the reason must not be lost, whenever it comes."""
    backend = bench.up()

    def medium_named(nodes: Nodes) -> bool:
        backend.fault, backend.queue = GuestError("its ring indices lie", 71), seen
        return True

    monkeypatch.setattr(backend, "medium_named", medium_named)
    backend.wake()
    bench.until(lambda: backend.fault is not None)
    monkeypatch.undo()
    backend.finish(Queue.FAILED, backend.fault)
    bench.state(5)
    assert bench.toolstack.get(ERROR_NODE) == b"71 its ring indices lie"
    bench.guest(6)
    bench.state(6)


def test_a_defect_of_ours_stops_nobody(bench: Bench) -> None:
    bench.family.errors["open"] = ZeroDivisionError("ours")
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.until(lambda: any("ours" in line for line in bench.lines))
    bench.family.errors.clear()
    bench.attach(number=51728)
    bench.state(2, number=51728)
    bench.guest(6)
    bench.state(6)
    assert any("internal error" in line and "ZeroDivisionError" in line for line in bench.lines)
    bench.lines.clear()


def test_a_reason_that_passes_keeps_the_disk_of_a_guest_that_comes_back(bench: Bench) -> None:
    backend = bench.up()
    bench.guest(6)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.state(6)
    bench.family.errors["open"] = OperatorError("unable to open it: Too many open files", EMFILE)
    bench.guest(1)
    bench.state(2)
    (device,) = bench.bus.devices
    bench.until(lambda: device.held_back != "")
    assert device.held_back == "unable to open it: Too many open files"
    assert (bench.node("online"), bench.node("hotplug-status")) == (b"1", b"connected")
    assert bench.toolstack.get(ERROR_NODE) is None
    said = [line for line in bench.lines if "Too many" in line]
    assert said == [
        "xbbd0 (vbd/5/51712): waits: unable to open it: Too many open files; next try within 60 s"
    ]
    device.try_again()
    bench.until(lambda: backend.deeds.count("open") == 3)
    assert len([line for line in bench.lines if "Too many" in line]) == 1, "said once"
    bench.family.errors.clear()
    bench.guest(3)
    bench.state(4)  # by itself, after a while
    assert device.held_back == ""


def test_a_ring_that_cannot_be_had_just_now_is_tried_again(bench: Bench) -> None:
    bench.family.errors["connect"] = HostError("map ring: Cannot allocate memory", ENOMEM)
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.guest(3)
    bench.until(lambda: bool(bench.bus.devices) and bench.bus.devices[0].held_back != "")
    assert bench.node("state") == b"2"
    bench.family.errors.clear()
    bench.state(4)


def test_a_reason_that_passes_fails_a_first_attach_at_once(bench: Bench) -> None:
    """Somebody waits for the answer, and can try again."""
    bench.family.errors["open"] = OperatorError("in use", EBUSY)
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.state(5)
    assert bench.node("hotplug-status") == b"error"


@pytest.fixture
def held_back(bench: Bench) -> Bench:
    """A guest of an earlier daemon's came back, and its disk cannot be had just now."""
    bench.family.errors["open"] = OperatorError("in use", EBUSY)
    bench.attach({"state": "6"})
    bench.hotplug()
    bench.guest(1)
    bench.bus.serve(["vbd"])
    bench.until(lambda: bool(bench.bus.devices) and bench.bus.devices[0].held_back != "")
    return bench


def test_an_earlier_daemons_guest_is_one_that_comes_back(held_back: Bench) -> None:
    assert held_back.node("online") == b"1"


def test_a_guest_that_is_held_back_can_be_detached(held_back: Bench) -> None:
    held_back.detach()
    held_back.guest(6)
    held_back.state(6)
    held_back.delete()
    held_back.until(lambda: not held_back.bus.devices)
