"""What the next daemon has to know of a card that is left at work, whatever version it is.

As a disk's (block/passport.py): what was agreed with the guest, by names, beside its state
segment.  What its interface is called lies there anyway (segments.py).  Any thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from xbbd_bsd import passportfiles
from xbbd_bsd.errors import HostError
from xbbd_bsd.events import Event
from xbbd_bsd.native import NetParams, NetState, SegmentIdentity
from xbbd_bsd.net.queues import all_in, charter
from xbbd_bsd.net.segments import named_interface
from xbbd_bsd.passportfiles import SUFFIX, check_format, counters_of, dataclass_of, rings_of
from xbbd_bsd.takeovers import SegmentLeft

FORMAT: Final = 1  # a higher one has what must not be left out


@dataclass(frozen=True, slots=True)
class Passport:
    """Of one card; `params` and `counters` by queue.

    `served`: our node of that name, as it was when the guest connected.  `answered`: nothing
    was left unanswered; else a process serves on, and has to hand over first.
    """

    identity: SegmentIdentity
    params: Mapping[int, NetParams]
    counters: Mapping[int, Mapping[str, int]]
    served: str
    answered: bool


def write(path: str, passport: Passport) -> None:
    """Leave it beside the segment at `path`; HostError."""
    passportfiles.write(path, {"format": FORMAT, **asdict(passport)})


def read(path: str, suffix: str = SUFFIX) -> Passport | None:
    """The one beside the segment at `path`, None if there is none; HostError if it is none."""
    return passportfiles.read(path, _passport, suffix)


def passport_of(segment: NetState, *, answered: bool) -> Passport | None:
    """Of what is served; None if that is nothing that could be adopted."""
    try:
        made, interface = all_in(segment), named_interface(segment)
    except HostError:
        return None
    if not made or segment.ending or segment.damaged:
        return None
    counters = {queue: segment.counts(queue) for queue in made}
    agreed = charter(segment.identity, interface, made)
    return Passport(segment.identity, made, counters, agreed.decode(), answered)


def note_passport(segment: NetState, *, answered: bool, journal: Callable[[Event], None]) -> None:
    """Leave one beside its segment, if there is something to be adopted."""
    try:
        passport = passport_of(segment, answered=answered)
        if passport is not None:
            write(segment.path, passport)
    except HostError as error:
        journal(SegmentLeft(segment.path, str(error)))


def _passport(found: Mapping[str, Any]) -> Passport:
    check_format(found, FORMAT)
    return Passport(
        dataclass_of(SegmentIdentity, found["identity"]),
        rings_of(NetParams, found["params"]),
        counters_of(found["counters"]),
        str(found["served"]),
        found["answered"] is True,
    )
