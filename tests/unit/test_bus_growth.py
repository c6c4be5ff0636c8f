"""What one more device costs is the same however many there are: counted, not timed.

By what is looked at, and by what the store is asked; tests/sim/crowd.py has the time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.unit import xenbus_bench
from tests.unit.xenbus_bench import Bench
from xbbd_bsd.xenbus.device import Device
from xbbd_bsd.xenstore.client import Store
from xbbd_bsd.xenstore.router import Router

bench = xenbus_bench.bench

MANY = 60
# Requests and rounds of a disk that comes, is connected, and goes; with room for events that
# come one by one.  With ten devices it was 300 of each when every device was looked at.
MOST_REQUESTS = 250
MOST_ROUNDS = 100


class Count:
    """What was done since it was begun."""

    def __init__(self) -> None:
        self.requests = self.rounds = 0
        self.looked: Counter[str] = Counter()
        self.listed: list[str] = []


@contextmanager
def counting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Count]:
    """What the daemon does meanwhile; the toolstack has a connection of its own."""
    count = Count()
    ours = bench.store._link.client.router  # type: ignore[union-attr]
    send_all, evaluate, list_nodes = Router.send_all, Device._evaluate, Store.list

    def sent(router: Router, requests: Any, tx_id: int = 0) -> Any:
        if router is ours:
            count.requests += len(requests)
            count.rounds += 1
        return send_all(router, requests, tx_id)

    def evaluated(device: Device) -> None:
        count.looked[device.identity.path] += 1
        evaluate(device)

    def listed(store: Store, path: str) -> list[str]:
        if store is bench.store:
            count.listed.append(path)
        return list_nodes(store, path)

    with monkeypatch.context() as patches:
        patches.setattr(Router, "send_all", sent)
        patches.setattr(Device, "_evaluate", evaluated)
        patches.setattr(Store, "list", listed)
        yield count


def settle(bench: Bench, there: int) -> None:
    """Until there are so many, and all has been seen to."""
    bench.until(lambda: len(bench.bus.devices) == there)
    bench.rest()
    looks = list(bench.bus.devices)
    bench.until(lambda: not bench.store._pending and all(d._look is None for d in looks))


def live(bench: Bench, domid: int, number: int) -> Callable[[], None]:
    """A disk comes, and its guest connects it; how it goes."""
    bench.attach(number=number, domid=domid)
    bench.hotplug(number, domid)
    bench.guest(3, number, domid)
    bench.state(4, number, domid)

    def end() -> None:
        there = len(bench.bus.devices)
        bench.toolstack.write(bench.path("online", number, domid), b"0")
        bench.guest(6, number, domid)
        backend = next(
            found
            for who, found in bench.family.backends.items()
            if (who.domid, who.number) == (domid, number)
        )
        bench.until(lambda: "drain" in backend.deeds)
        backend.finish()
        bench.state(6, number, domid)
        bench.toolstack.remove(bench.path(number=number, domid=domid))
        bench.until(lambda: len(bench.bus.devices) == there - 1)
        bench.rest()

    return end


def test_a_device_costs_the_same_however_many_there_are(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bus.serve(["vbd"])
    bench.rest()
    for there in (0, MANY):
        for number in range(there):
            bench.attach(number=number)
        settle(bench, there)
        for domid in (5, 7):  # with others of its guest, and alone
            with counting(bench, monkeypatch) as count:
                live(bench, domid, 51712 + there)()
            assert set(count.looked) == {f"backend/vbd/{domid}/{51712 + there}"}
            assert count.requests < MOST_REQUESTS
            assert count.rounds < MOST_ROUNDS
            # Whether it was its guest's last, and what may have come with that.
            assert set(count.listed) <= {f"backend/vbd/{domid}"}


def test_a_guest_that_goes_has_only_its_own_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a directory that is removed whole no event names what was in it."""
    bench.bus.serve(["vbd"])
    for domid in (5, 7):
        for number in range(4):
            bench.attach(number=number, domid=domid)
    settle(bench, 8)
    with counting(bench, monkeypatch) as count:
        bench.toolstack.remove("/local/domain/0/backend/vbd/7")
        bench.until(lambda: len(bench.bus.devices) == 4)
        bench.rest()
    assert {device.identity.domid for device in bench.bus.devices} == {5}
    assert set(count.looked) == {f"backend/vbd/7/{number}" for number in range(4)}


def test_what_a_look_reads_it_reads_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second on, and of other devices too: they do the same things."""
    bench.up()
    device = bench.bus.device("xbbd", 0)
    assert device is not None
    with counting(bench, monkeypatch) as count:
        device.look()
        bench.rest()
    assert (count.looked.total(), count.rounds) == (1, 1)
    assert count.requests >= 5


def test_devices_are_found_by_number_and_by_directory(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    device = bench.bus.device("xbbd", 0)
    assert device is not None
    assert bench.bus.device_at("backend/vbd/5/51712") is device
    strangers = ("backend/vbd/5/51728", "backend/vbd/5", "backend/vbd/5/51712/state", "x", "")
    assert [bench.bus.device_at(path) for path in strangers] == [None] * len(strangers)
    assert (bench.bus.device("xbbd", 1), bench.bus.device("other", 0)) == (None, None)
    bench.delete()
    bench.until(lambda: not bench.bus.devices)
    assert bench.bus.device("xbbd", 0) is None
    assert bench.bus.device_at("backend/vbd/5/51712") is None
