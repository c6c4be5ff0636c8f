"""What the kernel says of a process: its memory, its age, and whether it is still the same."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.native.guests import Server, Worker, worker
from tests.waiting import eventually
from xbbd_bsd.native.vitals import Process


def child(memory_mb: int = 0) -> subprocess.Popen[bytes]:
    """A process that has some memory, and waits for its end once it says that it has."""
    code = f"import sys; m = b'x' * ({memory_mb} << 20); print(flush=True); sys.stdin.read()"
    made = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert made.stdout is not None
    made.stdout.readline()
    return made


def test_memory_and_age() -> None:
    before = time.monotonic()
    with child(64) as large, child() as small:
        found, other = Process(large.pid), Process(small.pid)
        first, plain = found.look(), other.look()
        assert first is not None
        assert plain is not None
        assert 64 << 10 <= first.rss_kb < 1 << 20
        assert 48 << 10 <= first.rss_kb - plain.rss_kb <= 80 << 10

        def has_aged() -> bool:
            now = found.look()
            return now is not None and now.age > first.age

        eventually(has_aged, "it becomes a second older")
        last = found.look()
        assert last is not None
        assert 1 <= last.age <= time.monotonic() - before + 1
        large.kill()
        small.kill()


def test_this_process() -> None:
    own, parent = Process(os.getpid()).look(), Process(os.getppid()).look()
    assert own is not None
    assert parent is not None
    assert own.rss_kb > 1000
    assert own.age <= parent.age


def test_one_that_has_ended_is_none() -> None:
    """Nor is one that nobody has waited for yet."""
    with child() as made:
        found = Process(made.pid)
        assert found.look() is not None
        made.kill()
        eventually(lambda: found.look() is None, "it has ended")
        assert Process(made.pid).look() is None
    assert found.look() is None


def test_another_one_of_its_number_is_none() -> None:
    with child() as made:
        found = Process(made.pid)
        assert found.look() is not None
        found.pid = os.getppid()  # as if that had been given to somebody else
        assert Process(found.pid).look() is not None
        assert found.look() is None
        made.kill()


@pytest.mark.parametrize("pid", [0, -1, -(1 << 31), (1 << 31) - 1])
def test_numbers_of_no_process(pid: int) -> None:
    assert Process(pid).look() is None


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="it is named for /proc")
@pytest.mark.parametrize("name", [b") R 1 1", b"a) Z (b", b"\n)\n", b"((((", b"\xff\x00"])
def test_what_a_process_calls_itself_says_nothing(name: bytes) -> None:
    code = f"open('/proc/self/comm', 'wb').write({name!r}); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as made:
        assert made.stdout is not None
        made.stdout.readline()
        found = Process(made.pid).look()
        made.kill()
    assert found is not None
    assert 1000 < found.rss_kb < 1 << 20
    assert found.age < 60


def test_who_is_behind_a_socket(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Process.behind(ours.fileno()).pid == os.getpid()
    with open(os.devnull, "rb") as none:
        assert Process.behind(none.fileno()).pid == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as alone:
        assert Process.behind(alone.fileno()).look() is None


@pytest.mark.slow
def test_a_guests_process_is_known_by_the_kernels_word(
    served: Server, process: Worker, tmp_path: Path
) -> None:
    """At once, and to the next daemon: whoever made its socket is somebody else."""
    for _ in range(20):
        with worker(served, tmp_path / "one") as made:
            link = made.connect()
            assert link.process.pid == made.pid
            link.close()
    link = process.connect()
    found = link.process.look()
    assert found is not None
    assert found.rss_kb > 1000
    os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: link.process.look() is None, "it has ended")
    link.close()
