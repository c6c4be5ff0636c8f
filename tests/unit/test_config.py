"""The configuration: defaults, every key, the difference of two."""

import os

import pytest

from xbbd_bsd import native
from xbbd_bsd.config import (
    DESCRIPTIONS,
    RANGES,
    SECTIONS,
    Change,
    Config,
    DaemonConfig,
    DiskConfig,
    GuestConfig,
    NetConfig,
    check_tunable,
    describe_key,
    difference,
    parse_address,
)
from xbbd_bsd.conftext import parse
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.stats import RATES, TUNABLES
from xbbd_bsd.vdev import vdev_name

EVERYTHING = """
[daemon]
kinds = ["vbd3"]
state_dir = "/var/db/xbbd"
pidfile = "/var/run/xbbd.pid"
log = ["control", "data"]
group = "operator"
metrics = "127.0.0.1:9531"
max_disks_per_guest = 16
max_cards_per_guest = 12
max_guest_share = 50
max_event_channels = 1000
max_threads = 2000
max_descriptors = 3000
max_buffer_mb = 400
max_mappings = 60000
max_grants = 100000
max_guest_grants = 8192

[guest]
processes = true
user = "xbbd"
memory_mb = 64
descriptors = 100
cpus = "0-3,6"
cpu_percent = 150

[disk]
workers = 16
max_ring_page_order = 5
max_batch_segments = 128
disable_flush = true
flush_interval = 10
no_coalesce_reqs = true
poll_max_us = 0
transport = "map"
max_queues = 2
max_indirect_segments = 11
max_persistent_grants = 0
persistent_grant_unused_seconds = 5
on_error = "retry"
on_full = "stop"
retry_seconds = 7
discard = false
sector_size = 512
resize_interval = 0
shared = true

[net]
max_queues = 8
offload = "safe"
mac_filter = true
poll_max_us = 1
"""


def test_empty_means_defaults() -> None:
    assert parse("", "xbbd.conf") == Config(
        DaemonConfig(kinds=("vbd", "vbd3"), state_dir=None, pidfile=None, log=()),
        GuestConfig(
            processes=False, user="nobody", memory_mb=0, descriptors=0, cpus="", cpu_percent=0
        ),
        DiskConfig(
            workers=8,
            max_ring_page_order=4,
            max_batch_segments=64,
            disable_flush=False,
            flush_interval=0,
            no_coalesce_reqs=False,
            poll_max_us=50,
            transport="best",
            max_queues=4,
            max_indirect_segments=256,
            max_persistent_grants=1056,
            persistent_grant_unused_seconds=60,
            discard=True,
            sector_size=0,
            resize_interval=5,
        ),
        NetConfig(max_queues=4, offload="auto", mac_filter=False, poll_max_us=50),
    )


def test_every_key() -> None:
    assert parse(EVERYTHING, "xbbd.conf") == Config(
        DaemonConfig(
            ("vbd3",),
            "/var/db/xbbd",
            "/var/run/xbbd.pid",
            ("control", "data"),
            "operator",
            "127.0.0.1:9531",
            16,
            12,
            50,
            1000,
            2000,
            3000,
            400,
            60_000,
            100_000,
            8192,
        ),
        GuestConfig(True, "xbbd", 64, 100, "0-3,6", 150),
        DiskConfig(
            16,
            5,
            128,
            True,
            10,
            True,
            0,
            "map",
            2,
            11,
            0,
            5,
            False,
            512,
            0,
            True,
            "retry",
            "stop",
            7,
        ),
        NetConfig(8, "safe", True, 1),
    )


def test_difference_names_each_key_once() -> None:
    old, new = Config(), parse(EVERYTHING, "xbbd.conf")
    changes = difference(old, new)
    assert changes[0] == Change("daemon.kinds", ("vbd", "vbd3"), ("vbd3",))
    assert [change.key for change in changes] == [
        "daemon.kinds",
        "daemon.state_dir",
        "daemon.pidfile",
        "daemon.log",
        "daemon.group",
        "daemon.metrics",
        "daemon.max_disks_per_guest",
        "daemon.max_cards_per_guest",
        "daemon.max_guest_share",
        "daemon.max_event_channels",
        "daemon.max_threads",
        "daemon.max_descriptors",
        "daemon.max_buffer_mb",
        "daemon.max_mappings",
        "daemon.max_grants",
        "daemon.max_guest_grants",
        "guest.processes",
        "guest.user",
        "guest.memory_mb",
        "guest.descriptors",
        "guest.cpus",
        "guest.cpu_percent",
        "disk.workers",
        "disk.max_ring_page_order",
        "disk.max_batch_segments",
        "disk.disable_flush",
        "disk.flush_interval",
        "disk.no_coalesce_reqs",
        "disk.poll_max_us",
        "disk.transport",
        "disk.max_queues",
        "disk.max_indirect_segments",
        "disk.max_persistent_grants",
        "disk.persistent_grant_unused_seconds",
        "disk.discard",
        "disk.sector_size",
        "disk.resize_interval",
        "disk.shared",
        "disk.on_error",
        "disk.on_full",
        "disk.retry_seconds",
        "net.max_queues",
        "net.offload",
        "net.mac_filter",
        "net.poll_max_us",
    ]
    assert difference(new, new) == ()


OVERRIDES = """
[disk]
workers = 4

[[override]]
path = "/tank/*"
flush_interval = 8

[[override]]
guest = "vm1"
vdev = "xvdb"
flush_interval = 9
shared = true

[[override]]
guest = 7
workers = 1
"""


@pytest.mark.parametrize(
    ("path", "guest", "vdev", "expected"),
    [
        ("/x", ("vm2", "3"), "xvda", (4, 0, False)),
        ("/tank/a/b.img", ("vm2", "3"), "xvda", (4, 8, False)),
        ("/tank/a", ("vm1", "3"), "xvdb", (4, 9, True)),
        ("/x", ("vm1", "3"), "xvda", (4, 0, False)),
        ("/tank", ("vm1", "7"), "51728", (1, 0, False)),
        ("", ("", "7"), "xvdb", (1, 0, False)),
    ],
)
def test_overrides_in_order(
    path: str, guest: tuple[str, ...], vdev: str, expected: tuple[int, int, bool]
) -> None:
    disk = parse(OVERRIDES, "f").disk_for(path, guest, (vdev,))
    assert (disk.workers, disk.flush_interval, disk.shared) == expected


@pytest.mark.parametrize(
    ("written", "number"),
    [('"hda"', 768), ('"768"', 768), ("768", 768), ('"sda1"', 2049), ('"d0p1"', 51713),
     ('"0xca00"', 51712), ('"xvdabc"', 0x1002DA00), ('"268435456"', 1 << 28)],
)  # fmt: skip
def test_a_disk_of_the_guest_in_any_spelling(written: str, number: int) -> None:
    config = parse(f"[[override]]\nvdev = {written}\nworkers = 1\n", "f")
    names = (vdev_name(number), str(number))
    assert config.disk_for("/x", ("vm1", "3"), names).workers == 1
    other = (vdev_name(number + 1), str(number + 1))
    assert config.disk_for("/x", ("vm1", "3"), other).workers == DiskConfig().workers


@pytest.mark.parametrize("pattern", [r"/tank/a\xff\x0a.img", r"*\xff*", "/tank/a??.img", "/tank/*"])
def test_a_name_that_is_no_text_as_it_is_shown(pattern: str) -> None:
    config = parse(f"[[override]]\npath = '{pattern}'\nworkers = 1\n", "f")
    name = os.fsdecode(b"/tank/a\xff\n.img")
    assert config.disk_for(name, ("vm1", "3"), ("xvda", "51712")).workers == 1
    assert config.disk_for("/tankb", ("vm1", "3"), ("xvda", "51712")).workers != 1


def test_difference_of_overrides() -> None:
    old, new = Config(), parse(OVERRIDES, "f")
    (change,) = (change for change in difference(old, new) if change.key == "override")
    assert (change.old, change.new) == (
        "none",
        "path /tank/*: flush_interval 8; guest vm1, vdev xvdb: flush_interval 9, shared true;"
        " guest 7: workers 1",
    )


def test_every_key_has_a_description() -> None:
    for section in SECTIONS.values():
        for key in section.__dataclass_fields__:
            assert "\n" not in describe_key(key) != ""
    assert not set(DESCRIPTIONS) & set(TUNABLES)


@pytest.mark.parametrize(
    ("value", "address"),
    [("/run/m", "/run/m"), ("127.0.0.1:9531", ("127.0.0.1", 9531)), ("[::1]:1", ("::1", 1))],
)
def test_addresses_of_metrics(value: str, address: object) -> None:
    assert parse_address(value) == address
    assert parse(f'[daemon]\nmetrics = "{value}"', "f").daemon.metrics == value


def test_tunables_while_a_disk_runs() -> None:
    check_tunable("flush_interval", 1_000_000, "x")
    check_tunable("disable_flush", 1, "x")
    for key, value in (("flush_interval", -1), ("disable_flush", 2), ("poll_max_us", 10_001)):
        with pytest.raises(OperatorError, match=rf"^dev\.x={value}: must be 0 to "):
            check_tunable(key, value, "dev.x")


def test_tunables_are_those_of_the_data_path() -> None:
    tunables = parse(EVERYTHING, "xbbd.conf").disk.tunables()
    assert tunables == {
        "disable_flush": 1,
        "flush_interval": 10,
        "no_coalesce_reqs": 1,
        "poll_max_us": 0,
        "persistent_grant_unused_seconds": 5,
        "on_error": 1,
        "on_full": 3,
        "retry_seconds": 7,
        **dict.fromkeys(RATES, 0),
        "burst_ms": 100,
    }
    assert tuple(tunables) == tuple(TUNABLES)


def test_limits_are_those_of_the_data_path() -> None:
    assert RANGES["workers"] == (1, native.MAX_WORKERS)
    assert RANGES["max_ring_page_order"] == (0, native.MAX_RING_ORDER)
    budget = (native.SERVICE_MAPPINGS, native.SERVICE_GRANTS, native.GUEST_GRANTS)
    default = DaemonConfig()
    assert (default.max_mappings, default.max_grants, default.max_guest_grants) == budget
    assert RANGES["max_batch_segments"] == (native.MAX_SEGMENTS, native.MAX_BATCH_SEGMENTS)
