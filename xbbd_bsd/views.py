"""What the tree shows of devices and of the daemon: joins bus, families and journal.

Reads what others know already: no store is asked, no data path disturbed.
What kind of device it is, only its family knows.  Control thread.
"""

import os
import resource
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from xbbd_bsd import __version__
from xbbd_bsd.accounts import Accounts
from xbbd_bsd.config import SECTIONS, Config, DaemonConfig
from xbbd_bsd.control.accept import shortage
from xbbd_bsd.control.health import DaemonFacts, Limit, of_daemon
from xbbd_bsd.control.protocol import Part
from xbbd_bsd.control.tree import Key, LogLine
from xbbd_bsd.deeds import DiskNoted, Noted, SwitchSet, ValueSet
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.events import Path
from xbbd_bsd.findings import Finding
from xbbd_bsd.journal import Journal
from xbbd_bsd.oids import DAEMON_ROOT, Value
from xbbd_bsd.xenbus.bus import Bus
from xbbd_bsd.xenbus.device import Device
from xbbd_bsd.xenbus.family import Family, Numbers, Standing
from xbbd_bsd.xenbus.states import State

# As newbus says it of a backend's device, besides what its driver is.
_NEWBUS: Final[Mapping[str, Value]] = {
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

# Of a guest whose device is closed though nothing failed.
_WITHOUT = {
    State.GONE: "the guest is gone",
    State.CLOSING: "the guest is closing it",
    State.CLOSED: "the guest has closed it",
}


class DeviceView:
    """One device, of whatever family."""

    def __init__(self, device: Device, family: Family, journal: Journal) -> None:
        self._device = device
        self._family = family
        self._journal = journal

    @property
    def _numbers(self) -> Numbers:
        return self._family.numbers(self._device.identity.unit)

    def group(self, name: str) -> Mapping[str, Value]:
        """The values there are of a group of leaves."""
        if name != "xenbus":
            return self._numbers.group(name)
        identity, driver = self._device.identity, self._family.driver
        ours, guest = self._device.states
        return {
            "%desc": driver.description,
            "%driver": driver.name,
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

    def rings(self) -> Sequence[int]:
        return self._numbers.rings()

    def ring(self, number: int) -> Mapping[str, Value]:
        return self._numbers.ring(number)

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        return {
            "domid": self._device.identity.domid,
            "state": _STATES.get(self._device.states[0], "InvalidState"),
            "reason": self._why_closed(),
            **self._numbers.stat(latency=latency),
        }

    def listed(self, names: Collection[str]) -> Mapping[str, Any]:
        group_of = self._family.driver.group_of
        found: dict[str, Any] = {
            "domid": self._device.identity.domid,
            "state": _STATES.get(self._device.states[0], "InvalidState"),
            "reason": self._why_closed(),
        }
        for group in sorted({group_of[name] for name in names if name in group_of}):
            values = self.group(group)
            found.update({name: values[name] for name in names if name in values})
        return found

    def _why_closed(self) -> str:
        """Why the guest does not have its device, if it had it or should; "" if that is not so."""
        device = self._device
        if told := device.closed_reason or device.held_back:
            return told
        ours, guest = device.states
        return _WITHOUT.get(guest, "") if ours in (State.CLOSING, State.CLOSED) else ""

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        return self._numbers.inflight()

    def log(self) -> Sequence[LogLine]:
        return self._journal.last(self._device.name)

    def follow(self, last: int) -> Iterator[Part]:
        return _followed(self._journal, self._device.name, last)

    def configured(self) -> Mapping[str, Value]:
        return self._numbers.configured()

    def set(self, name: str, value: int, who: str) -> None:
        driver, unit = self._family.driver, self._device.identity.unit
        before = self._numbers.group(driver.group_of[name]).get(name, 0)
        self._numbers.set(name, value, driver.oid(unit, name))
        words = driver.leaves[name].words
        after = words[value] if words else value
        self._journal(ValueSet(self._device.name, name, before, after, who))

    def health(self, bound: float, shared: Sequence[Finding], *, alone: bool) -> list[Finding]:
        standing = Standing.of(self._device.held_back, self._device.failed)
        return self._numbers.health(standing, bound, shared, alone=alone)

    def perform(self, verb: str, who: str, value: str = "") -> Iterator[Part]:
        yield from self._family.perform(verb, self._device.identity.unit, who, value)

    def note(self, words: str, who: str) -> None:
        self._journal(DiskNoted(self._device.name, who, words))


class Devices:
    """All devices there are (tree.Devices)."""

    def __init__(self, bus: Bus, families: Mapping[str, Family], journal: Journal) -> None:
        """`families` by kind."""
        self._bus = bus
        self._families = families
        self._journal = journal

    def __iter__(self) -> Iterator[Key]:
        identities = (device.identity for device in self._bus.devices)
        return ((identity.driver, identity.unit) for identity in identities)

    def get(self, key: Key, /) -> DeviceView | None:
        """One, as an operator sees it."""
        device = self._bus.device(*key)
        if device is None:
            return None
        return DeviceView(device, self._families[device.identity.kind], self._journal)

    def at(self, directory: str) -> Key | None:
        """That of a backend."""
        device = self._bus.device_at(directory)
        return None if device is None else (device.identity.driver, device.identity.unit)


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
        families: Sequence[Family],
        reload: Callable[[str], Mapping[str, Any]],
        budget: Callable[[], tuple[int, int]],
        limits: Accounts,
        store: Callable[[], tuple[bool, float]],
    ) -> None:
        """`places`: keys of [daemon] that may be left out, as they are; `configuration`:
        leaves about the file; `devices` counts them; `clock` gives seconds and stands at
        the start now; `families`: each once; `reload` does what the verb of that name wants;
        `budget` counts mappings and grants in use; `limits` go by `clock`; `store`: whether
        XenStore answers, and since when (seconds since 1970).
        """
        self._places = places
        self._host = host
        self._journal = journal
        self._config = config
        self._devices = devices
        self._clock = clock
        self._started = clock()
        self._budget = budget
        self._limits = limits
        self._store = store
        self._families = families
        self.reload = reload
        self._configuration = configuration

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
            **self._limits.values(),
            **{
                f"{section}.{key.name}": _shown(getattr(getattr(config, section), key.name))
                for section, keys in SECTIONS.items()
                if keys is not DaemonConfig
                for key in fields(keys)
            },
        }

    def health(self) -> list[Finding]:
        """What is wrong with the daemon, and with what no device has."""
        values = self.values()
        facts = DaemonFacts(
            store_connected=bool(values["store_connected"]),
            store_since=float(values["store_since"]),
            refused=str(values["configuration_refused"]),
            refused_since=float(values["configuration_refused_since"]),
            shortage=str(values["shortage"]),
            limits=self._limits_reached(),
        )
        return [*of_daemon(facts), *(f for family in self._families for f in family.findings())]

    def _limits_reached(self) -> list[Limit]:
        began = time.time() - self._clock()
        return [
            Limit(limit.what, limit.where, began + limit.since) for limit in self._limits.reached()
        ]

    def perform(self, verb: str, operand: str, who: str) -> Iterator[Part]:
        """Do a verb to what no device has; the first family that knows it does."""
        family = next(family for family in self._families if verb in family.driver.verbs)
        yield from family.perform(verb, operand, who)

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
