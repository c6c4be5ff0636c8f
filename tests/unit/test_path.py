"""What becomes of a disk's path under a guest is noticed by the look at sizes, and said once."""

import os
from collections.abc import Iterator
from errno import ESTALE
from pathlib import Path

import pytest

from tests.unit.family_bench import Bench
from xbbd_bsd.block.path import PathState, state_of
from xbbd_bsd.events import DiskAnother, DiskNamed, DiskTruncated, DiskUnnamed, Event

SAID = (DiskAnother, DiskNamed, DiskTruncated, DiskUnnamed)


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    bench = Bench(short_path)
    bench.open()
    yield bench
    bench.close()


def said(bench: Bench) -> list[type[Event]]:
    return [type(event) for event in bench.events if isinstance(event, SAID)]


def look(bench: Bench) -> object:
    """Two of them: the second has nothing to say."""
    for _ in range(2):
        assert bench.backend.measure()()
    return bench.backend.medium_facts()["path_state"]


def test_nothing_has_become_of_it(bench: Bench) -> None:
    assert bench.backend.medium_facts()["path_state"] == ""
    assert look(bench) == ""
    assert said(bench) == []


def test_deleted(bench: Bench) -> None:
    bench.disk.unlink()
    assert look(bench) == "gone"
    assert said(bench) == [DiskUnnamed]
    assert bench.events[-1].urgent
    assert str(bench.disk) in str(bench.events[-1])


def test_renamed_and_back(bench: Bench) -> None:
    other = bench.disk.with_name("other")
    bench.disk.rename(other)
    assert look(bench) == "gone"
    other.rename(bench.disk)
    assert look(bench) == ""
    assert said(bench) == [DiskUnnamed, DiskNamed]


def test_its_directory_is_something_else(bench: Bench, tmp_path: Path) -> None:
    """Of a path by way of a link, as those of snapshots and of /dev/disk are."""
    file = tmp_path / "file"
    file.write_bytes(bytes(4096))
    (tmp_path / "link").symlink_to(file)
    with file.open("rb") as opened:
        fd = opened.fileno()
        assert state_of(str(tmp_path / "link"), fd) is PathState.NAMED
        assert state_of(str(file / "x"), fd) is PathState.GONE
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(bench.disk)
        assert state_of(str(tmp_path / "link"), fd) is PathState.ANOTHER
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("link")
        assert state_of(str(tmp_path / "link"), fd) is PathState.GONE
        # That it cannot be told is no news.
        assert state_of(str(tmp_path / ("x" * 999)), fd) is None


def test_replaced(bench: Bench) -> None:
    new = bench.disk.with_name("new")
    new.write_bytes(bytes(1 << 20))
    new.rename(bench.disk)
    assert look(bench) == "another"
    assert said(bench) == [DiskAnother]
    bench.disk.unlink()
    os.mkfifo(bench.disk)
    assert look(bench) == "another"
    bench.disk.unlink()
    assert look(bench) == "gone"
    assert said(bench) == [DiskAnother, DiskUnnamed]


def test_a_device_is_not_the_file_of_its_name(bench: Bench) -> None:
    with open("/dev/null", "rb") as null:
        assert state_of("/dev/null", null.fileno()) is PathState.NAMED
        assert state_of("/dev/zero", null.fileno()) is PathState.ANOTHER
        assert state_of(str(bench.disk), null.fileno()) is PathState.ANOTHER


def test_truncated_and_whole_again(bench: Bench) -> None:
    os.truncate(bench.disk, 512 << 10)
    assert look(bench) == "truncated"
    (event,) = [event for event in bench.events if isinstance(event, DiskTruncated)]
    assert event.sectors == 2048
    os.truncate(bench.disk, 768 << 10)
    assert look(bench) == "truncated"
    os.truncate(bench.disk, 1 << 20)
    assert look(bench) == ""
    assert said(bench) == [DiskTruncated, DiskNamed]


def test_truncated_to_nothing(bench: Bench) -> None:
    os.truncate(bench.disk, 100)
    assert look(bench) == "truncated"


def test_a_disk_that_has_grown_meanwhile_is_truncated_too(bench: Bench) -> None:
    os.truncate(bench.disk, 2 << 20)
    assert look(bench) == ""
    os.truncate(bench.disk, 1 << 20)
    assert look(bench) == "truncated"
    assert said(bench) == [DiskTruncated]


def test_an_operator_may_mean_it(bench: Bench) -> None:
    os.truncate(bench.disk, 512 << 10)
    assert look(bench) == "truncated"
    assert bench.family.devices[0].resize()()
    assert look(bench) == ""
    os.truncate(bench.disk, 256 << 10)
    assert bench.family.devices[0].resize()()
    assert look(bench) == ""
    assert said(bench) == [DiskTruncated, DiskNamed]


def test_a_file_that_its_server_does_not_know_any_more(bench: Bench) -> None:
    bench.host.gone = ESTALE
    assert look(bench) == "gone"
    assert said(bench) == [DiskUnnamed]


def test_a_disk_that_is_opened_again_is_what_its_path_says(bench: Bench) -> None:
    bench.disk.rename(bench.disk.with_name("other"))
    assert look(bench) == "gone"
    bench.down()
    bench.disk.write_bytes(bytes(1 << 20))
    assert bench.backend.medium_facts()["path_state"] == ""
    bench.open()
    assert look(bench) == ""


def test_the_size_is_known_before_a_guest_connects(bench: Bench) -> None:
    numbers = bench.family.devices[0]
    assert numbers.stat(latency=False)["sectors"] == 2048
    os.truncate(bench.disk, 2 << 20)
    look(bench)
    assert numbers.stat(latency=False)["sectors"] == 4096
