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

    def to_nodes(self) -> dict[str, bytes]:
        """The backend's nodes that describe the disk, to be written before Connected."""
        info = CDROM * self.cdrom | REMOVABLE * self.removable | READONLY * self.read_only
        nodes = {
            "sectors": b"%d" % self.sectors,
            "info": b"%d" % info,
            "sector-size": b"%d" % self.sector_size,
        }
        if self.physical_sector_size != self.sector_size:
            nodes["physical-sector-size"] = b"%d" % self.physical_sector_size
        if self.durable:
            nodes |= {"feature-barrier": b"0", "feature-flush-cache": b"0"}
        return nodes


@dataclass(frozen=True, slots=True)
class RingParams:
    """A ring as the frontend offers it: event channel, one grant reference a page, layout."""

    port: int
    refs: tuple[int, ...]
    protocol: Protocol

    @classmethod
    def from_nodes(cls, node: Callable[[str], bytes | None], max_order: int) -> "RingParams":
        """Read a frontend's nodes; at most 2 ** `max_order` pages; GuestError.

        Frontends differ in the spelling of a single page.  If ring-page-order is
        there, ring-ref0 counts, or ring-ref where that is absent and the order is
        0; without it only ring-ref does, whatever an earlier driver left behind.
        """
        port = _required(node, "event-channel")
        order_node = node("ring-page-order")
        if order_node is None:
            refs: tuple[int, ...] = (_required(node, "ring-ref"),)
        else:
            order = _decimal("ring-page-order", order_node)
            if order > max_order:
                raise GuestError(f"frontend node ring-page-order is {order}, above {max_order}")
            if order == 0 and node("ring-ref0") is None:
                refs = (_required(node, "ring-ref"),)
            else:
                refs = tuple(_required(node, f"ring-ref{page}") for page in range(1 << order))
        return cls(port, refs, _protocol(node("protocol")))


def capabilities(max_order: int) -> dict[str, bytes]:
    """The backend's nodes that say what it can do, for a ring of at most 2 ** `max_order` pages."""
    return {
        "feature-barrier": b"1",
        "feature-flush-cache": b"1",
        "max-ring-page-order": b"%d" % max_order,
    }


def _protocol(name: bytes | None) -> Protocol:
    if name is None:
        return Protocol.NATIVE
    if name in _PROTOCOLS:
        return _PROTOCOLS[name]
    raise GuestError(f"frontend node protocol is '{printable(name)}', which is unknown")


def _required(node: Callable[[str], bytes | None], name: str) -> int:
    value = node(name)
    if value is None:
        raise GuestError(f"frontend node {name} is missing")
    return _decimal(name, value)


def _decimal(name: str, value: bytes) -> int:
    """An unsigned 32-bit number in plain decimal digits, and nothing else around them."""
    if not value.isdigit() or len(value) > 10 or int(value) > _UINT32_MAX:
        raise GuestError(f"frontend node {name} is '{printable(value)}', not a 32-bit number")
    return int(value)
