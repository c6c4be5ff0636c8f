"""Every line that the daemon can log, with its fields, on one page.

Pure: neither a log nor a clock is known here; both are handed to `Journal`.
Events are frozen dataclasses; the text of each is a format of its fields.  Two
switches let the chatter through, one for the control path (XenStore, states)
and one for the data path (rings, disks).  Guests can cause events at will, so
those of one device are limited in rate, and cannot hide what an operator has
to know.  Control thread.
"""

import itertools
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from typing import ClassVar, Final

from xbbd_bsd.errors import one_line


class Path(Enum):
    """Which half of the work an event belongs to; the value is its switch in the configuration."""

    CONTROL = "control"
    DATA = "data"


class Severity(IntEnum):
    """How much an event matters; the numbers are those of the standard library's logging."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True)
class Event:
    """Base of all events: class attributes say what kind it is, fields what happened."""

    path: ClassVar[Path] = Path.CONTROL
    severity: ClassVar[Severity] = Severity.INFO
    text: ClassVar[str] = ""
    urgent: ClassVar[bool] = False  # of a device, and of host or operator: see Journal

    def __str__(self) -> str:
        return self.text.format(**{field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True)
class DeviceEvent(Event):
    """An event of one device, e.g. `device` = "xbbd0 (vbd/5/51712)"; limited in rate."""

    device: str

    def __str__(self) -> str:
        return f"{self.device}: {super().__str__()}"


# The daemon.


@dataclass(frozen=True)
class Started(Event):
    """The daemon serves from now on."""

    text = "serving {kinds} on {host}"
    kinds: str
    host: str


@dataclass(frozen=True)
class Stopping(Event):
    """A signal asked the daemon to leave; it has `limit` seconds for that."""

    text = "{signal}: leaving, {devices} devices to close within {limit:g} s"
    signal: str
    devices: int
    limit: float


@dataclass(frozen=True)
class Stopped(Event):
    """Nothing is held any more."""

    text = "stopped"


@dataclass(frozen=True)
class StopFailed(Event):
    """The time limit of stopping passed twice; the kernel cleans up after us."""

    severity = Severity.ERROR
    text = "giving up on {devices}: their requests do not end; leaving without them"
    devices: str


@dataclass(frozen=True)
class Configured(Event):
    """The configuration was read again."""

    text = "configuration read again: {changes}"
    changes: str


@dataclass(frozen=True)
class ConfigurationRefused(Event):
    """The new configuration has an error; the old one stays."""

    severity = Severity.ERROR
    text = "configuration not changed: {reason}"
    reason: str


@dataclass(frozen=True)
class StoreLost(Event):
    """XenStore does not answer; the rings go on."""

    severity = Severity.WARNING
    text = "XenStore lost: {reason}; connected guests are served, nothing else until it is back"
    reason: str


@dataclass(frozen=True)
class StoreBack(Event):
    """XenStore answers again; everything is looked at anew."""

    text = "XenStore is back"


@dataclass(frozen=True)
class ScanFailed(Event):
    """The directory of a kind of backend could not be read."""

    severity = Severity.ERROR
    text = "cannot look for {kind} devices: {reason}"
    kind: str
    reason: str


# Devices, control path.


@dataclass(frozen=True)
class DeviceFound(DeviceEvent):
    """The toolstack has made a device for us."""

    text = "found"


@dataclass(frozen=True)
class StateChanged(DeviceEvent):
    """The table of states has decided; names as in xenbus.h."""

    severity = Severity.DEBUG
    text = "we {ours}, guest {guest}: {action}, next {next}"
    ours: str
    guest: str
    action: str
    next: str


@dataclass(frozen=True)
class Opened(DeviceEvent):
    """The disk is open."""

    text = "opened {medium}"
    medium: str


@dataclass(frozen=True)
class Connected(DeviceEvent):
    """The ring is served."""

    text = "connected: {ring}"
    ring: str


@dataclass(frozen=True)
class Resized(DeviceEvent):
    """The disk has another size; requests are checked against it from now on."""

    text = "the disk has {after} sectors of 512 bytes, not {before} any more"
    before: int
    after: int


@dataclass(frozen=True)
class SizeRounded(DeviceEvent):
    """The disk does not end with a whole sector; the rest is not served (the kernel driver too)."""

    severity = Severity.WARNING
    urgent = True
    text = "the last {left_over} bytes, less than a sector of {sector_size}, are not served"
    left_over: int
    sector_size: int


@dataclass(frozen=True)
class WritesLost(DeviceEvent):
    """What a guest wrote may be lost; its disk stays closed until an operator says otherwise."""

    path = Path.DATA
    severity = Severity.ERROR
    urgent = True
    text = (
        "writes to {disk} may be lost, {reason}: it is not opened again before somebody"
        " runs xbbctl clear {disk}"
    )
    disk: str
    reason: str


@dataclass(frozen=True)
class DiskCleared(Event):
    """An operator says that a disk may be opened again."""

    text = "{disk} may be opened again, whatever it has lost"
    disk: str


@dataclass(frozen=True)
class HeldBack(DeviceEvent):
    """What a guest that comes back needs cannot be had now; it is tried again."""

    severity = Severity.WARNING
    urgent = True
    text = "waits: {reason}; next try within {seconds:g} s"
    reason: str
    seconds: float


@dataclass(frozen=True)
class TakenAlong(DeviceEvent):
    """The guest is gone and nobody removed its nodes, so we did."""

    text = "its guest is gone and so is its toolstack: nodes removed"


@dataclass(frozen=True)
class SizeRefused(DeviceEvent):
    """The disk has become too small to be one."""

    severity = Severity.WARNING
    urgent = True
    text = "the disk has only {size} bytes, less than a sector: the guest is told nothing"
    size: int


@dataclass(frozen=True)
class MediumIgnored(DeviceEvent):
    """The toolstack names another medium for an open disk, which is refused (xen-blkback too)."""

    severity = Severity.WARNING
    urgent = True
    text = "{node} names another medium, which is ignored while the disk is open"
    node: str


@dataclass(frozen=True)
class Disconnected(DeviceEvent):
    """The ring and its event channel are given back."""

    text = "disconnected"


@dataclass(frozen=True)
class DeviceGone(DeviceEvent):
    """Nothing of the device is held any more."""

    text = "gone"


@dataclass(frozen=True)
class AttachFailed(DeviceEvent):
    """The device cannot be offered to the guest."""

    severity = Severity.ERROR
    urgent = True
    text = "attach failed: {reason}"
    reason: str


@dataclass(frozen=True)
class ConnectionFailed(DeviceEvent):
    """The connection with the guest could not be made, or ended by a fault."""

    severity = Severity.ERROR
    urgent = True
    text = "connection failed: {reason}"
    reason: str


@dataclass(frozen=True)
class GuestFailed(ConnectionFailed):
    """The same where the guest is to blame, who can do it again and again."""

    urgent = False


@dataclass(frozen=True)
class StoreRefused(DeviceEvent):
    """XenStore is there and does not let us read or write a node."""

    severity = Severity.WARNING
    urgent = True
    text = "XenStore refuses: {reason}"
    reason: str


@dataclass(frozen=True)
class InternalError(DeviceEvent):
    """A defect of ours; the device is left as it is."""

    severity = Severity.ERROR
    urgent = True
    text = "internal error, please report it: {reason}"
    reason: str


# Devices, data path.


@dataclass(frozen=True)
class QueueStarted(DeviceEvent):
    """The ring's thread runs."""

    path = Path.DATA
    severity = Severity.DEBUG
    text = "queue started: port {port}, {abi}, ring references {refs}"
    port: int
    abi: str
    refs: str


@dataclass(frozen=True)
class QueueStatus(DeviceEvent):
    """The data path woke us."""

    path = Path.DATA
    severity = Severity.DEBUG
    text = "queue {state}, reason {reason}, errno {errno}"
    state: str
    reason: str
    errno: int


BURST: Final = 20
REFILL_SECONDS: Final = 3.0
AGAIN_SECONDS: Final = 60.0  # until an urgent line is news again
KEPT_OF_DEVICE: Final = 64  # urgent lines, as many others that were logged, and that were not
KEPT: Final = 512
_NUMBER: Final = re.compile(r"\d+")
_NEWS: Final = 32  # urgent lines of a device, but for their numbers, that are remembered


Line = tuple[float, str, str]


class Journal:
    """Gives events to a log, after the switches and the limit of rate.

    `sink` takes severity and line.  `clock` gives seconds that only grow, `date`
    those since 1970.  Each device may log BURST lines at once and one more every
    REFILL_SECONDS; what is left out is counted, and told with the device's next
    line.  An urgent line has a limit of its own if it is news, that is if none like
    it (numbers apart, which may be the guest's) was logged in the last
    AGAIN_SECONDS: so a guest that has used up its lines, or has the host fail in
    one way again and again, does not hide that the disk is gone.  The last lines
    are kept to be asked for: of the daemon what was logged, of each device also
    what the switches or the limit left out.
    """

    def __init__(
        self,
        sink: Callable[[Severity, str], None],
        clock: Callable[[], float],
        switches: frozenset[Path] = frozenset(),
        date: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.switches = switches
        self.left_out = 0  # lines, of all devices since the start
        self._sink = sink
        self._clock = clock
        self._date = date
        self._kept: deque[Line] = deque(maxlen=KEPT)
        self._devices: dict[str, _OfDevice] = {}

    def __call__(self, event: Event) -> None:
        """Log an event, or leave it out."""
        shown = event.severity is not Severity.DEBUG or event.path in self.switches
        text = one_line(str(event))
        line = (self._date(), event.severity.name.lower(), text)
        if isinstance(event, DeviceEvent):
            now = self._clock()
            device = self._devices.get(event.device)
            if device is None:
                device = self._devices[event.device] = _OfDevice(now)
            if not shown:
                device.unlogged.append(line)
                return
            if not device.may_log(event, text, now):
                self.left_out += 1
                device.unlogged.append(line)
                return
            if device.left_out:
                text += f" ({device.left_out} lines before this left out)"
                device.left_out = 0
                line = (*line[:2], text)
            (device.urgent if event.urgent else device.logged).append(line)
        elif not shown:
            return
        self._kept.append(line)
        self._sink(event.severity, text)

    def last(self, device: str | None = None) -> list[Line]:
        """The last lines of a device, or of the daemon: when, severity, text."""
        if device is None:
            return list(self._kept)
        found = self._devices.get(device)
        if found is None:
            return []
        lines = itertools.chain(found.urgent, found.logged, found.unlogged)
        return sorted(lines, key=lambda line: line[0])

    def forget(self, device: str) -> None:
        """A device is gone for good: free what is kept for it."""
        self._devices.pop(device, None)


@dataclass(slots=True)
class _Bucket:
    """How many lines may still be logged; refills by itself."""

    since: float
    lines: float = BURST

    def take(self, now: float) -> bool:
        self.lines = min(BURST, self.lines + (now - self.since) / REFILL_SECONDS)
        self.since = now
        if self.lines < 1:
            return False
        self.lines -= 1
        return True


class _OfDevice:
    """What a device may still log, and its last lines.

    These are apart, so that neither steps without number nor what a guest can cause
    wash away what was wrong.
    """

    def __init__(self, now: float) -> None:
        self.left_out = 0
        self.urgent: deque[Line] = deque(maxlen=KEPT_OF_DEVICE)
        self.logged: deque[Line] = deque(maxlen=KEPT_OF_DEVICE)
        self.unlogged: deque[Line] = deque(maxlen=KEPT_OF_DEVICE)
        self._common = _Bucket(now)
        self._news = _Bucket(now)
        self._when: dict[str, float] = {}  # urgent lines without numbers, oldest first

    def may_log(self, event: DeviceEvent, text: str, now: float) -> bool:
        """Take a line from the bucket that it belongs to; False is counted."""
        if (event.urgent and self._is_news(text, now)) or self._common.take(now):
            return True
        self.left_out += 1
        return False

    def _is_news(self, text: str, now: float) -> bool:
        key = _NUMBER.sub("#", text)
        when = self._when.get(key)
        if (when is not None and now - when < AGAIN_SECONDS) or not self._news.take(now):
            return False
        self._when.pop(key, None)
        self._when[key] = now
        if len(self._when) > _NEWS:
            del self._when[next(iter(self._when))]
        return True
