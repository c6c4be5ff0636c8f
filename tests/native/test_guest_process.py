"""The process of a guest: rings that are served there, and whoever dies meanwhile."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from errno import EALREADY, EBUSY, EEXIST, EINVAL, ENOENT, EPIPE, ETIMEDOUT
from pathlib import Path

import pytest

from tests.descriptors import open_descriptors
from tests.lab.dom0 import DOM0
from tests.native.guests import Server, Worker, disk, lock_is_free, near, server, wait_lost, worker
from tests.native.slots import REQ_PROD, RawRing
from tests.sim.soak import build_faulty_disk
from tests.waiting import GIVE_UP, eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import Abi, HvKind, Op, QueueState, StopReason
from xbbd_bsd.native.addition import DISKS
from xbbd_bsd.native.link import DeviceState, Link
from xbbd_bsd.native.packets import listen_at
from xbbd_bsd.native.processes import how_it_ended
from xbbd_bsd.native.remote import RemoteDevice

pytestmark = pytest.mark.slow


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
    return [name for name in process.threads if re.match(r"xbbd\d", name)]


@pytest.mark.skipif(sys.platform != "linux", reason="it is looked up in /proc")
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


def test_meet_comes_first(process: Worker) -> None:
    link = Link.connect(process.path)
    with pytest.raises(HostError, match="MEET comes first"):
        link.look(limit=GIVE_UP)
    link.close()


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


def test_whoever_waits_no_longer_may_ask_again(process: Worker, tmp_path: Path) -> None:
    """How it ended is said once, and is about that time alone."""
    with disk(tmp_path) as d:
        link = process.connect()
        for first, heard in ((True, True), (False, False), (False, True)):
            device = d.serve(link, 5, adopt=not first)
            with pytest.raises(HostError, match="no answer in time") as busy:
                device.quiesce(limit=0)
            assert busy.value.errno == ETIMEDOUT
            eventually(lambda: lock_is_free(d.state.path), "it is handed over")
            if heard:
                device.quiesce(limit=GIVE_UP)
            eventually(lambda: link.receive() or 5 not in link.reports, "it says that it is gone")
        with pytest.raises(HostError) as refused:
            device.quiesce(limit=GIVE_UP)
        assert refused.value.errno == ENOENT
        d.serve(link, 5, adopt=True)
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(HostError, match="no answer in time"):
            device.quiesce(limit=0)
        process.kill()
        with pytest.raises(HostError, match="has ended"):
            device.quiesce(limit=GIVE_UP)
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
            RemoteDevice.open(link, DISKS, 0, [good] * 9, d.state, limit=GIVE_UP)
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
            return len(DOM0.mappings(process.pid))

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


def test_nobody_waits_for_news_of_a_server_that_was_left() -> None:
    with server() as s:
        s.processes.close()
        began = time.monotonic()
        s.processes.wait(GIVE_UP)
        assert time.monotonic() - began < GIVE_UP / 2
