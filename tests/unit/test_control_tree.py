"""Names and values of a daemon with a few devices that are none."""

from collections.abc import Mapping

import pytest

from xbbd_bsd.control.protocol import Request, Value, Verb
from xbbd_bsd.control.tree import Tree
from xbbd_bsd.errors import OperatorError


class Device:
    """A device's numbers."""

    def __init__(self, wr_req: int) -> None:
        self.values = {"flush_interval": 0, "disable_flush": 0}
        self.wr_req = wr_req
        self.looks = 0

    def tunables(self) -> Mapping[str, int]:
        return self.values

    def counters(self) -> Mapping[str, int]:
        return {"wr_req": self.wr_req}

    def set_tunable(self, name: str, value: int) -> None:
        self.values[name] = value

    def resize(self) -> None:
        self.looks += 1


@pytest.fixture
def devices() -> dict[int, Device]:
    return {10: Device(5), 1: Device(7)}


def perform(
    devices: Mapping[int, Device], verb: Verb, name: str, value: Value | None = None
) -> dict[str, Value]:
    return Tree(lambda: devices).perform(Request(verb, name, value))


def test_all_names_in_order_of_units(devices: dict[int, Device]) -> None:
    assert list(perform(devices, Verb.GET, "")) == [
        f"dev.xbbd.{unit}.{name}"
        for unit in (1, 10)
        for name in ("flush_interval", "disable_flush", "wr_req")
    ]
    assert perform({}, Verb.GET, "") == {}


def test_the_beginning_of_names_ends_at_a_dot(devices: dict[int, Device]) -> None:
    assert perform(devices, Verb.GET, "dev.xbbd.1.wr_req") == {"dev.xbbd.1.wr_req": 7}
    assert len(perform(devices, Verb.GET, "dev.xbbd.1")) == 3
    assert len(perform(devices, Verb.GET, "dev.xbbd")) == 6


def test_set_gives_the_old_value(devices: dict[int, Device]) -> None:
    name = "dev.xbbd.1.flush_interval"
    assert perform(devices, Verb.SET, name, 8) == {name: 0}
    assert perform(devices, Verb.SET, name, 1_000_000) == {name: 8}
    assert devices[1].values["flush_interval"] == 1_000_000
    assert devices[10].values["flush_interval"] == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dev.xbbd.2.flush_interval", 1, "unknown oid 'dev.xbbd.2.flush_interval'"),
        ("dev.xbbd.1.nothing", 1, "unknown oid 'dev.xbbd.1.nothing'"),
        ("flush_interval", 1, "unknown oid 'flush_interval'"),
        ("", 1, "unknown oid ''"),
        ("dev.xbbd.1", 1, "unknown oid 'dev.xbbd.1'"),
        ("dev.xbbd.1.wr_req", 1, "oid 'dev.xbbd.1.wr_req' is read only"),
        ("dev.xbbd.1.flush_interval", -1, "must be a whole number, 0 to 1000000"),
        ("dev.xbbd.1.flush_interval", "x", "must be a whole number, 0 to 1000000"),
        ("dev.xbbd.1.disable_flush", 2, "must be a whole number, 0 to 1"),
    ],
)
def test_what_cannot_be_set(
    devices: dict[int, Device], name: str, value: Value, message: str
) -> None:
    with pytest.raises(OperatorError, match=message):
        perform(devices, Verb.SET, name, value)
    assert all(set(device.values.values()) == {0} for device in devices.values())


def test_unknown_names_are_no_empty_answer(devices: dict[int, Device]) -> None:
    for name in ("dev.xbbd.2", "dev.xbb", "dev.xbbd.1.wr", "x"):
        with pytest.raises(OperatorError, match=f"^unknown oid '{name}'$"):
            perform(devices, Verb.GET, name)


def test_resize_is_of_one_device(devices: dict[int, Device]) -> None:
    assert perform(devices, Verb.RESIZE, "dev.xbbd.10") == {}
    assert (devices[10].looks, devices[1].looks) == (1, 0)
    for name in ("dev.xbbd", "dev.xbbd.2", "dev.xbbd.1.wr_req"):
        with pytest.raises(OperatorError, match="unknown oid"):
            perform(devices, Verb.RESIZE, name)
