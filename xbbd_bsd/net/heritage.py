"""State segments of cards that a daemon left when it died: whose they are, what they say.

Whoever serves such a card again goes by its segment, never by what its guest or the
configuration say now.  Its interface is there still, in its bridge; it goes with the
segment once its guest is known to be gone.  Control thread.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.events import Event
from xbbd_bsd.native import NetParams, NetState
from xbbd_bsd.net.oids import DRIVER
from xbbd_bsd.net.queues import left_in
from xbbd_bsd.net.segments import inherit_segment, look_at_segment
from xbbd_bsd.segmentfiles import remove_file, segment_path
from xbbd_bsd.takeovers import SegmentLeft
from xbbd_bsd.xenbus.family import Identity

_NAMES: Final = re.compile(rf"{DRIVER.name}\.(0|[1-9]\d{{0,8}})")
_MACHINE_LENGTH: Final = 63  # of what a segment has of its name


@dataclass(frozen=True, slots=True)
class Left:
    """A segment of a daemon that is gone; `refusal`: why nothing can come of it, "" if it may."""

    path: str
    who: Identity
    machine: str
    interface: str
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """How a card was served: its queues, its interface, and whether that was about to end."""

    asked: Mapping[int, NetParams]
    interface: str
    ending: bool


class Inheritance:
    """What one card has of an earlier daemon, as long as something may come of it."""

    def __init__(self, left: Left | None) -> None:
        self._left = left
        self._served: Served | None = None

    @property
    def adoptable(self) -> bool:
        return self._left is not None and not self._left.refusal

    @property
    def refusal(self) -> str:
        return self._left.refusal if self._left is not None else ""

    @property
    def interface(self) -> str:
        """What its interface was called; "" if nothing is left, or it had none."""
        return self._left.interface if self._left is not None else ""

    def is_for(self, machine: str) -> None:
        """The guest is that virtual machine, "" if unknown: it may be another of its number."""
        left = self._left
        if left is not None and machine and left.machine not in ("", machine[:_MACHINE_LENGTH]):
            self.give_up("its state segment is another virtual machine's")

    def take(self) -> NetState:
        """The segment, which is the card's from now on; HostError, EBUSY: it is not free."""
        assert self._left is not None
        return inherit_segment(self._left.path)

    def served(self, segment: NetState) -> Served:
        """What it says, each time the same, though we are in it by now; HostError."""
        if self._served is None:
            assert self._left is not None
            asked = left_in(segment, self._left.who)
            self._served = Served(asked, segment.interface, segment.ending)
        return self._served

    def taken(self) -> None:
        """Somebody goes on with it: nothing is left."""
        self._left = None

    def give_up(self, refusal: str) -> None:
        """Nothing can come of it any more; its interface stays the card's."""
        if self._left is not None:
            remove_file(self._left.path)
            self._left = replace(self._left, refusal=refusal)

    def leave(self) -> bool:
        """The card begins anew, or is gone.  Whether something was left until now."""
        left = self._left is not None
        self.give_up("it was begun anew")
        self.taken()
        return left


class Heritage:
    """The segments that a directory holds when a daemon begins."""

    def __init__(self, directory: str, journal: Callable[[Event], None]) -> None:
        """Look through the directory."""
        self._journal = journal
        self._left: dict[int, Left] = {}  # by unit
        for match in map(_NAMES.fullmatch, sorted(os.listdir(directory))):
            if match:
                self._look_at(directory, int(match[1]))

    def _look_at(self, directory: str, unit: int) -> None:
        path = segment_path(directory, DRIVER.name, unit)
        try:
            segment = look_at_segment(path)
        except HostError as error:
            self._journal(SegmentLeft(path, str(error)))
            remove_file(path)
            return
        try:
            found = segment.identity
            who = Identity(found.kind, found.domid, found.number, DRIVER.name, found.unit)
            left = Left(path, who, found.machine, segment.interface, _refusal(segment, who))
        finally:
            segment.close()
        if who.unit != unit:
            self._journal(SegmentLeft(path, "it is about another card"))
            remove_file(path)
            return
        if left.refusal:
            remove_file(path)
        self._left[unit] = left

    @property
    def units(self) -> frozenset[int]:
        """Numbers that are not free yet."""
        return frozenset(self._left)

    @property
    def interfaces(self) -> frozenset[str]:
        """What the interfaces of those cards are called."""
        return frozenset(left.interface for left in self._left.values())

    def unit_of(self, kind: str, domid: int, number: int) -> int | None:
        """The number that a card had."""
        whose = (kind, domid, number)
        mine = (unit for unit, left in self._left.items() if _key(left.who) == whose)
        return min(mine, default=None)

    def claim(self, identity: Identity) -> Inheritance:
        """What is left of a card, which is that card's from now on."""
        left = self._left.get(identity.unit)
        if left is None or left.who != identity:
            return Inheritance(None)
        return Inheritance(self._left.pop(identity.unit))

    def settle(self, kind: str) -> list[Left]:
        """All cards of a kind that there are have claimed theirs: these are gone.

        Their interfaces nobody wants any more.
        """
        gone = [left for left in self._left.values() if left.who.kind == kind]
        for left in gone:
            remove_file(left.path)
            del self._left[left.who.unit]
        return gone


def _key(who: Identity) -> tuple[str, int, int]:
    return who.kind, who.domid, who.number


def _refusal(segment: NetState, who: Identity) -> str:
    """Why nothing can come of a segment, "" if something may."""
    try:
        left_in(segment, who)
    except XbbdError as error:
        return str(error)
    return ""
