"""What a guest may do to its network card's backend: nonsense on the tx ring, as fast as it can.

Each way is a round of slots, with what permits or does not permit their pages; it is
written and published again and again, as far as the backend answers.  The queue's own
thread has stopped.  Runs on a thread of its own, in the guest's process.
"""

import random
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from xbbd_bsd.native import PAGE_SIZE
from xbbd_bsd.native.front.netfront import Netfront

_SLOTS: Final = 256
_RING: Final = 64  # bytes before the first slot
_REQUEST: Final = struct.Struct("<IHHHH")  # reference, offset, flags, id, size
_EXTRA: Final = struct.Struct("<BBHBBHI")
_MORE, _EXTRA_INFO = 4, 8
_REQ_PROD, _RSP_PROD, _RSP_EVENT = 0, 2, 3  # words of the ring's head
_ETHERNET: Final = b"\xff" * 6 + b"\x00\x16\x3e\x00\x00\x01" + b"\x88\xb5"

Slots = Iterator[bytes]


def _short(front: Netfront) -> Slots:
    """Frames of 13 bytes, and of none."""
    for size in (13, 0, 1):
        yield _REQUEST.pack(front.page_ref(0), 0, 0, 0, size)


def _long(front: Netfront) -> Slots:
    """A frame of 70000 bytes, whose size has 16 bits; one of more slots than there may be."""
    for pieces in (18, 40):
        yield _REQUEST.pack(front.page_ref(0), 0, _MORE, 0, 70000 & 0xFFFF)
        for n in range(1, pieces):
            more = _MORE if n < pieces - 1 else 0
            yield _REQUEST.pack(front.page_ref(n), 0, more, n, PAGE_SIZE)


def _beyond(front: Netfront) -> Slots:
    """Pieces that leave their page, or are more than the whole."""
    yield _REQUEST.pack(front.page_ref(0), 4090, 0, 0, 60)
    yield _REQUEST.pack(front.page_ref(0), 0, _MORE, 0, 100)
    yield _REQUEST.pack(front.page_ref(1), 0, 0, 1, 101)


def _grants(front: Netfront) -> Slots:
    """References that nobody granted, first, in the middle and last, between good ones."""
    good, bad = front.page_ref(0), 0xFFFFFF
    for refs in ((bad,), (good,), (bad, good, good), (good, bad, good), (good, good, bad)):
        for n, ref in enumerate(refs):
            more = _MORE if n < len(refs) - 1 else 0
            size = 60 if n else 60 * len(refs)
            yield _REQUEST.pack(ref, 0, more, n, size)


def _extras(front: Netfront) -> Slots:
    """Extra slots of no kind, two of one kind, and segments of nothing."""
    split = _EXTRA.pack(1, 0, 1448, 1, 0, 0, 0)
    for extras in (
        (_EXTRA.pack(255, 0, 0, 0, 0, 0, 0),),
        (_EXTRA.pack(1, 1, 1448, 1, 0, 0, 0), split),
        (_EXTRA.pack(1, 0, 0, 1, 0, 0, 0),),
        (_EXTRA.pack(1, 0, 1448, 255, 0, 0, 0),),
    ):
        yield _REQUEST.pack(front.page_ref(0), 0, _EXTRA_INFO, 0, 60)
        yield from extras


def _noise(_front: Netfront) -> Slots:
    """Anything."""
    for _ in range(_SLOTS):
        yield random.randbytes(_REQUEST.size)


def _flood(front: Netfront) -> Slots:
    """Small frames that are in order, to everybody."""
    for n in range(_SLOTS):
        yield _REQUEST.pack(front.page_ref(0), 0, 0, n, 60)


def _storm(_front: Netfront) -> Slots:
    """Nothing but events."""
    yield from ()


WAYS: Final[Mapping[str, Callable[[Netfront], Slots]]] = {
    "short": _short,
    "long": _long,
    "beyond": _beyond,
    "grants": _grants,
    "extras": _extras,
    "noise": _noise,
    "flood": _flood,
    "storm": _storm,
}


def misbehave(front: Netfront, way: str, seconds: float) -> dict[str, int]:
    """Do it for so long: how many slots were published, and answered."""
    for page in range(_SLOTS // 2):
        front.page(page)[: len(_ETHERNET)] = _ETHERNET
        front.set_access(front.page_ref(page), 1)
    ring = front.tx_ring
    head = ring[:16].cast("I")
    # Whatever was under way is answered, or never will be.
    prod = begun = head[_REQ_PROD]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for slot in WAYS[way](front):
            while (prod - head[_RSP_PROD]) & 0xFFFFFFFF >= _SLOTS:
                head[_REQ_PROD] = prod
                head[_RSP_EVENT] = (head[_RSP_PROD] + 1) & 0xFFFFFFFF
                front.notify()
                if time.monotonic() > end:
                    return _done(begun, prod, head)
                front.wait(0.01)
            at = _RING + prod % _SLOTS * _REQUEST.size
            ring[at : at + _REQUEST.size] = slot
            prod = (prod + 1) & 0xFFFFFFFF
        head[_REQ_PROD] = prod
        front.notify()
    return _done(begun, prod, head)


def _done(begun: int, prod: int, head: memoryview) -> dict[str, int]:
    return {
        "published": (prod - begun) & 0xFFFFFFFF,
        "answered": (head[_RSP_PROD] - begun) & 0xFFFFFFFF,
    }
