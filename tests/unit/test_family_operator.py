"""What an operator sees of a disk and says about it: numbers, overrides, who may share it."""

import os
from collections.abc import Iterator
from dataclasses import replace
from errno import EINVAL, EIO

import pytest

from tests.descriptors import open_descriptors
from tests.unit.family_bench import Bench
from xbbd_bsd.block.backend import BlockBackend
from xbbd_bsd.block.marks import MarkedError
from xbbd_bsd.block.oids import DRIVER, OPERATIONS, RING
from xbbd_bsd.config import Config, DiskConfig
from xbbd_bsd.conftext import parse
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.native import Op, State
from xbbd_bsd.native.vitals import Process
from xbbd_bsd.oids import PROCESS, Type
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue


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
    bench.backend.introduce(bench.backend_nodes.get, "vm", "")
    assert bench.backend.capabilities(bench.backend_nodes.get)["max-ring-pages"] == b"16"
    bench.backend_nodes["params"] = named
    assert bench.backend.capabilities(bench.backend_nodes.get)["max-ring-pages"] == b"2"
    limits = bench.family.devices[0].group("limits")
    assert limits["max_ring_page_order"] == 1
    bench.family.configure(Config())
    assert bench.family.devices[0].group("tunables")["flush_interval"] == 0
    bench.family.configure(config)
    assert bench.family.devices[0].group("tunables")["flush_interval"] == 6


def test_a_disk_in_use_is_refused(bench: Bench) -> None:
    bench.open()
    other = bench.create(Identity("vbd", 6, 51712, "xbbd", 1))
    other.introduce(bench.backend_nodes.get, "vm2", "/vm/2")
    other.capabilities(bench.backend_nodes.get)
    with pytest.raises(OperatorError, match=r"in use by xbbd0 \(vbd/5/51712\), writable"):
        other.open(bench.backend_nodes.get)
    assert not other.medium_open
    assert "writable" in other.open({**bench.backend_nodes, "mode": b"w!"}.get)
    other.close()
    bench.backend.close()
    other.open(bench.backend_nodes.get)
    other.close()
    bench.open()
    other.forget()


def test_a_machine_hands_its_disk_over_to_itself(bench: Bench) -> None:
    """Saved and restored, or migrated on one host, it has two domains; one is paused."""
    locks: list[int] = []
    bench.host.on_lock = locks.append
    bench.host.holds = True
    bench.backend.introduce(bench.backend_nodes.get, "vm", "/vm/aa")
    bench.backend.capabilities(bench.backend_nodes.get)
    nobody = len(open_descriptors())
    bench.backend.open(bench.backend_nodes.get)
    assert (len(locks), len(open_descriptors())) == (1, nobody + 2)
    bench.host.locked = True
    other = bench.create(Identity("vbd", 6, 51712, "xbbd", 1))
    other.introduce(bench.backend_nodes.get, "vm", "/vm/aa")
    other.capabilities(bench.backend_nodes.get)
    assert "writable" in other.open(bench.backend_nodes.get)
    assert len(locks) == 1, "the other domain has the lock"
    assert len(open_descriptors()) == nobody + 4
    bench.host.locked = False
    bench.backend.close()
    assert (len(locks), len(open_descriptors())) == (2, nobody + 3), "its turn"
    other.measure()
    assert len(locks) == 2, "and once"
    # A third machine has to stay away all the time.
    third = bench.create(Identity("vbd", 7, 51712, "xbbd", 2))
    third.introduce(bench.backend_nodes.get, "thief", "/vm/bb")
    third.capabilities(bench.backend_nodes.get)
    with pytest.raises(OperatorError, match=r"in use by xbbd1 \(vbd/6/51712\), writable"):
        third.open(bench.backend_nodes.get)
    other.close()
    assert len(open_descriptors()) == nobody + 2, "their segments"
    for backend in (other, third):
        backend.forget()


def test_a_disk_is_known_before_it_is_offered(bench: Bench) -> None:
    """As of a device that an earlier daemon served, which nobody connects again."""
    bench.backend.introduce(bench.backend_nodes.get, "vm", "")
    facts = bench.family.known[0].medium_facts()
    known = {
        "guest": "vm",
        "vdev": "xvda",
        "path": str(bench.disk),
        "hung_seconds": 0,
        "path_state": "",
    }
    assert facts == known
    nobody = {"process": 0, "process_rss_kb": 0, "process_age": 0}
    assert bench.family.numbers(0).group("process") == nobody


def test_the_daemon_serves_it_itself(bench: Bench) -> None:
    """Then what is shown is the daemon's; what nobody serves has nothing of it."""
    names = [leaf.name for leaf in PROCESS]
    bench.open()
    nobody = bench.family.devices[0].group("process")
    assert [nobody[name] for name in names] == [0, 0, 0]
    bench.connect()
    served, own = bench.family.devices[0].group("process"), Process(os.getpid()).look()
    assert own is not None
    assert served["process"] == os.getpid()
    assert abs(int(served["process_rss_kb"]) - own.rss_kb) < own.rss_kb // 10
    assert 0 <= own.age - int(served["process_age"]) <= 1
    shown = bench.family.numbers(0).stat(latency=False)
    assert shown["process"] == os.getpid()
    assert set(names) <= shown.keys()


def test_numbers_of_a_disk(bench: Bench) -> None:
    bench.open()
    numbers = bench.family.devices[0]
    for name, leaves in DRIVER.groups.items():
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
    numbers.set("wr_req", 5, "it")  # whatever was counted before
    assert numbers.group("counters")["wr_req"] == 5
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
    bench.backend.capabilities(bench.backend_nodes.get)
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


@pytest.mark.parametrize(
    ("sector_size", "shared", "mode", "refused"),
    [
        (512, True, b"w", True),
        (512, False, b"w!", True),
        (512, False, b"w", False),
        (512, True, b"r", False),
        (0, True, b"w", False),
    ],
)
def test_parts_of_sectors_of_a_shared_disk_are_not_written(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    sector_size: int,
    shared: bool,
    mode: bytes,
    refused: bool,
) -> None:
    """Read, changed and written by two at once, one of them loses what it wrote."""
    measure = bench.host.prepare_disk
    monkeypatch.setattr(
        bench.host, "prepare_disk", lambda fd: replace(measure(fd), sector_size=4096)
    )
    bench.family.configure(Config(disk=DiskConfig(sector_size=sector_size, shared=shared)))
    bench.backend_nodes["mode"] = mode
    if refused:
        with pytest.raises(
            OperatorError, match=r"shared, and its sectors of 4096 .* of 512"
        ) as error:
            bench.open()
        assert error.value.errno == EINVAL
        assert not bench.backend.medium_open
    else:
        bench.open()


def test_what_cannot_flush_is_not_offered_to(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = bench.host.prepare_disk
    monkeypatch.setattr(bench.host, "prepare_disk", lambda fd: replace(measure(fd), flushes=False))
    bench.open()
    nodes = bench.connect()
    assert (nodes["feature-flush-cache"], nodes["feature-barrier"]) == (b"0", b"0")


@pytest.fixture
def other(bench: Bench) -> Iterator[BlockBackend]:
    """A guest that has the bench's disk as well, by another kind of directory."""
    bench.backend_nodes["mode"] = b"w!"
    bench.backend_nodes["params"] = b"aio:" + os.fsencode(bench.disk)
    bench.open()
    bench.connect()
    other = bench.create(Identity("vbd3", 6, 51712, "xbbd", 1))
    other.introduce(bench.backend_nodes.get, "vm2", "/vm/2")
    other.capabilities(bench.backend_nodes.get)
    other.open(bench.backend_nodes.get)
    yield other
    other.close()
    other.forget()
    bench.down()
    bench.family.marks.clear(str(bench.disk))


def test_a_flush_that_fails_under_one_guest_closes_the_disk_to_all(
    bench: Bench, other: BlockBackend
) -> None:
    segment = State.open(str(bench.run / "xbbd.0"), writable=True)
    segment.lose(EIO)
    segment.close()
    bench.backend.drain()
    bench.drained()
    with pytest.raises(HostError, match=r"writes may be lost: a flush failed \(Input/output error"):
        other.connect(bench.frontend_nodes.get)
    segment = State.open(str(bench.run / "xbbd.1"))
    assert segment.lost_errno == EIO
    segment.close()
    other.close()
    with pytest.raises(MarkedError, match=f"unable to open {bench.disk}: a flush failed"):
        other.open(bench.backend_nodes.get)


def test_who_hears_that_a_disk_has_lost_something_stops(bench: Bench, other: BlockBackend) -> None:
    bench.backend.distrust(EIO)
    bench.drained()
    assert str(bench.backend.fault) == "writes may be lost: a flush failed (Input/output error)"
    assert bench.queue() is Queue.DRAINED
