"""One queue of a network card: what queue.py is for disks, and the self-test of its rings.

A queue is a tx ring and an rx ring, the guest's words, with one event channel and one
thread.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xbbd_bsd.errors import HostError
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import HvKind, Transport
from xbbd_bsd.native.netstate import PLAIN_FRAMES, NetAccepts, NetOffload, NetState
from xbbd_bsd.native.queue import Calls, QueueHandle

NET_ADDRESS: int = lib.XBB_NET_ADDRESS
NET_MAX_FRAME: int = lib.XBB_NET_MAX_FRAME
NET_MAX_SLOTS: int = lib.XBB_NET_MAX_SLOTS
NET_LINK_HEADER: int = lib.XBB_NET_LINK_HEADER

for _name in ("net_params", "net_indices"):
    ffi.new(f"struct xbb_{_name} *")


@dataclass(frozen=True, slots=True)
class NetRingIndices:
    """A ring at this moment: ours, then those that the guest can write; modulo 2**32."""

    req_cons: int
    nr_ents: int
    rsp_prod_pvt: int
    req_prod: int
    req_event: int
    rsp_prod: int
    rsp_event: int


@dataclass(frozen=True, slots=True)
class NetIndices:
    """Both rings of a queue."""

    tx: NetRingIndices
    rx: NetRingIndices


@dataclass(frozen=True, slots=True)
class NetParams:
    """Everything a queue of a card is made of.

    Descriptors stay the caller's and must stay open until the queue is closed; ``link_fd``
    and ``wake_fd`` are non-blocking.  ``tx_ref`` and ``rx_ref``: the page of each ring.
    ``rx_polls``: its guest does not tell of buffers that it posts.  ``source``: the only
    address that its frames may come from, six bytes; None: any.  A byte arrives at
    ``wake_fd`` when the queue has drained.  ``adopt``: somebody served these rings and
    died, or handed over; what was begun to be answered is in the segment, or is nothing
    if it was all ``answered``.
    """

    grant_fd: int
    event_fd: int
    link_fd: int
    wake_fd: int
    hv: HvKind
    domid: int
    remote_port: int
    tx_ref: int
    rx_ref: int
    accepts: NetAccepts = PLAIN_FRAMES
    offload: NetOffload = NetOffload.FULL
    rx_polls: bool = False
    source: bytes | None = None
    unit: int = 0
    queue: int = 0
    transport: Transport = Transport.BEST
    adopt: bool = False
    answered: bool = False


class NetQueue(QueueHandle):
    """Two rings of a card, and their thread."""

    _CALLS = Calls(
        "xbb_net_queue",
        lib.xbb_net_queue_open,
        lib.xbb_net_queue_start,
        lib.xbb_net_queue_drain,
        lib.xbb_net_queue_hand_over,
        lib.xbb_net_queue_status,
        lib.xbb_net_queue_close,
    )

    def __init__(self, params: NetParams, state: NetState) -> None:
        super().__init__(c_params(params), state, f"connect a card of domain {params.domid}")

    def indices(self) -> NetIndices | None:
        """Where both rings stand; None of a closed queue."""
        if self._queue is None:
            return None
        c = ffi.new("struct xbb_net_indices *")
        lib.xbb_net_queue_indices(self._queue, c)
        return NetIndices(_indices(c.tx), _indices(c.rx))


def _indices(c: Any) -> NetRingIndices:
    return NetRingIndices(
        c.req_cons,
        c.nr_ents,
        c.rsp_prod_pvt,
        c.req_prod,
        c.req_event,
        c.rsp_prod,
        c.rsp_event,
    )


def net_params_of(state: NetState, queue: int) -> NetParams:
    """What a queue was opened with, as its segment has it; no descriptors.

    HostError if it could not have been.
    """
    p = state.handle.ring[queue].params
    conn = p.conn
    try:
        if p.accepts & ~sum(NetAccepts):
            raise ValueError(f"{p.accepts:#x} is nothing that a frontend can receive")
        return NetParams(
            grant_fd=-1,
            event_fd=-1,
            link_fd=-1,
            wake_fd=-1,
            hv=HvKind(conn.hv),
            domid=conn.domid,
            remote_port=conn.remote_port,
            tx_ref=conn.ring_ref[0],
            rx_ref=conn.ring_ref[1],
            accepts=NetAccepts(p.accepts),
            offload=NetOffload(p.offload),
            rx_polls=bool(p.rx_polls),
            source=bytes(ffi.buffer(p.address)) if p.filter else None,
            unit=conn.unit,
            queue=queue,
            transport=Transport(conn.transport),
        )
    except ValueError as error:
        raise HostError(
            f"{state.path}: queue {queue} is like none of ours: {error}", errno.EINVAL
        ) from None


def net_queue_bytes() -> int:
    """Most memory of a queue, bytes."""
    return int(lib.xbb_net_queue_bytes())


def net_queue_descriptors(params: NetParams) -> int:
    """Most descriptors of a queue, its link among them, as `ring_descriptors`."""
    c = c_params(params)
    return 1 + int(lib.xbb_conn_descriptors(ffi.addressof(c, "conn")))


def self_test() -> Iterator[tuple[str, bool]]:
    """The cases of what goes over the rings, tried one by one: its name, whether it holds."""
    name = ffi.new("const char **")
    number = 0
    while (result := int(lib.xbb_net_self_test(number, name))) != -errno.ENOENT:
        yield str(ffi.string(name[0]).decode("ascii")), result == 1
        number += 1


def c_params(params: NetParams) -> Any:
    """As C has them; HostError if its address is none."""
    address = params.source or bytes(NET_ADDRESS)
    if len(address) != NET_ADDRESS:
        raise HostError(f"an address of {len(address)} bytes", errno.EINVAL)
    return ffi.new(
        "struct xbb_net_params *",
        {
            "conn": {
                "grant_fd": params.grant_fd,
                "event_fd": params.event_fd,
                "wake_fd": params.wake_fd,
                "hv": params.hv,
                "domid": params.domid,
                "remote_port": params.remote_port,
                "unit": params.unit,
                "ring": params.queue,
                "ring_pages": 2,
                "ring_ref": [params.tx_ref, params.rx_ref],
                "workers": 1,
                "max_persistent": 0,
                "transport": params.transport,
                "adopt": params.adopt * (1 + params.answered),
            },
            "link_fd": params.link_fd,
            "accepts": params.accepts,
            "offload": params.offload,
            "rx_polls": params.rx_polls,
            "filter": params.source is not None,
            "address": list(address),
        },
    )
