"""What a card and its guest tell each other by XenStore: records to and from nodes.

Pure: nodes come in through a function and go out as a dict; no store, no interface and no
ring is known here.  What a guest writes is bytes of any kind: it becomes a value or one
GuestError that names the node; what the toolstack writes, likewise, an OperatorError.
Rules are those of netif.h.  Any thread.
"""

import re
from dataclasses import dataclass
from errno import EINVAL, EOPNOTSUPP
from typing import Final

from xbbd_bsd.errors import GuestError, OperatorError, printable
from xbbd_bsd.xenbus.decimals import Nodes, decimal, is_number, required

_MAC: Final = re.compile(rb"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_MOST_NAME: Final = 15  # bytes of the name of an interface (IFNAMSIZ)
_NAME: Final = re.compile(rb"[A-Za-z0-9_.:-]{1,%d}" % _MOST_NAME)  # and as a path's part
_DOTS: Final = (b".", b"..")
_LEAST_MTU: Final = 68  # RFC 791
_MOST_MTU: Final = 65_521  # with an Ethernet header the largest frame (XBB_NET_MAX_FRAME)


@dataclass(frozen=True, slots=True)
class Card:
    """What the toolstack says of a card.

    `handle`: the guest's number of it.  `mac`: six bytes, None if nobody says.  `bridge`: for
    people, "" if there is none.  `vifname`: what its interface shall be called, "" for the
    usual name.  `mtu`: bytes of a packet, 0 if nobody says.  `script`: a hotplug script is
    to see to the interface.
    """

    handle: int
    mac: bytes | None = None
    bridge: str = ""
    vifname: str = ""
    mtu: int = 0
    script: bool = False

    @classmethod
    def from_nodes(cls, backend: Nodes, number: int) -> "Card":
        """Read the backend's nodes; `number`: of the device, where none says handle."""
        return cls(
            _toolstacks("handle", backend("handle"), number),
            _mac(backend("mac")),
            printable(backend("bridge") or b""),
            _vifname(backend("vifname")),
            _mtu(backend("mtu")),
            backend("script") is not None,
        )

    def interface(self, prefix: str, domid: int) -> str:
        """What its interface is called, where names begin so; OperatorError if it is too long."""
        name = self.vifname or f"{prefix}{domid}.{self.handle}"
        if len(name) > _MOST_NAME:
            raise OperatorError(
                f"node handle is {self.handle}, too large for the name {name} of an interface",
                EINVAL,
            )
        return name


def mac_text(mac: bytes | None) -> str:
    """An address as people write it; "" if there is none."""
    return "" if mac is None else mac.hex(":")


@dataclass(frozen=True, slots=True)
class Offer:
    """What we can do: what frontends make use of, and at most `max_queues` queues."""

    max_queues: int = 1

    def to_nodes(self) -> dict[str, bytes | None]:
        """The nodes that say so; None for one that must not be there, from an earlier offer."""
        most = self.max_queues
        return {
            "feature-sg": b"1",
            "feature-gso-tcpv4": b"1",
            "feature-gso-tcpv6": b"1",
            "feature-ipv6-csum-offload": b"1",
            "feature-rx-copy": b"1",
            "feature-rx-flip": b"0",
            "multi-queue-max-queues": b"%d" % most if most > 1 else None,
        }


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a frontend can receive: packets of several slots, TCP to be split, sums left to it."""

    sg: bool = False
    gso_tcpv4: bool = False
    gso_tcpv6: bool = False
    csum_ipv4: bool = False
    csum_ipv6: bool = False

    @classmethod
    def from_nodes(cls, node: Nodes) -> "Accepted":
        """Read the frontend's nodes; GuestError.

        Whoever takes TCP to be split takes several slots, and sums that are left to him.
        """
        sg = _switch(node, "feature-sg")
        csum_ipv4 = not _switch(node, "feature-no-csum-offload")
        csum_ipv6 = _switch(node, "feature-ipv6-csum-offload")
        gso_tcpv4 = _switch(node, "feature-gso-tcpv4") and sg and csum_ipv4
        gso_tcpv6 = _switch(node, "feature-gso-tcpv6") and sg and csum_ipv6
        return cls(sg, gso_tcpv4, gso_tcpv6, csum_ipv4, csum_ipv6)


@dataclass(frozen=True, slots=True)
class QueueRings:
    """One queue: an event channel, and the reference of each ring's page; the guest's words."""

    port: int
    tx_ref: int
    rx_ref: int

    @classmethod
    def from_nodes(cls, node: Nodes, prefix: str = "") -> "QueueRings":
        """Read a queue's nodes, whose names begin with `prefix`; GuestError."""
        names = ("event-channel", "tx-ring-ref", "rx-ring-ref")
        return cls(*(required(node, prefix + name) for name in names))


@dataclass(frozen=True, slots=True)
class FrontendParams:
    """What a frontend asks for.

    `polls`: it does not tell of buffers that it posts, so that somebody has to look.
    """

    queues: tuple[QueueRings, ...]
    accepted: Accepted
    polls: bool

    @classmethod
    def from_nodes(cls, node: Nodes, offer: Offer) -> "FrontendParams":
        """Read a frontend's nodes, which may not go beyond the offer; GuestError."""
        if not _switch(node, "request-rx-copy"):
            raise GuestError(
                "frontend node request-rx-copy is absent or 0: pages are not exchanged", EOPNOTSUPP
            )
        count = _queues(node, offer.max_queues)
        # The nodes of an only queue are where they are without several.
        prefixes = [f"queue-{queue}/" for queue in range(count)] if count > 1 else [""]
        queues = tuple(QueueRings.from_nodes(node, prefix) for prefix in prefixes)
        if len({queue.port for queue in queues}) != count:
            raise GuestError("frontend nodes event-channel are not all different")
        return cls(queues, Accepted.from_nodes(node), not _switch(node, "feature-rx-notify"))


def _queues(node: Nodes, most: int) -> int:
    """How many queues there are; GuestError.

    Where one is all that was offered, what is found is an earlier connection's.
    """
    value = node("multi-queue-num-queues")
    if value is None or most == 1:
        return 1
    count = decimal("multi-queue-num-queues", value)
    if not 1 <= count <= most:
        raise GuestError(f"frontend node multi-queue-num-queues is {count}, not within 1 to {most}")
    return count


def _switch(node: Nodes, name: str) -> bool:
    """A feature: absent is 0."""
    value = node(name)
    return value is not None and decimal(name, value) != 0


# Of the toolstack's nodes.


def _toolstacks(name: str, value: bytes | None, otherwise: int) -> int:
    if value is None:
        return otherwise
    if not is_number(value):
        raise OperatorError(f"node {name} is '{printable(value)}', not a 32-bit number", EINVAL)
    return int(value)


def _mac(value: bytes | None) -> bytes | None:
    if value is None:
        return None
    if _MAC.fullmatch(value) is None:
        raise OperatorError(f"node mac is '{printable(value)}', not like 00:16:3e:01:02:03", EINVAL)
    return bytes.fromhex(value.decode("ascii").replace(":", ""))


def _vifname(value: bytes | None) -> str:
    if not value:
        return ""
    if _NAME.fullmatch(value) is None or value in _DOTS:
        raise OperatorError(
            f"node vifname is '{printable(value)}', no name of an interface", EINVAL
        )
    return value.decode("ascii")


def _mtu(value: bytes | None) -> int:
    mtu = _toolstacks("mtu", value or None, 0)
    if mtu != 0 and not _LEAST_MTU <= mtu <= _MOST_MTU:
        raise OperatorError(f"node mtu is {mtu}, not within {_LEAST_MTU} to {_MOST_MTU}", EINVAL)
    return mtu
