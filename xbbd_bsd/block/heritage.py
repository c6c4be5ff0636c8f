"""State segments that a daemon left when it died: whose they are, and what they say.

A guest whose disk was served then goes on waiting, and whoever serves it again goes by
what its segment says of disk and rings, never by what guest or configuration say now.
A segment is the more to be kept the less is known: it is removed once its guest is known
to be gone, or when nothing could come of it.  Control thread.
"""

import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from xbbd_bsd import inheritance
from xbbd_bsd.block import passport as passport_file
from xbbd_bsd.block.marks import Marks, cause_of_loss
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.block.passport import NOTE, Passport
from xbbd_bsd.block.segments import make_segment
from xbbd_bsd.block.served import Served, read, served_by
from xbbd_bsd.charter import unit_of
from xbbd_bsd.config import DiskConfig
from xbbd_bsd.errors import HostError, XbbdError, in_words
from xbbd_bsd.events import Event, WritesLost
from xbbd_bsd.inheritance import Former
from xbbd_bsd.native import SegmentIdentity, State, max_requests
from xbbd_bsd.passportfiles import BEGUN, SUFFIX
from xbbd_bsd.segmentfiles import remove_file
from xbbd_bsd.takeovers import SegmentLeft
from xbbd_bsd.xenbus.family import Identity

_NAMES: Final = re.compile(rf"{DRIVER.name}\.(0|[1-9]\d{{0,8}})")
_Key = tuple[str, int, int]  # kind, domid, number


@dataclass(frozen=True, slots=True)
class Left:
    """A segment of somebody who is gone; `refusal`: why nothing can come of it, "" if it may."""

    path: str
    unit: int
    whose: _Key | None  # None: it cannot be read, and only the device's node may know
    machine: str = ""
    refusal: str = ""
    passport: Passport | None = None
    legible: bool = True  # else only the passport says anything

    @classmethod
    def of(cls, path: str, who: Identity) -> "Left":
        """Of a device that somebody served until now."""
        return cls(path, who.unit, (who.kind, who.domid, who.number))

    @property
    def answered(self) -> bool:
        """By its passport: nothing was left unanswered."""
        return self.passport is not None and self.passport.answered

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


class Inheritance(inheritance.Inheritance[Left, State]):
    """What one disk has of an earlier daemon, as long as something may come of it."""

    def __init__(
        self,
        left: Left | None,
        former: Former[State],
        who: Identity,
        woken: Callable[[], None],
    ) -> None:
        self._served: Served | None = None  # as the segment had it before anybody went on
        super().__init__(left, former, who, woken)

    def take(self, config: DiskConfig) -> State:
        """The segment, which is the device's from now on; HostError.

        EBUSY: whoever serves it has been asked to hand over.
        """
        return self._take(lambda left: _fresh(left, config))

    def served(self, segment: State, agreed: bytes | None = None) -> Served:
        """What it says, each time the same; HostError.

        `agreed`: our node, which alone says whether a disk was exchanged.
        """
        if self._served is None:
            left = self._left
            assert left is not None
            if left.passport is None or left.legible:
                self._served = read(segment, left.passport, note_of(segment, agreed))
            else:
                self._served = served_by(left.passport)
        return self._served

    def taken(self) -> None:
        if self._left is not None:
            passport_file.remove(self._left.path)
        super().taken()
        self._served = None

    def _remove(self, left: Left) -> None:
        remove_left(left.path)


class Heritage:
    """The segments that a directory holds when a daemon begins."""

    def __init__(self, directory: str, marks: Marks, journal: Callable[[Event], None]) -> None:
        """Look through the directory.  What they say of a loss is kept, and said."""
        self._journal = journal
        self._left: dict[int, Left] = {}  # by unit: a file's name is nobody's but ours
        for name in sorted({name.removesuffix(SUFFIX) for name in os.listdir(directory)}):
            match = _NAMES.fullmatch(name)
            if match:
                path = os.path.join(directory, name)
                if (mark := marks.take_over(path)) is not None:
                    cause = cause_of_loss(mark.errno)
                    journal(WritesLost(name.replace(".", ""), mark.path, cause))
                self._look_at(path, int(match[1]))

    def _look_at(self, path: str, unit: int) -> None:
        try:
            segment = State.open(path)
        except (OSError, HostError) as error:
            if self._goes_by_passport(path, unit):
                return
            text = in_words(error)
            self._journal(SegmentLeft(path, text))
            remove_left(path)
            self._left[unit] = Left(path, unit, None, refusal=text)
            return
        try:
            who = segment.identity
            refusal, served = _refusal(segment), bool(segment.served)
        finally:
            segment.close()
        if not served and self._goes_by_passport(path, unit, answered=True):
            return  # one that was to be served in place of another version's
        passport = self._passport(path, legible=True)
        left = Left(path, unit, self._key(who), who.machine, refusal, passport)
        if left.refusal or who.unit != unit:
            remove_left(path)
        if who.unit == unit:
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
        passport = self._passport(path, legible=answered)
        if passport is None or passport.identity.unit != unit:
            return False
        if answered and not passport.answered:
            return False
        who = passport.identity
        self._left[unit] = Left(path, unit, self._key(who), who.machine, "", passport, False)
        return True

    @staticmethod
    def _key(who: SegmentIdentity | Identity) -> _Key:
        return who.kind, who.domid, who.number

    @property
    def units(self) -> Collection[int]:
        """Numbers that are not free yet."""
        return self._left.keys()

    def unit_of(self, kind: str, domid: int, number: int, served: bytes | None) -> int | None:
        """The number that a device had; `served`: its node of that name (charter.py)."""
        whose, said = (kind, domid, number), unit_of(served)
        mine = [unit for unit, left in self._left.items() if left.whose == whose]
        if said in mine:
            return said
        if said is not None and said in self._left and self._left[said].whose is None:
            self._left[said] = replace(self._left[said], whose=whose)
            return said
        return min(mine, default=None)

    def claim(self, identity: Identity) -> Left | None:
        """What is left of a device, which is that device's from now on."""
        left = self._left.get(identity.unit)
        if left is None or left.whose != self._key(identity):
            return None
        return self._left.pop(identity.unit)

    def settle(self, kind: str) -> list[Identity]:
        """All devices of a kind that there are have claimed theirs: the others are gone.

        What nobody can read is kept back, with its number, for whoever's node names it.
        """
        found = []
        for unit, left in [*self._left.items()]:
            if left.whose is not None and left.whose[0] == kind:
                remove_left(left.path)
                found.append(Identity(*left.whose, DRIVER.name, unit))
                del self._left[unit]
        return found


def _fresh(left: Left, config: DiskConfig) -> State:
    """A segment of our version, in place of the other; HostError, EBUSY: somebody serves it."""
    passport = left.passport
    assert passport is not None
    who, entries = passport.identity, 0
    for ring in passport.params.values():
        entries = max(entries, max_requests(ring.abi, len(ring.ring_refs)))
    identity = Identity(who.kind, who.domid, who.number, DRIVER.name, left.unit)
    directory, rings = os.path.dirname(left.path), len(passport.params)
    segment = make_segment(directory, identity, who.machine, config, rings=rings, entries=entries)
    segment.connect(rings)
    segment.medium = passport.medium
    segment.count_on(passport.counters)
    if passport.paused:
        segment.pause()
    return segment


def note_of(segment: State, agreed: bytes | None) -> Passport | None:
    """What was noted of an exchange of its disk, if that is what was agreed; HostError."""
    note = passport_file.read(segment.path, NOTE)
    if note is None or note.identity != segment.identity or note.served.encode() != agreed:
        return None
    return note


def remove_left(path: str) -> None:
    """Remove a segment, and what was written beside it."""
    remove_file(path)
    passport_file.remove(path)


def _refusal(segment: State) -> str:
    """Why nothing can come of a segment, "" if something may."""
    if segment.lost_errno:
        return f"writes may be lost: {cause_of_loss(segment.lost_errno)}"
    if not segment.served:
        return "it was not served then"
    try:
        read(segment)
    except XbbdError as error:
        # Its rings are between two disks, and our node says which it is.
        return "" if os.path.exists(segment.path + NOTE) else str(error)
    return ""
