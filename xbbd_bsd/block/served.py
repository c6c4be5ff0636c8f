"""What is known of a disk that was served: by its state segment, or by its passport.

The first says where each request is, to whoever is of its version; the second is for any,
and says that there is none.  Pure but for the reading.  Control thread.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from errno import EINVAL

from xbbd_bsd.block import passport as passport_file
from xbbd_bsd.block.charter import charter
from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.medium import Wanted
from xbbd_bsd.block.nbd import ServerError
from xbbd_bsd.block.negotiate import RingParams
from xbbd_bsd.block.passport import Passport
from xbbd_bsd.block.rings import MakeParams
from xbbd_bsd.charter import NODE
from xbbd_bsd.errors import HostError
from xbbd_bsd.events import Event
from xbbd_bsd.native import QueueParams, SegmentMedium, State, params_of
from xbbd_bsd.takeovers import SegmentLeft


@dataclass(frozen=True, slots=True)
class Served:
    """What a segment says of a disk that was served: how to open it, and each ring by number.

    `ending`: it was to be served no longer.  `oldest_ns`: since when the oldest of the
    requests in flight has waited, CLOCK_MONOTONIC; None if there are none.  `charter`: of
    what the segment says (charter.py).  `answered`: its table says nothing, as all is.
    `exchanged`: the disk that the segment does not say yet, as another one takes the place
    of what it does (swap.py).
    """

    wanted: Wanted
    rings: Mapping[int, RingParams]
    params: Mapping[int, QueueParams]
    ending: bool
    inflight: int
    oldest_ns: int | None
    charter: bytes
    answered: bool = False
    exchanged: SegmentMedium | None = None

    @property
    def any_ring(self) -> QueueParams:
        """What all its rings have in common is one's."""
        return next(iter(self.params.values()))

    def check(self, disk: Disk) -> None:
        """That an open disk is still as rings and guest have it; HostError."""
        if disk.geometry.sector_size != self.any_ring.block_size:
            raise HostError(f"{disk.path} has sectors of another size", EINVAL)

    def resize(self, disk: Disk, segment: State) -> None:
        """The open disk is as large as it is now; ServerError of a server that had more.

        Requests in flight may be about it.
        """
        if disk.store is not None and disk.sectors < segment.sectors:
            raise ServerError(
                f"{disk.path} has {disk.sectors} sectors, and had {segment.sectors}", EINVAL
            )
        segment.resize(disk.sectors)

    def waited_ns(self, now_ns: int) -> int:
        """For how long the oldest request in flight has waited, 0 if there is none."""
        return 0 if self.oldest_ns is None else max(0, now_ns - self.oldest_ns)

    def news(self, segment: State, make: MakeParams) -> Mapping[str, bytes]:
        """Our node, in words of our version, if another wrote it."""
        agreed = charter(segment.identity, segment.medium, self.rings, make)
        return {} if agreed == self.charter else {NODE: agreed}

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
                answered=self.answered,
            )

        return make


def read(segment: State, passport: Passport | None = None, note: Passport | None = None) -> Served:
    """What a segment says; HostError if that is nothing that could be served.

    A passport that says the same has the charter in the words of whoever wrote it.  A note
    says in place of the segment what the disk is, and what rings are opened with.
    """
    if note is not None:
        return _noted(segment, note)
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
    agreed = charter(segment.identity, medium, all_rings, lambda n, *_: params_of(segment, n))
    if passport is not None:
        same = (segment.identity, medium, params)
        if same == (passport.identity, passport.medium, passport.params):
            agreed = passport.served.encode()
    return Served(
        replace(_wanted(medium, first), former=segment.holder),
        {number: RingParams(p.remote_port, p.ring_refs) for number, p in params.items()},
        params,
        segment.ending,
        len(times),
        min(times, default=None),
        agreed,
    )


def _noted(segment: State, note: Passport) -> Served:
    served = segment.served
    if not served or segment.damaged or not set(served) <= note.params.keys():
        raise HostError(f"{segment.path} says nothing of what was served", EINVAL)
    times = [time for number in served for time in segment.received(number)]
    return replace(
        served_by(replace(note, params={number: note.params[number] for number in served})),
        ending=segment.ending,
        inflight=len(times),
        oldest_ns=min(times, default=None),
        answered=False,
        exchanged=note.medium,
    )


def _wanted(medium: SegmentMedium, ring: QueueParams) -> Wanted:
    return Wanted(
        os.fsencode(medium.path),
        read_only=ring.read_only,
        shared=medium.shared,
        sector_size=ring.sector_size if ring.sector_size != ring.block_size else 0,
        key=medium.key,
    )


def passport_of(segment: State, *, answered: bool) -> Passport | None:
    """Of what is served; None if that is nothing that could be adopted."""
    try:
        served = read(segment)
    except HostError:
        return None
    medium = segment.medium
    if medium is None or served.ending or segment.lost_errno:
        return None
    counters = {ring: segment.counters(ring) for ring in served.params}
    found = segment.paused
    return Passport(
        segment.identity,
        medium,
        dict(served.params),
        counters,
        served.charter.decode(),
        answered,
        found is not None and (found.asked or found.failed),
        segment.holder,
    )


def note_passport(segment: State, *, answered: bool, journal: Callable[[Event], None]) -> None:
    """Leave one beside its segment, if there is something to be adopted."""
    try:
        passport = passport_of(segment, answered=answered)
        if passport is not None:
            passport_file.write(segment.path, passport)
    except HostError as error:
        journal(SegmentLeft(segment.path, str(error)))


def served_by(passport: Passport) -> Served:
    wanted = _wanted(passport.medium, next(iter(passport.params.values())))
    return Served(
        replace(wanted, former=passport.holder),
        {n: RingParams(p.remote_port, p.ring_refs) for n, p in passport.params.items()},
        passport.params,
        ending=False,
        inflight=0,
        oldest_ns=None,
        charter=passport.served.encode(),
        answered=True,
    )
