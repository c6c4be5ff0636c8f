"""State segments that a daemon left when it died: whose they are, and what they say.

A guest whose disk was served then goes on waiting, and whoever serves it again goes by
what its segment says of disk and rings, never by what guest or configuration say now.
A segment is the more to be kept the less is known: it is removed once its guest is known
to be gone, or when nothing could come of it.  Control thread.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from errno import EINVAL
from typing import Final

from xbbd_bsd.block.charter import charter, unit_of
from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.marks import Marks, cause_of_loss
from xbbd_bsd.block.medium import Wanted
from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.block.rings import MakeParams
from xbbd_bsd.block.segments import remove_file
from xbbd_bsd.errors import HostError, XbbdError, in_words
from xbbd_bsd.events import Event, WritesLost
from xbbd_bsd.native import QueueParams, SegmentIdentity, State, params_of
from xbbd_bsd.takeovers import SegmentLeft
from xbbd_bsd.xenbus.family import Identity

_NAMES: Final = re.compile(rf"{DRIVER.name}\.(0|[1-9]\d{{0,8}})")
_MACHINE_LENGTH: Final = 63  # of what a segment has of its name
_Key = tuple[str, int, int]  # kind, domid, number


@dataclass(frozen=True, slots=True)
class Left:
    """A segment of somebody who is gone; `refusal`: why nothing can come of it, "" if it may."""

    path: str
    unit: int
    whose: _Key | None  # None: it cannot be read, and only the device's node may know
    machine: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """What a segment says of a disk that was served: how to open it, and each ring by number.

    `ending`: it was to be served no longer.  `oldest_ns`: since when the oldest of the
    requests in flight has waited, CLOCK_MONOTONIC; None if there are none.  `charter`: of
    what the segment says (charter.py).
    """

    wanted: Wanted
    rings: Mapping[int, RingParams]
    params: Mapping[int, QueueParams]
    ending: bool
    inflight: int
    oldest_ns: int | None
    charter: bytes

    @property
    def any_ring(self) -> QueueParams:
        """What all its rings have in common is one's."""
        return next(iter(self.params.values()))

    def check(self, disk: Disk) -> None:
        """That an open disk is still as rings and guest have it; HostError."""
        if disk.geometry.sector_size != self.any_ring.block_size:
            raise HostError(f"{disk.path} has sectors of another size", EINVAL)

    def waited_ns(self, now_ns: int) -> int:
        """For how long the oldest request in flight has waited, 0 if there is none."""
        return 0 if self.oldest_ns is None else max(0, now_ns - self.oldest_ns)

    @property
    def counted(self) -> str:
        """How many rings it is, in words."""
        return "1 ring" if len(self.rings) == 1 else f"{len(self.rings)} rings"

    def describe(self, waited_ns: int) -> str:
        """In words, for the log."""
        requests = "1 request" if self.inflight == 1 else f"{self.inflight} requests"
        waited = f", the oldest for {waited_ns / 1e9:.1f} s" if self.inflight else ""
        return f"{self.counted}, {requests} in flight{waited}"

    def maker(self, disk_fd: int) -> MakeParams:
        """How each queue is made, with an open disk."""

        def make(number: int, ring: RingParams, grants: int, events: int, wake: int) -> QueueParams:
            return replace(
                self.params[number],
                grant_fd=grants,
                event_fd=events,
                wake_fd=wake,
                disk_fd=disk_fd,
                adopt=True,
            )

        return make


def read(segment: State) -> Served:
    """What a segment says; HostError if that is nothing that could be served."""
    medium = segment.medium
    params = {number: params_of(segment, number) for number in segment.served}
    times = [time for number in params for time in segment.received(number)]
    if medium is None or not params or segment.damaged:
        raise HostError(f"{segment.path} says nothing of what was served", EINVAL)
    first = next(iter(params.values()))
    common = {
        (p.domid, p.hv, p.abi, p.disk_kind, p.read_only, p.sector_size, p.block_size, p.discard)
        for p in params.values()
    }
    all_rings = dict.fromkeys(range(segment.connection_rings), RingParams(0, ()))
    if len(common) > 1 or first.domid != segment.identity.domid:
        raise HostError(f"{segment.path} contradicts itself", EINVAL)
    return Served(
        Wanted(
            os.fsencode(medium.path),
            read_only=first.read_only,
            shared=medium.shared,
            sector_size=first.sector_size if first.sector_size != first.block_size else 0,
            key=medium.key,
        ),
        {number: RingParams(p.remote_port, p.ring_refs) for number, p in params.items()},
        params,
        segment.ending,
        len(times),
        min(times, default=None),
        charter(segment.identity, medium, all_rings, lambda n, *_: params_of(segment, n)),
    )


class Inheritance:
    """What one device has of an earlier daemon, as long as something may come of it."""

    def __init__(self, left: Left | None, drop: Callable[[], None] = lambda: None) -> None:
        """`drop`: of whoever still serves it, since nobody will go on with it."""
        self._left = left
        self._drop = drop
        self._served: Served | None = None  # as the segment had it before anybody went on
        if self.refusal:
            drop()

    @property
    def adoptable(self) -> bool:
        return self._left is not None and not self._left.refusal

    @property
    def refusal(self) -> str:
        return self._left.refusal if self._left is not None else ""

    def is_for(self, machine: str) -> None:
        """The guest is that virtual machine, "" if unknown: it may be another of its number."""
        left = self._left
        if left is not None and machine and left.machine not in ("", machine[:_MACHINE_LENGTH]):
            self.give_up("its state segment is another virtual machine's")

    def orphan(self, path: str, who: Identity) -> None:
        """Whoever served the device is gone while this daemon is not."""
        whose = (who.kind, who.domid, who.number)
        self._left, self._served = Left(path, who.unit, whose), None

    def take(self, inherit: Callable[[str], State]) -> State:
        """The segment, which is the device's from now on; HostError."""
        assert self._left is not None
        return inherit(self._left.path)

    def served(self, segment: State) -> Served:
        """What it says, each time the same; HostError."""
        if self._served is None:
            self._served = read(segment)
        return self._served

    def taken(self) -> None:
        """Somebody goes on with it: nothing is left."""
        self._left = self._served = None

    def give_up(self, refusal: str) -> None:
        """Nothing can come of it any more."""
        if self._left is not None:
            remove_file(self._left.path)
            self._left = replace(self._left, refusal=refusal)
            self._drop()

    def leave(self) -> bool:
        """The device begins anew, or is gone.  Whether something was left until now."""
        left = self._left is not None
        if self.adoptable:
            self.give_up("it was begun anew")
        self.taken()
        return left


class Heritage:
    """The segments that a directory holds when a daemon begins."""

    def __init__(self, directory: str, marks: Marks, journal: Callable[[Event], None]) -> None:
        """Look through the directory.  What they say of a loss is kept, and said."""
        self._journal = journal
        self._left: dict[int, Left] = {}  # by unit: a file's name is nobody's but ours
        for name in sorted(os.listdir(directory)):
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
            text = in_words(error)
            self._journal(SegmentLeft(path, text))
            remove_file(path)
            self._left[unit] = Left(path, unit, None, refusal=text)
            return
        try:
            who = segment.identity
            left = Left(path, unit, self._key(who), who.machine, _refusal(segment))
        finally:
            segment.close()
        if left.refusal or who.unit != unit:
            remove_file(path)
        if who.unit == unit:
            self._left[unit] = left

    @staticmethod
    def _key(who: SegmentIdentity | Identity) -> _Key:
        return who.kind, who.domid, who.number

    @property
    def units(self) -> frozenset[int]:
        """Numbers that are not free yet."""
        return frozenset(self._left)

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
                remove_file(left.path)
                found.append(Identity(*left.whose, DRIVER.name, unit))
                del self._left[unit]
        return found


def _refusal(segment: State) -> str:
    """Why nothing can come of a segment, "" if something may."""
    if segment.lost_errno:
        return f"writes may be lost: {cause_of_loss(segment.lost_errno)}"
    if not segment.served:
        return "it was not served then"
    try:
        read(segment)
    except XbbdError as error:
        return str(error)
    return ""
