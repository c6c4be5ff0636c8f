"""State segments of cards that a daemon left when it died: whose they are, what they say.

Whoever serves such a card again goes by its segment, never by what its guest or the
configuration say now.  Its interface is there still, in its bridge; it goes with the
segment once its guest is known to be gone.  Control thread.
"""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from xbbd_bsd import inheritance, passportfiles
from xbbd_bsd.charter import unit_of
from xbbd_bsd.errors import HostError, XbbdError
from xbbd_bsd.events import Event
from xbbd_bsd.inheritance import Former
from xbbd_bsd.native import MAX_RINGS, NetParams, NetState
from xbbd_bsd.net import passport as passport_file
from xbbd_bsd.net.oids import DRIVER
from xbbd_bsd.net.passport import Passport
from xbbd_bsd.net.queues import all_in, charter, left_in
from xbbd_bsd.net.segments import (
    interface_beside,
    look_at_segment,
    make_segment,
    named_interface,
    remove_left,
)
from xbbd_bsd.passportfiles import BEGUN, SUFFIX
from xbbd_bsd.segmentfiles import segment_path
from xbbd_bsd.takeovers import SegmentLeft
from xbbd_bsd.xenbus.family import Identity

_Key = tuple[str, int, int]  # kind, domid, number
_NAMES: Final = re.compile(rf"{DRIVER.name}\.(0|[1-9]\d{{0,8}})")


@dataclass(frozen=True, slots=True)
class Left:
    """A segment of somebody who is gone; `refusal`: why nothing can come of it, "" if it may."""

    path: str
    unit: int
    whose: _Key | None  # None: it cannot be read, and only the card's node may know
    machine: str = ""
    interface: str = ""
    refusal: str = ""
    passport: Passport | None = None
    legible: bool = True  # else only the passport says anything

    @property
    def answered(self) -> bool:
        """By its passport: nothing was left unanswered."""
        return self.passport is not None and self.passport.answered

    @property
    def who(self) -> Identity:
        """Of one that is known to be somebody's."""
        assert self.whose is not None
        return Identity(*self.whose, DRIVER.name, self.unit)

    def refused(self, refusal: str) -> "Left":
        """The same, but that nothing can come of it."""
        return replace(self, refusal=refusal)

    def handed_over(self) -> "Left":
        """The same, but that nothing is left unanswered; who follows, if we die, is told, too."""
        assert self.passport is not None
        passport = replace(self.passport, answered=True)
        with suppress(HostError):
            passport_file.write(self.path, passport)
        return replace(self, passport=passport)


@dataclass(frozen=True, slots=True)
class Served:
    """How a card was served: its queues, its interface, and whether that was about to end.

    `charter`: of that, in the words of whoever served it; `agreed` in ours (queues.py).
    """

    asked: Mapping[int, NetParams]
    interface: str
    ending: bool
    charter: bytes
    agreed: bytes


class Inheritance(inheritance.Inheritance[Left, NetState]):
    """What one card has of an earlier daemon, as long as something may come of it."""

    def __init__(
        self,
        left: Left | None,
        former: Former[NetState],
        who: Identity,
        woken: Callable[[], None],
    ) -> None:
        self._served: Served | None = None
        super().__init__(left, former, who, woken)

    @property
    def interface(self) -> str:
        """What its interface was called; "" if nothing is left, or it had none."""
        return self._left.interface if self._left is not None else ""

    def take(self) -> NetState:
        """The segment, which is the card's from now on; HostError, EBUSY: it is not free yet."""
        return self._take(_fresh)

    def served(self, segment: NetState) -> Served:
        """What it says, each time the same, though we are in it by now; HostError."""
        if self._served is None:
            assert self._left is not None
            self._served = _served(segment, self._left, self._who)
        return self._served

    def taken(self) -> None:
        if self._left is not None:
            passportfiles.remove(self._left.path)
        super().taken()
        self._served = None

    def _remove(self, left: Left) -> None:
        remove_left(left.path)


class Heritage:
    """The segments that a directory holds when a daemon begins."""

    def __init__(self, directory: str, journal: Callable[[Event], None]) -> None:
        """Look through the directory."""
        self._journal = journal
        self._left: dict[int, Left] = {}  # by unit
        names = {name.removesuffix(SUFFIX) for name in os.listdir(directory)}
        for match in map(_NAMES.fullmatch, sorted(names)):
            if match:
                self._look_at(directory, int(match[1]))

    def _look_at(self, directory: str, unit: int) -> None:
        path = segment_path(directory, DRIVER.name, unit)
        try:
            segment = look_at_segment(path)
        except HostError as error:
            if self._goes_by_passport(path, unit):
                return
            self._journal(SegmentLeft(path, str(error)))
            interface = interface_beside(path)
            self._left[unit] = Left(path, unit, None, "", interface, str(error))
            remove_left(path)
            return
        try:
            found = segment.identity
            who = Identity(found.kind, found.domid, found.number, DRIVER.name, found.unit)
            refusal, interface = _refusal(segment, who), named_interface(segment)
            served = bool(segment.served)
        finally:
            segment.close()
        if not served and self._goes_by_passport(path, unit, answered=True):
            return  # one that was to be served in place of another version's
        passport = self._passport(path, legible=True)
        left = Left(path, unit, key_of(who), found.machine, interface, refusal, passport)
        if who.unit != unit:
            self._journal(SegmentLeft(path, "it is about another card"))
            remove_left(path)
            return
        if left.refusal:
            remove_left(path)
        self._left[unit] = left

    def _passport(self, path: str, *, legible: bool) -> Passport | None:
        """What is not of use without the segment only beside one that says something to us."""
        try:
            found = passport_file.read(path)
            if found is None and legible:
                found = passport_file.read(path, BEGUN)
            return found
        except HostError as error:
            self._journal(SegmentLeft(path, str(error)))
            return None

    def _goes_by_passport(self, path: str, unit: int, *, answered: bool = False) -> bool:
        """Of a segment that says nothing to us: whether something else does.

        `answered`: it is one that we have made, and that has to say that nothing is unanswered.
        """
        passport, interface = self._passport(path, legible=answered), interface_beside(path)
        if passport is None or passport.identity.unit != unit or not interface:
            return False
        if answered and not passport.answered:
            return False
        who = passport.identity
        whose = who.kind, who.domid, who.number
        self._left[unit] = Left(path, unit, whose, who.machine, interface, "", passport, False)
        return True

    @property
    def units(self) -> frozenset[int]:
        """Numbers that are not free yet."""
        return frozenset(self._left)

    @property
    def interfaces(self) -> frozenset[str]:
        """What the interfaces of those cards are called."""
        return frozenset(left.interface for left in self._left.values())

    def unit_of(self, kind: str, domid: int, number: int, served: bytes | None) -> int | None:
        """The number that a card had; `served`: its node of that name (charter.py)."""
        whose, named = (kind, domid, number), unit_of(served)
        mine = [unit for unit, left in self._left.items() if left.whose == whose]
        if named is not None and named in self._left and self._left[named].whose is None:
            self._left[named] = replace(self._left[named], whose=whose)
            return named
        return named if named in mine else min(mine, default=None)

    def claim(self, identity: Identity) -> Left | None:
        """What is left of a card, which is that card's from now on."""
        left = self._left.get(identity.unit)
        if left is None or left.whose != key_of(identity):
            return None
        return self._left.pop(identity.unit)

    def settle(self, kind: str) -> list[Left]:
        """All cards of a kind that there are have claimed theirs: these are gone.

        Their interfaces nobody wants any more.  What nobody can read is kept back, with its
        number, for whoever's node names it.
        """
        mine = [left for left in self._left.values() if left.whose and left.whose[0] == kind]
        for left in mine:
            remove_left(left.path)
            del self._left[left.unit]
        return mine


def key_of(who: Identity) -> _Key:
    """What a card is called in the store."""
    return who.kind, who.domid, who.number


def _served(segment: NetState, left: Left, who: Identity) -> Served:
    """What is known of a card's queues; HostError."""
    passport = left.passport
    if passport is not None and not left.legible:
        asked = {n: replace(p, adopt=True, answered=True) for n, p in passport.params.items()}
        agreed = charter(segment.identity, left.interface, passport.params)
        return Served(asked, left.interface, False, passport.served.encode(), agreed)
    made, interface = all_in(segment), named_interface(segment)
    told = agreed = charter(segment.identity, interface, made)
    if passport is not None and (passport.identity, passport.params) == (segment.identity, made):
        told = passport.served.encode()
    return Served(left_in(segment, made, who), interface, segment.ending, told, agreed)


def _fresh(left: Left) -> NetState:
    """A segment of our version, in place of the other; HostError, EBUSY: somebody serves it."""
    passport = left.passport
    assert passport is not None
    directory, queues = os.path.dirname(left.path), len(passport.params)
    segment = make_segment(directory, left.who, passport.identity.machine, MAX_RINGS)
    segment.interface = left.interface
    segment.connect(queues)
    segment.count_on(passport.counters)
    return segment


def _refusal(segment: NetState, who: Identity) -> str:
    """Why nothing can come of a segment, "" if something may."""
    try:
        left_in(segment, all_in(segment), who)
    except XbbdError as error:
        return str(error)
    return ""
