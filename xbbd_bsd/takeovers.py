"""What the log says of those who served and died or left, and of whoever goes on.

Pure, as events.py.  Control thread.
"""

from dataclasses import dataclass

from xbbd_bsd.events import DeviceEvent, Event, Severity


@dataclass(frozen=True)
class Adopted(DeviceEvent):
    """A ring that an earlier daemon served is served again; its guest has seen a pause."""

    text = "taken over: {ring}"
    ring: str


@dataclass(frozen=True)
class ProcessLost(Event):
    """The process of a guest has died; another one is to take over, and the guest waits."""

    severity = Severity.ERROR
    urgent = True
    text = "the process of guest {domid} has ended: {how}"
    domid: int
    how: str


@dataclass(frozen=True)
class ProcessesStay(Event):
    """Processes serve guests at the start of a daemon that is configured to have none."""

    severity = Severity.WARNING
    text = (
        "guest.processes is false, but there are processes at work: guests are served by"
        " processes until xbbd is stopped"
    )


@dataclass(frozen=True)
class SegmentLeft(Event):
    """An earlier daemon left a state segment with which nothing can be done."""

    severity = Severity.WARNING
    text = "{file}: left by an earlier daemon, and of no use: {reason}"
    file: str
    reason: str


@dataclass(frozen=True)
class Leaving(Event):
    """A signal asked the daemon to leave, and guests to be left at work."""

    text = "{signal}: leaving, {devices} devices stay at work"
    signal: str
    devices: int


@dataclass(frozen=True)
class Left(Event):
    """Nothing is under way any more; guests wait for the next daemon, or are served by others."""

    text = "left, for the next one to go on"


@dataclass(frozen=True)
class LeftBusy(Event):
    """The time limit of leaving passed; what is under way is done again by the next daemon."""

    severity = Severity.WARNING
    text = "left, and the next one has to do again what {devices} have not answered"
    devices: str
