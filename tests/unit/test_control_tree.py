"""Names and values of a daemon with a few devices that are none."""

import errno
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.players import CLEAR, DRIVERS, NAMES, RESIZE, Daemon, Device, Devices, tree_of
from xbbd_bsd.block.health import Loss, SharedFacts
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.control.health import DaemonFacts
from xbbd_bsd.control.protocol import FamilyVerb, Request, Value, Verb
from xbbd_bsd.control.tree import MOST_BEFORE, NOTE_LENGTH, Key, Tree
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.oids import Driver, Leaf, Type


@pytest.fixture
def devices() -> dict[int, Device]:
    return {10: Device(5), 1: Device(7, rings=(0, 1))}


@pytest.fixture
def tree(devices: dict[int, Device]) -> Tree:
    return tree_of(Daemon(), devices)


def perform(
    tree: Tree, verb: Verb | FamilyVerb, name: str = "", value: Value | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for values in tree.perform(Request(verb, name, value)):
        if not isinstance(values, Mapping):
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
    assert list(perform(tree_of(Daemon(), {}), Verb.GET, "dev.xbbd")) == []


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
    first = next(parts)
    assert isinstance(first, Mapping)
    assert "dev.xbbd.1.wr_req" in first
    del devices[10]
    assert list(parts) == []


def test_a_list_is_of_the_leaves_that_it_wants(tree: Tree, devices: dict[int, Device]) -> None:
    """In their order, after what any device has; one that a driver has not is left out."""
    found = perform(tree, Verb.STAT, "", "abi none workers")
    assert {node: [*values.items()] for node, values in found.items()} == {
        f"dev.xbbd.{unit}": [
            ("domid", 7),
            ("state", "Connected"),
            ("abi", "native"),
            ("workers", 8),
        ]
        for unit in (1, 10)
    }


@pytest.mark.parametrize(
    ("request_", "most"),
    [
        (Request(Verb.GET, "dev.xbbd.7.wr_req"), 1),
        (Request(Verb.GET, "dev.xbbd.7"), 1),
        (Request(Verb.SET, "dev.xbbd.7.flush_interval", 8), 3),
        (Request(Verb.NOTE, "backend/vbd/5/7", "seen"), 1),
        (Request(Verb.STAT, "dev.xbbd.7", "abi"), 1),
        (Request(Verb.STAT, "", "abi"), 100),
        (Request(Verb.GET, ""), 100),
    ],
)
def test_an_answer_looks_at_what_it_is_about(request_: Request, most: int) -> None:
    """However many there are: at each device of the answer, and at no other."""
    things = {(DRIVER.name, unit): Device(unit) for unit in range(100)}
    for (_, unit), device in things.items():
        device.values["xenbus"] = {"xenstore_path": f"backend/vbd/5/{unit}"}
    looked: list[Key] = []

    class Counted(Devices):
        def get(self, key: Key, /) -> Device | None:
            looked.append(key)
            return super().get(key)

    tree = Tree(Daemon(), Counted(lambda: things), DRIVERS)
    assert len(list(tree.perform(request_)))
    assert len(looked) <= most
    if request_.name:
        assert set(looked) == {(DRIVER.name, 7)}


def test_verbs_of_devices(tree: Tree, devices: dict[int, Device]) -> None:
    assert perform(tree, RESIZE, "dev.xbbd.10") == {}
    assert (devices[10].looks, devices[1].looks) == (1, 0)
    both = {"domid": 7, "state": "Connected"}
    plain, whole = {**both, "latency": False}, {**both, "latency": True}
    assert perform(tree, Verb.STAT) == {"dev.xbbd.1": plain, "dev.xbbd.10": plain}
    assert perform(tree, Verb.STAT, "dev.xbbd.1", "latency") == {"dev.xbbd.1": whole}
    assert perform(tree, Verb.INFLIGHT, "dev.xbbd.1") == {"dev.xbbd.1": [{"ring": 0}]}
    assert perform(tree, Verb.LOG, "dev.xbbd.1") == {"dev.xbbd.1": [(1.5, "info", "found")]}
    assert perform(tree, Verb.LOG) == {"": [(0.5, "info", "serving")]}
    for verb in (RESIZE, Verb.STAT, Verb.INFLIGHT, Verb.LOG, Verb.EVENTS, Verb.CONFIGURED):
        for name in ("dev.xbbd.2", "dev.xbbd.1.wr_req", "x"):
            message = "^no disk xbbd2$" if name == "dev.xbbd.2" else "unknown oid"
            with pytest.raises(OperatorError, match=message):
                perform(tree, verb, name)


def test_what_is_wrong(devices: dict[int, Device]) -> None:
    """Of all, or of one with what is known of its path; no request is older than is asked."""
    daemon = Daemon()
    daemon.facts = DaemonFacts(store_connected=False)
    daemon.shared = SharedFacts(losses=[Loss("/vm.img", "x")])
    devices[1].values["medium"]["path"] = "/vm.img"
    devices[1].unit, devices[10].unit = 1, 10
    devices[10].ages = [12.0]
    tree = tree_of(daemon, devices)

    def kinds(name: str = "", value: Value | None = None) -> dict[str, list[str]]:
        found = perform(tree, Verb.HEALTH, name, value)
        return {root: [finding["kind"] for finding in found[root]] for root in found}

    everything = {"hw.xbbd": ["store", "lost"], "dev.xbbd.1": [], "dev.xbbd.10": ["slow"]}
    assert kinds() == kinds("dev.xbbd") == everything
    assert kinds(value=13) == {**everything, "dev.xbbd.10": []}
    assert kinds("dev.xbbd.1") == {"dev.xbbd.1": ["lost"]}
    assert kinds("dev.xbbd.10", "11.5") == {"dev.xbbd.10": ["slow"]}
    assert kinds("dev.xbbd.10", "12.5") == {"dev.xbbd.10": []}
    for name, error in (
        ("dev.xbbd.2", "no disk xbbd2"),
        *((name, "unknown oid") for name in ("dev.xbbd.1.wr_req", "x", "hw.xbbd")),
    ):
        with pytest.raises(OperatorError, match=error):
            kinds(name)
    with pytest.raises(OperatorError, match="must be seconds"):
        kinds(value=0)


def test_a_disk_is_cleared_by_path_or_by_device(devices: dict[int, Device]) -> None:
    daemon = Daemon()
    tree = tree_of(daemon, devices)
    devices[1].values["medium"]["path"] = "/vm.img"
    assert perform(tree, CLEAR, "/disk") == {}
    assert perform(tree, CLEAR, "dev.xbbd.1") == {}
    assert (daemon.cleared, devices[1].cleared) == (["/disk"], ["/vm.img"])
    for name in ("/other", "dev.xbbd.10", "dev.xbbd.7", "dev.xbbd.1.path", ""):
        with pytest.raises(OperatorError):
            perform(tree, CLEAR, name)
    assert len(daemon.cleared) == len(devices[1].cleared) == 1


def test_who_does_something_is_passed_on(tree: Tree, devices: dict[int, Device]) -> None:
    for request in (
        Request(Verb.SET, "dev.xbbd.1.flush_interval", 8, "alice (uid 0)"),
        Request(Verb.NOTE, "backend/vbd/5/1", "attached \x1b[2J" + "x" * 500, "alice (uid 0)"),
    ):
        assert len(list(tree.perform(request))) == 1
    assert devices[1].noted == [("flush_interval=8", "alice (uid 0)")]


def test_a_note_goes_to_its_disk_and_is_bounded_text() -> None:
    daemon, device = Daemon(), Device(5)
    device.values["xenbus"] = {"xenstore_path": "backend/vbd/5/1"}
    tree = tree_of(daemon, {3: device})
    long = "attached \x1b[2J" + "x" * 500
    assert list(tree.perform(Request(Verb.NOTE, "backend/vbd/5/1", long, "root"))) == [
        {"device": "dev.xbbd.3"}
    ]
    ((words, who),) = device.noted
    assert words.startswith("attached \\x1b[2Jxxx")
    assert words.isprintable()
    assert (len(words), who) == (NOTE_LENGTH + 3, "root")
    assert list(tree.perform(Request(Verb.NOTE, "backend/vbd/5/2", "gone", "root"))) == [
        {"device": ""}
    ]
    assert daemon.noted == [("gone", "root")]


def test_what_the_configuration_says(tree: Tree) -> None:
    assert perform(tree, Verb.CONFIGURED, "dev.xbbd.1") == {
        "dev.xbbd.1.flush_interval": 0,
        "dev.xbbd.1.disable_flush": 0,
    }
    assert perform(tree, Verb.CONFIGURED, "hw.xbbd") == {"hw.xbbd.log.data": 0}
    assert len(perform(tree, Verb.CONFIGURED)) == 5


def test_lines_to_begin_with(tree: Tree) -> None:
    assert len(list(tree.perform(Request(Verb.EVENTS, "dev.xbbd.1", 3)))) == 3
    assert perform(tree, Verb.EVENTS) == {"text": "the last 0"}
    for value in (-1, MOST_BEFORE + 1, "3"):
        with pytest.raises(OperatorError, match="must be 0 to 512"):
            perform(tree, Verb.EVENTS, "", value)


def test_a_look_at_the_size_says_what_it_was(tree: Tree, devices: dict[int, Device]) -> None:
    devices[1].values["medium"]["sectors"] = 8
    assert perform(tree, RESIZE, "dev.xbbd.1") == {"dev.xbbd.1.sectors": 8}
    assert perform(tree, Verb.GET, "dev.xbbd.1.sectors") == {"dev.xbbd.1.sectors": 16}


def test_the_configuration_is_read_again(tree: Tree) -> None:
    assert perform(tree, Verb.RELOAD) == {"disk.workers": ("8", "3", "")}
    with pytest.raises(OperatorError, match=r"^dev\.xbbd\.1: all of the configuration is read$"):
        perform(tree, Verb.RELOAD, "dev.xbbd.1")


OTHER = Driver(
    "other",
    "thing",
    "Something Else",
    own={"medium": (Leaf("abi", Type.STRING, "layout of another ring"),)},
    verbs=("shake",),
)


@pytest.fixture
def two() -> Tree:
    """A disk 0, and two of another driver's, 0 and 1."""
    things = {("xbbd", 0): Device(5), ("other", 0): Device(6), ("other", 1): Device(7)}
    for driver, unit in things:
        if driver == "other":
            things[driver, unit].values = {"medium": {"abi": f"other {unit}"}}
    return Tree(Daemon(), Devices(lambda: things), {**DRIVERS, "other": OTHER})


def test_units_of_two_drivers_are_two_devices(two: Tree) -> None:
    assert perform(two, Verb.GET, "dev.other.0") == {"dev.other.0.abi": "other 0"}
    assert perform(two, Verb.GET, "dev.xbbd.0.abi") == {"dev.xbbd.0.abi": "native"}
    assert list(perform(two, Verb.GET, "dev.other")) == ["dev.other.0.abi", "dev.other.1.abi"]
    nodes = [name for name in perform(two, Verb.GET, "dev") if name.endswith(".abi")]
    assert nodes == ["dev.other.0.abi", "dev.other.1.abi", "dev.xbbd.0.abi"]
    assert list(perform(two, Verb.STAT)) == ["dev.other.0", "dev.other.1", "dev.xbbd.0"]
    assert list(perform(two, Verb.STAT, "dev.xbbd")) == ["dev.xbbd.0"]
    assert list(perform(two, Verb.HEALTH, "dev.other")) == [
        "hw.xbbd",
        "dev.other.0",
        "dev.other.1",
    ]
    with pytest.raises(OperatorError, match=r"^no thing other2$"):
        perform(two, Verb.LOG, "dev.other.2")
    with pytest.raises(OperatorError, match=r"^unknown oid 'dev\.third\.0'$"):
        perform(two, Verb.LOG, "dev.third.0")


def test_leaves_are_those_of_the_driver(two: Tree) -> None:
    """Names that both have are each as its own driver says; what the other has it has not."""
    described = perform(two, Verb.DESCRIBE)
    assert described["dev.other.0.abi"][3] == "layout of another ring"
    assert described["dev.xbbd.0.abi"][3] == "layout of the ring (negotiated)"
    with pytest.raises(OperatorError, match="unknown oid"):
        perform(two, Verb.SET, "dev.other.0.flush_interval", 1)


def test_verbs_are_those_of_the_driver(two: Tree) -> None:
    with pytest.raises(OperatorError, match=r"^shake: a disk of xbbd has no such verb$") as error:
        perform(two, FamilyVerb("shake"), "dev.xbbd.0")
    assert error.value.errno == errno.EOPNOTSUPP
    with pytest.raises(OperatorError, match=r"^resize: a thing of other has no such verb$"):
        perform(two, RESIZE, "dev.other.1")
    assert perform(two, RESIZE, "dev.xbbd.0") == {}
