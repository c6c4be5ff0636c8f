"""The process of a guest: rings that are served there, and whoever dies meanwhile."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from errno import EALREADY, EBUSY, EEXIST, EINVAL, ENOENT, EPIPE, ETIMEDOUT, EWOULDBLOCK
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import open_descriptors
from tests.native.guests import Disk, Server, Worker, disk, near, server, wait_lost, worker
from tests.native.slots import REQ_PROD, RawRing
from tests.sim.soak import build_faulty_disk
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import Abi, HvKind, Op, Progress, QueueState, StopReason, Workload
from xbbd_bsd.native.link import DeviceState, Link, listen_at
from xbbd_bsd.native.processes import how_it_ended
from xbbd_bsd.native.remote import RemoteDevice

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    """One server for all tests, as the daemon has."""
    before = open_descriptors()
    with server() as made:
        yield made
    assert open_descriptors() == before


@pytest.fixture
def process(served: Server, tmp_path: Path) -> Iterator[Worker]:
    with worker(served, tmp_path / "guest") as made:
        yield made


def test_two_disks_with_two_rings_each(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path, "a", rings=2) as a, disk(tmp_path, "b", rings=2) as b:
        link = process.connect()
        before = process.descriptors
        devices = [a.serve(link, 7), b.serve(link, 9)]
        assert len(threads_of_devices(process)) >= 4
        for served_disk in (a, b):
            for ring in (0, 1):
                served_disk.exercise(ring=ring)
        assert devices[0].status(1).state == QueueState.RUNNING
        assert {r.device: r.state for r in link.look(limit=GIVE_UP).values()} == {
            7: DeviceState.RUNNING,
            9: DeviceState.RUNNING,
        }
        for device in devices:
            device.close(limit=GIVE_UP)
        assert link.look(limit=GIVE_UP) == {}
        assert process.descriptors == before
        eventually(lambda: not threads_of_devices(process), "all threads have ended")
        assert a.mapped == b.mapped == 0
        link.close()


def threads_of_devices(process: Worker) -> list[str]:
    """Those that serve, open or close one: a sanitizer has threads of its own."""
    names = []
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            names.append((task / "comm").read_text())
    return [name for name in names if re.match(r"xbbd\d", name)]


def test_it_is_named_for_who_looks(served: Server, tmp_path: Path) -> None:
    with worker(served, tmp_path / "guest", name="web\u00e41") as made:
        made.connect().close()
        command = Path(f"/proc/{made.pid}/cmdline").read_bytes().rstrip(b"\0")
        assert command == b"xbbd: guest web?1"
        assert Path(f"/proc/{made.pid}/comm").read_text() == "xbbd: guest web\n"


def test_the_daemon_dies_and_the_next_one_finds_all_as_it_was(
    process: Worker, tmp_path: Path
) -> None:
    with disk(tmp_path, rings=2) as d:
        link = process.connect()
        d.serve(link, 3)
        loads = [threading.Thread(target=d.exercise, args=(1500, 0))]
        loads[0].start()
        link.close()  # in the middle of it
        eventually(lambda: can_greet(process), "the next daemon is let in")
        next_one = process.connect()
        assert next_one.reports[3].state == DeviceState.RUNNING
        loads[0].join(GIVE_UP)
        d.exercise(ring=1)
        RemoteDevice(next_one, 3, d.state, 2).close(limit=GIVE_UP)
        next_one.close()


def can_greet(process: Worker) -> bool:
    try:
        process.connect().close()
    except HostError:
        return False
    return True


def test_one_daemon_at_a_time(process: Worker) -> None:
    link = process.connect()
    with pytest.raises(HostError, match="another daemon") as refused:
        process.connect()
    assert refused.value.errno == EBUSY
    link.look(limit=GIVE_UP)
    link.close()


def test_a_user_that_is_not_the_daemons_is_not_heard(
    served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "geteuid", lambda: 12345)
        others = worker(served, tmp_path / "guest")
        made = others.__enter__()
    link = Link.connect(made.path)
    assert wait_lost(link).errno == EPIPE
    link.close()
    others.__exit__(None, None, None)


def test_hello_comes_first(process: Worker) -> None:
    link = Link.connect(process.path)
    with pytest.raises(HostError, match="HELLO comes first"):
        link.look(limit=GIVE_UP)
    link.close()


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
def test_killed_again_and_again_under_load_another_goes_on(
    served: Server, tmp_path: Path, rings: int, features: dict[str, Any]
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


def lock_is_free(path: str) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


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
        assert not d.state.ring().connected
        assert lock_is_free(d.state.path)
        device = d.serve(second)
        found = bytearray(4096)
        d.fronts[0].transfer(Op.READ, 0, 8, found)
        assert found == b"x" * 4096
        device.close(limit=GIVE_UP)
        first.close()
        second.close()


def test_a_ring_that_lies_takes_its_device_along_and_no_other(
    process: Worker, tmp_path: Path
) -> None:
    with disk(tmp_path, "a", rings=2) as a, disk(tmp_path, "b") as b:
        link = process.connect()
        device, other = a.serve(link, 1), b.serve(link, 2)
        a.fronts[0].transfer(Op.READ, 0, 1, bytearray(512))
        raw = RawRing(a.fronts[0], Abi.NATIVE)
        raw.set_index(REQ_PROD, raw.index(REQ_PROD) + 33)
        a.fronts[0].notify()

        def has_drained() -> bool:
            link.receive()
            return device.report.state == DeviceState.DRAINED

        eventually(has_drained, "both rings drain")
        assert device.report.reason == StopReason.RING
        assert (device.status(0).reason, device.status(1).reason) == (
            StopReason.RING,
            StopReason.NONE,
        )
        assert device.status(1).state == QueueState.DRAINED
        b.exercise(500)
        del raw
        device.close(limit=GIVE_UP)
        other.close(limit=GIVE_UP)
        link.close()


def test_without_a_daemon_what_has_drained_is_given_back(process: Worker, tmp_path: Path) -> None:
    """Its guest may be gone, and cannot end as long as pages of it are mapped."""
    with disk(tmp_path) as d:
        link = process.connect()
        device = d.serve(link)
        d.fronts[0].transfer(Op.READ, 0, 1, bytearray(512))
        link.close()
        raw = RawRing(d.fronts[0], Abi.NATIVE)
        raw.set_index(REQ_PROD, raw.index(REQ_PROD) + 33)
        d.fronts[0].notify()
        eventually(lambda: lock_is_free(d.state.path), "the device is given back")
        assert device.status(0).reason == StopReason.RING
        assert d.mapped == 0
        del raw


def test_drained_and_closed(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path) as d:
        link = process.connect()
        device = d.serve(link, 5)
        device.drain()

        def has_drained() -> bool:
            link.receive()
            return device.report.state == DeviceState.DRAINED

        eventually(has_drained, "it drains")
        device.close(limit=GIVE_UP)
        device.close(limit=GIVE_UP)  # no more there, so closed
        with pytest.raises(HostError) as refused:
            device.quiesce(limit=GIVE_UP)
        assert refused.value.errno == ENOENT
        link.close()


def test_what_cannot_be_opened_leaves_nothing(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path, rings=2) as d:
        link = process.connect()
        before = process.descriptors
        good = d.params
        d.params = replace(good, sector_size=1000)
        with pytest.raises(HostError, match="check parameters") as refused:
            d.serve(link)
        assert refused.value.errno == EINVAL
        d.params = replace(good, workers=0)
        with pytest.raises(HostError, match="check parameters"):
            d.serve(link)
        d.params = good
        fronts, d.fronts = d.fronts, [d.fronts[0]] * 9
        with pytest.raises(HostError, match="9 rings"):
            RemoteDevice.open(link, 0, [good] * 9, d.state, limit=GIVE_UP)
        d.fronts = fronts
        assert link.look(limit=GIVE_UP) == {}
        assert process.descriptors == before
        eventually(lambda: not threads_of_devices(process), "all threads have ended")
        assert lock_is_free(d.state.path)
        device = d.serve(link)
        with pytest.raises(HostError) as refused:
            d.serve(link)
        assert refused.value.errno == EEXIST
        device.close(limit=GIVE_UP)
        link.close()


def test_a_device_that_comes_and_goes_leaves_no_memory(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path) as d:
        link = process.connect()

        def mappings_after(times: int) -> int:
            for _ in range(times):
                d.serve(link).close(limit=GIVE_UP)
            return len(Path(f"/proc/{process.pid}/maps").read_text().splitlines())

        before = mappings_after(5)
        # Threads that nobody waits for would leave forty stacks, each with its guard.
        assert mappings_after(20) < before + 40
        link.close()


def test_the_disks_lock_is_kept_as_long_as_the_device(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path) as d:
        link = process.connect()
        lock = os.open(d.file, os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        device = d.serve(link, kept=(lock,))
        os.close(lock)  # as the daemon does when it dies
        assert not lock_is_free(str(d.file))
        device.close(limit=GIVE_UP)
        assert lock_is_free(str(d.file))
        link.close()


def test_the_next_daemon_is_given_what_keeps_others_off_the_disk(
    process: Worker, tmp_path: Path
) -> None:
    with disk(tmp_path) as d:
        lock = os.open(d.file, os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        link = process.connect()
        device = d.serve(link, 4, kept=(lock,))
        os.close(lock)
        before = open_descriptors()
        given = link.give(4, limit=GIVE_UP)
        assert [os.path.samestat(os.fstat(fd), d.file.stat()) for fd in given] == [True, True]
        assert not any(os.get_inheritable(fd) for fd in given)
        device.close(limit=GIVE_UP)
        assert not lock_is_free(str(d.file)), "we have it too"
        for fd in given:
            os.close(fd)
        assert lock_is_free(str(d.file))
        with pytest.raises(HostError) as refused:
            link.give(4, limit=GIVE_UP)
        assert refused.value.errno == ENOENT
        assert open_descriptors() | set(given) == before | set(given)
        link.close()


def test_signals_are_not_for_it(process: Worker) -> None:
    link = process.connect()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(process.pid, number)
    link.look(limit=GIVE_UP)
    link.close()


def test_bye(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path) as d:
        link = process.connect()
        device = d.serve(link)
        with pytest.raises(HostError) as refused:
            link.bye(limit=GIVE_UP)
        assert refused.value.errno == EBUSY
        device.close(limit=GIVE_UP)
        link.bye(limit=GIVE_UP)
        assert process.server.wait_end(process.pid) == 0
        wait_lost(link)
        link.close()


def test_it_ends_when_it_has_nobody_and_nothing(process: Worker) -> None:
    process.connect(idle_seconds=0).close()
    assert process.server.wait_end(process.pid) == 0


def test_it_does_not_end_while_it_has_a_device(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path) as d:
        link = process.connect(idle_seconds=0)
        d.serve(link)
        link.close()
        d.exercise(500)
        again = process.connect(idle_seconds=0)
        RemoteDevice(again, 0, d.state, 1).close(limit=GIVE_UP)
        again.close()
        assert process.server.wait_end(process.pid) == 0


def test_a_disk_that_hangs_stops_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing waits for I/O in a thread of its own; the daemon waits as long as it likes."""
    faults = tmp_path / "faults"
    faults.write_bytes(bytes(36))
    monkeypatch.setenv("XBBD_FAULTS", str(faults))
    # After what is there: a sanitizer's runtime must be the first.
    preloaded = f"{os.environ.get('LD_PRELOAD', '')} {build_faulty_disk(tmp_path)}"
    monkeypatch.setenv("LD_PRELOAD", preloaded.strip())
    with (
        disk(tmp_path, "a") as a,
        disk(tmp_path, "b") as b,
        server() as own,
        worker(own, tmp_path / "guest") as made,
    ):
        link = made.connect()
        hangs, other = a.serve(link, 1), b.serve(link, 2)
        say(faults, a.file.stat().st_ino, SILENT)
        with pytest.raises(TimeoutError):
            a.fronts[0].transfer(Op.READ, 0, 1, bytearray(512), timeout=0.05)
        with pytest.raises(HostError) as late:
            hangs.close(limit=0.05)
        assert late.value.errno == ETIMEDOUT
        assert hangs.report.state == DeviceState.CLOSING
        with pytest.raises(HostError) as again:
            hangs.close(limit=GIVE_UP)
        assert again.value.errno == EALREADY
        b.exercise(300)
        link.close()

        # Nor is the next daemon held up; it may ask for the same.
        eventually(lambda: can_greet(made), "the next daemon is let in")
        link = made.connect()
        assert link.reports[1].state == DeviceState.CLOSING
        assert not lock_is_free(a.state.path)
        say(faults, a.file.stat().st_ino, 0)
        RemoteDevice(link, 1, a.state, 1).close(limit=GIVE_UP)
        assert lock_is_free(a.state.path)
        RemoteDevice(link, 2, b.state, 1).close(limit=GIVE_UP)
        link.close()
        del other


SILENT = 4  # faulty_disk.c


def say(faults: Path, victim: int, accident: int) -> None:
    """What happens to that inode from now on."""
    with faults.open("r+b") as file:
        file.seek(4 * 7)
        file.write(struct.pack("=II", victim & 0xFFFFFFFF, accident))


def test_no_answer_in_time(process: Worker) -> None:
    link = process.connect()
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(HostError) as late:
            link.look(limit=0.01)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert late.value.errno == ETIMEDOUT
    link.look(limit=GIVE_UP)  # the answer that came too late is nobody's
    link.close()


def test_what_is_opened_too_late_is_closed_again(process: Worker, tmp_path: Path) -> None:
    with disk(tmp_path) as d:
        link = process.connect()
        os.kill(process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(HostError) as late:
                d.serve(link, limit=0.01)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert late.value.errno == ETIMEDOUT
        eventually(lambda: link.look(limit=GIVE_UP) == {}, "it is not served")
        assert lock_is_free(d.state.path)
        d.serve(link).close(limit=GIVE_UP)
        link.close()


def test_only_processes_of_guests_are_killed(served: Server, process: Worker) -> None:
    """A number may be somebody else's by now."""
    other = subprocess.Popen(["sleep", "600"])
    try:
        served.processes.kill(other.pid)
        process.kill()  # which is asked for later, and has happened
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_process_that_cannot_begin_says_so(
    served: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with listen_at(near(tmp_path / "guest")) as listener:
        serial = served.processes.start(
            "nobody",
            listener,
            hv=HvKind.SIM,
            idle_seconds=0,
            grant_path="/nonexistent",
        )
    status = served.wait_end(served.wait_for(serial))
    assert how_it_ended(status) == "left with status 71"


def test_how_a_process_ended() -> None:
    assert how_it_ended(signal.SIGKILL) == "killed by signal 9"
    assert how_it_ended(71 << 8) == "left with status 71"
