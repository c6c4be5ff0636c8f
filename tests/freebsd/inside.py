"""What holds only on FreeBSD's files: test_kernel.py runs this where they are."""

from __future__ import annotations

import ctypes
from errno import ENOSYS
from pathlib import Path

import pytest

from tests.native.ring import DEVICE, HV, ring
from tests.native.slots import RawRing, discard, request
from tests.waiting import eventually
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import Abi, HvKind, Op, StopReason, Transport, _xbb
from xbbd_bsd.native._xbb import ffi


def test_grants_are_mapped_where_they_cannot_be_copied(tmp_path: Path) -> None:
    """Nobody is served in silence by something else than what was asked for."""
    assert HV is HvKind.XEN
    (tmp_path / "best").mkdir()
    (tmp_path / "copy").mkdir()
    with ring(tmp_path / "best") as r:
        r.front.transfer(Op.READ, 0, 8, bytearray(4096))
        assert r.state.ring().transport is Transport.MAP
        assert r.counter("grants_copied_total") == 0
    with (
        pytest.raises(HostError, match="prepare to copy grants: Operation not supported"),
        ring(tmp_path / "copy", transport=Transport.COPY),
    ):
        pass


def test_a_rule_of_its_own_limits_a_process() -> None:
    """Its text is judged by the kernel that is played."""
    kernel = ctypes.CDLL(_xbb.__file__)
    params = ffi.new("struct xbb_guest_params *", {"cpu_percent": 150})
    at = ctypes.c_void_p(int(ffi.cast("uintptr_t", params)))
    assert kernel.xbb_process_quota(at) == -ENOSYS
    kernel.kernel_racct(True)
    assert kernel.xbb_process_quota(at) == 0
    assert kernel.kernel_pcpu() == 150


ERROR = -1


@pytest.mark.skipif(not DEVICE, reason="files do not vanish under who has them open")
@pytest.mark.parametrize("last", ["read", "write", "flush", "discard"])
def test_a_provider_is_destroyed_under_load(tmp_path: Path, last: str) -> None:
    """What is in flight gets errors, the queue says why it stops, and holds nothing.

    Also if what comes next is not a transfer: an ioctl of a disk that was
    destroyed fails in one of several ways (mdconfig -d -o force).
    """
    kernel = ctypes.CDLL(_xbb.__file__)
    with ring(tmp_path, discard=True) as r:
        raw = RawRing(r.front, Abi.NATIVE)
        segments = [(r.front.page_ref(0), 0, 7)]
        if last in ("read", "write"):
            op = Op.READ if last == "read" else Op.WRITE
            kernel.kernel_provider_hold()
            raw.put(
                *(
                    request(Abi.NATIVE, op=op, id=n, sector=n * 64, segments=segments)
                    for n in range(8)
                )
            )
            eventually(lambda: kernel.kernel_provider_held() > 0, "a transfer is under way")
            kernel.kernel_provider_destroy(r.params.disk_fd)
            assert sorted(raw.responses(8)) == [(n, op, ERROR) for n in range(8)]
        else:
            kernel.kernel_provider_destroy(r.params.disk_fd)
            if last == "flush":
                op = Op.FLUSH_DISKCACHE
                raw.put(request(Abi.NATIVE, op=op, id=0))
            else:
                op = Op.DISCARD
                raw.put(discard(Abi.NATIVE, id=0, sector=0, nsectors=64))
            assert raw.responses(1) == [(0, op, ERROR)]
        r.wait_drained()
        assert r.queue.status().reason is StopReason.MEDIUM
        assert r.state.ring().inflight == 0
