"""A device whose requests go by one system call, through the Python handles (Linux).

That it is used at all, with the lock that the segment's file has; what it does is shown by
`tests/c/test_bulk_linux.c`.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import sys
from pathlib import Path

import pytest

from tests.native.ring import HV, Ring, ring
from xbbd_bsd.native import DiskKind, HvKind, Op, Progress, Transport, Workload

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or HV is not HvKind.SIM, reason="there is no such call"
)

SETUP = 425  # io_uring_setup(2), which has one number on all machines
FLAGS = 0x3000  # one issuer, who has what it waited for done; Linux 6.1


def _open_rings() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if "io_uring" in link:
            found.append(int(name))
    return found


def _require(directory: Path) -> None:
    words = (ctypes.c_uint32 * 30)(0, 0, FLAGS)
    fd = ctypes.CDLL(None).syscall(SETUP, 1, words)
    if fd < 0:
        pytest.skip("the kernel has no io_uring for us, or an old one")
    os.close(fd)
    path = directory / "probe"
    path.write_bytes(bytes(4096))
    try:
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    except OSError:
        pytest.skip("no direct I/O there")
    try:
        with mmap.mmap(-1, 4096) as page:
            os.preadv(fd, [page], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        pass
    except OSError:
        pytest.skip("no such reading there")
    finally:
        os.close(fd)


def _go_direct(r: Ring) -> None:
    flags = fcntl.fcntl(r.params.disk_fd, fcntl.F_GETFL)
    fcntl.fcntl(r.params.disk_fd, fcntl.F_SETFL, flags | os.O_DIRECT)


@pytest.mark.parametrize("persistent", [0, 352])
def test_data_is_what_it_should_be(tmp_path: Path, persistent: int) -> None:
    _require(tmp_path)
    before = _open_rings()
    with ring(
        tmp_path,
        disk_kind=DiskKind.DEVICE,
        transport=Transport.COPY,
        persistent=persistent,
        max_segments=32,
    ) as r:
        _go_direct(r)
        model = bytearray(r.disk.stat().st_size)
        data = bytearray(os.urandom(1 << 20))
        r.front.transfer(Op.WRITE, 0, 2048, data)
        model[: 1 << 20] = data
        progress = Progress()
        load = Workload(
            seed=7, sectors=len(model) // 512, depth=32, operations=3000, flush_every=500,
            model=model,
        )  # fmt: skip
        r.front.exercise(load, progress)
        assert progress.mismatches == progress.errors == 0, f"sector {progress.first_mismatch}"
        assert len(_open_rings()) == len(before) + 1
        assert r.stored(0, len(model) // 512) == model
    assert _open_rings() == before


def test_there_is_none_without_a_lock(tmp_path: Path) -> None:
    """Whoever has let go of it has none that the kernel could keep."""
    _require(tmp_path)
    with ring(
        tmp_path,
        disk_kind=DiskKind.DEVICE,
        transport=Transport.COPY,
        prepare=lambda state: state.unlock(),
    ) as r:
        _go_direct(r)
        r.front.transfer(Op.WRITE, 0, 2048, bytearray(os.urandom(1 << 20)))
        assert not _open_rings()
