"""What the log says of those who served and died, and of whoever goes on.

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
class SegmentLeft(Event):
    """An earlier daemon left a state segment with which nothing can be done."""

    severity = Severity.WARNING
    text = "{file}: left by an earlier daemon, and of no use: {reason}"
    file: str
    reason: str
