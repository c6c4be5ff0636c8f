"""The queues of one connection: what each is made of, how it is served, where its rings stand.

A queue is two rings with one event channel, and has a queue of the card's interface, whose
cable is in as long as one is open.  Control thread, but for what is made for a connection.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from errno import EINVAL
from typing import Final, Protocol

from xbbd_bsd.charter import charter_of, said
from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.host import RingDescriptors
from xbbd_bsd.limits import Need
from xbbd_bsd.native import (
    HvKind,
    NetAccepts,
    NetIndices,
    NetOffload,
    NetParams,
    NetQueue,
    NetState,
    QueueStatus,
    SegmentIdentity,
    StopReason,
    net_params_of,
    net_queue_bytes,
    net_queue_descriptors,
)
from xbbd_bsd.native.addition import CARDS
from xbbd_bsd.net.negotiate import Accepted, FrontendParams
from xbbd_bsd.ringset import OF_CONNECTION, OfferedRing, RingSet, reason_of
from xbbd_bsd.ringset import fault_of as fault_of_any
from xbbd_bsd.serving import Asked, Craft, ServedRings
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


OF_DEVICE: Final = Need(cards=1, descriptors=1)  # its segment, which is locked


def need_of(queues: Mapping[int, NetParams]) -> Need:
    """What a connection with these queues takes of what all devices share."""
    need = OF_CONNECTION
    for params in queues.values():
        need += _of_queue(params)
    return need


def most_of_queue(hv: int) -> Need:
    """What a queue may take, of whatever card."""
    return _of_queue(
        NetParams(
            grant_fd=-1,
            event_fd=-1,
            link_fd=-1,
            wake_fd=-1,
            hv=HvKind(hv),
            domid=0,
            remote_port=0,
            tx_ref=0,
            rx_ref=0,
        )
    )


def _of_queue(params: NetParams) -> Need:
    return Need(
        event_channels=1,
        threads=1,
        descriptors=net_queue_descriptors(params),
        buffers=net_queue_bytes(),
    )


def all_in(segment: NetState) -> Mapping[int, NetParams]:
    """What each queue of a connection was made of, whether it is served still; HostError."""
    return {n: net_params_of(segment, n) for n in range(segment.connection_rings)}


def left_in(
    segment: NetState, made: Mapping[int, NetParams], who: Identity
) -> Mapping[int, NetParams]:
    """Of these, what somebody served that is to be gone on with; HostError."""
    found = {n: replace(made[n], adopt=True) for n in segment.served if n in made}
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
    if status.reason is StopReason.MEDIUM:
        return HostError(f"the interface is gone: {reason_of(status)}", status.errno)
    return fault_of_any(status)


CRAFT: Final[Craft[NetParams, NetState]] = Craft(CARDS, NetState, NetQueue, fault_of)
"""How a card's queues are served."""


def to_be_served(
    who: Identity,
    guest: str,
    queues: Mapping[int, NetParams],
    open_link: Callable[[], int],
    segment: NetState,
) -> Asked[NetParams, NetState]:
    """All of a connection; `open_link` opens a queue of the interface."""

    def made(number: int, given: RingDescriptors, wake: int, held: ExitStack) -> NetParams:
        link = open_link()
        held.callback(os.close, link)
        return replace(
            queues[number],
            grant_fd=given.grants,
            event_fd=given.events,
            link_fd=link,
            wake_fd=wake,
        )

    return Asked(
        who,
        guest,
        {n: OfferedRing(p.remote_port, _named(n, p)) for n, p in queues.items()},
        made,
        segment,
        all(p.adopt for p in queues.values()),
    )


def charter(identity: SegmentIdentity, interface: str, queues: Mapping[int, NetParams]) -> bytes:
    """Our node, of what is never to change while the card is served (xbbd_bsd/charter.py)."""
    bare = sorted((n, said(replace(p, adopt=False))) for n, p in queues.items())
    return charter_of(identity.unit, repr((said(identity), interface, bare)))


def indices_of(rings: ServedRings | None) -> Mapping[int, NetIndices]:
    """Where the rings of each queue stand, of those that are served in this process."""
    if not isinstance(rings, RingSet):
        return {}
    found = ((number, queue.indices()) for number, queue in rings.queues.items())
    return {number: indices for number, indices in found if indices is not None}


def _named(number: int, params: NetParams) -> str:
    """A queue as a message has it."""
    refs = f"{params.tx_ref} {params.rx_ref}"
    return f"queue {number} (references {refs}, port {params.remote_port})"
