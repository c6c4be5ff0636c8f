"""What the tree shows of devices and of the daemon: joins bus, families and journal.

Reads what others know already: no store is asked, no data path disturbed.
Control thread.
"""

import os
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from xbbd_bsd import __version__
from xbbd_bsd.block.numbers import Numbers, Value
from xbbd_bsd.config import Config, DaemonConfig, DiskConfig
from xbbd_bsd.control.tree import LogLine
from xbbd_bsd.errands import Ended
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.events import Path
from xbbd_bsd.journal import Journal
from xbbd_bsd.oids import RECORDS, oid
from xbbd_bsd.xenbus.device import Device
from xbbd_bsd.xenbus.states import State

# As the in-kernel driver and its bus say it.
_NEWBUS: Mapping[str, Value] = {
    "%desc": "Backend Virtual Block Device",
    "%driver": "xbbd",
    "%location": "",
    "%pnpinfo": "",
    "%parent": "xenbusb_back0",
}

_STATES = {
    State.INITIALISING: "Initialising",
    State.INIT_WAIT: "InitWait",
    State.INITIALISED: "Initialised",
    State.CONNECTED: "Connected",
    State.CLOSING: "Closing",
    State.CLOSED: "Closed",
}

_OF_STAT = ("guest", "vdev", "path", "mode", "hung_seconds")


class DeviceView:
    """One device; `numbers` is None until it has a state segment, `facts` are there before."""

    def __init__(
        self,
        device: Device,
        numbers: Numbers | None,
        facts: Callable[[], Mapping[str, Value]],
        journal: Journal,
    ) -> None:
        """`facts`: the group "medium" as far as it is known without a segment."""
        self._device = device
        self._numbers = numbers
        self._facts = facts
        self._journal = journal

    def group(self, name: str) -> Mapping[str, Value]:
        """The values there are of a group of leaves."""
        if name == "xenbus":
            identity = self._device.identity
            ours, guest = self._device.states
            return {
                **_NEWBUS,
                "xenstore_path": identity.path,
                "xenbus_dev_type": identity.kind,
                "xenbus_connection_state": _STATES.get(ours, "InvalidState"),
                "xenbus_peer_domid": identity.domid,
                "xenstore_peer_path": self._device.frontend,
                "xenbus_peer_state": _STATES.get(guest, "InvalidState"),
                "held_back": self._device.held_back,
            }
        if self._numbers is not None:
            return self._numbers.group(name)
        return self._facts() if name == "medium" else {}

    def rings(self) -> Sequence[int]:
        return self._numbers.rings() if self._numbers is not None else ()

    def ring(self, number: int) -> Mapping[str, Value]:
        assert self._numbers is not None
        return self._numbers.ring(number)

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        identity = self._device.identity
        found: dict[str, Any] = {
            "names": [f"{record}{identity.unit}" for record in RECORDS],
            "domid": identity.domid,
            "state": _STATES.get(self._device.states[0], "InvalidState"),
        }
        facts = self._facts()
        found.update({name: facts[name] for name in _OF_STAT if name in facts})
        if self._numbers is not None:
            found.update(self._numbers.stat(latency=latency))
        return found

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        return self._numbers.inflight() if self._numbers is not None else ()

    def log(self) -> Sequence[LogLine]:
        return self._journal.last(self._device.name)

    def set(self, name: str, value: int) -> None:
        if self._numbers is None:
            raise OperatorError(f"{self._device.name} has no state segment")
        self._numbers.set(name, value, oid(self._device.identity.unit, name))

    def resize(self) -> Ended:
        return self._numbers.resize() if self._numbers is not None else lambda: True


class DaemonView:
    """The daemon itself."""

    def __init__(
        self,
        host: str,
        journal: Journal,
        *,
        config: Callable[[], Config],
        places: Mapping[str, Value],
        configuration: Callable[[], Mapping[str, Value]],
        devices: Callable[[], int],
        clock: Callable[[], float],
        clear: Callable[[str], Ended],
        reload: Callable[[], Mapping[str, Any]],
        limits: Callable[[], Mapping[str, Value]],
        budget: Callable[[], tuple[int, int]],
    ) -> None:
        """`places`: keys of [daemon] that may be left out, as they are; `configuration`:
        leaves about the file; `devices` counts them; `clock` gives seconds and stands at
        the start now; `clear` and `reload` do what the verbs of these names want; `limits`:
        what all disks have taken, and may take; `budget` counts mappings and grants in use.
        """
        self._places = places
        self._host = host
        self._journal = journal
        self._config = config
        self._devices = devices
        self._clock = clock
        self._started = clock()
        self._budget = budget
        self.clear = clear
        self.reload = reload
        self._configuration = configuration
        self._limits = limits

    def values(self) -> Mapping[str, Value]:
        """All leaves."""
        config = self._config()
        mappings, grants = self._budget()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "host": self._host,
            "uptime": int(self._clock() - self._started),
            "devices": self._devices(),
            # KiB on FreeBSD and Linux alike.
            "maxrss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "lines_left_out": self._journal.left_out,
            "mappings": mappings,
            "grants": grants,
            **{f"log.{path.value}": int(path in self._journal.switches) for path in Path},
            **{
                key.name: _shown(getattr(config.daemon, key.name))
                for key in fields(DaemonConfig)
                if key.name != "log"
            },
            **self._places,
            **self._configuration(),
            **self._limits(),
            **{
                f"disk.{key.name}": _shown(getattr(config.disk, key.name))
                for key in fields(DiskConfig)
            },
        }

    def log(self) -> Sequence[LogLine]:
        return self._journal.last()

    def set(self, name: str, value: int) -> None:
        """Throw a switch of the log; it stands until the configuration is read again."""
        if value not in (0, 1):
            raise OperatorError(f"hw.xbbd.{name}={value}: must be 0 or 1")
        path = Path(name.removeprefix("log."))
        self._journal.switches = (
            self._journal.switches | {path} if value else self._journal.switches - {path}
        )


def _shown(value: object) -> Value:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(value)
    return value if isinstance(value, str) else int(value)  # type: ignore[call-overload]
