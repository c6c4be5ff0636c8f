"""The bus: which directories become devices, their numbers, their end."""

import pytest

from tests.unit import xenbus_bench
from tests.unit.xenbus_bench import Bench

bench = xenbus_bench.bench


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
