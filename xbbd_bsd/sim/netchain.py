"""A machine whose guests have network cards: bridges, interfaces, programs in name spaces.

The daemon runs in a network name space that stands for dom0, each guest in one of its
own; the host's network is not touched.  As with any chain everything is stopped and gone
afterwards.  Needs root, and Linux (namespace.py).  The caller's thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from xbbd_bsd import toolstack
from xbbd_bsd.cards import CardOffer
from xbbd_bsd.errors import HostError
from xbbd_bsd.sim import namespace
from xbbd_bsd.sim.chain import Chain, Guest
from xbbd_bsd.sim.namespace import Namespace

CONFIG = '[daemon]\nkinds = ["vbd", "vif"]\n'
BRIDGE = "xenbr0"
# As hotplug scripts set it: a bridge takes the lowest address of its ports for its own.
PORT_ADDRESS = "fe:ff:ff:ff:ff:ff"


class NetChain(Chain):
    """The processes of such a machine."""

    def __init__(self, config: str = CONFIG) -> None:
        """`config`: as of Chain.  OperatorError if something is lacking here."""
        namespace.need()
        super().__init__(config)

    def __enter__(self) -> Self:
        self.dom0 = Namespace()
        try:
            super().__enter__()
        except BaseException:
            self.dom0.close()
            raise
        self.dom0_prefix = self.dom0.prefix
        return self

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(None, None, None)
        finally:
            self.dom0.close()

    def add_bridge(self, *addresses: str, name: str = BRIDGE, mtu: int = 1500) -> None:
        """A bridge in dom0, which may have addresses; HostError."""
        self.dom0.run("ip", "link", "add", name, "mtu", str(mtu), "type", "bridge")
        for address in addresses:
            more = ("nodad",) if ":" in address else ()
            self.dom0.run("ip", "address", "add", address, "dev", name, *more)
        self.dom0.run("ip", "link", "set", name, "up")

    def start_netguest(self, domid: int, handle: int, *options: str) -> Guest:
        """A guest, alive but without its card."""
        guest = self._start(
            Guest, f"guest {domid}", "xbbd_bsd.sim", "netguest", self.layout.directory,
            str(domid), str(handle), *options, talks=True, prefix=("unshare", "--net"),
        )  # fmt: skip
        guest.event("alive")
        return guest

    def start_relay(self, name: str, address: str) -> Guest:
        """A guest without a ring, whose cable is an interface of that name in dom0."""
        relay = self._start(
            Guest, f"relay {name}", "xbbd_bsd.sim.relay", str(self.dom0.pid), name, address,
            talks=True, prefix=("unshare", "--net"),
        )  # fmt: skip
        relay.event("alive")
        return relay

    def attach_card(self, card: CardOffer) -> None:
        """As `xl network-attach`, with a bridge or none; HostError with the backend's reason."""
        toolstack.offer(self.store, card)

        def hotplug() -> None:
            to = ("master", card.bridge) if card.bridge else ()
            name = self.interface(card)
            self.dom0.run("ip", "link", "set", name, "address", PORT_ADDRESS)
            self.dom0.run("ip", "link", "set", name, "addrgenmode", "none")
            self.dom0.run("ip", "link", "set", name, "mtu", str(card.mtu), *to, "up")

        if not toolstack.see_opened(self.store, self.loop, card, hotplug=hotplug):
            raise HostError(f"{card.backend}: {toolstack.refusal(self.store, card)}")

    def interface(self, card: CardOffer) -> str:
        """What its interface is called in dom0."""
        return card.vifname or f"vif{card.domid}.{card.handle}"

    def interfaces(self) -> set[str]:
        """All there are in dom0."""
        lines = self.dom0.run("ip", "-o", "link", "show").splitlines()
        return {line.split(": ")[1].partition("@")[0] for line in lines}

    def traffic(self, where: Guest | None, *arguments: str) -> Guest:
        """A program that uses the network of a guest, or of dom0; see traffic.py."""
        prefix = self.dom0.prefix if where is None else namespace.inside(where.pid)
        name = "traffic" if where is None else f"traffic of {where.name}"
        return self.start_program(name, "xbbd_bsd.sim.traffic", *arguments, prefix=prefix)

    def start_program(
        self, name: str, module: str, *arguments: str, prefix: Sequence[str]
    ) -> Guest:
        """A program that says what it does in JSON, behind a `prefix` that says where."""
        return self._start(Guest, name, module, *arguments, talks=True, prefix=prefix)

    def in_guest(self, guest: Guest, *command: str) -> str:
        """Run a command in a guest's name space; what it prints."""
        return namespace.run((*namespace.inside(guest.pid), *command))


def card(domid: int, handle: int = 0, *, bridge: str = BRIDGE, mtu: int = 1500) -> CardOffer:
    """One whose address is made of its numbers."""
    return CardOffer(domid, handle, f"00:16:3e:00:{domid:02x}:{handle:02x}", bridge=bridge, mtu=mtu)


@dataclass(frozen=True, slots=True)
class Moved:
    """A stream of TCP from one to the other; whether it is the same at both ends."""

    bytes: int
    seconds: float
    intact: bool


def stream(
    chain: NetChain,
    sender: Guest | None,
    receiver: Guest | None,
    address: str,
    *options: str,
    hashed: bool = True,
    limit: float = 120.0,
) -> Moved:
    """Have one send to an address of the other, None is dom0; `options` of `send`.  HostError."""
    both = ("--limit", f"{limit:.0f}", *(() if hashed else ("--no-hash",)))
    inlet = chain.traffic(receiver, "receive", "0", *both)
    port = inlet.event("listening")["port"]
    outlet = chain.traffic(sender, "send", address, str(port), *options, *both)
    sent = outlet.event("sent", limit)
    received = inlet.event("received", limit)
    outlet.wait()
    inlet.wait()
    same = all(sent[name] == received[name] for name in ("bytes", "sha256"))
    return Moved(sent["bytes"], sent["seconds"], same)


def ping(chain: NetChain, where: Guest | None, address: str, *options: str) -> dict[str, Any]:
    """Echo requests to an address, by `options` of `ping`: how many were sent and answered."""
    pinger = chain.traffic(where, "ping", address, *options)
    pinged = pinger.event("pinged")
    pinger.wait()
    return pinged
