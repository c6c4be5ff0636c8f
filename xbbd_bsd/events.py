"""Every line that the daemon can log: frozen dataclasses, whose text is a format of their fields.

What operators do is in deeds.py, requests that failed are in faults.py.  Pure: neither a
log nor a clock is known here; journal.py gives them to one.  Control thread.
"""

from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from typing import ClassVar


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
    limited: ClassVar[bool] = False  # in rate, since somebody else can cause it at will

    def __str__(self) -> str:
        return self.text.format(**{field.name: getattr(self, field.name) for field in fields(self)})


@dataclass(frozen=True)
class DeviceEvent(Event):
    """An event of one device, e.g. `device` = "xbbd0 (vbd/5/51712)"."""

    limited = True
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

    text = "configuration read again: {changes}, by {who}"
    changes: str
    who: str


@dataclass(frozen=True)
class KindsLeftOut(Event):
    """The new configuration serves fewer kinds: what guests have of them is about to be closed.

    `disks` counts devices, each of which is a `noun`.
    """

    severity = Severity.WARNING
    text = "{kinds} is not served any more: {closes}"
    kinds: str
    disks: int
    guests: int
    noun: str = "disk"

    @property
    def closes(self) -> str:
        """How much that is."""
        disks = f"{self.disks} {self.noun}" + "s" * (self.disks != 1)
        return f"closes {disks} of {self.guests} guest" + "s" * (self.guests != 1)

    def __str__(self) -> str:
        return self.text.format(kinds=self.kinds, closes=self.closes)


@dataclass(frozen=True)
class ConfigurationRefused(Event):
    """The new configuration has an error, one of several maybe; the old one stays."""

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


@dataclass(frozen=True)
class LimitReached(Event):
    """All disks together have what a bound allows, or all that the host has."""

    severity = Severity.WARNING
    text = "limit reached, {limit}: devices wait, are refused, or do with less; see {where}"
    limit: str
    where: str


@dataclass(frozen=True)
class FewDescriptors(Event):
    """At a start: what this process may have open bounds the disks before anything else does."""

    severity = Severity.WARNING
    text = "{descriptors} file descriptors are enough for {disks} disks, of {rings} rings each"
    descriptors: int
    disks: int
    rings: int


@dataclass(frozen=True)
class NotAccepted(Event):
    """A client of ours cannot be let in; it waits, and is tried again."""

    severity = Severity.ERROR
    limited = True
    text = "{where} accepts nobody just now: {reason}; see hw.xbbd.shortage"
    where: str
    reason: str


@dataclass(frozen=True)
class LibrarySays(Event):
    """What a library, Python itself or its event loop had to say."""

    severity = Severity.WARNING
    limited = True
    text = "{library}: {words}"
    library: str
    words: str


@dataclass(frozen=True)
class Defect(Event):
    """A defect of ours beyond any device; whatever it was about is left as it is."""

    severity = Severity.ERROR
    limited = True
    text = "{where}: internal error, please report it: {trace}"
    where: str
    trace: str


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
class Hangs(DeviceEvent):
    """What waits for the disk, or for the guest's pages, does not come back."""

    severity = Severity.WARNING
    urgent = True
    text = "hangs: {what}"
    what: str


@dataclass(frozen=True)
class HangEnded(DeviceEvent):
    """It came back after all."""

    severity = Severity.WARNING
    urgent = True
    text = "hung for {seconds:.1f} s and goes on: {what}"
    what: str
    seconds: float


@dataclass(frozen=True)
class SizeRefused(DeviceEvent):
    """The disk has become too small to be one."""

    severity = Severity.WARNING
    urgent = True
    text = "the disk has only {size} bytes, less than a sector: the guest is told nothing"
    size: int


@dataclass(frozen=True)
class DiskUnnamed(DeviceEvent):
    """What the disk was opened as is deleted, or has another name."""

    severity = Severity.WARNING
    urgent = True
    text = (
        "{disk} is gone, deleted or renamed: the guest goes on with what was opened, which"
        " nobody finds there once it is closed"
    )
    disk: str


@dataclass(frozen=True)
class DiskAnother(DeviceEvent):
    """What the disk was opened as is the name of something else by now."""

    severity = Severity.WARNING
    urgent = True
    text = (
        "{disk} is another file or device by now: the guest goes on with what was opened,"
        " which nobody finds there once it is closed"
    )
    disk: str


@dataclass(frozen=True)
class DiskTruncated(DeviceEvent):
    """The disk has lost its end under the guest."""

    severity = Severity.WARNING
    urgent = True
    text = (
        "{disk} has become smaller under the guest, it had {sectors} sectors of 512 bytes;"
        " xbbctl resize says that it is meant"
    )
    disk: str
    sectors: int


@dataclass(frozen=True)
class DiskNamed(DeviceEvent):
    """All is as it was when the disk was opened."""

    text = "{disk} is the guest's disk again, whole"
    disk: str


@dataclass(frozen=True)
class MediumIgnored(DeviceEvent):
    """The toolstack names another medium for an open disk, which is refused (xen-blkback too)."""

    severity = Severity.WARNING
    urgent = True
    text = "{node} names another medium, which is ignored while the disk is open"
    node: str


@dataclass(frozen=True)
class InterfaceStays(DeviceEvent):
    """The interface of a card that is gone, or has another one, cannot be removed."""

    severity = Severity.WARNING
    urgent = True
    text = "{interface} stays, and is to be removed by hand: {reason}"
    interface: str
    reason: str


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
class GuestSays(DeviceEvent):
    """The guest closes instead of connecting, and its driver has left the reason in XenStore."""

    severity = Severity.WARNING
    text = "the guest does not connect, and says: {words}"
    words: str


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
    text = "queue started: port {port}, ring references {refs}"
    port: int
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
