"""The state segment of a network card: what state.py is for disks.

Any thread and any process may read; one process writes the tunables.  Others may damage
the file at any time: numbers are what stands there, whatever that is, and nothing that
is read raises.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

from xbbd_bsd.errors import HostError
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import QueueState, Transport, check, known
from xbbd_bsd.native.segment import (
    NOBODYS,
    SegmentIdentity,
    c_identity,
    cut,
    identity_in,
    look,
    make,
    take,
    text_of,
    unlock,
)

NET_INTERFACE_NAME: int = lib.XBB_NET_NAME - 1

_COMMON_COUNTERS = tuple(name for name, _ in ffi.typeof("struct xbb_common_counters").fields)
_OWN_COUNTERS = tuple(
    name for name, _ in ffi.typeof("struct xbb_net_counters").fields if name != "refused"
)
NET_COUNTERS: tuple[str, ...] = (*_OWN_COUNTERS, *_COMMON_COUNTERS)
NET_TUNABLES: tuple[str, ...] = tuple(
    name for name, _ in ffi.typeof("struct xbb_net_tunables").fields if name != "reserved"
)

ffi.new("struct xbb_net_state *")  # as binding.py does


class NetAccepts(IntFlag):
    """What a frontend can receive."""

    SG = lib.XBB_NET_SG
    GSO_TCPV4 = lib.XBB_NET_GSO_TCPV4
    GSO_TCPV6 = lib.XBB_NET_GSO_TCPV6
    CSUM_IPV4 = lib.XBB_NET_CSUM_IPV4
    CSUM_IPV6 = lib.XBB_NET_CSUM_IPV6


PLAIN_FRAMES = NetAccepts(0)
"""What any frontend can receive: whole frames, a page at most, with their sums."""


class NetOffload(IntEnum):
    """What whoever reads the link understands.

    FULL: sums to fill in, frames to split.  SAFE: only frames as a wire has them.
    """

    FULL = lib.XBB_NET_OFFLOAD_FULL
    SAFE = lib.XBB_NET_OFFLOAD_SAFE


class NetRefusal(IntEnum):
    """Why a packet of the guest's came to nothing (net/contract.h)."""

    TOO_SHORT = lib.XBB_NET_TOO_SHORT
    TOO_LONG = lib.XBB_NET_TOO_LONG
    BEYOND_PAGE = lib.XBB_NET_BEYOND_PAGE
    TOO_MANY = lib.XBB_NET_TOO_MANY
    BAD_EXTRA = lib.XBB_NET_BAD_EXTRA
    BAD_GSO = lib.XBB_NET_BAD_GSO
    BAD_HEADERS = lib.XBB_NET_BAD_HEADERS
    BAD_GRANT = lib.XBB_NET_BAD_GRANT
    BAD_SOURCE = lib.XBB_NET_BAD_SOURCE


@dataclass(frozen=True, slots=True)
class NetRingView:
    """A queue as its segment shows it at one moment; indices modulo 2**32.

    ``rx_full_since_ns``: of CLOCK_MONOTONIC, since when the guest has posted too little
    for the largest frame; 0: it has room.
    """

    connected: bool
    transport: Transport | int
    max_requests: int
    accepts: NetAccepts
    offload: NetOffload | int
    rx_polls: bool
    tx_req_cons: int
    tx_rsp_prod: int
    rx_req_cons: int
    rx_rsp_prod: int
    rx_full_since_ns: int


class NetState:
    """A card's mapped state segment.  Use :meth:`create`, :meth:`take_over` or :meth:`open`.

    Locked as a disk's (``State``): a lock that is free says that nobody serves the card.
    """

    def __init__(self, path: str, fd: int, *, writable: bool, locked: bool = False) -> None:
        """Map the segment behind ``fd``, which is ours; :class:`HostError` if it is none.

        ``locked``: it holds the lock, and is kept for that.
        """
        self.path = path
        self._lock = -1
        pointer = ffi.new("struct xbb_net_state **")
        try:
            check(lib.xbb_net_state_map(fd, writable, pointer), f"map state segment {path}")
            if locked:
                self._lock, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)
        self._state = pointer[0]

    @classmethod
    def create(cls, path: str, *, queues: int = 1, identity: SegmentIdentity = NOBODYS) -> NetState:
        """Make a fresh segment, mode 0600, in place of an old one; OSError or HostError.

        An old one that somebody still serves is left alone: HostError with EBUSY.
        """
        c = c_identity(identity, path)
        fd = make(path)
        try:
            check(lib.xbb_net_state_format(fd, c, queues), f"make state segment {path}")
        except HostError:
            os.close(fd)
            raise
        return cls(path, fd, writable=True, locked=True)

    @classmethod
    def take_over(cls, path: str) -> NetState:
        """Map the segment of one that served a card and is gone; OSError or HostError.

        EBUSY if it is not gone.
        """
        return cls(path, take(path), writable=True, locked=True)

    @classmethod
    def open(cls, path: str, *, writable: bool = False) -> NetState:
        """Map a segment that a daemon made; OSError or :class:`HostError` if there is none."""
        return cls(path, look(path, writable=writable), writable=writable)

    @property
    def identity(self) -> SegmentIdentity:
        """Whose card it is about, as it stands there."""
        return identity_in(self._state.head)

    @property
    def handle(self) -> Any:
        """The C struct, for the queue that works on it."""
        return self._state

    @property
    def damaged(self) -> bool:
        """Whether a part of the file was missing; numbers mean nothing then."""
        return bool(lib.xbb_net_state_damaged(self._state))

    @property
    def queues(self) -> int:
        """How many queues the segment has room for."""
        return int(lib.xbb_net_state_queues(self._state))

    def _queues(self, queue: int | None) -> range:
        return range(self.queues) if queue is None else range(queue, queue + 1)

    def counters(self, queue: int | None = None) -> dict[str, int]:
        """All counters by name but those of refusals, of one queue or added up."""
        rings = [self._state.ring[i] for i in self._queues(queue)]
        own = {name: sum(int(getattr(r.counters, name)) for r in rings) for name in _OWN_COUNTERS}
        common = [r.common.counters for r in rings]
        return own | {name: sum(int(getattr(c, name)) for c in common) for name in _COMMON_COUNTERS}

    def refusals(self, queue: int | None = None) -> dict[NetRefusal, int]:
        """Packets that were refused, by reason, of one queue or added up."""
        tables = [self._state.ring[i].counters.refused for i in self._queues(queue)]
        return {why: sum(int(table[why]) for table in tables) for why in NetRefusal}

    def queue(self, queue: int = 0) -> NetRingView:
        """What was negotiated for a queue and where its rings stand."""
        r = self._state.ring[queue]
        return NetRingView(
            connected=bool(r.common.connected),
            transport=known(Transport, r.common.transport),
            max_requests=r.common.max_requests,
            accepts=NetAccepts(r.params.accepts & sum(NetAccepts)),
            offload=known(NetOffload, r.params.offload),
            rx_polls=bool(r.params.rx_polls),
            tx_req_cons=r.common.req_cons,
            tx_rsp_prod=r.common.rsp_prod,
            rx_req_cons=r.rx_req_cons,
            rx_rsp_prod=r.rx_rsp_prod,
            rx_full_since_ns=r.rx_full_since_ns,
        )

    def tunables(self) -> dict[str, int]:
        """The tunables by name."""
        return {name: int(getattr(self._state.tunables, name)) for name in NET_TUNABLES}

    def set_tunable(self, name: str, value: int) -> None:
        """Change a tunable (32-bit signed); the data plane sees it at its next use.

        Raises KeyError for a name that is no tunable, OverflowError beyond 32 bits.
        """
        if name not in NET_TUNABLES:
            raise KeyError(name)
        lib.xbb_tunable_set(ffi.addressof(self._state.tunables, name), value)

    @property
    def interface(self) -> str:
        """The name of its interface, "" as long as there was none."""
        return text_of(self._state.interface)

    @interface.setter
    def interface(self, name: str) -> None:
        self._put(self._state.interface, name)

    @property
    def guest(self) -> str:
        """The guest's name, for people; cut after 63 bytes."""
        return text_of(self._state.guest)

    @guest.setter
    def guest(self, name: str) -> None:
        self._put(self._state.guest, name)

    @staticmethod
    def _put(field: Any, text: str) -> None:
        ffi.memmove(field, cut(text, len(field)), len(field))

    @property
    def served(self) -> list[int]:
        """The queues that somebody serves, or served when he died."""
        return [n for n in range(self.queues) if self._state.ring[n].common.connected]

    @property
    def ending(self) -> bool:
        """Whether some of its guest's queues have ended, or are about to."""
        states = [self._state.ring[n].common.status.state for n in self.served]
        whole = len(states) == self._state.connection_queues
        return not whole or any(state != QueueState.RUNNING for state in states)

    @property
    def connection_queues(self) -> int:
        """On how many queues its guest was served last; at most as many as it has room for."""
        return min(int(self._state.connection_queues), self.queues)

    def connect(self, queues: int) -> None:
        """A guest is about to be served on so many queues."""
        self._state.connection_queues = queues

    @property
    def takeovers(self) -> int:
        """How often somebody went on where another had died."""
        return int(self._state.takeovers)

    def note_takeover(self) -> None:
        """One more."""
        self._state.takeovers = (self.takeovers + 1) % (1 << 64)  # whatever stands there

    def count_on(self, counters: Mapping[int, Mapping[str, int]]) -> None:
        """Begin with these, by queue; names that are none of ours are left out."""
        for queue in counters.keys() & set(range(self.queues)):
            r = self._state.ring[queue]
            for name in counters[queue].keys() & set(NET_COUNTERS):
                group = r.common.counters if name in _COMMON_COUNTERS else r.counters
                setattr(group, name, counters[queue][name] % (1 << 64))

    def close(self) -> None:
        """Unmap, and let go of the lock.  The file stays; harmless if done before."""
        if self._state is not None:
            lib.xbb_net_state_unmap(self._state)
            self._state = None
        self.unlock()

    def unlock(self) -> None:
        """Let go of the lock: somebody else is to serve the card.  Harmless without one."""
        if self._lock >= 0:
            unlock(self._lock)
            self._lock = -1
