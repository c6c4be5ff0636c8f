"""The block family with a real queue: a frontend in this process, a host that is one directory."""

import asyncio
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from errno import EBUSY
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.descriptors import open_descriptors
from tests.unit.xenbus_bench import Bench as XenbusBench
from xbbd_bsd.block.family import BlockBackend, BlockFamily, tap_params
from xbbd_bsd.block.sharing import Sharing
from xbbd_bsd.config import KINDS, Config, DiskConfig, parse
from xbbd_bsd.errors import GuestError, HostError, OperatorError
from xbbd_bsd.events import Event, MediumIgnored, QueueStarted, QueueStatus, Resized
from xbbd_bsd.families import block_families
from xbbd_bsd.host import DiskGeometry, Medium, MediumName, RingDescriptors, path_itself, platform
from xbbd_bsd.native import Abi, Front, FrontParams, HvKind, Op, State, sim_format, sim_mapped
from xbbd_bsd.oids import GROUPS, OPERATIONS, RING, Type
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue

LIMIT = 10.0
PORT = 3
IDENTITY = Identity("vbd", 5, 51712, 0)


class DirectoryHost:
    """One simulated domain, number 5, with one event channel."""

    name = "test"
    hv = HvKind.SIM
    store_path = ""
    media: Mapping[str, MediumName] = {"physical-device-path": path_itself}
    locked = False

    def __init__(self, directory: Path) -> None:
        domain = directory / "domain"
        domain.mkdir()
        self.domain_fd = os.open(domain, os.O_RDONLY | os.O_DIRECTORY)
        sim_format(self.domain_fd, 512)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(domain / "port"))
        self.listener.listen()
        self.listener.setblocking(False)

    def check_kinds(self, kinds: Collection[str]) -> None:
        raise AssertionError("a family is not asked")

    def open_ring(self, domid: int, port: int) -> RingDescriptors:
        if (domid, port) != (5, PORT):
            raise GuestError(f"domain {domid} has no event channel {port}")
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(self.listener.getsockname())
        return RingDescriptors(os.dup(self.domain_fd), channel.detach())

    def prepare_disk(self, fd: int) -> DiskGeometry:
        return platform().prepare_disk(fd)

    def lock_disk(self, fd: int, *, writable: bool) -> None:
        if self.locked:
            raise OperatorError("another program uses it", EBUSY)

    def disk_size(self, fd: int) -> int:
        return platform().disk_size(fd)

    def close(self) -> None:
        self.listener.close()
        os.close(self.domain_fd)


class Bench:
    """A block backend, its frontend, and the nodes between them."""

    def __init__(self, directory: Path) -> None:
        self.host = DirectoryHost(directory)
        self.run = directory / "run"
        self.run.mkdir()
        self.disk = directory / "disk"
        self.disk.touch()
        os.truncate(self.disk, 1 << 20)
        self.loop = asyncio.new_event_loop()
        self.family = self.make(Config())
        self.events: list[Event] = []
        self.wakes = 0
        self.backend = self.create(IDENTITY)
        self.backend_nodes = {"physical-device-path": os.fsencode(self.disk), "mode": b"w"}
        self.front = self.make_front()
        self.frontend_nodes = {
            "event-channel": b"%d" % PORT,
            "ring-ref": b"%d" % self.front.ring_refs[0],
            "protocol": b"x86_64-abi",
        }

    def make(self, config: Config) -> BlockFamily:
        return BlockFamily(
            self.host.media,
            host=self.host,
            config=config,
            state_dir=str(self.run),
            loop=self.loop,
            sharing=Sharing(),
        )

    def create(self, identity: Identity) -> BlockBackend:
        return self.family.create(identity, self.wake, self.events.append)

    def make_front(self) -> Front:
        listener = self.host.listener.fileno()
        return Front(
            FrontParams(self.host.domain_fd, listener, PORT, HvKind.SIM, 0, Abi.X86_64, 1, 32)
        )

    def wake(self) -> None:
        self.wakes += 1

    def queue(self) -> Queue:
        return self.backend.queue

    def open(self) -> str:
        self.backend.capabilities(self.backend_nodes.get, "vm")
        return self.backend.open(self.backend_nodes.get)

    def connect(self) -> dict[str, bytes | None]:
        return dict(self.backend.connect(self.frontend_nodes.get).nodes)

    def drained(self) -> None:
        """Wait on the loop for the queue's own word."""
        before = self.wakes
        deadline = self.loop.time() + LIMIT
        while self.wakes == before:
            assert self.loop.time() < deadline
            self.loop.call_later(0.002, self.loop.stop)
            self.loop.run_forever()

    def down(self) -> None:
        if self.backend.queue is Queue.RUNNING:
            self.backend.drain()
            self.drained()
        self.backend.disconnect()
        self.backend.close()

    def close(self) -> None:
        self.down()
        self.backend.forget()
        assert sim_mapped(self.host.domain_fd) == 0
        assert os.listdir(self.run) == []
        self.front.close()
        self.host.close()
        self.loop.close()


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    before = open_descriptors()
    bench = Bench(short_path)
    yield bench
    bench.close()
    assert open_descriptors() == before


def test_capabilities_follow_the_configuration(bench: Bench) -> None:
    assert bench.backend.capabilities(bench.backend_nodes.get, "vm")["max-ring-page-order"] == b"4"
    bench.family.configure(Config(disk=DiskConfig(max_ring_page_order=2)))
    assert bench.backend.capabilities(bench.backend_nodes.get, "vm")["max-ring-page-order"] == b"2"


def test_data_goes_through(bench: Bench) -> None:
    bench.open()
    nodes = bench.connect()
    assert (nodes["sectors"], nodes["info"], nodes["sector-size"]) == (b"2048", b"0", b"512")
    assert bench.queue() is Queue.RUNNING
    data = bytearray(os.urandom(8192))
    bench.front.transfer(Op.WRITE, 16, 16, data, LIMIT)
    assert bench.disk.read_bytes()[16 * 512 : 32 * 512] == data
    refs = str(bench.front.ring_refs[0])
    assert bench.events == [QueueStarted("xbbd0 (vbd/5/51712)", PORT, "x86_64", refs)]


def test_drain_wakes_and_disconnect_gives_all_back(bench: Bench) -> None:
    bench.open()
    descriptors = open_descriptors()
    bench.connect()
    bench.backend.drain()
    bench.drained()
    assert bench.queue() is Queue.DRAINED
    assert QueueStatus("xbbd0 (vbd/5/51712)", "drained", "none", 0) in bench.events
    bench.backend.disconnect()
    assert bench.queue() is Queue.NONE
    assert open_descriptors() == descriptors
    assert sim_mapped(bench.host.domain_fd) == 0


def test_it_connects_again(bench: Bench) -> None:
    for _ in range(3):
        bench.open()
        bench.connect()
        bench.front.transfer(Op.READ, 0, 8, bytearray(4096), LIMIT)
        bench.down()
        bench.front.close()
        bench.front = bench.make_front()
        bench.frontend_nodes["ring-ref"] = b"%d" % bench.front.ring_refs[0]


def test_a_ring_whose_indices_lie_fails(bench: Bench) -> None:
    bench.open()
    bench.connect()
    bench.front.ring[0:4] = (1000).to_bytes(4, "little")  # req_prod, beyond the ring's 32 slots
    bench.front.notify()
    bench.drained()
    assert bench.queue() is Queue.FAILED
    fault = bench.backend.fault
    assert isinstance(fault, GuestError)
    assert "ring indices" in str(fault)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"event-channel": b"9"}, "domain 5 has no event channel 9"),
        ({"ring-ref": b"4000000"}, "connect ring of domain 5"),
        ({"ring-ref": b"x"}, "frontend node ring-ref is 'x', not a 32-bit number"),
    ],
)
def test_a_connection_that_fails_leaves_nothing(
    bench: Bench, nodes: dict[str, bytes], message: str
) -> None:
    bench.open()
    descriptors = open_descriptors()
    bench.frontend_nodes |= nodes
    with pytest.raises((GuestError, HostError), match=message):
        bench.connect()
    assert bench.queue() is Queue.NONE
    assert open_descriptors() == descriptors


@pytest.mark.parametrize(
    ("nodes", "info", "read_only"),
    [
        ({"mode": b"r"}, b"4", True),
        ({"mode": b"w"}, b"0", False),
        ({"mode": b"rw"}, b"0", False),
        ({"mode": b"w!"}, b"0", False),
        ({"mode": b""}, b"4", True),
        ({"device-type": b"cdrom", "removable": b"1", "mode": b"r"}, b"7", True),
        ({"device-type": b"disk", "removable": b"0"}, b"0", False),
    ],
)
def test_mode_and_kind_of_medium(
    bench: Bench, nodes: dict[str, bytes], info: bytes, read_only: bool
) -> None:
    bench.backend_nodes |= nodes
    bench.open()
    assert bench.connect()["info"] == info
    if read_only:
        with pytest.raises(OSError, match="Input/output error"):
            bench.front.transfer(Op.WRITE, 0, 1, bytearray(512), LIMIT)
    else:
        bench.front.transfer(Op.WRITE, 0, 1, bytearray(512), LIMIT)


def test_no_mode_no_disk(bench: Bench) -> None:
    del bench.backend_nodes["mode"]
    with pytest.raises(OperatorError, match=r"node backend/vbd/5/51712/mode is missing"):
        bench.open()
    assert not bench.backend.disk_open


def test_the_medium_is_named_by_its_node(bench: Bench) -> None:
    assert bench.backend.medium_named(bench.backend_nodes.get)
    assert not bench.backend.medium_named(lambda name: None)


def test_tunables_reach_the_segment_at_start_and_alive(bench: Bench) -> None:
    bench.family.configure(Config(disk=DiskConfig(flush_interval=7)))
    bench.backend.capabilities(bench.backend_nodes.get, "vm")
    segment = State.open(str(bench.run / "xbbd.0"))
    assert segment.tunables()["flush_interval"] == 7
    bench.family.devices[0].set("flush_interval", 5, "it")
    bench.family.configure(Config(disk=DiskConfig(flush_interval=7, disable_flush=True)))
    assert segment.tunables()["disable_flush"] == 1
    assert segment.tunables()["flush_interval"] == 5, "only what has changed in the file"
    segment.close()


def test_no_room_for_the_segment(bench: Bench) -> None:
    bench.family.state_dir = str(bench.run / "missing")
    with pytest.raises(HostError, match=r"unable to make the state segment .*xbbd\.0: No such"):
        bench.backend.capabilities(bench.backend_nodes.get, "vm")


def test_the_best_of_several_names_of_a_medium_counts(bench: Bench) -> None:
    """As Linux's hotplug script writes it: first the numbers, then the path."""
    bench.family.media = {"first": lambda _: os.fsencode(bench.disk), "second": lambda _: b"/x"}
    assert not bench.backend.medium_named(bench.backend_nodes.get)
    bench.backend_nodes["second"] = b"1"
    assert bench.backend.medium_named(bench.backend_nodes.get)
    with pytest.raises(OperatorError, match="unable to open /x"):
        bench.open()
    bench.backend_nodes["first"] = b"1"
    assert str(bench.disk) in bench.open()


@pytest.mark.parametrize(
    ("params", "name"), [(b"aio:/tank/a b", b"/tank/a b"), (b"aio:/a:b", b"/a:b")]
)
def test_tap_params(params: bytes, name: bytes) -> None:
    assert tap_params(params) == name


@pytest.mark.parametrize("params", [b"", b"/disk", b"vhd:/disk", b"aio:", b"AIO:/disk", b"qcow2:x"])
def test_tap_formats_that_are_not_served(params: bytes) -> None:
    with pytest.raises(OperatorError, match="only aio:PATH is served"):
        tap_params(params)


def test_the_registry(bench: Bench) -> None:
    families = block_families(bench.host, Config(), str(bench.run), bench.loop)
    assert tuple(families) == KINDS == ("vbd", "vbd3")
    assert [list(family.media) for family in families.values()] == [
        ["physical-device-path"],
        ["params"],
    ]
    assert {state.name for state in families["vbd"].connect_on} == {"INITIALISED", "CONNECTED"}


def test_from_attach_to_detach(bench: Bench) -> None:
    """All parts together: store, bus, device, family, queue."""
    with TemporaryDirectory(prefix="xbbd") as name:
        around = XenbusBench(Path(name), bench.family)
        around.bus.serve(["vbd"])
        around.attach()
        around.toolstack.write(around.path("physical-device-path"), os.fsencode(bench.disk))
        for node, value in bench.frontend_nodes.items():
            around.toolstack.write(around.front(node), value)
        around.guest(3)
        around.state(4)
        around.guest(4)
        assert around.node("sectors") == b"2048"
        assert around.node("max-ring-page-order") == b"4"
        assert around.node("hotplug-status") == b"connected"
        data = bytearray(os.urandom(4096))
        bench.front.transfer(Op.WRITE, 0, 8, data, LIMIT)
        segment = State.open(str(bench.run / "xbbd.0"))
        assert segment.counters()["wr_req"] == 1
        assert segment.ring().connected
        segment.close()
        around.detach()
        around.guest(5)
        around.guest(6)
        around.state(6)
        assert bench.disk.read_bytes()[:4096] == data
        assert sim_mapped(bench.host.domain_fd) == 0
        around.delete()
        around.until(lambda: not around.bus.devices)
        assert os.listdir(bench.run) == []
        around.close()


def test_a_change_of_size_is_news_of_a_connected_disk_only(bench: Bench) -> None:
    bench.open()
    os.truncate(bench.disk, 2 << 20)
    bench.backend.measure()
    assert (bench.backend.news, bench.wakes) == ({}, 0)
    assert bench.connect()["sectors"] == b"4096"
    bench.backend.measure()
    assert bench.wakes == 0
    os.truncate(bench.disk, (3 << 20) + 511)
    bench.backend.measure()
    assert (bench.backend.news, bench.wakes) == ({"sectors": b"6144"}, 1)
    bench.front.transfer(Op.WRITE, 6136, 8, bytearray(4096), LIMIT)
    with pytest.raises(OSError, match="Input/output error"):
        bench.front.transfer(Op.WRITE, 6144, 1, bytearray(512), LIMIT)
    bench.backend.told()
    assert bench.backend.news == {}
    assert [event for event in bench.events if isinstance(event, Resized)] == [
        Resized(str(IDENTITY), 2048, 4096),
        Resized(str(IDENTITY), 4096, 6144),
    ]


def test_sizes_are_looked_at_every_so_often(bench: Bench) -> None:
    bench.family.configure(Config(disk=DiskConfig(resize_interval=1)))
    bench.open()
    bench.connect()
    os.truncate(bench.disk, 2 << 20)
    deadline = bench.loop.time() + LIMIT
    while not bench.backend.news:
        assert bench.loop.time() < deadline
        bench.loop.call_later(0.05, bench.loop.stop)
        bench.loop.run_forever()
    assert bench.backend.news == {"sectors": b"4096"}


def test_another_medium_is_refused_once(bench: Bench) -> None:
    bench.open()
    bench.backend_nodes["physical-device-path"] = b"/dev/null"
    for _ in range(3):
        assert bench.backend.medium_named(bench.backend_nodes.get)
    refused = MediumIgnored(str(IDENTITY), "physical-device-path")
    assert bench.events.count(refused) == 1


@pytest.mark.parametrize(
    ("before", "after", "order", "queues"),
    [
        (DiskConfig(max_ring_page_order=1, max_queues=2), DiskConfig(), 1, 2),
        (DiskConfig(), DiskConfig(max_ring_page_order=1, max_queues=2), 1, 2),
        (DiskConfig(max_queues=4, sector_size=512), DiskConfig(), 4, 4),  # a new offer
        (DiskConfig(), DiskConfig(sector_size=512), 4, 1),
    ],
)
def test_no_more_is_offered_than_the_segment_has_room_for(
    bench: Bench, before: DiskConfig, after: DiskConfig, order: int, queues: int
) -> None:
    """It is made once, when the device is found; a new configuration may want more."""
    bench.family.configure(Config(disk=before))
    bench.backend.capabilities(bench.backend_nodes.get, "vm")
    bench.family.configure(Config(disk=after))
    offered = bench.backend.capabilities(bench.backend_nodes.get, "vm")
    assert offered["max-ring-page-order"] == b"%d" % order
    assert offered["multi-queue-max-queues"] == (b"%d" % queues if queues > 1 else None)


@pytest.mark.parametrize(("before", "after", "shown"), [(0, 512, b"4096"), (512, 0, b"512")])
def test_sectors_are_presented_as_they_were_when_queues_were_offered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, before: int, after: int, shown: bytes
) -> None:
    """Small ones, parts of a disk's larger ones, are for a single queue."""
    large = DiskGeometry(Medium.DEVICE, 1 << 20, 4096, 4096, aligned=True)
    monkeypatch.setattr(bench.host, "prepare_disk", lambda fd: large)
    bench.family.configure(Config(disk=DiskConfig(sector_size=before)))
    bench.backend.capabilities(bench.backend_nodes.get, "vm")
    bench.family.configure(Config(disk=DiskConfig(sector_size=after)))
    bench.backend.open(bench.backend_nodes.get)
    assert bench.connect()["sector-size"] == shown


def test_overrides_by_path_guest_and_vdev(bench: Bench) -> None:
    """The toolstack's params name the disk before a script does."""
    config = parse(
        f"""
        [[override]]
        path = "{bench.disk}"
        max_ring_page_order = 1
        [[override]]
        guest = "vm"
        vdev = "xvda"
        flush_interval = 6
        [[override]]
        guest = "other"
        flush_interval = 7
        """,
        "f",
    )
    bench.family.configure(config)
    named = bench.backend_nodes.pop("physical-device-path")
    assert bench.backend.capabilities(bench.backend_nodes.get, "vm")["max-ring-pages"] == b"16"
    bench.backend_nodes["params"] = named
    assert bench.backend.capabilities(bench.backend_nodes.get, "vm")["max-ring-pages"] == b"2"
    limits = bench.family.devices[0].group("limits")
    assert limits["max_ring_page_order"] == 1
    bench.family.configure(Config())
    assert bench.family.devices[0].group("tunables")["flush_interval"] == 0
    bench.family.configure(config)
    assert bench.family.devices[0].group("tunables")["flush_interval"] == 6


def test_a_disk_in_use_is_refused(bench: Bench) -> None:
    bench.open()
    other = bench.create(Identity("vbd", 6, 51712, 1))
    other.capabilities(bench.backend_nodes.get, "vm2")
    with pytest.raises(OperatorError, match=r"in use by xbbd0 \(vbd/5/51712\), writable"):
        other.open(bench.backend_nodes.get)
    assert not other.disk_open
    assert "writable" in other.open({**bench.backend_nodes, "mode": b"w!"}.get)
    other.close()
    bench.backend.close()
    other.open(bench.backend_nodes.get)
    other.close()
    bench.open()
    other.forget()


def test_numbers_of_a_disk(bench: Bench) -> None:
    bench.open()
    numbers = bench.family.devices[0]
    for name, leaves in GROUPS.items():
        values = numbers.group(name)
        assert set(values) == ({leaf.name for leaf in leaves} if name != "xenbus" else set())
        for leaf in leaves if values else ():
            assert isinstance(values[leaf.name], str) == (leaf.type is Type.STRING), leaf.name
    assert numbers.rings() == []
    bench.connect()
    assert numbers.rings() == [0]
    assert set(numbers.ring(0)) == {leaf.name for leaf in RING}
    medium = numbers.group("medium")
    assert (medium["guest"], medium["vdev"], medium["mode"]) == ("vm", "xvda", "w")
    assert (medium["path"], medium["medium"]) == (str(bench.disk), "file")
    assert (medium["queues"], medium["abi"], medium["data_path"]) == (1, "x86_64", "map")
    bench.front.transfer(Op.WRITE, 0, 8, bytearray(4096))
    bench.front.transfer(Op.READ, 0, 8, bytearray(4096))
    bench.front.transfer(Op.FLUSH_DISKCACHE, 0, 0)
    latency = numbers.group("latency")
    assert [latency[f"latency.{op}.count"] for op in OPERATIONS] == [1, 1, 1, 0]
    for operation in ("flush", "read", "write"):
        (entry,) = str(latency[f"latency.{operation}.histogram"]).split()
        limit, count = map(int, entry.split(":"))
        assert (limit // 1000, count) == (latency[f"latency.{operation}.p99_us"], 1)
    stat = numbers.stat(latency=True)
    assert stat["xbbi"]["write"]["bytes"] == stat["xbb"]["read"]["bytes"] == 4096
    assert stat["xbbi"]["flush"]["operations"] == 1
    assert {op: sum(h.values()) for op, h in stat["latency"].items()} == dict(
        zip(OPERATIONS, (1, 1, 1, 0), strict=True)
    )
    assert "latency" not in numbers.stat(latency=False)


def test_counters_can_be_written(bench: Bench) -> None:
    """As the kernel's; the data path counts on from there."""
    bench.open()
    bench.connect()
    numbers = bench.family.devices[0]
    for wanted in (0, 1000, (1 << 64) - 1):
        numbers.set("wr_req", wanted, "it")
        assert numbers.group("counters")["wr_req"] == wanted
    bench.front.transfer(Op.WRITE, 0, 8, bytearray(4096))
    assert numbers.group("counters")["wr_req"] == 0
    assert numbers.ring(0)["wr_req"] == 1
    with pytest.raises(OperatorError, match=r"^it=-1: must be 0 to 1000000$"):
        numbers.set("flush_interval", -1, "it")


def test_a_disk_that_another_program_has_locked(bench: Bench) -> None:
    bench.host.locked = True
    for _ in range(2):
        with pytest.raises(OperatorError, match=r"unable to open .*: another program uses it"):
            bench.open()
    bench.backend_nodes["mode"] = b"w!"
    assert "writable" in bench.open()
    bench.backend.close()
    bench.backend_nodes["mode"] = b"w"
    bench.host.locked = False
    assert "writable" in bench.open()


def test_tunables_of_an_override_that_fits_only_when_the_disk_is_open(bench: Bench) -> None:
    """A hotplug script may name another path than the toolstack did."""
    bench.family.configure(
        parse(
            f"""
            [disk]
            disable_flush = true
            [[override]]
            path = "{bench.disk}"
            disable_flush = false
            poll_max_us = 7
            """,
            "f",
        )
    )
    named = bench.backend_nodes.pop("physical-device-path")
    bench.backend_nodes["params"] = b"tank/vm"
    bench.backend.capabilities(bench.backend_nodes.get, "vm")
    numbers = bench.family.devices[0]
    assert numbers.group("tunables")["disable_flush"] == 1
    bench.backend_nodes["physical-device-path"] = named
    bench.backend.open(bench.backend_nodes.get)
    tunables = numbers.group("tunables")
    assert (tunables["disable_flush"], tunables["poll_max_us"]) == (0, 7)


def test_each_ring_is_busy_for_itself(bench: Bench) -> None:
    bench.open()
    bench.connect()
    bench.front.transfer(Op.WRITE, 0, 8, bytearray(4096))
    stat = bench.family.devices[0].stat(latency=False)
    busy = stat["xbbi"]["busy_rings_ns"]
    assert busy[0] == stat["xbbi"]["busy_ns"] > 0
    assert set(busy[1:]) <= {0}
