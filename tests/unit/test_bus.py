"""The bus: which directories become devices, their numbers, their end."""

from collections.abc import Iterator
from errno import EACCES
from pathlib import Path

import pytest

from tests.unit import xenbus_bench
from tests.unit.xenbus_bench import Bench
from xbbd_bsd.oids import Driver
from xbbd_bsd.xenbus.device import Device
from xbbd_bsd.xenstore.client import StoreError

bench = xenbus_bench.bench


@pytest.fixture
def two_drivers(short_path: Path) -> Iterator[Bench]:
    """A bench where vbd3 is another driver's."""
    bench = Bench(short_path, other=Driver("other", "thing", "Something Else", own={}))
    yield bench
    bench.close()


def names(bench: Bench) -> list[str]:
    return sorted(device.name for device in bench.bus.devices)


def test_finds_what_was_there_before(bench: Bench) -> None:
    bench.attach()
    bench.attach(domid=7)
    bench.bus.serve(["vbd"])
    bench.state(2)
    bench.state(2, domid=7)
    assert names(bench) == ["xbbd0 (vbd/5/51712)", "xbbd1 (vbd/7/51712)"]


def test_units_are_the_smallest_free_number(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    for number in (51712, 51728, 51744):
        bench.attach(number=number)
        bench.state(2, number=number)
    bench.toolstack.remove(bench.path(number=51728))
    bench.until(lambda: len(bench.bus.devices) == 2)
    bench.attach(number=51760)
    bench.state(2, number=51760)
    assert names(bench) == [
        "xbbd0 (vbd/5/51712)",
        "xbbd1 (vbd/5/51760)",
        "xbbd2 (vbd/5/51744)",
    ]


def attach_to(bench: Bench, kind: str, domid: int) -> None:
    """A device of another kind than vbd, found when its frontend is there."""
    root = f"/local/domain/0/backend/{kind}/{domid}/0"
    bench.toolstack.write(f"/local/domain/{domid}/device/{kind}/0/state", b"1")
    for name, value in (
        ("state", "1"),
        ("online", "1"),
        ("frontend-id", str(domid)),
        ("frontend", f"/local/domain/{domid}/device/{kind}/0"),
    ):
        bench.toolstack.write(f"{root}/{name}", value.encode())
    bench.until(lambda: bench.toolstack.get(f"{root}/state") == b"2")


def test_two_kinds_of_one_driver_are_counted_together(bench: Bench) -> None:
    bench.bus.serve(["vbd", "vbd3"])
    bench.attach()
    bench.state(2)
    attach_to(bench, "vbd3", 5)
    assert names(bench) == ["xbbd0 (vbd/5/51712)", "xbbd1 (vbd3/5/0)"]


def test_a_device_gets_the_number_that_it_had(bench: Bench) -> None:
    """Whatever is found before it, and nobody else gets it meanwhile."""
    bench.family.left = {("vbd", 7, 51712): 0, ("vbd", 5, 51728): 2}
    for number, domid in ((51712, 5), (51728, 5), (51712, 7), (51744, 5)):
        bench.attach(number=number, domid=domid)
    bench.bus.serve(["vbd"])
    bench.until(lambda: len(bench.bus.devices) == 4)
    assert names(bench) == [
        "xbbd0 (vbd/7/51712)",
        "xbbd1 (vbd/5/51712)",
        "xbbd2 (vbd/5/51728)",
        "xbbd3 (vbd/5/51744)",
    ]


def test_numbers_of_devices_that_are_gone_are_free_after_the_first_look(bench: Bench) -> None:
    """Of that kind alone: another's may not have been looked for yet."""
    bench.family.left = {("vbd", 7, 51712): 0}
    bench.other_family.left = {("vbd3", 7, 51712): 1}
    bench.attach()
    bench.bus.serve(["vbd"])
    bench.state(2)
    assert names(bench) == ["xbbd1 (vbd/5/51712)"]
    assert (bench.family.left, len(bench.other_family.left)) == ({}, 1)
    bench.attach(number=51728)
    bench.state(2, number=51728)
    assert names(bench) == ["xbbd0 (vbd/5/51728)", "xbbd1 (vbd/5/51712)"]


def test_a_look_that_fails_settles_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that it did not see may be there."""
    bench.family.left = {("vbd", 7, 51712): 0}
    looks = bench.store.list

    def fails(path: str) -> list[str]:
        raise StoreError(EACCES, "no")

    monkeypatch.setattr(bench.store, "list", fails)
    bench.bus.serve(["vbd"])
    bench.until(lambda: any("cannot look for vbd" in line for line in bench.lines))
    assert len(bench.family.left) == 1
    monkeypatch.setattr(bench.store, "list", looks)
    bench.attach()
    bench.state(2)
    assert names(bench) == ["xbbd1 (vbd/5/51712)"]
    assert bench.family.left == {}, "by the next look, whatever event that was for"


def test_each_driver_counts_from_nought(two_drivers: Bench) -> None:
    bench = two_drivers
    bench.bus.serve(["vbd", "vbd3"])
    bench.attach()
    bench.state(2)
    for domid in (5, 7):
        attach_to(bench, "vbd3", domid)
    bench.attach(number=51728)
    bench.state(2, number=51728)
    assert names(bench) == [
        "other0 (vbd3/5/0)",
        "other1 (vbd3/7/0)",
        "xbbd0 (vbd/5/51712)",
        "xbbd1 (vbd/5/51728)",
    ]
    assert {identity.driver for identity in bench.other_family.backends} == {"other"}


def test_units_are_tried_again_of_their_driver_alone(
    two_drivers: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = two_drivers
    bench.bus.serve(["vbd", "vbd3"])
    bench.attach()
    bench.state(2)
    attach_to(bench, "vbd3", 5)
    tried: list[str] = []
    monkeypatch.setattr(Device, "try_again", lambda device: tried.append(device.name))
    bench.bus.try_again("other", [1, 0])
    assert tried == ["other0 (vbd3/5/0)"]
    bench.bus.try_again("xbbd", [0])
    assert tried[1:] == ["xbbd0 (vbd/5/51712)"]


@pytest.mark.parametrize(
    "path",
    [
        "x/51712",
        "5/xvda",
        "05/51712",
        "5/051712",
        "5/99999999999",
        "32752/51712",
        "5/-1",
        "5/4294967296",
    ],
)
def test_strange_directories_are_nobodys(bench: Bench, path: str) -> None:
    root = f"/local/domain/0/backend/vbd/{path}"
    bench.toolstack.write(f"{root}/state", b"1")
    bench.toolstack.write(f"{root}/frontend", b"/local/domain/5/device/vbd/51712")
    bench.toolstack.write(f"{root}/frontend-id", b"5")
    bench.bus.serve(["vbd"])
    bench.attach(number=51728)
    bench.state(2, number=51728)
    assert names(bench) == ["xbbd0 (vbd/5/51728)"]
    assert bench.toolstack.get(f"{root}/state") == b"1"


def test_a_directory_without_a_frontend_is_not_yet_a_device(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.toolstack.write(bench.path("state"), b"1")
    bench.rest()
    assert not bench.bus.devices
    bench.attach()
    bench.state(2)


def test_only_the_kinds_asked_for(bench: Bench) -> None:
    bench.toolstack.write("backend/vbd3/5/1/frontend", b"/local/domain/5/device/vbd/1")
    bench.toolstack.write("backend/vbd3/5/1/frontend-id", b"5")
    bench.toolstack.write("backend/vbd3/5/1/state", b"1")
    bench.toolstack.write("/local/domain/5/device/vbd/1/state", b"1")
    bench.attach()
    bench.bus.serve(["vbd"])
    bench.state(2)
    assert names(bench) == ["xbbd0 (vbd/5/51712)"]
    bench.bus.serve(["vbd", "vbd3"])
    bench.until(lambda: bench.toolstack.get("backend/vbd3/5/1/state") == b"2")
    assert names(bench) == ["xbbd0 (vbd/5/51712)", "xbbd1 (vbd3/5/1)"]
    assert len(bench.other_family.backends) == 1
    bench.bus.serve(["vbd3"])
    bench.until(lambda: names(bench) == ["xbbd1 (vbd3/5/1)"])


def test_what_comes_back_at_once_is_found_again(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.attach()
    bench.state(2)
    for _ in range(20):
        bench.delete()
        bench.attach()
    bench.state(2)
    assert names(bench) == ["xbbd0 (vbd/5/51712)"]


def test_stopping_an_empty_bus_is_done_at_once(bench: Bench) -> None:
    empty: list[bool] = []
    bench.bus.serve(["vbd"])
    bench.bus.stop(lambda: empty.append(True))
    bench.until(lambda: bool(empty))
    bench.attach()
    bench.rest()
    assert not bench.bus.devices


def test_everything_is_looked_at_when_the_store_is_back(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    bench.server.stop()
    bench.until(lambda: bool(bench.lost))
    bench.server.start()
    bench.until(lambda: bench.store.connected and bench.toolstack.connected)
    bench.attach()
    bench.state(2)


def test_many_devices(bench: Bench) -> None:
    for number in range(12):
        bench.attach(number=number)
    bench.bus.serve(["vbd"])
    bench.until(lambda: len(bench.bus.devices) == 12)
    assert sorted(device.identity.unit for device in bench.bus.devices) == list(range(12))
    for number in range(12):
        bench.state(2, number=number)


def test_devices_that_are_left_are_looked_at_no_more(bench: Bench) -> None:
    """Not even if the toolstack takes them away: the next daemon sees to that."""
    backend = bench.up()
    left: list[bool] = []
    bench.bus.leave(lambda: left.append(True))
    bench.attach(number=51728)
    bench.toolstack.write(bench.path("state"), b"5")
    bench.guest(6)
    bench.rest()
    assert (backend.deeds[-1], left) == ("leave", [])
    backend.finish()
    assert left == [True]
    bench.rest()
    assert (backend.deeds[-1], len(bench.bus.devices)) == ("leave", 1)
    assert bench.node("state") == b"5", "as the toolstack wrote it"


def test_without_devices_it_is_left_at_once(bench: Bench) -> None:
    bench.bus.serve(["vbd"])
    left: list[bool] = []
    bench.bus.leave(lambda: left.append(True))
    bench.until(lambda: bool(left))
