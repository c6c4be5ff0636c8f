"""A guest process: one domain with one network card, told what to do line by line.

    python -m xbbd_bsd.sim netguest DIR DOMID HANDLE [options]

Is to be started in a network name space of its own, where it makes eth0 and gives it
addresses; who wants to use the guest's network runs programs there.  Commands are
answered with one JSON object a line each:

    help                   the commands
    figures                what its driver has counted, and why queues have ended
    close                  give the card back, stay alive
    open                   connect to it again
    lie                    publish requests that no ring can hold
    misbehave HOW SECONDS  send nonsense for so long, see misbehaviour.py; what became of it

How such a process lives is in guestlife.py.
"""

import argparse
import asyncio

from xbbd_bsd.native.front.netfront import ALL_OFFLOADS
from xbbd_bsd.native.netstate import NetAccepts
from xbbd_bsd.sim import interface
from xbbd_bsd.sim.guestlife import GuestLife, live, say
from xbbd_bsd.sim.misbehaviour import WAYS, misbehave
from xbbd_bsd.sim.netfront import CardOptions, NetworkCard

COMMANDS = {
    "help": "the commands",
    "figures": "what the driver has counted",
    "close": "give the card back, stay alive",
    "open": "connect to it again",
    "lie": "publish requests that no ring can hold",
    "misbehave": f"misbehave HOW SECONDS: send nonsense; {', '.join(WAYS)}",
}


class NetGuest(GuestLife):
    """The process: domain, interface, driver of one card, and what it can be told."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options, COMMANDS, options.hold)
        interface.make(options.address, options.mtu)
        self._card = NetworkCard(
            self._domain,
            options.handle,
            store=self._store,
            loop=self._loop,
            open_link=interface.open_queue,
            options=CardOptions(
                queues=options.queues,
                offloads=ALL_OFFLOADS if options.offloads is None else NetAccepts(options.offloads),
                rx_buffers=options.rx_buffers,
                skew=options.skew,
                poll_us=options.poll_us,
                patience=options.patience,
            ),
        )

    @property
    def _driver(self) -> NetworkCard:
        return self._card

    def _facts(self) -> dict[str, object]:
        mac = self._card.mac
        interface.set_mac(mac)
        return {"mac": mac, "queues": len(self._card.queues), "offloads": offload_names(self._card)}

    async def _command(self, name: str, words: list[str]) -> None:
        if name != "misbehave" and words:
            raise ValueError(f"these words do not follow {name}: {COMMANDS[name]}")
        if name == "figures":
            say("figures", errors=self._card.errors, **self._card.counters())
        elif name == "lie":
            queue = self._card.queues[0]
            queue.stop()
            queue.front.tx_ring.cast("I")[0] += 0x10000
            queue.front.notify()
            say("lied")
        elif name == "misbehave":
            await self._misbehave(words)
        else:
            raise ValueError("the guest has its card already")

    async def _misbehave(self, words: list[str]) -> None:
        if len(words) != 2 or words[0] not in WAYS:
            raise ValueError(COMMANDS["misbehave"])
        seconds = float(words[1])
        queue = self._card.queues[0]
        queue.stop()
        say("begun")
        done = await asyncio.to_thread(misbehave, queue.front, words[0], seconds)
        say("misbehaved", **done)


def offload_names(card: NetworkCard) -> list[str]:
    """Which were agreed on."""
    return [str(bit.name).lower() for bit in NetAccepts if bit in card.offloads]


def main(options: argparse.Namespace) -> int:
    """The command `netguest`; its exit status."""
    return live("netguest", lambda: NetGuest(options))
