"""A guest's process is killed under load, or hands over: another one goes on, nothing is lost."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack
from errno import EPIPE, EWOULDBLOCK
from pathlib import Path
from typing import Any

import pytest

from tests.native.guests import Disk, Server, disk, lock_is_free, wait_lost, worker
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import Op, Progress, Workload

pytestmark = pytest.mark.slow


def test_killed_under_load_it_leaves_nothing(served: Server, tmp_path: Path) -> None:
    """The lock is the fence: free once no thread of the dead can touch the disk."""
    with disk(tmp_path) as d, worker(served, tmp_path / "guest") as made:
        link = made.connect()
        device = d.serve(link)
        progress = Progress()

        def load() -> None:
            work = Workload(seed=1, sectors=8192, depth=8, seconds=GIVE_UP)
            with pytest.raises(OSError, match="Broken pipe"):
                d.fronts[0].exercise(work, progress)

        thread = threading.Thread(target=load)
        thread.start()
        eventually(lambda: d.writes > 100, "I/O is under way")
        assert not lock_is_free(d.state.path)
        served.processes.kill(made.pid)
        eventually(lambda: lock_is_free(d.state.path), "the lock is free")
        assert d.mapped == 0
        thread.join(GIVE_UP)
        assert wait_lost(link).errno == EPIPE
        assert device.lost is not None
        assert served.wait_end(made.pid) == signal.SIGKILL
        link.close()


ALL_FEATURES: dict[str, Any] = {
    "max_persistent": 1056,
    "max_indirect_segments": 64,
    "discard": True,
}


@pytest.mark.parametrize(
    ("rings", "features"), [(1, {}), (2, {}), (2, ALL_FEATURES)], ids=["one", "two", "all"]
)
@pytest.mark.parametrize("dies", [True, False], ids=["killed", "hands over"])
def test_again_and_again_under_load_another_goes_on(
    served: Server, tmp_path: Path, rings: int, features: dict[str, Any], dies: bool
) -> None:
    """The frontend waits, its requests are done or done again, and nothing is lost."""
    with ExitStack() as stack, disk(tmp_path, rings=rings, patience=GIVE_UP, **features) as d:
        loads = [Load(d, ring) for ring in range(rings)]
        for load in loads:
            load.start()
        for life in range(4):
            made = stack.enter_context(worker(served, tmp_path / f"guest{life}"))
            link = made.connect()
            eventually(lambda: lock_is_free(d.state.path), "the last one is gone")
            device = d.serve(link, adopt=life > 0)
            wait_for_writes(d, loads, 200)
            assert life > 1 or all(load.is_alive() for load in loads)
            if life < 3 and not dies:
                device.quiesce(limit=GIVE_UP)
                assert all(d.state.inflight(ring) == [] for ring in range(rings))
            if life < 3:
                served.processes.kill(made.pid)
                assert served.wait_end(made.pid) == signal.SIGKILL
                link.close()
        for load in loads:
            load.join(GIVE_UP)
            assert load.failed is None
            assert load.progress.mismatches == load.progress.errors == 0
            assert load.progress.bad_responses == 0
            assert load.still_right()
        device.close(limit=GIVE_UP)
        link.close()


def wait_for_writes(served: Disk, loads: list[Load], count: int) -> None:
    """So many more, or all that there are to be on a machine that is quick."""
    before = served.writes
    eventually(
        lambda: served.writes > before + count or not any(load.is_alive() for load in loads),
        "I/O goes on",
    )


class Load(threading.Thread):
    """Random I/O on a part of the disk of its own, more than goes on between two deaths."""

    def __init__(self, served: Disk, ring: int) -> None:
        super().__init__()
        self.progress, self.failed = Progress(), None
        self._front, self._file = served.fronts[ring], served.file
        self._all = served.params.discard
        self._sectors = 2048
        self._first = ring * self._sectors
        self._model = bytearray(self._sectors * 512)

    def run(self) -> None:
        work = Workload(
            seed=self._first + 1,
            sectors=self._sectors,
            first_sector=self._first,
            depth=16,
            operations=6000,
            model=self._model,
            flush_every=40,
            barrier_every=35,
            discard_every=30 if self._all else 0,
            indirect_every=3 if self._all else 0,
            max_sectors=512 if self._all else 88,
        )
        try:
            self._front.exercise(work, self.progress, timeout=GIVE_UP)
        except OSError as error:
            self.failed = error  # type: ignore[assignment]

    def still_right(self) -> bool:
        begin = self._first * 512
        return self._file.read_bytes()[begin : begin + len(self._model)] == self._model


def test_handed_over_to_another_process(served: Server, tmp_path: Path) -> None:
    """What the first has answered the second finds; neither ever has it together."""
    with (
        disk(tmp_path) as d,
        worker(served, tmp_path / "one") as one,
        worker(served, tmp_path / "two") as two,
    ):
        first, second = one.connect(), two.connect()
        device = d.serve(first)
        d.fronts[0].transfer(Op.WRITE, 0, 8, bytearray(b"x" * 4096))
        with pytest.raises(HostError, match="lock segment") as refused:
            d.serve(second)
        assert refused.value.errno == EWOULDBLOCK
        device.quiesce(limit=GIVE_UP)
        assert d.state.inflight() == []
        assert d.state.served == [0]
        assert lock_is_free(d.state.path)
        device = d.serve(second, adopt=True)
        found = bytearray(4096)
        d.fronts[0].transfer(Op.READ, 0, 8, found)
        assert found == b"x" * 4096
        device.close(limit=GIVE_UP)
        first.close()
        second.close()
