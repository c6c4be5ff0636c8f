"""The blkif negotiation: records to and from XenStore nodes.

Pure: nodes come in through a function and go out as a dict; no store, no disk
and no ring is known here.  What the guest writes is bytes of any kind: it
becomes a value or one GuestError that names the node.  Rules are those of
blkif.h ("Backend/Frontend device properties").  Any thread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from xbbd_bsd.errors import GuestError, printable
from xbbd_bsd.xenbus.decimals import Nodes, decimal, required

SECTOR: Final = 512  # the only unit of sectors in nodes and on rings

# Bits of the node "info" (xen/io/blkif.h, VDISK_*).
CDROM: Final = 1
REMOVABLE: Final = 2
READONLY: Final = 4


class Protocol(Enum):
    """Layouts of ring slots (xen/io/protocols.h)."""

    NATIVE = "native"
    X86_32 = "x86_32"
    X86_64 = "x86_64"


# A frontend with our own layout may also use that layout's name, or none.
_PROTOCOLS: Final = {
    b"arm-abi": Protocol.NATIVE,
    b"x86_32-abi": Protocol.X86_32,
    b"x86_64-abi": Protocol.X86_64,
}


@dataclass(frozen=True, slots=True)
class Discard:
    """That sectors can be discarded, in pieces of `granularity` bytes from `alignment` on.

    `secure`: beyond recovery too, where the guest wants that.
    """

    granularity: int
    alignment: int = 0
    secure: bool = False


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """A disk as the frontend sees it; `sectors` of 512 bytes, sizes in bytes.

    `durable`: there is nothing to flush, or no way to, and the frontend is spared asking.
    """

    sectors: int
    sector_size: int = SECTOR
    physical_sector_size: int = SECTOR
    read_only: bool = False
    cdrom: bool = False
    removable: bool = False
    durable: bool = False
    discard: Discard | None = None

    def to_nodes(self) -> dict[str, bytes | None]:
        """The backend's nodes that describe the disk, to be written before Connected.

        None for those that must not be there, from an earlier connection.
        """
        info = CDROM * self.cdrom | REMOVABLE * self.removable | READONLY * self.read_only
        flush = b"%d" % (not self.durable)
        discard = self.discard
        return {
            **self.size_nodes(),
            "info": b"%d" % info,
            "sector-size": b"%d" % self.sector_size,
            "physical-sector-size": b"%d" % self.physical_sector_size,
            "feature-barrier": flush,
            "feature-flush-cache": flush,
            "feature-discard": b"%d" % (discard is not None),
            "discard-granularity": b"%d" % discard.granularity if discard else None,
            "discard-alignment": b"%d" % discard.alignment if discard else None,
            "discard-secure": b"%d" % discard.secure if discard else None,
        }

    def size_nodes(self) -> dict[str, bytes]:
        """Those of the nodes that change when the disk grows or shrinks."""
        return {"sectors": b"%d" % self.sectors}

    def size_news(self, told: Callable[[str], bytes | None]) -> dict[str, bytes]:
        """Those that a frontend was told otherwise, by the nodes that it was told."""
        return {name: node for name, node in self.size_nodes().items() if told(name) != node}


@dataclass(frozen=True, slots=True)
class Offer:
    """What we can do, published before the disk is known.

    Rings of at most 2 ** `max_ring_page_order` pages, at most `max_queues` of
    them; requests of up to `max_indirect_segments` segments (0: none of them
    indirect); grants that stay mapped, if the frontend likes that.
    """

    max_ring_page_order: int = 0
    max_queues: int = 1
    max_indirect_segments: int = 0
    persistent: bool = False

    def to_nodes(self) -> dict[str, bytes | None]:
        """The nodes that say so; None for those that must not be there, from an earlier offer.

        Frontends may take a number of 0 for an offer.  Ring sizes are told in both
        spellings: those of XenServer's line and old FreeBSD know pages only.
        """

        def unless(number: int, none: int) -> bytes | None:
            return None if number == none else b"%d" % number

        return {
            "feature-barrier": b"1",
            "feature-flush-cache": b"1",
            "feature-persistent": b"%d" % self.persistent,
            "max-ring-page-order": b"%d" % self.max_ring_page_order,
            "max-ring-pages": b"%d" % (1 << self.max_ring_page_order),
            "multi-queue-max-queues": unless(self.max_queues, 1),
            "feature-max-indirect-segments": unless(self.max_indirect_segments, 0),
        }


@dataclass(frozen=True, slots=True)
class RingParams:
    """One ring: event channel, and one grant reference a page."""

    port: int
    refs: tuple[int, ...]

    @classmethod
    def from_nodes(cls, node: Nodes, pages: "Pages", prefix: str = "") -> "RingParams":
        """Read a ring's nodes, whose names begin with `prefix`; GuestError."""
        port = required(node, f"{prefix}event-channel")
        names = [f"{prefix}ring-ref{page}" for page in range(pages.count)]
        # A single page may be spelled either way, if its number was said at all.
        if not pages.numbered or (pages.count == 1 and node(names[0]) is None):
            names[0] = f"{prefix}ring-ref"
        return cls(port, tuple(required(node, name) for name in names))


@dataclass(frozen=True, slots=True)
class Pages:
    """How many pages each ring has, and whether the first has a number like the others."""

    count: int = 1
    numbered: bool = False

    @classmethod
    def from_nodes(cls, node: Nodes, max_order: int) -> "Pages":
        """Read the frontend's nodes; GuestError for more than 2 ** `max_order` pages.

        Where one page is all that was offered, a frontend says nothing about
        pages, and what is found is an earlier connection's.
        """
        if (value := node("ring-page-order")) is not None:
            order = decimal("ring-page-order", value)
            if order <= max_order:
                return cls(1 << order, numbered=True)
            if max_order != 0:
                raise GuestError(f"frontend node ring-page-order is {order}, above {max_order}")
        # XenServer's line; the oldest FreeBSD, whose first page has no number.
        for name, numbered in (("num-ring-pages", True), ("ring-pages", False)):
            if (value := node(name)) is None:
                continue
            count = decimal(name, value)
            if 1 <= count <= 1 << max_order and count & (count - 1) == 0:
                return cls(count, numbered)
            if max_order != 0:
                raise GuestError(
                    f"frontend node {name} is {count}, no power of two up to {1 << max_order}"
                )
        return cls()


@dataclass(frozen=True, slots=True)
class FrontendParams:
    """What a frontend asks for: its rings, their layout, and whether grants stay mapped."""

    rings: tuple[RingParams, ...]
    protocol: Protocol
    persistent: bool = False

    @classmethod
    def from_nodes(cls, node: Nodes, offer: Offer) -> "FrontendParams":
        """Read a frontend's nodes, which may not go beyond the offer; GuestError."""
        pages = Pages.from_nodes(node, offer.max_ring_page_order)
        count = _queues(node, offer.max_queues)
        # The nodes of an only ring are where they are without several queues.
        prefixes = [f"queue-{queue}/" for queue in range(count)] if count > 1 else [""]
        rings = tuple(RingParams.from_nodes(node, pages, prefix) for prefix in prefixes)
        if len({ring.port for ring in rings}) != count:
            raise GuestError("frontend nodes event-channel are not all different")
        return cls(
            rings,
            _protocol(node("protocol")),
            offer.persistent and node("feature-persistent") == b"1",
        )


def _queues(node: Nodes, most: int) -> int:
    """How many rings there are; GuestError.  As with pages, one is not talked about."""
    value = node("multi-queue-num-queues")
    if value is None:
        return 1
    count = decimal("multi-queue-num-queues", value)
    if count > most == 1:
        return 1
    if not 1 <= count <= most:
        raise GuestError(f"frontend node multi-queue-num-queues is {count}, not within 1 to {most}")
    return count


def _protocol(name: bytes | None) -> Protocol:
    if name is None:
        return Protocol.NATIVE
    if name in _PROTOCOLS:
        return _PROTOCOLS[name]
    raise GuestError(f"frontend node protocol is '{printable(name)}', which is unknown")
