"""One device against a real store: every deed of the table, and what XenStore shows of it."""

from collections.abc import Iterator
from errno import EBUSY, EMFILE, ENOENT, ENOMEM
from pathlib import Path

import pytest

from tests.unit.xenbus_bench import DOMID, Bench, FakeBackend
from xbbd_bsd.errors import GuestError, HostError, OperatorError, XbbdError
from xbbd_bsd.events import ConnectionFailed, Event, GuestFailed
from xbbd_bsd.journal import Journal
from xbbd_bsd.xenbus.family import Nodes
from xbbd_bsd.xenbus.pace import LOOKS
from xbbd_bsd.xenbus.states import Queue


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    bench = Bench(short_path)
    yield bench
    bench.close()


ERROR_NODE = "/local/domain/0/error/backend/vbd/5/51712/error"


def test_init_wait_comes_before_the_medium_is_named(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    assert bench.node("feature-flush-cache") == b"1"
    assert bench.node("hotplug-status") is None
    assert bench.backend.deeds == ["capabilities"]


def test_connected_after_medium_and_frontend(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.guest(3)
    bench.state(2)
    assert bench.node("sectors") is None
    bench.hotplug()
    bench.state(4)
    assert bench.node("hotplug-status") == b"connected"
    assert bench.node("sectors") == b"8"
    assert bench.backend.deeds == ["capabilities", "open", "connect"]


def test_the_frontend_is_read_when_it_is_ready(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.hotplug()
    bench.state(2)
    bench.toolstack.write(bench.front("hint"), b"7")
    bench.guest(3)
    bench.state(4)
    assert bench.node("info") == b"7"


def test_the_guest_closes_and_comes_back(bench: Bench) -> None:
    backend = bench.up()
    bench.guest(5)
    bench.state(5)
    bench.rest()
    assert backend.deeds[3:] == [], "it may go on with I/O"
    bench.guest(6)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.state(6)
    assert backend.deeds[3:] == ["drain", "disconnect", "close"]
    bench.guest(1)
    bench.state(2)
    bench.guest(3)
    bench.state(4)
    assert backend.deeds[6:] == ["capabilities", "open", "connect"]


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
    assert not bench.backend.disk_open


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
    # The other device goes on.
    bench.family.errors.clear()
    bench.guest(3, number=51728)
    bench.hotplug(number=51728)
    bench.state(4, number=51728)


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


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        (
            {"frontend": "/local/domain/6/device/vbd/51712"},
            b"node backend/vbd/5/51712/frontend is '/local/domain/6/device/vbd/51712',"
            b" no path below /local/domain/5/",
        ),
        (
            {"frontend": "/local/domain/50/device/vbd/51712"},
            b"node backend/vbd/5/51712/frontend is '/local/domain/50/device/vbd/51712',"
            b" no path below /local/domain/5/",
        ),
        (
            {"frontend": "/local/domain/5/a b"},
            b"node backend/vbd/5/51712/frontend is '/local/domain/5/a b',"
            b" no path below /local/domain/5/",
        ),
        (
            {"frontend": ""},
            b"node backend/vbd/5/51712/frontend is '', no path below /local/domain/5/",
        ),
        ({"frontend-id": "6"}, b"node backend/vbd/5/51712/frontend-id is '6', not 5"),
    ],
)
def test_only_the_guest_of_our_path_is_served(
    bench: Bench, nodes: dict[str, str], reason: bytes
) -> None:
    bench.bus.serve(["vbd"])
    bench.attach(nodes)
    bench.hotplug()
    bench.until(lambda: bench.node("hotplug-status") == b"error")
    assert bench.node("hotplug-error") == reason
    assert bench.backend.deeds == []
    bench.detach()
    bench.state(6)


@pytest.mark.parametrize("state", [b"", b"-1", b"4 ", b"44", b"\xff" * 1000, b"7", b"8", b"0"])
def test_a_state_that_no_frontend_has_ends_the_connection(bench: Bench, state: bytes) -> None:
    backend = bench.up()
    bench.guest(state)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.state(6)
    bench.guest(1)
    bench.state(2)


def test_an_earlier_daemons_connection_is_closed(bench: Bench) -> None:
    bench.attach({"state": "4"})
    bench.guest(4)
    bench.bus.serve(["vbd"])
    bench.state(5)
    reason = bench.toolstack.get(ERROR_NODE)
    assert reason is not None
    assert reason.startswith(b"0 connected by an earlier daemon")
    assert bench.node("online") == b"1"
    bench.guest(6)
    bench.state(6)
    bench.guest(1)
    bench.state(2)


def test_an_earlier_daemons_offer_goes_on(bench: Bench) -> None:
    bench.attach({"state": "2"})
    bench.hotplug()
    bench.guest(3)
    bench.bus.serve(["vbd"])
    bench.state(4)


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


def test_however_often_it_is_told_it_looks_once_a_turn(bench: Bench) -> None:
    backend = bench.up()
    (device,) = bench.bus.devices
    before = backend.looks
    for _ in range(1000):
        device.look()
    bench.rest()
    assert 1 <= backend.looks - before <= 3


def test_a_guest_that_toggles_its_state_costs_no_memory_and_no_log(bench: Bench) -> None:
    backend = bench.up()
    bench.lines.clear()
    for turn in range(300):
        bench.guest(5 if turn % 2 else 4)
    bench.guest(6)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.state(6)
    assert len(bench.lines) <= 20


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


def test_news_are_told_with_our_state_written_once_more(bench: Bench) -> None:
    """Frontends watch our state; both nodes change in one transaction."""
    backend = bench.up()
    bench.guest(4)
    seen: list[bytes | None] = []
    watch = bench.toolstack.watch(bench.path("state"), lambda _: seen.append(bench.node("sectors")))
    bench.until(lambda: seen == [b"8"])  # the watch's own first event
    backend.news = {"sectors": b"16"}
    backend.wake()
    bench.until(lambda: len(seen) > 1)
    assert seen == [b"8", b"16"]
    assert bench.node("state") == b"4"
    assert backend.news == {}
    assert backend.deeds.count("told") == 1
    watch.cancel()


def test_nodes_of_an_earlier_offer_do_not_stay(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach({"feature-max-indirect-segments": "256"})
    bench.family.offer = {"feature-flush-cache": b"1", "feature-max-indirect-segments": None}
    bench.state(2)
    assert bench.node("feature-max-indirect-segments") is None


@pytest.mark.parametrize(
    ("name", "told"),
    [(None, ""), (b"vm1", "vm1"), (b"vm1--incoming", "vm1"), (b"a\nb", "a\\x0ab")],
)
def test_the_guests_name_as_the_configuration_has_it(
    bench: Bench, name: bytes | None, told: str
) -> None:
    """libxl calls a guest so while it arrives by migration."""
    if name is not None:
        bench.toolstack.write(f"/local/domain/{DOMID}/name", name)
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    assert bench.backend.guest == told


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


def test_an_earlier_daemons_guest_is_one_that_comes_back(bench: Bench) -> None:
    bench.family.errors["open"] = OperatorError("in use", EBUSY)
    bench.attach({"state": "6"})
    bench.hotplug()
    bench.guest(1)
    bench.bus.serve(["vbd"])
    bench.until(lambda: bool(bench.bus.devices) and bench.bus.devices[0].held_back != "")
    assert bench.node("online") == b"1"


def test_a_guest_that_is_held_back_can_be_detached(bench: Bench) -> None:
    bench.family.errors["open"] = OperatorError("in use", EBUSY)
    bench.attach({"state": "6"})
    bench.hotplug()
    bench.guest(1)
    bench.bus.serve(["vbd"])
    bench.until(lambda: bool(bench.bus.devices) and bench.bus.devices[0].held_back != "")
    bench.detach()
    bench.guest(6)
    bench.state(6)
    bench.delete()
    bench.until(lambda: not bench.bus.devices)


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


def test_a_guest_that_floods_its_nodes_is_looked_at_so_often_and_no_more(bench: Bench) -> None:
    backend = bench.up()
    before, begun = backend.looks, bench.loop.time()
    for _ in range(2000):
        bench.guest(4)
        bench.loop.call_soon(bench.loop.stop)
        bench.loop.run_forever()
    seconds = bench.loop.time() - begun
    assert backend.looks - before <= LOOKS * (seconds + 2)
    # And its end is not missed.
    bench.guest(6)
    bench.until(lambda: backend.queue is Queue.DRAINING)
    backend.finish()
    bench.state(6)


@pytest.mark.parametrize("machine", [None, b"/vm/6e64a5c2-0a5b-4e6e"])
def test_the_virtual_machine_of_a_domain(bench: Bench, machine: bytes | None) -> None:
    if machine is not None:
        bench.toolstack.write(f"/local/domain/{DOMID}/vm", machine)
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    assert bench.backend.vm == (machine or b"").decode()
