"""One ring being served: the handle of a queue in the data plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL
from typing import Any, ClassVar

from xbbd_bsd.errors import HostError
from xbbd_bsd.native._xbb import ffi, lib
from xbbd_bsd.native.binding import (
    MAX_RING_PAGES,
    Abi,
    DiskKind,
    HvKind,
    QueueState,
    StopReason,
    Transport,
    check,
)
from xbbd_bsd.native.nbd import NbdExport, c_export
from xbbd_bsd.native.segment import MappedSegment
from xbbd_bsd.native.state import State


@dataclass(frozen=True, slots=True)
class QueueParams:
    """Everything a queue is made of.

    Descriptors stay the caller's and must stay open until the queue is closed.
    ``sector_size`` is the alignment that the frontend must keep, ``block_size``
    what the disk itself wants, 0 for the same; both in bytes.  ``bounce``: the
    disk wants one aligned buffer, as it must if its blocks are larger.  The
    number of ``ring_refs`` is the number of ring pages, a power of two up to 32.
    ``max_indirect_segments`` is 0 or 11 to ``max_batch_segments``;
    ``max_persistent`` the grants that may stay mapped, 0 if the frontend did
    not ask for that.  ``wake_fd`` must be non-blocking; a byte arrives there
    when the queue has drained, or would want more threads than there are.  The
    size of the disk is the segment's.  ``adopt``: somebody served this ring and died;
    what it owes its guest is in the segment, or is nothing if it was all ``answered``.
    ``patience``: seconds that a server may take, of a disk that is reached over a connection;
    ``late_ms``: after the next connection, what was sent over an earlier one may still be done.
    """

    grant_fd: int
    event_fd: int
    disk_fd: int
    wake_fd: int
    hv: HvKind
    domid: int
    remote_port: int
    abi: Abi
    ring_refs: tuple[int, ...]
    disk_kind: DiskKind
    read_only: bool
    sector_size: int
    block_size: int = 0
    bounce: bool = False
    discard: bool = False
    discard_secure: bool = False
    workers: int = 8
    max_batch_segments: int = 64
    max_indirect_segments: int = 0
    max_grants: int = 2816
    max_persistent: int = 0
    unit: int = 0
    ring: int = 0
    transport: Transport = Transport.BEST
    adopt: bool = False
    answered: bool = False
    patience: int = 30
    late_ms: int = 1000


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """State of a queue and, if it stopped by itself, why."""

    state: QueueState
    reason: StopReason
    errno: int


@dataclass(frozen=True, slots=True)
class Calls:
    """What C has for a family's queues, as xbb_queue_open() and so on; `struct` is theirs."""

    struct: str
    open: Callable[..., int]
    start: Callable[..., int]
    drain: Callable[[Any], None]
    hand_over: Callable[[Any], None]
    status: Callable[..., None]
    close: Callable[[Any], None]


class QueueHandle:
    """What is served by one thread, and all of its own: a ring of a disk, or two of a card."""

    _CALLS: ClassVar[Calls]

    def __init__(self, params: Any, state: MappedSegment, what: str) -> None:
        """Map what is shared and bind the event channel; nothing is served before `start`.

        `params`: C's.  Raises :class:`HostError` naming the step that failed, of `what`;
        nothing is left behind then.  A ring reference that does not map is reported here
        too: the caller knows whose it was.
        """
        error = ffi.new("struct xbb_error *")
        pointer = ffi.new(f"struct {self._CALLS.struct} **")
        check(self._CALLS.open(params, state.handle, error, pointer), what, error)
        self._queue = pointer[0]
        self._state = state  # mapped for as long as its threads run

    def start(self) -> None:
        """Begin to serve; HostError if there can be no thread, and the queue is to be closed."""
        error = ffi.new("struct xbb_error *")
        check(self._CALLS.start(self._queue, error), "start a queue", error)

    def drain(self) -> None:
        """Take nothing new; ``wake_fd`` tells when all that was accepted is answered."""
        if self._queue is not None:
            self._CALLS.drain(self._queue)

    def hand_over(self) -> None:
        """As `drain`, for one who adopts it, and finds nothing unanswered.

        A host's shortage is waited for, for as long as it takes: nobody is refused anything.
        """
        if self._queue is not None:
            self._CALLS.hand_over(self._queue)

    def connect(self, fd: int, export: NbdExport) -> None:
        """Give it a connected socket, which is its own from then on; HostError, and it is not."""
        raise HostError("it is reached over no connection", EINVAL)

    def look(self) -> None:
        """Have it look at what its segment says, if there is anything in it for such a queue."""

    def status(self) -> QueueStatus:
        """Where the queue is in its life; a closed one has drained."""
        if self._queue is None:
            return QueueStatus(QueueState.DRAINED, StopReason.NONE, 0)
        c = ffi.new("struct xbb_queue_status *")
        self._CALLS.status(self._queue, c)
        return QueueStatus(QueueState(c.state), StopReason(c.reason), c.errnum)

    def close(self) -> None:
        """Unmap, unbind, end all threads.  Waits for what is in flight unless DRAINED."""
        if self._queue is not None:
            queue, self._queue = self._queue, None
            self._CALLS.close(queue)


class Queue(QueueHandle):
    """A ring of a disk, its thread and its workers."""

    _CALLS = Calls(
        "xbb_queue",
        lib.xbb_queue_open,
        lib.xbb_queue_start,
        lib.xbb_queue_drain,
        lib.xbb_queue_hand_over,
        lib.xbb_queue_status,
        lib.xbb_queue_close,
    )

    def __init__(self, params: QueueParams, state: State) -> None:
        super().__init__(c_params(params), state, f"connect a ring of domain {params.domid}")

    def look(self) -> None:
        """Have it look at what its segment says, as that the disk is paused."""
        if self._queue is not None:
            lib.xbb_queue_look(self._queue)

    def connect(self, fd: int, export: NbdExport) -> None:
        """Give it a connected socket, which is its own from then on; HostError, and it is not."""
        if self._queue is None:
            raise HostError("the ring has ended", EINVAL)
        check(lib.xbb_queue_connect(self._queue, fd, c_export(export)), "connect its store")


def params_of(state: State, ring: int) -> QueueParams:
    """What a ring was opened with, as its segment has it; no descriptors.

    HostError if it could not have been.
    """
    p = state.handle.ring[ring].params
    conn = p.conn
    try:
        return QueueParams(
            grant_fd=-1,
            event_fd=-1,
            disk_fd=-1,
            wake_fd=-1,
            hv=HvKind(conn.hv),
            domid=conn.domid,
            remote_port=conn.remote_port,
            abi=Abi(p.abi),
            ring_refs=tuple(conn.ring_ref[0 : min(conn.ring_pages, MAX_RING_PAGES)]),
            disk_kind=DiskKind(p.disk_kind),
            read_only=bool(p.read_only),
            sector_size=p.sector_size,
            block_size=p.block_size,
            bounce=bool(p.bounce),
            discard=p.discard > 0,
            discard_secure=p.discard > 1,
            workers=conn.workers,
            max_batch_segments=p.max_batch_segments,
            max_indirect_segments=p.max_indirect_segments,
            max_grants=p.max_grants,
            max_persistent=conn.max_persistent,
            unit=conn.unit,
            ring=ring,
            transport=Transport(conn.transport),
            patience=p.patience_ms // 1000,
            late_ms=p.late_ms,
        )
    except ValueError as error:
        raise HostError(
            f"{state.path}: ring {ring} is like none of ours: {error}", EINVAL
        ) from None


def queue_bytes(params: QueueParams) -> int:
    """Most memory of a queue with one I/O thread, bytes; its descriptors do not matter."""
    return int(lib.xbb_queue_bytes(c_params(params)))


def ring_descriptors(params: QueueParams) -> int:
    """Most descriptors of a queue, without those that all rings of a device have together.

    Which ones it is given does not matter.
    """
    c = c_params(params)  # which a part of it does not keep
    return int(lib.xbb_conn_descriptors(ffi.addressof(c, "conn")))


def open_wake() -> int:
    """For `wake_fd`: a descriptor of the caller's, who is woken as long as it is not read.

    HostError if there is none.
    """
    fd = int(lib.xbb_wake_open())
    check(min(fd, 0), "open eventfd")
    return fd


def c_params(params: QueueParams) -> Any:
    """As C has them."""
    return ffi.new(
        "struct xbb_queue_params *",
        {
            "conn": {
                "grant_fd": params.grant_fd,
                "event_fd": params.event_fd,
                "wake_fd": params.wake_fd,
                "hv": params.hv,
                "domid": params.domid,
                "remote_port": params.remote_port,
                "unit": params.unit,
                "ring": params.ring,
                "ring_pages": len(params.ring_refs),
                "ring_ref": list(params.ring_refs),
                "workers": params.workers,
                "max_persistent": params.max_persistent,
                "transport": params.transport,
                "adopt": params.adopt * (1 + params.answered),
            },
            "disk_fd": params.disk_fd,
            "disk_kind": params.disk_kind,
            "abi": params.abi,
            "read_only": params.read_only,
            "sector_size": params.sector_size,
            "block_size": params.block_size or params.sector_size,
            "bounce": params.bounce,
            "discard": params.discard * (1 + params.discard_secure),
            "max_batch_segments": params.max_batch_segments,
            "max_indirect_segments": params.max_indirect_segments,
            "max_grants": params.max_grants,
            "patience_ms": params.patience * 1000,
            "late_ms": params.late_ms,
        },
    )
