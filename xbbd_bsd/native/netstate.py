"""The state segment of a network card: what state.py is for disks.

Any thread and any process may read; one process writes the tunables.  Others may damage
the file at any time: numbers are what stands there, whatever that is, and nothing that
is read raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import Transport, known
from xbbd_bsd.native.segment import (
    COMMON_COUNTERS,
    NOBODYS,
    MappedSegment,
    SegmentIdentity,
    Shape,
    cut,
    text_of,
)

NET_INTERFACE_NAME: int = lib.XBB_NET_NAME - 1

_OWN_COUNTERS = tuple(
    name for name, _ in ffi.typeof("struct xbb_net_counters").fields if name != "refused"
)
NET_COUNTERS: tuple[str, ...] = (*_OWN_COUNTERS, *COMMON_COUNTERS)
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

    ``tx_answering``, ``rx_answering``: what comes before may have been answered, and not
    be published.  ``rx_full_since_ns``: of CLOCK_MONOTONIC, since when the guest has posted
    too little for the largest frame; 0: it has room.
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
    tx_answering: int
    rx_answering: int
    rx_full_since_ns: int


class NetState(MappedSegment):
    """A card's mapped state segment; what is a ring there is a queue here, of two rings."""

    _SHAPE = Shape(
        "xbb_net_state",
        lib.xbb_net_state_map,
        lib.xbb_net_state_unmap,
        lib.xbb_net_state_damaged,
        lib.xbb_net_state_rings,
        _OWN_COUNTERS,
        NET_TUNABLES,
    )

    @classmethod
    def create(cls, path: str, *, queues: int = 1, identity: SegmentIdentity = NOBODYS) -> NetState:
        """Make a fresh segment, mode 0600, in place of an old one; OSError or HostError.

        An old one that somebody still serves is left alone: HostError with EBUSY.
        """
        return cls._made(path, identity, lambda fd, c: lib.xbb_net_state_format(fd, c, queues))

    def refusals(self, queue: int | None = None) -> dict[NetRefusal, int]:
        """Packets that were refused, by reason, of one queue or added up."""
        tables = [self._state.ring[i].counters.refused for i in self._rings(queue)]
        return {why: sum(int(table[why]) for table in tables) for why in NetRefusal}

    def counts(self, queue: int) -> dict[str, int]:
        """All that was counted of a queue, refused packets among it: see `count_on`."""
        refused = {f"refused.{why.name}": n for why, n in self.refusals(queue).items()}
        return {**self.counters(queue), **refused}

    def count_on(self, counters: Mapping[int, Mapping[str, int]]) -> None:
        super().count_on(counters)
        for queue in counters.keys() & set(range(self.rings)):
            table = self._state.ring[queue].counters.refused
            for why in NetRefusal:
                table[why] = counters[queue].get(f"refused.{why.name}", 0) % (1 << 64)

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
            tx_answering=r.tx_answering,
            rx_answering=r.rx_answering,
            rx_full_since_ns=r.rx_full_since_ns,
        )

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
    def takeovers(self) -> int:
        """How often somebody went on where another had died."""
        return int(self._state.takeovers)

    def note_takeover(self) -> None:
        """One more."""
        self._state.takeovers = (self.takeovers + 1) % (1 << 64)  # whatever stands there
