"""The block family with a real queue: offer, attach, connect, sizes, end."""

import os
from dataclasses import replace
from errno import EBADF, EIO, ENODEV, ENXIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.descriptors import open_descriptors
from tests.unit.family_bench import IDENTITY, PORT, Bench, at_once
from tests.unit.xenbus_bench import Bench as XenbusBench
from tests.waiting import GIVE_UP
from xbbd_bsd.block.entry import MANY, make, tap_params
from xbbd_bsd.config import KINDS, Config, DiskConfig
from xbbd_bsd.errors import GuestError, HostError, OperatorError
from xbbd_bsd.events import MediumIgnored, QueueStarted, QueueStatus, Resized, SizeRounded
from xbbd_bsd.families import families
from xbbd_bsd.host import DiskGeometry, Medium
from xbbd_bsd.host.resources import Resources
from xbbd_bsd.limits import RESERVED_DESCRIPTORS, Limits
from xbbd_bsd.native import Op, SegmentIdentity, State, sim_mapped
from xbbd_bsd.surroundings import Surroundings
from xbbd_bsd.xenbus.states import Queue


def test_capabilities_follow_the_configuration(bench: Bench) -> None:
    assert bench.backend.capabilities(bench.backend_nodes.get)["max-ring-page-order"] == b"4"
    bench.family.configure(Config(disk=DiskConfig(max_ring_page_order=2)))
    assert bench.backend.capabilities(bench.backend_nodes.get)["max-ring-page-order"] == b"2"


def test_data_goes_through(bench: Bench) -> None:
    bench.open()
    nodes = bench.connect()
    assert (nodes["sectors"], nodes["info"], nodes["sector-size"]) == (b"2048", b"0", b"512")
    assert bench.queue() is Queue.RUNNING
    data = bytearray(os.urandom(8192))
    bench.front.transfer(Op.WRITE, 16, 16, data, GIVE_UP)
    assert bench.disk.read_bytes()[16 * 512 : 32 * 512] == data
    refs = str(bench.front.ring_refs[0])
    assert bench.events == [QueueStarted("xbbd0 (vbd/5/51712)", PORT, refs)]


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
        bench.front.transfer(Op.READ, 0, 8, bytearray(4096), GIVE_UP)
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
        ({"event-channel": b"9"}, "port 9\\): domain 5 has no event channel 9"),
        ({"ring-ref": b"4000000"}, r"^ring 0 \(reference 4000000, port 3\): .*domain 5: map"),
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


def test_no_ring_is_served_before_all_can_be(bench: Bench) -> None:
    """What a guest has put on the good one would have to end before it could go again."""
    bench.open()
    bench.front.ring[0:4] = (1).to_bytes(4, "little")  # req_prod
    refs = bench.frontend_nodes
    bench.frontend_nodes = {
        "protocol": b"x86_64-abi",
        "multi-queue-num-queues": b"2",
        "queue-0/event-channel": refs["event-channel"],
        "queue-0/ring-ref": refs["ring-ref"],
        "queue-1/event-channel": b"9",
        "queue-1/ring-ref": b"7",
    }
    with pytest.raises(GuestError, match="no event channel 9"):
        bench.connect()
    assert bench.family.devices[0].group("counters")["reqs_received"] == 0
    assert bench.queue() is Queue.NONE


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
            bench.front.transfer(Op.WRITE, 0, 1, bytearray(512), GIVE_UP)
    else:
        bench.front.transfer(Op.WRITE, 0, 1, bytearray(512), GIVE_UP)


@pytest.mark.parametrize(("cdrom", "removable", "info"), [(True, True, b"3"), (False, True, b"2")])
def test_what_the_system_says_of_the_device(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cdrom: bool, removable: bool, info: bytes
) -> None:
    """As xen-blkback, whatever the toolstack has written."""
    prepare = bench.host.prepare_disk

    def say(fd: int) -> DiskGeometry:
        return replace(prepare(fd), cdrom=cdrom, removable=removable)

    monkeypatch.setattr(bench.host, "prepare_disk", say)
    bench.backend_nodes |= {"device-type": b"disk", "removable": b"0"}
    bench.open()
    assert bench.connect()["info"] == info


@pytest.mark.parametrize(
    ("sector_size", "presented", "offered"), [(512, 0, b"1"), (4096, 0, b"1"), (4096, 512, b"0")]
)
def test_a_promise_is_not_given_of_parts_of_sectors(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    sector_size: int,
    presented: int,
    offered: bytes,
) -> None:
    prepare = bench.host.prepare_disk

    def say(fd: int) -> DiskGeometry:
        found = replace(prepare(fd), sector_size=sector_size, discard=(4096, 0))
        return replace(found, medium=Medium.DEVICE, discard_secure=True)

    monkeypatch.setattr(bench.host, "prepare_disk", say)
    bench.family.configure(Config(disk=DiskConfig(sector_size=presented)))
    bench.open()
    assert bench.connect()["discard-secure"] == offered


def test_no_mode_no_disk(bench: Bench) -> None:
    del bench.backend_nodes["mode"]
    with pytest.raises(OperatorError, match=r"node backend/vbd/5/51712/mode is missing"):
        bench.open()
    assert not bench.backend.medium_open


def test_the_medium_is_named_by_its_node(bench: Bench) -> None:
    assert bench.backend.medium_named(bench.backend_nodes.get)
    assert not bench.backend.medium_named(lambda name: None)


def test_tunables_reach_the_segment_at_start_and_alive(bench: Bench) -> None:
    bench.family.configure(Config(disk=DiskConfig(flush_interval=7)))
    bench.backend.capabilities(bench.backend_nodes.get)
    segment = State.open(str(bench.run / "xbbd.0"))
    assert segment.tunables()["flush_interval"] == 7
    bench.family.devices[0].set("flush_interval", 5, "it")
    bench.family.configure(Config(disk=DiskConfig(flush_interval=7, disable_flush=True)))
    assert segment.tunables()["disable_flush"] == 1
    assert segment.tunables()["flush_interval"] == 5, "only what has changed in the file"
    segment.close()


def test_the_segment_says_whose_it_is(bench: Bench) -> None:
    bench.backend.capabilities(bench.backend_nodes.get)
    segment = State.open(str(bench.run / "xbbd.0"))
    assert segment.identity == SegmentIdentity("vbd", 5, 51712, 0)
    segment.close()


def test_no_room_for_the_segment(bench: Bench) -> None:
    bench.family.state_dir = str(bench.run / "missing")
    with pytest.raises(HostError, match=r"unable to make the state segment .*xbbd\.0: No such"):
        bench.backend.capabilities(bench.backend_nodes.get)


def test_the_best_of_several_names_of_a_medium_counts(bench: Bench) -> None:
    """As Linux's hotplug script writes it: first the numbers, then the path."""
    media = {"first": lambda _: os.fsencode(bench.disk), "second": lambda _: b"/x"}
    bench.family.media = {"vbd": media}
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
    given = Surroundings(
        host=bench.host,
        config=Config(),
        state_dir=str(bench.run),
        loop=bench.loop,
        run=at_once,
        guests=None,
        limits=bench.limits,
        journal=bench.events.append,
        try_again=lambda driver, units: None,
    )
    assert tuple(families(given)) == KINDS == ("vbd", "vbd3", "vif")
    assert [family.driver.name for family in families(given).values()] == [
        *("xbbd", "xbbd"),
        "xnb",
    ]
    block = make(given)["vbd"]
    assert {kind: list(nodes) for kind, nodes in block.media.items()} == {
        "vbd": ["physical-device-path"],
        "vbd3": ["params"],
    }
    assert {state.name for state in block.connect_on} == {"INITIALISED", "CONNECTED"}


def test_few_descriptors_are_told_at_the_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that the process may have a part is never for disks."""
    given = Surroundings(
        host=bench.host,
        config=Config(),
        state_dir=str(bench.run),
        loop=bench.loop,
        run=at_once,
        guests=None,
        limits=bench.limits,
        journal=bench.events.append,
        try_again=lambda driver, units: None,
    )
    for disks in (MANY, MANY - 1):
        descriptors = RESERVED_DESCRIPTORS + 21 * disks
        resources = Resources(4096, 1000, descriptors, 1 << 30)
        monkeypatch.setattr(type(bench.host), "resources", resources)
        bench.limits.configure(Limits.of(given.config.daemon, resources))
        bench.events.clear()
        make(given)
        told = [str(event) for event in bench.events]
        text = f"{21 * disks} file descriptors are enough for {disks} disks, of 4 rings each"
        assert told == ([] if disks == MANY else [text])


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
        bench.front.transfer(Op.WRITE, 0, 8, data, GIVE_UP)
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
    bench.front.transfer(Op.WRITE, 6136, 8, bytearray(4096), GIVE_UP)
    with pytest.raises(OSError, match="Input/output error"):
        bench.front.transfer(Op.WRITE, 6144, 1, bytearray(512), GIVE_UP)
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
    deadline = bench.loop.time() + GIVE_UP
    while not bench.backend.news:
        assert bench.loop.time() < deadline
        bench.loop.call_later(0.05, bench.loop.stop)
        bench.loop.run_forever()
    assert bench.backend.news == {"sectors": b"4096"}


@pytest.mark.parametrize("number", [ENXIO, ENODEV])
def test_a_disk_that_is_gone_is_noticed_without_io(bench: Bench, number: int) -> None:
    """What the host calls so (disk_size)."""
    bench.open()
    bench.connect()
    bench.host.gone = number
    bench.backend.measure()
    bench.drained()
    assert bench.queue() is Queue.DRAINED
    fault = bench.backend.fault
    assert isinstance(fault, HostError)
    assert str(fault) == f"the disk is gone: {os.strerror(number)}"
    bench.down()
    assert bench.backend.fault is None
    assert not bench.backend.medium_open


def test_a_look_that_fails_otherwise_takes_no_disk_away(bench: Bench) -> None:
    bench.open()
    bench.connect()
    bench.host.gone = EIO
    bench.backend.measure()
    assert (bench.queue(), bench.backend.fault) == (Queue.RUNNING, None)


def test_a_disk_whose_close_fails_is_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """FreeBSD closes the descriptor of a provider that is gone, and says ENXIO."""
    closed: list[int] = []
    close = os.close

    def failing(fd: int) -> None:
        close(fd)
        closed.append(fd)
        raise OSError(ENXIO, "Device not configured")

    bench.open()
    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr("xbbd_bsd.block.disk.os.close", failing)
        bench.backend.close()
    bench.backend.close()
    assert len(closed) == 1
    assert len(open_descriptors()) == len(before) - 1
    assert not bench.backend.medium_open
    bench.open()


def test_facts_of_an_open_disk_ask_the_disk_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that is gone answers fstat(2) with EBADF, and must not fail every list."""
    bench.open()

    def gone(fd: int) -> os.stat_result:
        raise OSError(EBADF, "Bad file descriptor")

    with monkeypatch.context() as patch:
        patch.setattr("os.fstat", gone)
        facts = bench.family.devices[0].group("medium")
    assert (facts["path"], facts["physical_device"]) == (str(bench.disk), "")


def test_what_is_left_of_a_sector_is_not_served_and_said(bench: Bench) -> None:
    """As the kernel driver, and as our own look at sizes."""
    os.truncate(bench.disk, (1 << 20) + 100)
    bench.open()
    assert SizeRounded("xbbd0 (vbd/5/51712)", 100, 512) in bench.events
    assert bench.connect()["sectors"] == b"2048"


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
    bench.backend.capabilities(bench.backend_nodes.get)
    bench.family.configure(Config(disk=after))
    offered = bench.backend.capabilities(bench.backend_nodes.get)
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
    bench.backend.capabilities(bench.backend_nodes.get)
    bench.family.configure(Config(disk=DiskConfig(sector_size=after)))
    bench.backend.open(bench.backend_nodes.get)
    assert bench.connect()["sector-size"] == shown
