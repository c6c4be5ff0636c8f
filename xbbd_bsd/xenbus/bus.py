"""All devices of the configured kinds: finds them, numbers them, lets them go.

It knows directories and lifetimes; what a device does is device.py's, and what
it is its family's.  One watch a kind covers all backends of it; an event wakes
the device that it belongs to, or has the directory looked through.  Control
thread.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from errno import ENOENT

from xbbd_bsd.events import ScanFailed
from xbbd_bsd.journal import Journal
from xbbd_bsd.xenbus.device import Device
from xbbd_bsd.xenbus.family import Family, Identity
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost, Transaction, Watch

_LARGEST_DOMID = 0x7FEF  # the last before xen.h's reserved ones
_LARGEST_NUMBER = 0xFFFFFFFF


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
        self._devices: dict[tuple[str, int, int], Device] = {}
        self._scan: asyncio.Handle | None = None
        self._to_scan: set[str] = set()
        self._empty: list[Callable[[], None]] = []

    @property
    def devices(self) -> tuple[Device, ...]:
        """All devices that hold anything, or might."""
        return tuple(self._devices.values())

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
            self._watches[kind] = self._store.watch(root, self._event_of(kind))

    def look(self) -> None:
        """Look at everything again: the store was away."""
        self._want_scan(*self._watches)
        for device in self.devices:
            device.look()

    def try_again(self, driver: str, units: Iterable[int]) -> None:
        """What held those devices back may be over, in the order in which they shall try."""
        devices = {d.identity.unit: d for d in self.devices if d.identity.driver == driver}
        for unit in units:
            if unit in devices:
                devices[unit].try_again()

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

        def tell() -> None:
            if all(device.left for device in self.devices):
                when_left()

        for kind in list(self._watches):
            self._watches.pop(kind).cancel()
        self._to_scan.clear()
        for device in self.devices:
            device.leave(tell)
        self._loop.call_soon(tell)

    def _of(self, kind: str) -> Iterator[Device]:
        return (device for device in self.devices if device.identity.kind == kind)

    def _event_of(self, kind: str) -> Callable[[str], None]:
        def event(path: str) -> None:
            key = _key(path)
            device = self._devices.get(key) if key is not None else None
            if device is not None:
                device.look()
            elif kind in self._watches:
                self._want_scan(kind)

        return event

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
            except StoreLost:
                return  # the watches fire when the store is back
            except StoreError as error:
                self._journal(ScanFailed(kind, str(error)))
        for device in self.devices:
            if device.identity.kind in kinds:
                device.look()

    def _scan_kind(self, kind: str) -> None:
        root = f"backend/{kind}"
        for domid in self._numbers(root, _LARGEST_DOMID):
            for number in self._numbers(f"{root}/{domid}", _LARGEST_NUMBER):
                key = (kind, domid, number)
                if key in self._devices:
                    continue
                if self._store.get(f"{root}/{domid}/{number}/frontend") is not None:
                    self._add(self._identify(kind, domid, number))

    def _numbers(self, path: str, largest: int) -> Iterator[int]:
        """The children of a node that are numbers in plain decimal; none if it is not there."""
        try:
            names = self._store.list(path)
        except StoreError as error:
            if error.errno != ENOENT:
                raise
            return
        for name in names:
            number = _number(name)
            if number is not None and number <= largest:
                yield number

    def _identify(self, kind: str, domid: int, number: int) -> Identity:
        """A device that was found: with the number that it had, if it is to be adopted."""
        family = self._families[kind]
        root = f"backend/{kind}/{domid}/{number}"
        unit = family.unit_of(kind, domid, number, lambda node: self._store.get(f"{root}/{node}"))
        if unit is None:
            unit = self._free_unit(family)
        return Identity(kind, domid, number, family.driver.name, unit)

    def _free_unit(self, family: Family) -> int:
        """The smallest number free, as newbus counts: each driver from 0."""
        driver = family.driver.name
        used = {d.identity.unit for d in self.devices if d.identity.driver == driver}
        used |= set(family.promised)
        return next(unit for unit in itertools.count() if unit not in used)

    def _add(self, identity: Identity) -> None:
        self._devices[identity.kind, identity.domid, identity.number] = Device(
            identity,
            self._families[identity.kind],
            store=self._store,
            loop=self._loop,
            journal=self._journal,
            on_gone=self._gone,
        )

    def _gone(self, device: Device) -> None:
        identity = device.identity
        del self._devices[identity.kind, identity.domid, identity.number]
        self._journal.forget(device.name)
        self._sweep(f"backend/{identity.kind}/{identity.domid}")
        if identity.kind in self._watches:
            self._want_scan(identity.kind)  # it may have come back while we let it go
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


def _key(path: str) -> tuple[str, int, int] | None:
    """The device that an event below backend/KIND belongs to, if any."""
    parts = path.split("/")
    if len(parts) < 4:
        return None
    domid, number = _number(parts[2]), _number(parts[3])
    return (parts[1], domid, number) if domid is not None and number is not None else None


def _number(name: str) -> int | None:
    """A node's name as a number, if it is spelt the one way that we would."""
    if not name.isascii() or not name.isdigit() or len(name) > 10 or name != str(int(name)):
        return None
    return int(name)
