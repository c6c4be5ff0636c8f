"""The configuration: defaults, every key, every refusal, the difference of two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd import native
from xbbd_bsd.config import (
    RANGES,
    Change,
    Config,
    DaemonConfig,
    DiskConfig,
    difference,
    parse,
)
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.stats import TUNABLES

EVERYTHING = """
[daemon]
kinds = ["vbd3"]
state_dir = "/var/db/xbbd"
pidfile = "/var/run/xbbd.pid"
log = ["control", "data"]

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
discard = false
sector_size = 512
resize_interval = 0
"""


def test_empty_means_defaults() -> None:
    assert parse("", "xbbd.conf") == Config(
        DaemonConfig(kinds=("vbd", "vbd3"), state_dir=None, pidfile=None, log=()),
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
    )


def test_every_key() -> None:
    assert parse(EVERYTHING, "xbbd.conf") == Config(
        DaemonConfig(("vbd3",), "/var/db/xbbd", "/var/run/xbbd.pid", ("control", "data")),
        DiskConfig(16, 5, 128, True, 10, True, 0, "map", 2, 11, 0, 5, False, 512, 0),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[disk", "xbbd.conf: Expected ']' at the end of a table declaration (at end of document)"),
        ("\n\nx = = 1", "xbbd.conf: Invalid value (at line 3, column 5)"),
        ("[disks]", "xbbd.conf: unknown section: disks; known are daemon, disk"),
        ("disk = 1", "xbbd.conf: disk must be a section: write [disk]"),
        ("[daemon]\nkind = 1", "xbbd.conf: unknown key in [daemon]: kind; known are kinds, "),
        ("[disk]\nworkers = 0", "xbbd.conf: [disk] workers = 0: must be a whole number, 1 to 64"),
        ("[disk]\nworkers = 65", "workers = 65: must be a whole number, 1 to 64"),
        ("[disk]\nworkers = true", "workers = True: must be a whole number, 1 to 64"),
        ("[disk]\nworkers = 1.5", "workers = 1.5: must be a whole number, 1 to 64"),
        ("[disk]\nmax_ring_page_order = 6", "must be a whole number, 0 to 5"),
        ("[disk]\nmax_batch_segments = 10", "must be a whole number, 11 to 256"),
        ("[disk]\nmax_queues = 0", "must be a whole number, 1 to 8"),
        ("[disk]\nmax_indirect_segments = 10", "= 10: must be 0, or 11 to 256"),
        ("[disk]\nmax_indirect_segments = 257", "must be a whole number, 0 to 256"),
        ("[disk]\nsector_size = 4096", "sector_size = 4096: must be 0 or 512"),
        ("[disk]\nsector_size = false", "sector_size = False: must be 0 or 512"),
        ("[disk]\nflush_interval = -1", "must be a whole number, 0 to 1000000"),
        ("[disk]\ndisable_flush = 1", "disable_flush = 1: must be true or false"),
        ("[daemon]\nkinds = []", 'must be a list of at least one of "vbd", "vbd3"'),
        ("[daemon]\nkinds = ['qdisk']", 'must be a list of at least one of "vbd", "vbd3"'),
        ("[daemon]\nkinds = ['vbd', 'vbd']", 'must be a list of at least one of "vbd", "vbd3"'),
        ("[daemon]\nkinds = 'vbd'", 'must be a list of at least one of "vbd", "vbd3"'),
        ("[daemon]\nkinds = [['vbd']]", 'must be a list of at least one of "vbd", "vbd3"'),
        ("[daemon]\nlog = ['all']", 'must be a list of any of "control", "data"'),
        ("[daemon]\nstate_dir = 'run'", "state_dir = 'run': must be an absolute path"),
        ("[daemon]\npidfile = 5", "pidfile = 5: must be an absolute path"),
    ],
)
def test_refusals_name_file_and_key_and_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(OperatorError) as raised:
        parse(text, "xbbd.conf")
    assert str(raised.value).startswith("xbbd.conf: ")
    assert message in str(raised.value)


@given(st.text())
def test_any_text_is_a_configuration_or_an_operators_error(text: str) -> None:
    message = None
    try:
        parsed = parse(text, "f")
    except OperatorError as error:
        message = str(error)
    assert message.startswith("f: ") if message is not None else isinstance(parsed, Config)


def test_difference_names_each_key_once() -> None:
    old, new = Config(), parse(EVERYTHING, "xbbd.conf")
    changes = difference(old, new)
    assert changes[0] == Change("daemon.kinds", ("vbd", "vbd3"), ("vbd3",))
    assert [change.key for change in changes] == [
        "daemon.kinds",
        "daemon.state_dir",
        "daemon.pidfile",
        "daemon.log",
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
    ]
    assert difference(new, new) == ()


def test_tunables_are_those_of_the_data_path() -> None:
    tunables = parse(EVERYTHING, "xbbd.conf").disk.tunables()
    assert tunables == {
        "disable_flush": 1,
        "flush_interval": 10,
        "no_coalesce_reqs": 1,
        "poll_max_us": 0,
        "persistent_grant_unused_seconds": 5,
    }
    assert tuple(tunables) == tuple(TUNABLES)


def test_limits_are_those_of_the_data_path() -> None:
    assert RANGES["workers"] == (1, native.MAX_WORKERS)
    assert RANGES["max_ring_page_order"] == (0, native.MAX_RING_ORDER)
    assert RANGES["max_batch_segments"] == (native.MAX_SEGMENTS, native.MAX_BATCH_SEGMENTS)
