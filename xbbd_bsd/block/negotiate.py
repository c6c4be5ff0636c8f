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

SECTOR: Final = 512  # the only unit of sectors in nodes and on rings

# Bits of the node "info" (xen/io/blkif.h, VDISK_*).
CDROM: Final = 1
REMOVABLE: Final = 2
READONLY: Final = 4

_UINT32_MAX: Final = 0xFFFFFFFF

Nodes = Callable[[str], bytes | None]
"""Reads one node of the frontend's directory; None when it is absent."""


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
    """That sectors can be discarded, in pieces of `granularity` bytes from `alignment` on."""

    granularity: int
    alignment: int = 0


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """A disk as the frontend sees it; `sectors` of 512 bytes, sizes in bytes.

    `durable`: there is nothing to flush, and the frontend is spared asking.
    """

    sectors: int
    sector_size: int = SECTOR
    physical_sector_size: int = SECTOR
    read_only: bool = False
    cdrom: bool = False
    removable: bool = False
    durable: bool = False
    discard: Discard | None = None

    def to_nodes(self) -> dict[str, bytes]:
        """The backend's nodes that describe the disk, to be written before Connected.

        What a frontend may find from an earlier connection is always written,
        so that it is never out of date.
        """
        info = CDROM * self.cdrom | REMOVABLE * self.removable | READONLY * self.read_only
        flush = b"%d" % (not self.durable)
        nodes = {
            **self.size_nodes(),
            "info": b"%d" % info,
            "sector-size": b"%d" % self.sector_size,
            "physical-sector-size": b"%d" % self.physical_sector_size,
            "feature-barrier": flush,
            "feature-flush-cache": flush,
            "feature-discard": b"%d" % (self.discard is not None),
        }
        if self.discard is not None:
            nodes |= {
                "discard-granularity": b"%d" % self.discard.granularity,
                "discard-alignment": b"%d" % self.discard.alignment,
                "discard-secure": b"0",
            }
        return nodes

    def size_nodes(self) -> dict[str, bytes]:
        """Those of the nodes that change when the disk grows or shrinks."""
        return {"sectors": b"%d" % self.sectors}


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

    def to_nodes(self) -> dict[str, bytes]:
        """The nodes that say so; what is not offered has no node, but for grants.

        Ring sizes are told in both spellings: frontends of XenServer's line and
        old FreeBSD know pages only.
        """
        nodes = {
            "feature-barrier": b"1",
            "feature-flush-cache": b"1",
            "feature-persistent": b"%d" % self.persistent,
            "max-ring-page-order": b"%d" % self.max_ring_page_order,
            "max-ring-pages": b"%d" % (1 << self.max_ring_page_order),
        }
        if self.max_queues > 1:
            nodes["multi-queue-max-queues"] = b"%d" % self.max_queues
        if self.max_indirect_segments:
            nodes["feature-max-indirect-segments"] = b"%d" % self.max_indirect_segments
        return nodes


@dataclass(frozen=True, slots=True)
class RingParams:
    """One ring: event channel, and one grant reference a page."""

    port: int
    refs: tuple[int, ...]

    @classmethod
    def from_nodes(cls, node: Nodes, pages: int | None, prefix: str = "") -> "RingParams":
        """Read a ring's nodes, whose names begin with `prefix`; GuestError.

        Frontends differ in the spelling of a single page.  If the number of
        pages was said, ring-ref0 counts, or ring-ref where that is absent and
        there is one page; if not, only ring-ref does, whatever an earlier driver
        left behind.
        """
        port = _required(node, f"{prefix}event-channel")
        if pages is None or (pages == 1 and node(f"{prefix}ring-ref0") is None):
            return cls(port, (_required(node, f"{prefix}ring-ref"),))
        refs = (_required(node, f"{prefix}ring-ref{page}") for page in range(pages))
        return cls(port, tuple(refs))


@dataclass(frozen=True, slots=True)
class FrontendParams:
    """What a frontend asks for: its rings, their layout, and whether grants stay mapped."""

    rings: tuple[RingParams, ...]
    protocol: Protocol
    persistent: bool = False

    @classmethod
    def from_nodes(cls, node: Nodes, offer: Offer) -> "FrontendParams":
        """Read a frontend's nodes, which may not go beyond the offer; GuestError."""
        pages = _ring_pages(node, offer.max_ring_page_order)
        count = 1
        if (value := node("multi-queue-num-queues")) is not None:
            count = _decimal("multi-queue-num-queues", value)
            if not 1 <= count <= offer.max_queues:
                raise GuestError(
                    f"frontend node multi-queue-num-queues is {count},"
                    f" not within 1 to {offer.max_queues}"
                )
        if count == 1:  # then its nodes are where they are without several queues
            rings: tuple[RingParams, ...] = (RingParams.from_nodes(node, pages),)
        else:
            rings = tuple(RingParams.from_nodes(node, pages, f"queue-{n}/") for n in range(count))
        if len({ring.port for ring in rings}) != count:
            raise GuestError("frontend nodes event-channel are not all different")
        return cls(
            rings,
            _protocol(node("protocol")),
            offer.persistent and node("feature-persistent") == b"1",
        )


def _ring_pages(node: Nodes, max_order: int) -> int | None:
    """How many pages a ring has; None if the frontend does not say, and so means one."""
    value = node("ring-page-order")
    if value is not None:
        order = _decimal("ring-page-order", value)
        if order > max_order:
            raise GuestError(f"frontend node ring-page-order is {order}, above {max_order}")
        return 1 << order
    value = node("num-ring-pages")
    if value is None:
        return None
    pages = _decimal("num-ring-pages", value)
    if not 1 <= pages <= 1 << max_order or pages & (pages - 1):
        raise GuestError(
            f"frontend node num-ring-pages is {pages}, no power of two up to {1 << max_order}"
        )
    return pages


def _protocol(name: bytes | None) -> Protocol:
    if name is None:
        return Protocol.NATIVE
    if name in _PROTOCOLS:
        return _PROTOCOLS[name]
    raise GuestError(f"frontend node protocol is '{printable(name)}', which is unknown")


def _required(node: Nodes, name: str) -> int:
    value = node(name)
    if value is None:
        raise GuestError(f"frontend node {name} is missing")
    return _decimal(name, value)


def _decimal(name: str, value: bytes) -> int:
    """An unsigned 32-bit number in plain decimal digits, and nothing else around them."""
    if not value.isdigit() or len(value) > 10 or int(value) > _UINT32_MAX:
        raise GuestError(f"frontend node {name} is '{printable(value)}', not a 32-bit number")
    return int(value)
