"""Names and values of a daemon with a few devices that are none."""

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from xbbd_bsd.control.protocol import Request, Value, Verb
from xbbd_bsd.control.tree import LogLine, Tree
from xbbd_bsd.errors import OperatorError, XbbdError
from xbbd_bsd.oids import DAEMON, GROUPS, RING, Type, declared, leaf_of, split

NAMES = ("abi", "flush_interval", "disable_flush", "workers", "wr_req")


class Device:
    """A device's numbers; remembers which groups were asked for."""

    def __init__(self, wr_req: int, rings: Sequence[int] = ()) -> None:
        self.values: dict[str, dict[str, Value]] = {
            "tunables": {"flush_interval": 0, "disable_flush": 0},
            "counters": {"wr_req": wr_req},
            "medium": {"abi": "native"},
            "limits": {"workers": 8},
        }
        self.asked: list[str] = []
        self.in_use = rings
        self.looks = self.waited = 0

    def group(self, name: str) -> Mapping[str, Value]:
        self.asked.append(name)
        return self.values.get(name, {})

    def rings(self) -> Sequence[int]:
        return self.in_use

    def ring(self, number: int) -> Mapping[str, Value]:
        return {"req_cons": number * 10}

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        facts = ("guest", "vdev", "path", "mode", "hung_seconds")
        medium = {name: v for name, v in self.values["medium"].items() if name in facts}
        return {"domid": 7, "state": "Connected", "latency": latency, **medium}

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        return [{"ring": 0}]

    def log(self) -> Sequence[LogLine]:
        return [(1.5, "info", "found")]

    def set(self, name: str, value: int) -> None:
        if value == 99:
            raise OperatorError(f"{name}={value}: must be 0 to 98")
        group = "tunables" if name in self.values["tunables"] else "counters"
        self.values[group][name] = value

    def resize(self) -> Callable[[], bool]:
        self.looks += 1
        return self._ended

    def _ended(self) -> bool:
        self.waited += 1
        return self.waited >= 3


class Daemon:
    """The daemon's own leaves."""

    def __init__(self) -> None:
        self.leaves: dict[str, Value] = {"version": "1.0", "devices": 2, "log.data": 0}
        self.cleared: list[str] = []
        self.changes: Mapping[str, Any] | XbbdError = {"disk.workers": ("8", "3", "")}

    def values(self) -> Mapping[str, Value]:
        return self.leaves

    def log(self) -> Sequence[LogLine]:
        return [(0.5, "info", "serving")]

    def set(self, name: str, value: int) -> None:
        self.leaves[name] = value

    def clear(self, path: str) -> Callable[[], bool]:
        if path not in ("/vm.img", "/disk"):
            raise OperatorError(f"{path}: it is not known to have lost anything", errno.ENOENT)
        self.cleared.append(path)
        return lambda: True

    def reload(self) -> Mapping[str, Any]:
        if isinstance(self.changes, XbbdError):
            raise self.changes
        return self.changes


@pytest.fixture
def devices() -> dict[int, Device]:
    return {10: Device(5), 1: Device(7, rings=(0, 1))}


@pytest.fixture
def tree(devices: dict[int, Device]) -> Tree:
    return Tree(Daemon(), lambda: devices)


def perform(tree: Tree, verb: Verb, name: str = "", value: Value | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for values in tree.perform(Request(verb, name, value)):
        if values is None:
            continue
        assert not found.keys() & values.keys()
        found.update(values)
    return found


def test_all_names_in_order_of_units(tree: Tree) -> None:
    assert list(perform(tree, Verb.GET)) == [
        "hw.xbbd.version",
        "hw.xbbd.devices",
        "hw.xbbd.log.data",
        *(f"dev.xbbd.1.{name}" for name in NAMES),
        "dev.xbbd.1.ring.0.req_cons",
        "dev.xbbd.1.ring.1.req_cons",
        *(f"dev.xbbd.10.{name}" for name in NAMES),
    ]
    assert list(perform(Tree(Daemon(), dict), Verb.GET, "dev.xbbd")) == []


def test_the_beginning_of_names_ends_at_a_dot(tree: Tree) -> None:
    assert perform(tree, Verb.GET, "dev.xbbd.1.wr_req") == {"dev.xbbd.1.wr_req": 7}
    assert perform(tree, Verb.GET, "dev.xbbd.1.ring.1") == {"dev.xbbd.1.ring.1.req_cons": 10}
    assert perform(tree, Verb.GET, "hw.xbbd.log") == {"hw.xbbd.log.data": 0}
    assert len(perform(tree, Verb.GET, "dev.xbbd.1")) == 7
    assert len(perform(tree, Verb.GET, "dev")) == 12
    assert len(perform(tree, Verb.GET, "hw")) == 3


def test_one_leaf_does_not_cost_a_whole_device(tree: Tree, devices: dict[int, Device]) -> None:
    perform(tree, Verb.GET, "dev.xbbd.1.wr_req")
    assert (devices[1].asked, devices[10].asked) == (["counters"], [])


@pytest.mark.parametrize(
    "name",
    [
        "dev.xbbd.2",
        "dev.xbb",
        "dev.xbbd.1.wr",
        "x",
        "hw.xbbd.lo",
        "dev.xbbd.01",
        "dev.xbbd.1.ring.2",
        "hw.xbbd.version.x",
        ".",
    ],
)
def test_unknown_names_are_no_empty_answer(tree: Tree, name: str) -> None:
    with pytest.raises(OperatorError, match=f"^unknown oid '{name}'$"):
        perform(tree, Verb.GET, name)


def test_set_gives_the_old_value(tree: Tree, devices: dict[int, Device]) -> None:
    name = "dev.xbbd.1.flush_interval"
    assert perform(tree, Verb.SET, name, 8) == {name: 0}
    assert perform(tree, Verb.SET, name, " 0x10 ") == {name: 8}
    assert perform(tree, Verb.SET, name, "010") == {name: 16}
    assert devices[1].values["tunables"]["flush_interval"] == 8
    assert devices[10].values["tunables"]["flush_interval"] == 0
    assert perform(tree, Verb.SET, "dev.xbbd.10.wr_req", 0) == {"dev.xbbd.10.wr_req": 5}
    assert perform(tree, Verb.SET, "hw.xbbd.log.data", "1") == {"hw.xbbd.log.data": 0}
    assert perform(tree, Verb.GET, "hw.xbbd.log.data") == {"hw.xbbd.log.data": 1}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dev.xbbd.2.flush_interval", 1, "unknown oid 'dev.xbbd.2.flush_interval'"),
        ("dev.xbbd.1.nothing", 1, "unknown oid 'dev.xbbd.1.nothing'"),
        ("flush_interval", 1, "unknown oid 'flush_interval'"),
        ("dev.xbbd.1", 1, "oid 'dev.xbbd.1' isn't a leaf node"),
        ("dev.xbbd.1.ring.0.req_cons", 1, "oid 'dev.xbbd.1.ring.0.req_cons' is read only"),
        ("dev.xbbd.1.abi", 1, "oid 'dev.xbbd.1.abi' is read only"),
        ("dev.xbbd.1.workers", 1, "read only tunable: it is set in xbbd.conf"),
        ("hw.xbbd.version", 1, "oid 'hw.xbbd.version' is read only"),
        ("dev.xbbd.1.flush_interval", "x", "invalid integer 'x'"),
        ("dev.xbbd.1.flush_interval", "09", "invalid integer '09'"),
        ("dev.xbbd.1.flush_interval", "1" * 20, "must be -2147483648 to 2147483647"),
        ("dev.xbbd.1.flush_interval", "1" * 4000, "invalid integer '1{80}'$"),
        ("dev.xbbd.1.flush_interval", "0x" + "f" * 3900, "invalid integer '0xf"),
        ("dev.xbbd.1.flush_interval", 1 << 14_000, "the number is too large"),
        ("dev.xbbd.1.ring.7.inflight", 1, "unknown oid 'dev.xbbd.1.ring.7.inflight'"),
        ("dev.xbbd.1.wr_req", "1.5", "invalid uint64_t '1.5'"),
        ("dev.xbbd.1.wr_req", -1, "must be 0 to 18446744073709551615"),
        ("dev.xbbd.1.flush_interval", "", "dev.xbbd.1.flush_interval: empty numeric value"),
        ("dev.xbbd.1.flush_interval", 99, "must be 0 to 98"),
    ],
)
def test_what_cannot_be_set(
    tree: Tree, devices: dict[int, Device], name: str, value: Value, message: str
) -> None:
    before = perform(tree, Verb.GET)
    with pytest.raises(OperatorError, match=message):
        perform(tree, Verb.SET, name, value)
    assert perform(tree, Verb.GET) == before


def test_descriptions(tree: Tree) -> None:
    found = perform(tree, Verb.DESCRIBE)
    assert found.keys() == perform(tree, Verb.GET).keys()
    assert found["dev.xbbd.1.flush_interval"] == [
        "integer", True, True, "send a real flush for N flush requests"
    ]  # fmt: skip
    assert found["hw.xbbd.version"] == ["string", False, False, "version of the daemon"]


def test_a_device_that_goes_while_an_answer_is_taken(
    tree: Tree, devices: dict[int, Device]
) -> None:
    parts = tree.perform(Request(Verb.GET, "dev.xbbd"))
    assert "dev.xbbd.1.wr_req" in (next(parts) or ())
    del devices[10]
    assert list(parts) == []


def test_verbs_of_devices(tree: Tree, devices: dict[int, Device]) -> None:
    assert perform(tree, Verb.RESIZE, "dev.xbbd.10") == {}
    assert (devices[10].looks, devices[1].looks) == (1, 0)
    both = {"domid": 7, "state": "Connected"}
    plain, whole = {**both, "latency": False}, {**both, "latency": True}
    assert perform(tree, Verb.STAT) == {"dev.xbbd.1": plain, "dev.xbbd.10": plain}
    assert perform(tree, Verb.STAT, "dev.xbbd.1", "latency") == {"dev.xbbd.1": whole}
    assert perform(tree, Verb.INFLIGHT, "dev.xbbd.1") == {"dev.xbbd.1": [{"ring": 0}]}
    assert perform(tree, Verb.LOG, "dev.xbbd.1") == {"dev.xbbd.1": [(1.5, "info", "found")]}
    assert perform(tree, Verb.LOG) == {"": [(0.5, "info", "serving")]}
    for verb in (Verb.RESIZE, Verb.STAT, Verb.INFLIGHT, Verb.LOG):
        for name in ("dev.xbbd.2", "dev.xbbd.1.wr_req", "x"):
            with pytest.raises(OperatorError, match="unknown oid"):
                perform(tree, verb, name)


def test_every_leaf_is_declared_once() -> None:
    names = [name for name, _ in declared()]
    assert len(set(names)) == len(names)
    for name, leaf in declared():
        assert leaf_of(name.replace(".N.", ".0.").replace(".M.", ".1.")) is leaf
        assert leaf.description == leaf.description.strip() != ""
        assert "\n" not in leaf.description
    assert leaf_of("dev.xbbd.0") is None
    assert leaf_of("dev.xbbd.x.inflight") is None
    assert sum(map(len, GROUPS.values())) + len(RING) + len(DAEMON) == len(names)


def test_names_of_devices() -> None:
    assert split("dev.xbbd.3.ring.0.inflight") == (3, "ring.0.inflight")
    assert split("dev.xbbd.0") == (0, "")
    for name in ("dev.xbbd", "dev.xbbd.", "dev.xbbd.-1", "dev.xbbd.00", "hw.xbbd.0", ""):
        assert split(name) is None


# Type and access as sysctl -t and -W show them for the in-kernel driver.
KERNEL = {
    **dict.fromkeys(("disable_flush", "flush_interval", "no_coalesce_reqs"), (Type.INT, True)),
    **dict.fromkeys(
        ("reqs_received", "reqs_completed", "reqs_queued_for_completion",
         "reqs_completed_with_error", "forced_dispatch", "normal_dispatch", "total_dispatch",
         "kva_shortages", "request_shortages"), (Type.U64, True)),
    **dict.fromkeys(
        ("max_requests", "max_request_segments", "max_request_size", "ring_pages"),
        (Type.UINT, False)),
    "xenbus_peer_domid": (Type.INT, False),
    **dict.fromkeys(
        ("xenstore_path", "xenstore_peer_path", "xenbus_connection_state", "xenbus_dev_type",
         "%desc", "%driver", "%location", "%parent"), (Type.STRING, False)),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNEL)
def test_the_kernels_leaves_keep_type_and_access(name: str) -> None:
    leaf = leaf_of(f"dev.xbbd.0.{name}")
    assert leaf is not None
    assert (leaf.type, leaf.writable) == KERNEL[name]


@pytest.mark.parametrize(
    "name",
    ["oo_req", "rd_req", "wr_req", "f_req", "ds_req", "rd_sect", "wr_sect", "physical_device",
     "mode"],
)  # fmt: skip
def test_the_leaves_of_linux_are_there(name: str) -> None:
    assert leaf_of(f"dev.xbbd.0.{name}") is not None


def test_a_disk_is_cleared_by_path_or_by_device(devices: dict[int, Device]) -> None:
    daemon = Daemon()
    tree = Tree(daemon, lambda: devices)
    devices[1].values["medium"]["path"] = "/vm.img"
    assert perform(tree, Verb.CLEAR, "/disk") == {}
    assert perform(tree, Verb.CLEAR, "dev.xbbd.1") == {}
    assert daemon.cleared == ["/disk", "/vm.img"]
    for name in ("/other", "dev.xbbd.10", "dev.xbbd.7", "dev.xbbd.1.path", ""):
        with pytest.raises(OperatorError):
            perform(tree, Verb.CLEAR, name)
    assert len(daemon.cleared) == 2


def test_the_configuration_is_read_again(tree: Tree) -> None:
    assert perform(tree, Verb.RELOAD) == {"disk.workers": ("8", "3", "")}
    with pytest.raises(OperatorError, match=r"^dev\.xbbd\.1: all of the configuration is read$"):
        perform(tree, Verb.RELOAD, "dev.xbbd.1")
