"""The configuration at its limits: the least and the most of every key, and one beyond."""

from dataclasses import fields

import pytest

from xbbd_bsd import native
from xbbd_bsd.config import (
    RANGES,
    SECTIONS,
    Config,
    DaemonConfig,
    DiskConfig,
    Override,
    check_tunable,
    difference,
    parse_address,
)
from xbbd_bsd.conftext import parse
from xbbd_bsd.errors import OperatorError

# As xbbd.conf(5) promises them, written down once more.
BYTES = ("bytes_max", "read_bytes_max", "write_bytes_max")
LIMITS = {
    "workers": (1, 64),
    "max_ring_page_order": (0, 5),
    "max_batch_segments": (11, 256),
    "max_queues": (1, 8),
    "max_indirect_segments": (0, 256),
    "max_persistent_grants": (0, 4096),
    "persistent_grant_unused_seconds": (0, 86400),
    "resize_interval": (0, 3600),
    "flush_interval": (0, 1000000),
    "poll_max_us": (0, 10000),
    "max_disks_per_guest": (1, 4096),
    "max_cards_per_guest": (1, 4096),
    "max_guest_share": (1, 100),
    "max_event_channels": (0, 131072),
    "max_threads": (0, 1000000),
    "max_descriptors": (0, 10000000),
    "max_buffer_mb": (0, 1000000),
    "max_mappings": (0, 1000000),
    "max_grants": (0, 1000000),
    "max_guest_grants": (0, 1000000),
    "memory_mb": (0, 1000000),
    "descriptors": (0, 10000000),
    "cpu_percent": (0, 102400),
    "retry_seconds": (0, 86400),
    **dict.fromkeys(("iops_max", "read_iops_max", "write_iops_max"), (0, 100000000)),
    **dict.fromkeys(BYTES, (0, 1099511627776)),
    "burst_ms": (10, 60000),
}
_SECTION = {field.name: name for name, keys in SECTIONS.items() for field in fields(keys)}


def refusal(text: str) -> str:
    with pytest.raises(OperatorError) as raised:
        parse(text, "f")
    return str(raised.value)


@pytest.mark.parametrize("key", LIMITS)
def test_the_least_and_the_most(key: str) -> None:
    low, high = LIMITS[key]
    assert RANGES[key] == (low, high)
    section = _SECTION[key]
    for value in (low, high):
        config = parse(f"[{section}]\n{key} = {value}", "f")
        assert getattr(getattr(config, section), key) == value
    for value in (low - 1, high + 1):
        assert refusal(f"[{section}]\n{key} = {value}") == (
            f"f:2: [{section}] {key} = {value}: must be a whole number, {low} to {high}"
            + ', or such as "20M"' * (key in BYTES)
        )


def test_every_key_with_limits_is_here() -> None:
    assert RANGES.keys() == LIMITS.keys()
    assert RANGES["max_queues"][1] == native.MAX_RINGS
    assert RANGES["max_indirect_segments"][1] == native.MAX_INDIRECT_SEGMENTS
    assert RANGES["max_persistent_grants"][1] == native.MAX_PERSISTENT


@pytest.mark.parametrize("value", [1, 10])
def test_few_indirect_segments_are_none(value: int) -> None:
    assert f"max_indirect_segments = {value}: must be 0, or 11 to 256" in refusal(
        f"[disk]\nmax_indirect_segments = {value}"
    )
    assert parse("[disk]\nmax_indirect_segments = 11", "f").disk.max_indirect_segments == 11


@pytest.mark.parametrize("value", [0, 512])
def test_sector_sizes(value: int) -> None:
    assert parse(f"[disk]\nsector_size = {value}", "f").disk.sector_size == value
    for other in (value - 1, value + 1):
        assert "must be 0 or 512" in refusal(f"[disk]\nsector_size = {other}")


@pytest.mark.parametrize("value", ["best", "map", "copy"])
def test_transports(value: str) -> None:
    assert parse(f'[disk]\ntransport = "{value}"', "f").disk.transport == value
    assert refusal('[disk]\ntransport = "any"').endswith('"map", "copy"')
    assert "must be one of" in refusal("[disk]\ntransport = 1")


@pytest.mark.parametrize("key", ["state_dir", "pidfile", "metrics"])
def test_a_path_has_no_nul(key: str) -> None:
    """No system call would take it."""
    assert getattr(parse(f'[daemon]\n{key} = "/a b"', "f").daemon, key) == "/a b"
    assert f'[daemon] {key} = "/a\\u0000b": must be ' in refusal(f'[daemon]\n{key} = "/a\\u0000b"')
    assert f'{key} = "a": must be ' in refusal(f'[daemon]\n{key} = "a"')


@pytest.mark.parametrize("value", ["wheel", "_xbbd", "a-b.c_9", "A"])
def test_names_of_groups(value: str) -> None:
    assert parse(f'[daemon]\ngroup = "{value}"', "f").daemon.group == value


@pytest.mark.parametrize("value", ["", "9a", "-a", "a b", "a/b", "a\\n"])
def test_what_is_no_name_of_a_group(value: str) -> None:
    assert "must be the name of a group" in refusal(f'[daemon]\ngroup = "{value}"')


@pytest.mark.parametrize("port", [1, 65535])
def test_ports(port: int) -> None:
    assert parse_address(f"127.0.0.1:{port}") == ("127.0.0.1", port)
    assert parse_address(f"[::1]:{port}") == ("::1", port)
    for other in (
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:",
        "127.0.0.1",
        "[::1]:0",
        "128.0.0.1:1",
        "127.0.0.256:1",
        "127.1:1",
        "127.0.0.01:1",
        7,
        "/a\0",
    ):
        with pytest.raises(OperatorError, match=r"^must be the path of a socket"):
            parse_address(other)


def test_choices_of_the_daemon() -> None:
    for kinds in (("vbd",), ("vbd3",), ("vbd3", "vbd")):
        words = ", ".join(f'"{kind}"' for kind in kinds)
        assert parse(f"[daemon]\nkinds = [{words}]", "f").daemon.kinds == kinds
    for log in ((), ("data",), ("data", "control")):
        words = ", ".join(f'"{path}"' for path in log)
        assert parse(f"[daemon]\nlog = [{words}]", "f").daemon.log == log
    assert 'must be a list of any of "control", "data"' in refusal(
        '[daemon]\nlog = ["data", "data"]'
    )
    assert "must be a list of any of" in refusal('[daemon]\nlog = "data"')
    assert "must be a list of at least one of" in refusal('[daemon]\nkinds = ["vbd", "qdisk"]')


def test_switches_while_a_disk_runs() -> None:
    for key in ("disable_flush", "no_coalesce_reqs"):
        for value in (0, 1):
            check_tunable(key, value, "x")
        for value in (-1, 2):
            with pytest.raises(OperatorError, match=rf"^x={value}: must be 0 to 1$"):
                check_tunable(key, value, "x")
    for key in ("flush_interval", "poll_max_us", "persistent_grant_unused_seconds"):
        low, high = LIMITS[key]
        for value in (low, high):
            check_tunable(key, value, "x")
        for value in (low - 1, high + 1):
            with pytest.raises(OperatorError, match=rf"^x={value}: must be {low} to {high}$"):
                check_tunable(key, value, "x")


def test_nothing_is_shared_unless_it_is_said() -> None:
    assert DiskConfig().shared is False
    assert DaemonConfig() == DaemonConfig(
        kinds=("vbd", "vbd3"), state_dir=None, pidfile=None, log=(), group=None, metrics=None
    )


@pytest.mark.parametrize(
    ("override", "matches"),
    [
        (Override(None, None, None, ()), True),
        (Override("/a/*", None, None, ()), True),
        (Override("/b/*", None, None, ()), False),
        (Override(None, "7", None, ()), True),
        (Override(None, "8", None, ()), False),
        (Override(None, None, "xvda", ()), True),
        (Override(None, None, "xvdb", ()), False),
        (Override("/a/*", "web", "xvda", ()), True),
        (Override("/b/*", "web", "xvda", ()), False),
        (Override("/a/*", "db", "xvda", ()), False),
        (Override("/a/*", "web", "xvdb", ()), False),
    ],
)
def test_an_override_matches_by_all_that_it_names(override: Override, matches: bool) -> None:
    assert override.matches("/a/b", ("web", "7"), ("xvda", "51712")) is matches


def test_the_guest_and_vdev_of_an_override_may_be_numbers() -> None:
    config = parse("[[override]]\nguest = 7\nvdev = 51728\nworkers = 2", "f")
    assert config.overrides == (Override(None, "7", "xvdb", (("workers", 2),)),)
    for key in ("guest", "vdev"):
        assert f"[[override]] 1 {key} = true: must be text that is not empty" in refusal(
            f"[[override]]\n{key} = true\nworkers = 2"
        )
    assert "path = 7: must be text that is not empty" in refusal(
        "[[override]]\npath = 7\nworkers = 2"
    )


def test_overrides_are_counted_from_one() -> None:
    good = '[[override]]\npath = "/x"\nworkers = 1\n'
    assert "f:4: [[override]] 2: changes nothing" in refusal(good + '[[override]]\npath = "/x"\n')
    assert "write [[override]]" in refusal("override = [1]")
    assert parse("override = []", "f") == Config()


def test_a_difference_tells_what_was_and_what_is() -> None:
    one = parse("[disk]\nworkers = 1\n[daemon]\nlog = ['data']", "f")
    two = parse('[disk]\nworkers = 2\n[[override]]\nguest = "a"\nworkers = 1', "f")
    assert [(c.key, c.old, c.new) for c in difference(one, two)] == [
        ("daemon.log", ("data",), ()),
        ("disk.workers", 1, 2),
        ("override", "none", "guest a: workers 1"),
    ]
    assert [(c.key, c.old, c.new) for c in difference(two, one)][2] == (
        "override",
        "guest a: workers 1",
        "none",
    )
