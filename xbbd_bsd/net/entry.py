"""How the family of network cards is made: its line of the registry.

Control thread.
"""

from collections.abc import Iterable, Mapping

from xbbd_bsd.native import tap
from xbbd_bsd.net.family import NetFamily
from xbbd_bsd.net.heritage import Heritage
from xbbd_bsd.net.oids import DRIVER
from xbbd_bsd.net.queues import CRAFT
from xbbd_bsd.serving import ByProcess, Here
from xbbd_bsd.surroundings import Entry, Surroundings


class NativeTaps:
    """The interfaces of this computer (queues.Taps)."""

    def open(self, name: str, *, multi: bool) -> int:
        return tap.open_tap(name, multi=multi)

    def is_there(self, name: str) -> bool:
        return tap.is_there(name)

    def remove(self, name: str) -> None:
        tap.remove_tap(name)

    def bring_up(self, name: str) -> None:
        tap.bring_up(name)

    def is_up(self, name: str) -> bool:
        return tap.is_up(name)

    def set_mtu(self, name: str, mtu: int) -> None:
        tap.set_mtu(name, mtu)


def make(given: Surroundings) -> Mapping[str, NetFamily]:
    """The family of the one directory of cards."""

    def try_again(units: Iterable[int]) -> None:
        given.try_again(DRIVER, units)

    family = NetFamily(
        host=given.host,
        config=given.config,
        state_dir=given.state_dir,
        loop=given.loop,
        run=given.run,
        serving=Here(CRAFT, given.host, given.loop)
        if given.guests is None
        else ByProcess(CRAFT, given.host, given.guests),
        taps=NativeTaps(),
        heritage=Heritage(given.state_dir, given.journal),
        limits=given.limits,
        journal=given.journal,
        try_again=try_again,
    )
    return {"vif": family}


NET = Entry(DRIVER, make)
