"""All devices of the configured kinds: finds them, numbers them, lets them go.

It knows directories and lifetimes; what a device does is device.py's, and what
it is its family's.  One watch a kind covers all backends of it; an event wakes
the device that it belongs to, or has the one looked for that it names, so that a
device costs the same however many there are; all are looked through only at the
beginning, and where an event names none.  Control thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from errno import ENOENT

from xbbd_bsd.events import ScanFailed
from xbbd_bsd.journal import Journal
from xbbd_bsd.xenbus.device import Device
from xbbd_bsd.xenbus.family import Family, Identity
from xbbd_bsd.xenbus.nodes import Foresight
from xbbd_bsd.xenbus.units import Units
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost, Transaction, Watch

_LARGEST_DOMID = 0x7FEF  # the last before xen.h's reserved ones
_LARGEST_NUMBER = 0xFFFFFFFF

_Key = tuple[str, int, int]
"""A backend: kind, guest, number there."""

_Place = tuple[str, int, int | None]
"""The same, or all of a guest."""

_DEPTH = 2  # of what a watch tells apart: guest and number


class Bus:
    """The devices of one daemon."""

    def __init__(
        self,
        store: Store,
        families: Mapping[str, Family],
        *,
        loop: asyncio.AbstractEventLoop,
        journal: Journal,
    ) -> None:
        """`families`: every kind that could be served."""
        self._store = store
        self._families = families
        self._loop = loop
        self._journal = journal
        self._watches: dict[str, Watch] = {}
        self._devices: dict[_Key, Device] = {}
        self._guests: dict[tuple[str, int], dict[int, Device]] = {}  # by kind and guest
        self._numbered: dict[tuple[str, int], Device] = {}  # by driver and unit
        self._units: dict[str, Units] = {}  # by driver
        self._foresight = {kind: Foresight() for kind in families}
        self._scan: asyncio.Handle | None = None
        self._to_scan: set[str] = set()
        self._unseen: set[str] = set()  # kinds of which a look has failed
        self._search: asyncio.Handle | None = None
        self._to_search: dict[_Place, None] = {}  # in the order in which they came
        self._empty: list[Callable[[], None]] = []

    @property
    def devices(self) -> tuple[Device, ...]:
        """All devices that hold anything, or might."""
        return tuple(self._devices.values())

    def device(self, driver: str, unit: int) -> Device | None:
        """That of a driver with that number, if there is one."""
        return self._numbered.get((driver, unit))

    def device_at(self, path: str) -> Device | None:
        """That of a backend's directory, relative to our domain, if there is one."""
        place = _place(path)
        return None if place is None or path.count("/") != 3 else self._at(place)

    def serve(self, kinds: Iterable[str]) -> None:
        """Serve these kinds and no others; devices of a kind left out are closed.

        Raises StoreError.
        """
        wanted = frozenset(kinds)
        for kind in self._watches.keys() - wanted:
            self._watches.pop(kind).cancel()
            self._to_scan.discard(kind)
            for device in self._of(kind):
                device.stop()
        for kind in sorted(wanted - self._watches.keys()):
            root = f"backend/{kind}"
            self._watches[kind] = self._store.watch(root, self._event_of(kind), depth=_DEPTH)

    def look(self) -> None:
        """Look at everything again: the store was away."""
        self._want_scan(*self._watches)
        for device in self.devices:
            device.look()

    def try_again(self, driver: str, units: Iterable[int]) -> None:
        """What held those devices back may be over, in the order in which they shall try."""
        for unit in units:
            device = self.device(driver, unit)
            if device is not None:
                device.try_again()

    def stop(self, when_empty: Callable[[], None]) -> None:
        """Take no new device, close those there are; `when_empty` is called with the last gone."""
        self.serve(())
        self._empty.append(when_empty)
        self._loop.call_soon(self._tell_if_empty)

    def hurry(self) -> None:
        """After `stop`: wait for no guest any more."""
        for device in self.devices:
            device.hurry()

    def leave(self, when_left: Callable[[], None]) -> None:
        """Leave all devices as they are, for the next daemon, and look at none any more.

        `when_left` is called once nothing is under way.
        """

        # Who has left stays so, so that each is looked at once, and one more at a time.
        staying = list(self.devices)

        def tell() -> None:
            while staying and staying[-1].left:
                staying.pop()
            if not staying:
                when_left()

        for kind in list(self._watches):
            self._watches.pop(kind).cancel()
        self._to_scan.clear()
        self._to_search.clear()
        for device in self.devices:
            device.leave(tell)
        self._loop.call_soon(tell)

    def _of(self, kind: str) -> Iterator[Device]:
        return (device for device in self.devices if device.identity.kind == kind)

    def _event_of(self, kind: str) -> Callable[[str], None]:
        def event(path: str) -> None:
            place = _place(path)
            device = None if place is None else self._at(place)
            if device is not None:
                device.look()
            elif kind in self._watches and (kind in self._unseen or _is_above(path)):
                self._want_scan(kind)
            elif kind in self._watches and place is not None:
                self._want_search(place)

        return event

    def _at(self, place: _Place) -> Device | None:
        kind, domid, number = place
        return None if number is None else self._devices.get((kind, domid, number))

    def _want_search(self, place: _Place) -> None:
        self._to_search[place] = None
        if self._search is None:
            self._search = self._loop.call_soon(self._search_now)

    def _search_now(self) -> None:
        """Make a device of each backend that may be there, and has none.  Raises nothing.

        Where all of a guest are meant those that there are may have gone with its directory.
        """
        self._search = None
        places, self._to_search = [*self._to_search], {}
        for kind, domid, number in places:
            if kind not in self._watches or kind in self._to_scan:
                continue
            try:
                if number is not None:
                    self._find(kind, domid, number)
                else:
                    self._find_all_of(kind, domid)
                    for device in self._guests.get((kind, domid), {}).values():
                        device.look()
            except StoreLost:
                return  # the watches fire when the store is back
            except StoreError as error:
                self._failed(kind, error)

    def _failed(self, kind: str, error: StoreError) -> None:
        self._unseen.add(kind)
        self._journal(ScanFailed(kind, str(error)))

    def _want_scan(self, *kinds: str) -> None:
        self._to_scan.update(kinds)
        if self._scan is None and self._to_scan:
            self._scan = self._loop.call_soon(self._scan_now)

    def _scan_now(self) -> None:
        """Make a device of every backend that has none.  Raises nothing."""
        self._scan = None
        kinds, self._to_scan = sorted(self._to_scan), set()
        for kind in kinds:
            try:
                self._scan_kind(kind)
                self._families[kind].settle(kind)
                self._unseen.discard(kind)
            except StoreLost:
                return  # the watches fire when the store is back
            except StoreError as error:
                self._failed(kind, error)
        for device in self.devices:
            if device.identity.kind in kinds:
                device.look()

    def _scan_kind(self, kind: str) -> None:
        root = f"backend/{kind}"
        for domid in self._numbers(root, _LARGEST_DOMID):
            self._find_all_of(kind, domid)

    def _find_all_of(self, kind: str, domid: int) -> None:
        """Those of one guest.  StoreError."""
        for number in self._numbers(f"backend/{kind}/{domid}", _LARGEST_NUMBER):
            self._find(kind, domid, number)

    def _find(self, kind: str, domid: int, number: int) -> None:
        """Have a backend have a device, which looks, if it is there and has none.  StoreError."""
        if (kind, domid, number) not in self._devices:
            frontend = self._store.get(f"backend/{kind}/{domid}/{number}/frontend")
            if frontend is not None:
                self._add(self._identify(kind, domid, number)).look()

    def _numbers(self, path: str, largest: int) -> Iterator[int]:
        """The children of a node that are numbers in plain decimal; none if it is not there."""
        try:
            names = self._store.list(path)
        except StoreError as error:
            if error.errno != ENOENT:
                raise
            return
        for name in names:
            number = _number(name, largest)
            if number is not None:
                yield number

    def _identify(self, kind: str, domid: int, number: int) -> Identity:
        """A device that was found: with the number that it had, if it is to be adopted."""
        family = self._families[kind]
        root = f"backend/{kind}/{domid}/{number}"
        unit = family.unit_of(kind, domid, number, lambda node: self._store.get(f"{root}/{node}"))
        if unit is None:
            unit = self._units_of(family).smallest(family.promised)
        return Identity(kind, domid, number, family.driver.name, unit)

    def _units_of(self, family: Family) -> Units:
        return self._units.setdefault(family.driver.name, Units())

    def _add(self, identity: Identity) -> Device:
        family = self._families[identity.kind]
        device = Device(
            identity,
            family,
            store=self._store,
            loop=self._loop,
            journal=self._journal,
            on_gone=self._gone,
            foresight=self._foresight[identity.kind],
        )
        self._devices[identity.kind, identity.domid, identity.number] = device
        self._guests.setdefault((identity.kind, identity.domid), {})[identity.number] = device
        self._numbered[identity.driver, identity.unit] = device
        self._units_of(family).take(identity.unit)
        return device

    def _gone(self, device: Device) -> None:
        identity = device.identity
        key = (identity.kind, identity.domid, identity.number)
        del self._devices[key], self._numbered[identity.driver, identity.unit]
        of_guest = self._guests[identity.kind, identity.domid]
        del of_guest[identity.number]
        if not of_guest:
            del self._guests[identity.kind, identity.domid]
        self._units_of(self._families[identity.kind]).give_back(identity.unit)
        self._journal.forget(device.name)
        self._sweep(f"backend/{identity.kind}/{identity.domid}")
        if identity.kind in self._watches:
            self._want_search(key)  # it may have come back while we let it go
        self._tell_if_empty()

    def _sweep(self, path: str) -> None:
        """Remove a guest's directory with the last device in it, which no toolstack does."""

        def body(transaction: Transaction) -> None:
            if not transaction.list(path):
                transaction.remove(path)

        # It is gone already, or the store is away; then it stays, and harms nobody.
        with suppress(StoreError):
            self._store.transaction(body)

    def _tell_if_empty(self) -> None:
        if not self._devices:
            waiting, self._empty = self._empty, []
            for tell in waiting:
                tell()


def _place(path: str) -> _Place | None:
    """The backend that an event below backend/KIND names, or the guest; None of neither."""
    parts = path.split("/")
    if len(parts) < 3:
        return None
    domid = _number(parts[2], _LARGEST_DOMID)
    number = _number(parts[3], _LARGEST_NUMBER) if len(parts) > 3 else None
    if domid is None or (len(parts) > 3 and number is None):
        return None
    return parts[1], domid, number


def _is_above(path: str) -> bool:
    """Whether an event is about all backends of a kind."""
    return path.count("/") < 2


def _number(name: str, largest: int) -> int | None:
    """A node's name as a number, if it is spelt the one way that we would, and not too large."""
    if not name.isascii() or not name.isdigit() or len(name) > 10 or name != str(int(name)):
        return None
    number = int(name)
    return number if number <= largest else None
