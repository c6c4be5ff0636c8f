"""A network card's frontend of the data plane: the guest's end of a queue.

For the simulated guest and the tests.  :meth:`Netfront.run` blocks until
:meth:`Netfront.stop`, which any thread may call, as it may read the counters.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import PAGE_SIZE, HvKind, check
from xbbd_bsd.native.netstate import NetAccepts

RX_BUFFERS = 256  # slots of a ring

ALL_OFFLOADS = ~NetAccepts(0)
"""What a frontend can do, both ways: large frames, sums and splitting left to others."""


@dataclass(frozen=True, slots=True)
class NetfrontParams:
    """What a queue's frontend is made of; descriptors stay the caller's and open.

    ``link_fd`` is non-blocking and has frames with a header (``net/contract.h``);
    ``rx_buffers`` the pages that the backend gets, ``skew`` the bytes left out before a
    frame, even.  ``poll_us``: how long to look around before sleeping.
    """

    grant_fd: int
    event_fd: int
    port: int
    hv: HvKind
    backend_domid: int
    link_fd: int
    offloads: NetAccepts = ALL_OFFLOADS
    rx_buffers: int = RX_BUFFERS
    skew: int = 0
    poll_us: int = 0
    patience_ms: int = 0


_COUNTERS = tuple(name for name, _ in ffi.typeof("struct xbb_netfront_counters").fields)
for _name in ("params", "counters"):
    ffi.new(f"struct xbb_netfront_{_name} *")


def _check_os(result: int, operation: str) -> None:
    if result < 0:
        raise OSError(-result, f"{operation}: {os.strerror(-result)}")


class Netfront:
    """Both rings of a queue, granted, with their data pages."""

    def __init__(self, params: NetfrontParams) -> None:
        """Grant rings and pages; :class:`HostError` if the domain has too little."""
        c = ffi.new("struct xbb_netfront_params *")
        for name in params.__slots__:
            setattr(c, name, getattr(params, name))
        error = ffi.new("struct xbb_error *")
        pointer = ffi.new("struct xbb_netfront **")
        check(lib.xbb_netfront_open(c, error, pointer), "open frontend", error)
        self._front: Any = pointer[0]
        refs = ffi.new("uint32_t[2]")
        lib.xbb_netfront_ring_refs(self._front, refs)
        self.tx_ref, self.rx_ref = int(refs[0]), int(refs[1])

    def run(self) -> None:
        """Relay until :meth:`stop`.

        OSError: EPIPE (the backend has gone, and no other came), EPROTO (the rings
        cannot be true).
        """
        _check_os(lib.xbb_netfront_run(self._front), "relay")

    def stop(self) -> None:
        """Have :meth:`run` end, for good; any thread."""
        lib.xbb_netfront_stop(self._front)

    def counters(self) -> dict[str, int]:
        """What was counted, by the names of ``struct xbb_netfront_counters``; any thread."""
        c = ffi.new("struct xbb_netfront_counters *")
        lib.xbb_netfront_counters(self._front, c)
        return {name: int(getattr(c, name)) for name in _COUNTERS}

    @property
    def tx_ring(self) -> memoryview:
        """The tx ring's page, for tests that misbehave; so are all below."""
        return memoryview(ffi.buffer(lib.xbb_netfront_ring(self._front, 0), PAGE_SIZE))

    @property
    def rx_ring(self) -> memoryview:
        """The rx ring's page."""
        return memoryview(ffi.buffer(lib.xbb_netfront_ring(self._front, 1), PAGE_SIZE))

    @property
    def pages(self) -> int:
        """How many data pages there are; the first half is for tx."""
        return int(lib.xbb_netfront_pages(self._front))

    def page(self, number: int) -> memoryview:
        """A data page."""
        base = lib.xbb_netfront_page(self._front, number)
        if base == ffi.NULL:
            raise IndexError(number)
        return memoryview(ffi.buffer(base, PAGE_SIZE))

    def page_ref(self, number: int) -> int:
        """The grant reference of a data page."""
        return int(lib.xbb_netfront_page_ref(self._front, number))

    def set_access(self, ref: int, access: int) -> None:
        """Permit nothing (0), reading (1) or both (2); OSError(EBUSY) while mapped."""
        _check_os(lib.xbb_netfront_set_access(self._front, ref, access), f"grant {ref}")

    def notify(self) -> None:
        """Send the backend an event, needed or not."""
        _check_os(lib.xbb_netfront_notify(self._front), "notify")

    def wait(self, timeout: float) -> bool:
        """Wait for an event from the backend, at most ``timeout`` seconds."""
        result = lib.xbb_netfront_wait(self._front, int(timeout * 1000))
        _check_os(result, "wait")
        return bool(result)

    def close(self) -> None:
        """Withdraw all grants.  No other call may be under way."""
        if self._front is not None:
            front, self._front = self._front, None
            lib.xbb_netfront_close(front)


def direct_relay(link_fd: int, other_fd: int, stop_fd: int) -> None:
    """Frames between two links without rings, until the last is readable; OSError."""
    _check_os(lib.xbb_direct_relay(link_fd, other_fd, stop_fd), "direct relay")
