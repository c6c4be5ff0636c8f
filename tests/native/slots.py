"""Ring slots by hand, for frontends that misbehave.

The layouts are written down here once more on purpose, from ``blkif.h``, so
that a mistake in the product's own table does not hide itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tests.waiting import GIVE_UP
from xbbd_bsd.native import Abi, Front

HEADER = 64
REQ_PROD, REQ_EVENT, RSP_PROD, RSP_EVENT = 0, 4, 8, 12


@dataclass(frozen=True)
class Layout:
    """Bytes of a slot, and struct formats of a request head and a response."""

    slot: int
    head: str
    response: str
    segments: int


LAYOUTS = {
    Abi.NATIVE: Layout(112, "<BBH4xQQ", "<QBxh4x", 24),
    Abi.X86_64: Layout(112, "<BBH4xQQ", "<QBxh4x", 24),
    Abi.X86_32: Layout(108, "<BBHQQ", "<QBxh", 20),
}


def request(
    abi: Abi,
    *,
    op: int,
    id: int,
    sector: int = 0,
    segments: Sequence[tuple[int, int, int]] = (),
    nr_segments: int | None = None,
) -> bytes:
    """The bytes of a request; ``nr_segments`` may lie about ``segments``."""
    layout = LAYOUTS[abi]
    count = len(segments) if nr_segments is None else nr_segments
    head = struct.pack(layout.head, op, count, 0, id, sector)
    body = b"".join(struct.pack("<IBBH", *segment, 0) for segment in segments)
    return (head + body).ljust(layout.slot, b"\0")


def discard(abi: Abi, *, id: int, sector: int, nsectors: int, flag: int = 0) -> bytes:
    """The bytes of a BLKIF_OP_DISCARD."""
    layout = LAYOUTS[abi]
    head = struct.pack(layout.head, 5, flag, 0, id, sector)
    return (head + struct.pack("<Q", nsectors)).ljust(layout.slot, b"\0")


def indirect(
    abi: Abi, *, op: int, id: int, sector: int = 0, nr_segments: int, grefs: Sequence[int]
) -> bytes:
    """The bytes of a BLKIF_OP_INDIRECT whose operation is ``op``."""
    layout = LAYOUTS[abi]
    head = struct.pack(layout.head, 6, op, nr_segments, id, sector)
    return (head + struct.pack("<HH8I", 51712, 0, *grefs, *[0] * (8 - len(grefs)))).ljust(
        layout.slot, b"\0"
    )


class RawRing:
    """The shared ring of a frontend, written and read as plain bytes.

    Its responses are those that come from now on.
    """

    def __init__(self, front: Front, abi: Abi) -> None:
        self.front = front
        self.layout = LAYOUTS[abi]
        self.bytes = front.ring
        self.words = self.bytes.cast("I")  # stores whole words, as a guest does
        entries = (len(self.bytes) - HEADER) // self.layout.slot
        self.slots = 1 << (entries.bit_length() - 1)
        self.rsp_cons = self.index(RSP_PROD)

    def index(self, offset: int) -> int:
        """One of the four indices of the header."""
        return self.words[offset // 4]

    def set_index(self, offset: int, value: int) -> None:
        """Write an index, true or not."""
        self.words[offset // 4] = value & 0xFFFFFFFF

    def put(self, *slots: bytes, asked: int | None = None) -> None:
        """Append requests, publish them and notify.

        An event is asked for with the next response, or the one numbered ``asked``.
        """
        prod = self.index(REQ_PROD)
        for slot in slots:
            at = HEADER + (prod % self.slots) * self.layout.slot
            self.bytes[at : at + len(slot)] = slot
            prod += 1
        self.set_index(RSP_EVENT, self.rsp_cons + 1 if asked is None else asked)
        self.set_index(REQ_PROD, prod)
        self.front.notify()

    def responses(self, count: int, limit: float = GIVE_UP) -> list[tuple[int, int, int]]:
        """Wait for ``count`` responses: (id, operation, status) each."""
        found: list[tuple[int, int, int]] = []
        while len(found) < count:
            while self.rsp_cons != self.index(RSP_PROD) and len(found) < count:
                at = HEADER + (self.rsp_cons % self.slots) * self.layout.slot
                id, op, status = struct.unpack_from(self.layout.response, self.bytes, at)
                found.append((id, op, status))
                self.rsp_cons += 1
            if len(found) < count:
                self.set_index(RSP_EVENT, self.rsp_cons + 1)
                if self.rsp_cons == self.index(RSP_PROD):
                    assert self.front.wait(limit), f"{count - len(found)} responses missing"
        return found
