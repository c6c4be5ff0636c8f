"""Every line that the daemon can log, with its fields, on one page.

Pure: neither a log nor a clock is known here; journal.py gives them to one.
Events are frozen dataclasses; the text of each is a format of its fields.
Control thread.
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


@dataclass(frozen=True)
class LimitReached(Event):
    """All disks together have what a bound allows, or all that the host has."""

    severity = Severity.WARNING
    text = "limit reached, {limit}: disks wait, are refused, or do with less; see {where}"
    limit: str
    where: str


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
class GuestErrors(DeviceEvent):
    """The guest asks for what it cannot have: the last such request, and how many before it."""

    path = Path.DATA
    severity = Severity.WARNING
    text = "{what} refused, the guest's fault: {reason}"
    what: str
    reason: str
    more: int
    seconds: int

    def __str__(self) -> str:
        more = f"; {self.more} more in {self.seconds} s" if self.more else ""
        return super().__str__() + more


@dataclass(frozen=True)
class DiskErrors(GuestErrors):
    """The disk failed requests, the host's fault: likewise; `errno` by name."""

    severity = Severity.ERROR
    urgent = True
    text = "{what} of {disk} failed: {reason} ({errno})"
    disk: str
    errno: str


@dataclass(frozen=True)
class QueueStatus(DeviceEvent):
    """The data path woke us."""

    path = Path.DATA
    severity = Severity.DEBUG
    text = "queue {state}, reason {reason}, errno {errno}"
    state: str
    reason: str
    errno: int
