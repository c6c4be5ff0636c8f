"""What the tree shows of devices and of the daemon: joins bus, families and journal.

Reads what others know already: no store is asked, no data path disturbed.
Control thread.
"""

import os
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from xbbd_bsd import __version__
from xbbd_bsd.block.numbers import Numbers, Value
from xbbd_bsd.condition import disk_facts
from xbbd_bsd.config import Config, DaemonConfig, DiskConfig
from xbbd_bsd.control.accept import shortage
from xbbd_bsd.control.health import DaemonFacts, DiskFacts
from xbbd_bsd.control.protocol import Part
from xbbd_bsd.control.tree import LogLine
from xbbd_bsd.deeds import DiskNoted, Noted, SizeAsked, SwitchSet, ValueSet
from xbbd_bsd.errands import Ended
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.events import Path
from xbbd_bsd.journal import Journal
from xbbd_bsd.ledger import Ledger
from xbbd_bsd.oids import DAEMON_ROOT, GROUP_OF, RECORDS, oid
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

# Of a guest whose disk is closed though nothing failed.
_WITHOUT = {
    State.GONE: "the guest is gone",
    State.CLOSING: "the guest is closing it",
    State.CLOSED: "the guest has closed it",
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
        ledger: Ledger,
        configured: Callable[[], Mapping[str, Value]],
    ) -> None:
        """`facts`: the group "medium" as far as it is known without a segment.

        `configured`: the tunables as xbbd.conf has them for this disk.
        """
        self._device = device
        self._numbers = numbers
        self._facts = facts
        self._journal = journal
        self._ledger = ledger
        self._configured = configured

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
                "closed_reason": self._device.closed_reason,
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
            "reason": self._why_closed(),
        }
        facts = self._facts()
        found.update({name: facts[name] for name in _OF_STAT if name in facts})
        if self._numbers is not None:
            found.update(self._numbers.stat(latency=latency))
        return found

    def _why_closed(self) -> str:
        """Why the guest does not have its disk, if it had it or should; "" if that is not so."""
        device = self._device
        if told := device.closed_reason or device.held_back:
            return told
        ours, guest = device.states
        return _WITHOUT.get(guest, "") if ours in (State.CLOSING, State.CLOSED) else ""

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        return self._numbers.inflight() if self._numbers is not None else ()

    def log(self) -> Sequence[LogLine]:
        return self._journal.last(self._device.name)

    def follow(self, last: int) -> Iterator[Part]:
        return _followed(self._journal, self._device.name, last)

    def configured(self) -> Mapping[str, Value]:
        return self._configured() if self._numbers is not None else {}

    def set(self, name: str, value: int, who: str) -> None:
        if self._numbers is None:
            raise OperatorError(f"{self._device.name} has no state segment")
        before = int(self._numbers.group(GROUP_OF[name])[name])
        self._numbers.set(name, value, oid(self._device.identity.unit, name))
        self._journal(ValueSet(self._device.name, name, before, value, who))

    def health(self) -> DiskFacts:
        return disk_facts(self._device, self.group, self._numbers, self._ledger)

    def resize(self, who: str) -> Ended:
        if self._numbers is None:
            return lambda: True
        before, looked = self._sectors(), self._numbers.resize()

        def ended() -> bool:
            if not looked():
                return False
            self._journal(SizeAsked(self._device.name, before, self._sectors(), who))
            return True

        return ended

    def _sectors(self) -> int:
        """Of the disk; 0 as long as none is open."""
        return int(self._facts().get("sectors", 0))

    def note(self, words: str, who: str) -> None:
        self._journal(DiskNoted(self._device.name, who, words))


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
        clear: Callable[[str, str], Ended],
        reload: Callable[[str], Mapping[str, Any]],
        limits: Callable[[], Mapping[str, Value]],
        budget: Callable[[], tuple[int, int]],
        store: Callable[[], tuple[bool, float]],
        health: Callable[[Mapping[str, Value]], DaemonFacts],
    ) -> None:
        """`places`: keys of [daemon] that may be left out, as they are; `configuration`:
        leaves about the file; `devices` counts them; `clock` gives seconds and stands at
        the start now; `clear` and `reload` do what the verbs of these names want; `limits`:
        what all disks have taken, and may take; `budget` counts mappings and grants in use;
        `store`: whether XenStore answers, and since when (seconds since 1970); `health`: how
        the daemon is that has these leaves.
        """
        self._places = places
        self._host = host
        self._journal = journal
        self._config = config
        self._devices = devices
        self._clock = clock
        self._started = clock()
        self._budget = budget
        self._store = store
        self.clear = clear
        self._health = health
        self.reload = reload
        self._configuration = configuration
        self._limits = limits

    def values(self) -> Mapping[str, Value]:
        """All leaves."""
        config = self._config()
        mappings, grants = self._budget()
        connected, since = self._store()
        return {
            "version": __version__,
            "pid": os.getpid(),
            "host": self._host,
            "uptime": int(self._clock() - self._started),
            "devices": self._devices(),
            # KiB on FreeBSD and Linux alike.
            "maxrss_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "store_connected": int(connected),
            "store_since": int(since),
            "shortage": shortage(),
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

    def health(self) -> DaemonFacts:
        return self._health(self.values())

    def log(self) -> Sequence[LogLine]:
        return self._journal.last()

    def follow(self, last: int) -> Iterator[Part]:
        return _followed(self._journal, None, last)

    def configured(self) -> Mapping[str, Value]:
        """The switches of the log."""
        return {f"log.{path.value}": int(path.value in self._config().daemon.log) for path in Path}

    def note(self, words: str, who: str) -> None:
        self._journal(Noted(who, words))

    def set(self, name: str, value: int, who: str) -> None:
        """Throw a switch of the log; it stands until the configuration is read again."""
        if value not in (0, 1):
            raise OperatorError(f"hw.xbbd.{name}={value}: must be 0 or 1")
        path = Path(name.removeprefix("log."))
        before = int(path in self._journal.switches)
        self._journal.switches = (
            self._journal.switches | {path} if value else self._journal.switches - {path}
        )
        self._journal(SwitchSet(f"{DAEMON_ROOT}.{name}", before, value, who))


def _followed(journal: Journal, device: str | None, last: int) -> Iterator[Part]:
    """The lines of a log as they come, until nobody takes them any more."""
    feed = journal.follow(device, last)
    try:
        while not feed.over:
            line = feed.take()
            yield feed if line is None else line
    finally:
        journal.unfollow(feed)


def _shown(value: object) -> Value:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(value)
    return value if isinstance(value, str) else int(value)  # type: ignore[call-overload]
