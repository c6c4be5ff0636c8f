"""Which devices the processes of guests are wanted for, of whatever family.

The last one that is gone takes its guest's process along, unless that has one of an earlier
daemon's that is still to be adopted, or dropped.  A device is called as its process calls it;
what it is is not known here.  The loop's thread, but for `claim`.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EAGAIN

from xbbd_bsd.errors import HostError
from xbbd_bsd.guests.service import GuestProcesses
from xbbd_bsd.guests.watch import Watch, Woken

_Device = tuple[int, int]  # guest, number


class Claims:
    """Of all guests."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._devices: dict[int, set[int]] = {}  # by guest
        self._dropping: dict[_Device, list[Callable[[], None]]] = {}

    @property
    def processes(self) -> GuestProcesses:
        """The processes themselves."""
        return self._watch.processes

    def claim(self, domid: int, device: int) -> None:
        """A device is to be served, so that its guest's process stays; any thread.

        HostError as long as what was served before is not given back.
        """
        if (domid, device) in self._dropping:
            raise HostError("its process still has what was served before", EAGAIN)
        self._devices.setdefault(domid, set()).add(device)

    def subscribe(self, domid: int, woken: Woken) -> Callable[[], None]:
        """As `Watch.subscribe`."""
        return self._watch.subscribe(domid, woken)

    def release(self, domid: int, device: int, done: Callable[[bool | None], None]) -> None:
        """As `Watch.release`."""
        self._watch.release(domid, device, done)

    def drop(self, domid: int, device: int, done: Callable[[], None]) -> None:
        """Have a process that an earlier daemon started give a device back, if it has it.

        `done` is called when it has, or would not do it.
        """

        def dropped(bare: bool) -> None:
            waiting = self._dropping.pop((domid, device))
            if bare and domid not in self._devices:  # none has come meanwhile
                self._watch.forget(domid)
            for done in waiting:
                done()

        waiting = self._dropping.get((domid, device))
        if waiting is not None:
            waiting.append(done)
        else:
            self._dropping[domid, device] = [done]
            self._watch.drop(domid, device, dropped)

    def forget(self, domid: int, device: int) -> None:
        """A device is gone."""
        devices = self._devices.get(domid)
        if devices is None:
            return  # its process, if there is one, is another daemon's: see `drop`
        devices.discard(device)
        if devices:
            return
        del self._devices[domid]
        if self._watch.devices(domid) <= {device}:
            self._watch.forget(domid)

    def close(self) -> None:
        """As `Watch.close`."""
        self._watch.close()
