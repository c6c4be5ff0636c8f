"""One device against a real store: its way up, what it publishes and what it believes.

How it ends is in test_device_end.py, what fails in test_device_failures.py.
"""

import pytest

from tests.unit import xenbus_bench
from tests.unit.xenbus_bench import DOMID, ERROR_NODE, Bench
from xbbd_bsd.xenbus.pace import LOOKS
from xbbd_bsd.xenbus.states import Queue

bench = xenbus_bench.bench


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
