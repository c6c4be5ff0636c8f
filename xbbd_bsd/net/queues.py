"""The queues of one connection: what each is made of, and all of them as one.

A queue is two rings with one event channel, and has a queue of the card's interface, whose
cable is in as long as one is open.  Control thread, but for the beginning and for what
nobody wants.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from errno import EINVAL
from typing import Protocol

from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.host import Host, RingDescriptors
from xbbd_bsd.native import (
    HvKind,
    NetAccepts,
    NetIndices,
    NetOffload,
    NetParams,
    NetQueue,
    NetState,
    QueueStatus,
    StopReason,
    net_params_of,
)
from xbbd_bsd.net.negotiate import Accepted, FrontendParams
from xbbd_bsd.ringset import OfferedRing, RingSet, reason_of
from xbbd_bsd.ringset import fault_of as fault_of_any
from xbbd_bsd.xenbus.family import Identity


class Taps(Protocol):
    """Interfaces of this computer, by name (native/tap.py); HostError."""

    def open(self, name: str, *, multi: bool) -> int:
        """A descriptor of one of its queues; it is made if it is not there."""

    def is_there(self, name: str) -> bool:
        """Whether there is one of that name, of whatever kind."""

    def remove(self, name: str) -> None:
        """Remove it; harmless if it is not there."""

    def bring_up(self, name: str) -> None:
        """As an administrator would."""

    def is_up(self, name: str) -> bool:
        """Whether it is, and is there."""

    def set_mtu(self, name: str, mtu: int) -> None:
        """In bytes."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a connection's queues have in common, besides what its guest can receive.

    `source`: the only address that its frames may come from, None for any.
    """

    offload: NetOffload
    source: bytes | None = None


def asked_of(
    wanted: FrontendParams, terms: Terms, who: Identity, hv: int
) -> Mapping[int, NetParams]:
    """What each queue that a frontend asks for is made of, without descriptors."""
    return {
        number: NetParams(
            grant_fd=-1,
            event_fd=-1,
            link_fd=-1,
            wake_fd=-1,
            hv=HvKind(hv),
            domid=who.domid,
            remote_port=rings.port,
            tx_ref=rings.tx_ref,
            rx_ref=rings.rx_ref,
            accepts=_bits(wanted.accepted),
            offload=terms.offload,
            rx_polls=wanted.polls,
            source=terms.source,
            unit=who.unit,
            queue=number,
        )
        for number, rings in enumerate(wanted.queues)
    }


def left_in(segment: NetState, who: Identity) -> Mapping[int, NetParams]:
    """What each queue was made of that somebody served, to be gone on with; HostError."""
    found = {n: replace(net_params_of(segment, n), adopt=True) for n in segment.served}
    if not found:
        raise HostError("it was not served then", EINVAL)
    if any((p.domid, p.unit) != (who.domid, who.unit) for p in found.values()):
        raise HostError("its state segment is about another card", EINVAL)
    return found


def _bits(accepted: Accepted) -> NetAccepts:
    found = NetAccepts(0)
    for bit in NetAccepts:
        if getattr(accepted, (bit.name or "").lower()):
            found |= bit
    return found


def in_words(accepts: NetAccepts) -> str:
    """What a guest can receive besides plain frames, in the words of its nodes."""
    return " ".join((bit.name or "").lower().replace("_", "-") for bit in accepts)


def describe(asked: Mapping[int, NetParams]) -> str:
    """A connection in words, for the log."""
    first = next(iter(asked.values()))
    queues = "1 queue" if len(asked) == 1 else f"{len(asked)} queues"
    return f"{queues}, {in_words(first.accepts) or 'plain frames'}"


def fault_of(status: QueueStatus) -> XbbdError | None:
    """Why queues stopped by themselves, None if they did not."""
    if status.reason is StopReason.DISK:
        return HostError(f"the interface is gone: {reason_of(status)}", status.errno)
    return fault_of_any(status)


class Queues(RingSet[NetQueue]):
    """All queues of a connected frontend, from the start to `close`."""

    def __init__(
        self,
        asked: Mapping[int, NetParams],
        open_link: Callable[[], int],
        *,
        host: Host,
        domid: int,
        segment: NetState,
    ) -> None:
        """Have them all, and then start them; `open_link` opens a queue of the interface.

        OSError, HostError or GuestError, and nothing is left behind then.  Any thread.
        """
        with ExitStack() as held:

            def open_queue(number: int, given: RingDescriptors, wake: int) -> NetQueue:
                link = open_link()
                held.callback(os.close, link)
                params = replace(
                    asked[number],
                    grant_fd=given.grants,
                    event_fd=given.events,
                    link_fd=link,
                    wake_fd=wake,
                )
                return NetQueue(params, segment)

            super().__init__(
                {
                    number: OfferedRing(p.remote_port, _named(number, p))
                    for number, p in asked.items()
                },
                open_queue,
                host=host,
                domid=domid,
                fault_of=fault_of,
            )
            self._links = held.pop_all()

    def indices(self) -> Mapping[int, NetIndices]:
        """Where the rings of each stand."""
        found = ((number, queue.indices()) for number, queue in self.queues.items())
        return {number: indices for number, indices in found if indices is not None}

    def close(self) -> None:
        super().close()
        self._links.close()


def _named(number: int, params: NetParams) -> str:
    """A queue as a message has it."""
    refs = f"{params.tx_ref} {params.rx_ref}"
    return f"queue {number} (references {refs}, port {params.remote_port})"
