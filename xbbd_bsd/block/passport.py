"""What the next daemon has to know of a disk that is left at work, whatever version it is.

A daemon that leaves writes beside each state segment what was agreed with the guest and how
the disk is open (passportfiles.py).  Any thread.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from xbbd_bsd import passportfiles
from xbbd_bsd.native import QueueParams, SegmentIdentity, SegmentMedium
from xbbd_bsd.passportfiles import SUFFIX, check_format, counters_of, dataclass_of, rings_of

NOTE: Final = ".swap"  # of its name, of what is about to hold of a disk that is exchanged
FORMAT: Final = 1  # a higher one has what must not be left out


@dataclass(frozen=True, slots=True)
class Passport:
    """Of one disk; `params` and `counters` by ring.

    `served`: our node of that name, as it was when the guest connected.  `answered`: nothing
    was left unanswered; else a process serves on, and has to hand over first.  `paused`:
    nothing of it is to be begun.  `holder`: what the disk's store calls whoever left it.
    """

    identity: SegmentIdentity
    medium: SegmentMedium
    params: Mapping[int, QueueParams]
    counters: Mapping[int, Mapping[str, int]]
    served: str
    answered: bool
    paused: bool = False
    holder: str = ""


def write(path: str, passport: Passport, suffix: str = SUFFIX) -> None:
    """Leave it beside the segment at `path`; HostError."""
    passportfiles.write(path, {"format": FORMAT, **asdict(passport)}, suffix)


def read(path: str, suffix: str = SUFFIX) -> Passport | None:
    """The one beside the segment at `path`, None if there is none; HostError if it is none."""
    return passportfiles.read(path, _passport, suffix)


def remove(path: str) -> None:
    """Remove it, if there is one, and what was noted of an exchange."""
    passportfiles.remove(path, NOTE)


def _passport(found: Mapping[str, Any]) -> Passport:
    check_format(found, FORMAT)
    params = rings_of(QueueParams, found["params"])
    medium = dict(found["medium"])
    kind, device, inode = medium.pop("key")
    return Passport(
        dataclass_of(SegmentIdentity, found["identity"]),
        dataclass_of(SegmentMedium, {**medium, "key": (str(kind), int(device), int(inode))}),
        params,
        counters_of(found["counters"]),
        str(found["served"]),
        found["answered"] is True,
        found.get("paused") is True,
        str(found.get("holder", "")),
    )
