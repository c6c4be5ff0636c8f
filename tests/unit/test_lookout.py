"""A disk that fails is seen within a second or so, and to the last request."""

import os

import pytest

from tests.unit.family_bench import Bench
from tests.waiting import GIVE_UP
from xbbd_bsd.block.lookout import EVERY_SECONDS
from xbbd_bsd.faults import SHRUNK, DiskErrors, GuestErrors, RequestErrors
from xbbd_bsd.native import Op

END = (1 << 20) // 512


def fail(bench: Bench, times: int = 1) -> None:
    """Requests where the disk has ended without anybody knowing."""
    for _ in range(times):
        with pytest.raises(OSError, match="8 sectors"):
            bench.front.transfer(Op.WRITE, END - 8, 8, bytearray(4096))


def said(bench: Bench, kind: type[RequestErrors] = DiskErrors) -> list[RequestErrors]:
    return [event for event in bench.events if isinstance(event, kind)]


def let_look(bench: Bench, seconds: float = EVERY_SECONDS) -> None:
    """Turn the loop for so long."""
    bench.loop.call_later(seconds, bench.loop.stop)
    bench.loop.run_forever()


def test_a_disk_that_fails_is_told(bench: Bench) -> None:
    bench.open()
    bench.connect()
    os.truncate(bench.disk, 1 << 19)
    fail(bench)
    deadline = bench.loop.time() + GIVE_UP
    while not said(bench):
        assert bench.loop.time() < deadline
        let_look(bench, 0.05)
    (event,) = said(bench)
    assert str(event) == (
        f"{bench.backend.name}: write of 4096 bytes at sector {END - 8} of {bench.disk} failed:"
        f" {SHRUNK} (EIO)"
    )
    assert said(bench, GuestErrors) == []


def test_looks_are_regular_and_end_with_the_rings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xbbd_bsd.block.lookout.EVERY_SECONDS", 0.02)
    bench.open()
    bench.connect()
    os.truncate(bench.disk, 1 << 19)
    fail(bench)
    let_look(bench, 0.1)
    assert len(said(bench)) == 1
    fail(bench, 3)
    let_look(bench, 0.1)
    assert len(said(bench)) == 1  # the rest later
    bench.backend.drain()
    bench.drained()
    bench.backend.disconnect()
    assert [event.more for event in said(bench)] == [0, 2]
    let_look(bench, 0.1)
    assert len(said(bench)) == 2


def test_what_fails_in_the_last_moment_is_told(bench: Bench) -> None:
    """The guest is gone before anybody looks; so it is with what the guest does wrong."""
    bench.open()
    bench.connect()
    os.truncate(bench.disk, 1 << 19)
    fail(bench, 2)
    with pytest.raises(OSError, match="8 sectors"):
        bench.front.transfer(Op.READ, END, 8, bytearray(4096))
    assert said(bench) == said(bench, GuestErrors) == []
    bench.down()
    assert [event.more for event in said(bench)] == [1]
    assert [event.what for event in said(bench, GuestErrors)] == [
        f"read of 4096 bytes at sector {END}"
    ]


def test_leaves(bench: Bench) -> None:
    bench.open()
    bench.connect()
    numbers = bench.family.devices[0]
    before = numbers.group("errors")
    assert set(before.values()) == {0, ""}
    os.truncate(bench.disk, 1 << 19)
    fail(bench, 3)
    with pytest.raises(OSError, match="8 sectors"):
        bench.front.transfer(Op.READ, END, 8, bytearray(4096))
    found = dict(numbers.group("errors"))
    times = [found.pop("errors.last_time"), found.pop("errors.guest.last_time")]
    assert all(abs(int(when) - os.stat(bench.disk).st_mtime) <= 60 for when in times)
    assert found == {
        **{name: value for name, value in before.items() if not name.endswith("last_time")},
        "errors.write": 3,
        "errors.last_errno": 5,
        "errors.last": f"write of 4096 bytes at sector {END - 8} of {bench.disk} failed:"
        f" {SHRUNK} (EIO)",
        "errors.guest.beyond_end": 1,
        "errors.guest.last": f"read of 4096 bytes at sector {END} refused:"
        " beyond the end of the disk",
    }
    stat = numbers.stat(latency=False)
    assert stat["xbb"]["errors"] == {"read": 0, "write": 3, "flush": 0, "discard": 0}
    assert stat["xbbi"]["errors"]["beyond_end"] == 1
    assert stat["disk_errors"] == {"write": {"EIO": 3}}
