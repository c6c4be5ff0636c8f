"""What is said of stores that are reached over a connection.

A page of events.py.  Pure.  Control thread.
"""

from dataclasses import dataclass

from xbbd_bsd.events import DeviceEvent, Path, Severity


@dataclass(frozen=True)
class StoreLost(DeviceEvent):
    """There is no connection; said again if there is another reason."""

    path = Path.DATA
    severity = Severity.WARNING
    urgent = True
    text = "{store} does not answer: {reason}; its guest waits, and it is tried again"
    store: str
    reason: str


@dataclass(frozen=True)
class StoreBack(DeviceEvent):
    """It is connected again; what waited goes on."""

    path = Path.DATA
    text = "{store} answers again, after {seconds:.1f} s"
    store: str
    seconds: float
