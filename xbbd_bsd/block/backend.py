"""One disk for one guest: the disk, the negotiation, and rings served in C.

It does not know states, watches or other devices but by what all disks have in common;
the data path it knows as descriptors and numbers.  Control thread.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from errno import EINVAL
from functools import partial

from xbbd_bsd.accounts import Part, Share
from xbbd_bsd.block.charter import charter
from xbbd_bsd.block.common import Common, medium_of
from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.heritage import Inheritance, Left
from xbbd_bsd.block.lookout import Lookout
from xbbd_bsd.block.marks import MarkedError, cause_of_loss
from xbbd_bsd.block.medium import Wanted
from xbbd_bsd.block.named import named_medium, named_path, said_of
from xbbd_bsd.block.negotiate import DiskInfo, FrontendParams, Offer, RingParams
from xbbd_bsd.block.numbers import SegmentNumbers, facts_of, limits_of
from xbbd_bsd.block.pauses import Pauses, have_look
from xbbd_bsd.block.progress import Progress
from xbbd_bsd.block.queues import (
    OF_DEVICE,
    OF_DISK,
    describe,
    info_of,
    need_of,
    offer_of,
    queue_maker,
)
from xbbd_bsd.block.rings import MakeParams, asked_of, woke
from xbbd_bsd.block.segments import make_segment, remove_segment
from xbbd_bsd.block.served import Served
from xbbd_bsd.block.sharing import Owner
from xbbd_bsd.block.tuning import Tuning
from xbbd_bsd.charter import NODE
from xbbd_bsd.errands import Ended, Pending
from xbbd_bsd.errors import HostError, OperatorError, XbbdError
from xbbd_bsd.events import Event, MediumIgnored, QueueStarted, WritesLost
from xbbd_bsd.host import MediumName
from xbbd_bsd.native import QueueState, SegmentMedium, State, StopReason
from xbbd_bsd.oids import Value
from xbbd_bsd.serving import ServedRings, ask_for_rings, process_facts
from xbbd_bsd.stats import tunable_words
from xbbd_bsd.vdev import vdev_name
from xbbd_bsd.xenbus.family import Changes, Connection, Identity, Nodes
from xbbd_bsd.xenbus.states import Queue


class BlockBackend:
    """One disk for one guest."""

    def __init__(
        self,
        family: Common,
        identity: Identity,
        wake: Callable[[], None],
        journal: Callable[[Event], None],
    ) -> None:
        self._family = family
        self._identity = identity
        self._wake = wake
        self._journal = journal
        self._config = family.config.disk
        self.name = str(identity)
        self._share = Share(family.limits, identity)
        self._owner = Owner(identity.domid, "")
        self._guest = ""
        self._vdev = vdev_name(identity.number)
        self._path = ""  # as far as it is known yet
        self._tuning = Tuning(family.allowances, identity.domid, lambda: family.config)
        self._look: asyncio.TimerHandle | None = None  # when to measure the disk again
        self._offer = Offer()
        self._sector_size = 0  # presented; what was configured when the offer was made
        self._segment: State | None = None
        left, again = family.heritage.claim(identity), partial(family.again, identity.unit)
        self._inheritance = Inheritance(left, family.serving, identity, again)
        self._medium = medium_of(family, self.name, self, journal)
        self._info: DiskInfo | None = None
        self._disk_fault: HostError | None = None  # that the data path has not seen
        self._opened: tuple[str, bytes] | None = None
        self._rings: ServedRings | None = None
        self._progress = Progress()
        self._lookout = Lookout(self.name, family.loop, journal)
        self._pauses = Pauses(self.name, family.loop, journal)
        self._said: Mapping[str, str] = {}  # of the configuration, by its nodes
        self._news: Changes = {}
        self._adopted_for = ""  # what is no death

    @property
    def medium_open(self) -> bool:
        return self._medium.disk is not None

    @property
    def queue(self) -> Queue:
        if self._rings is None:
            return Queue.DRAINING if self._inheritance.closing else Queue.NONE
        status = self._rings.status
        if status.state is QueueState.RUNNING:
            return Queue.RUNNING
        if status.state is QueueState.DRAINING:
            return Queue.DRAINING
        return Queue.DRAINED if status.reason is StopReason.NONE else Queue.FAILED

    @property
    def fault(self) -> XbbdError | None:
        return None if self._rings is None else self._rings.fault or self._disk_fault

    @property
    def news(self) -> Changes:
        return self._news

    def told(self) -> None:
        self._news = {}

    def configure(self) -> None:
        """Go by the family's configuration as it is now.

        What was agreed with a guest stays until it connects again.
        """
        domid, number = str(self._identity.domid), str(self._identity.number)
        config = self._family.config.disk_for(
            self._path, (self._guest, domid), (self._vdev, number)
        )
        config = replace(config, **self._said)  # type: ignore[arg-type]
        self._config = self._tuning.apply(config)
        self._plan_look()

    def _plan_look(self) -> None:
        self._look_no_more()
        if self.medium_open and (interval := self._config.resize_interval) > 0:
            self._look = self._family.loop.call_later(interval, self.measure)

    def _look_no_more(self) -> None:
        if self._look is not None:
            self._look.cancel()

    def introduce(self, backend: Nodes, guest: str, vm: str) -> None:
        self._guest, self._owner = guest, Owner(self._identity.domid, vm)
        self._inheritance.is_for(vm)
        self._path = named_path(self._media, backend)

    def capabilities(self, backend: Nodes) -> Changes:
        family, segment = self._family, self._segment
        self._share.take(Part.DEVICE, OF_DEVICE)
        self._path = named_path(self._media, backend)
        self._said = said_of(backend)
        self.configure()
        config = self._config
        left = self._inheritance.leave()
        if left or (segment is not None and segment.damaged):
            self._forget_segment()
        if (segment := self._segment) is None:
            segment = make_segment(family.state_dir, self._identity, self._owner.vm, config)
            self._use(segment)
            self.configure()
        self._sector_size = config.sector_size
        self._offer = offer_of(config, segment, self._share, family.host.hv, self._path)
        return self._offer.to_nodes()

    def _use(self, segment: State) -> State:
        self._segment = segment
        self._tuning.use(segment)
        self._family.devices[self._identity.unit] = SegmentNumbers(
            segment,
            self.medium_facts,
            self.process_facts,
            lambda: limits_of(self._config),
            lambda: self.measure(meant=True),
        )
        return segment

    def medium_named(self, backend: Nodes) -> bool:
        """Also tells the operator of an attempt to change it under a guest."""
        named = named_medium(self._media, backend)
        if self.medium_open and named is not None and named != self._opened:
            self._opened = named
            self._journal(MediumIgnored(self.name, named[0]))
        return named is not None

    @property
    def _media(self) -> Mapping[str, MediumName]:
        return self._family.media[self._identity.kind]

    def open(self, backend: Nodes) -> str:
        with self._share.or_give_back(Part.MEDIUM, but=Pending):
            self._share.take(Part.MEDIUM, OF_DISK)
            return self._open(backend)

    def _open(self, backend: Nodes) -> str:
        # All nodes first: what is open must be ours before the store can fail.
        named, mode = named_medium(self._media, backend), backend("mode")
        self._path = named_path(self._media, backend)
        self._tuning.read_node(backend)
        self.configure()
        discard = self._config.discard and backend("discard-enable") != b"0"
        cdrom, removable = backend("device-type") == b"cdrom", backend("removable") == b"1"
        if named is None or mode is None:
            missing = "mode" if mode is None else " or ".join(self._media)
            raise OperatorError(f"node {self._identity.path}/{missing} is missing", EINVAL)
        wanted = Wanted(
            self._media[named[0]](named[1]),
            read_only=b"w" not in mode,
            shared=self._config.shared or b"!" in mode,
            sector_size=self._sector_size,
        )
        disk = self._medium.open(wanted, self._owner)
        self._opened = named
        self._info = info_of(
            disk, self._sector_size, cdrom=cdrom, removable=removable, discard=discard
        )
        if self._segment is not None:
            self._segment.forget_loss()
            self._segment.medium = SegmentMedium(
                disk.key, self._path, self._guest, shared=wanted.shared
            )
            self._segment.resize(self._info.sectors)  # known before a guest connects
        self._has_opened()
        return str(disk)

    def _has_opened(self) -> None:
        self._disk_fault = None
        self._plan_look()

    @property
    def adoptable(self) -> bool:
        return self._inheritance.adoptable

    @property
    def lost(self) -> str:
        return self._inheritance.refusal

    def adopt(self, backend: Nodes) -> str:
        try:
            return self._adopt(backend)
        except XbbdError as error:
            if error.passes and not isinstance(error, MarkedError):
                self._inheritance.rest()
                raise
            self._keep_loss()
            self._inheritance.give_up(str(error))
            self._forget_segment()
            raise HostError(f"cannot be taken over: {error}", error.errno) from None

    def _adopt(self, backend: Nodes) -> str:
        self._share.keep(Part.DEVICE, OF_DEVICE)
        segment = self._segment or self._use(self._inheritance.take(self._config))
        served = self._inheritance.served(segment, backend(NODE))
        if backend(NODE) != served.charter:
            raise HostError("its state segment is not as its guest was connected", EINVAL)
        disk = self._disk_as(backend, served)
        assert self._info is not None
        make = served.maker(disk.fd)
        self._share.keep(Part.CONNECTION, need_of(served.rings, make))
        served.resize(disk, segment)
        self._inheritance.begin()
        found = self._start(served.rings, make, served)
        self._news = {**self._info.size_news(backend), **served.news(segment, make)}
        self._inheritance.taken()
        if served.ending:
            self.drain()
        if not found.paused:
            return f"{served.counted}, in a process that has gone on"
        if self._adopted_for:
            return f"{served.counted}, {self._adopted_for}"
        segment.note_takeover(waited_ns := served.waited_ns(time.monotonic_ns()))
        return served.describe(waited_ns)

    def _disk_as(self, backend: Nodes, served: Served) -> Disk:
        return self._medium.disk or self._open_again(backend, served)

    def _open_again(self, backend: Nodes, served: Served) -> Disk:
        """The disk, as it was served."""
        cdrom, removable = backend("device-type") == b"cdrom", backend("removable") == b"1"
        ring, self._opened = served.any_ring, named_medium(self._media, backend)
        self._path = os.fsdecode(served.wanted.name)
        self._tuning.read_node(backend, adopts=True)
        self.configure()
        self._share.keep(Part.MEDIUM, OF_DISK)
        wanted = replace(served.wanted, lend=lambda: self._family.serving.lend(self._identity))
        disk = self._medium.open(wanted, self._owner)
        self._sector_size = served.wanted.sector_size
        self._info = info_of(
            disk, self._sector_size, cdrom=cdrom, removable=removable, discard=ring.discard
        )
        self._has_opened()
        served.check(disk)
        return disk

    def _keep_loss(self) -> None:
        """A failure belongs to the disk: it is kept beyond the segment, and ourselves."""
        if self._segment is not None and (mark := self._family.marks.note(self._segment)):
            self._journal(WritesLost(self.name, mark.path, cause_of_loss(mark.errno)))
            self._medium.tell_others(mark.errno)

    def distrust(self, errno: int) -> None:
        if self._segment is not None and not self._segment.lost_errno:
            self._segment.lose(errno)
            self.lost_disk(HostError(f"writes may be lost: {cause_of_loss(errno)}", errno))

    def lost_disk(self, fault: HostError) -> None:
        """End the data path for a fault of the disk that it has not seen itself."""
        if self._segment is not None and self._pauses.for_gone(self._segment, fault):
            have_look(self._rings)
            return
        self._disk_fault = fault
        self.drain()
        self._wake()

    def pause(self, who: str) -> Iterator[None]:
        """Have nothing begun any more, until `resume`; over when nothing is under way."""
        return self._pauses.pause(self._segment, lambda: self._rings, who)

    def resume(self, who: str) -> Iterator[None]:
        """Have all begun that waits."""
        self._medium.look_anew()
        return self._pauses.resume(self._segment, lambda: self._rings, who)

    def woken(self) -> None:
        self._wake()

    def measure(self, *, meant: bool = False) -> Ended:
        """See whether the open disk has grown or shrunk, and go by what it is now.

        `meant`: an operator says that its size is as it should be.
        """
        self._plan_look()
        self._medium.tell_progress(self._waits())
        return self._medium.measure(meant=meant)

    def _waits(self) -> float:
        """Seconds for which a ring has answered nothing that it was asked."""
        works = self._segment is not None and self._rings and self._segment.paused is None
        rings = self._segment.progress if self._segment is not None and works else ()
        return self._progress.look(self._family.loop.time(), rings)

    def resized(self, before: int) -> None:
        assert self._medium.disk is not None
        assert self._info is not None
        self._info = replace(self._info, sectors=self._medium.disk.sectors)
        if self._segment is not None:
            self._segment.resize(self._info.sectors)
        if self._rings is not None:
            self._news = self._info.size_nodes()
            self._wake()

    def connect(self, frontend: Nodes) -> Connection:
        with (
            self._share.or_give_back(Part.CONNECTION, but=Pending),
            self._tuning.or_leave(but=Pending),
        ):
            return self._connect(frontend)

    def _connect(self, frontend: Nodes) -> Connection:
        disk, info, segment = self._medium.disk, self._info, self._segment
        assert disk is not None
        assert info is not None
        assert segment is not None
        if self._disk_fault is not None:
            raise self._disk_fault
        wanted = FrontendParams.from_nodes(frontend, self._offer)
        rings = dict(enumerate(wanted.rings))
        segment.resize(info.sectors)
        segment.connect(len(rings))
        make = queue_maker(
            wanted,
            disk,
            info,
            identity=self._identity,
            hv=self._family.host.hv,
            config=self._config,
            max_indirect_segments=self._offer.max_indirect_segments,
        )
        self._share.take(Part.CONNECTION, need_of(rings, make))
        self._start(rings, make, wanted)
        served = charter(segment.identity, segment.medium, rings, make)
        return Connection({**info.to_nodes(), NODE: served}, describe(wanted))

    def _start(self, rings: Mapping[int, RingParams], make: MakeParams, key: object) -> ServedRings:
        """Serve these rings; may raise Pending, and is asked with the same key then."""
        assert self._segment is not None
        serving, medium, who = self._family.serving, self._medium, self._identity
        rates = self._tuning.share(self._config)
        needs = asked_of(who, self._guest, rings, make, self._segment, medium.kept, rates)
        found = self._rings = ask_for_rings(medium.errands, key, partial(serving.serve, needs))
        serving.listen(found, who, self._woken)
        have_look(found)  # nobody could tell them what was said since they were opened
        self._lookout.begin(self._segment, self._path)
        medium.begin_rings(self._segment, found.connect)
        self._news = {}
        for ring in rings.values():
            self._journal(QueueStarted(self.name, ring.port, " ".join(map(str, ring.refs))))
        return found

    def leave(self) -> None:
        if self._rings is not None:
            self._rings.hand_over()

    @property
    def left(self) -> bool:
        return self._rings is None or self._rings.handed_over

    def abandon(self) -> None:
        self._medium.errands.abandon()
        # What is still to be undone is undone before this device begins anything else.
        if self._rings is None:
            self._share.give_back(Part.CONNECTION)
        if not self.medium_open:
            self._share.give_back(Part.MEDIUM)

    def orphaned(self) -> None:
        """Nobody serves the rings any more; the guest waits, and we adopt what it has in flight."""
        self._rings, self._news = None, {}
        self._lookout.end()
        self._medium.end_rings()
        if self._segment is not None and self._segment.served:
            self._inheritance.orphan(Left.of(self._segment.path, self._identity))
        else:  # all was answered, and given back
            self._share.give_back(Part.CONNECTION)
        self._wake()

    def drain(self) -> None:
        if self._rings is not None:
            self._rings.drain()
        else:
            self._inheritance.close()

    def disconnect(self) -> None:
        if self._rings is not None:
            self._rings.finish()
            self._rings = None
            self._lookout.end()
            self._pauses.end(self._segment)
            self._tuning.leave()
            self._medium.end_rings(answered=True)
            self._share.give_back(Part.CONNECTION)
            self._keep_loss()

    def close(self) -> None:
        self._look_no_more()
        self._medium.close()

    def closed(self) -> None:
        self._disk_fault = None
        self._share.give_back(Part.MEDIUM)

    def forget(self) -> None:
        self.abandon()
        self._medium.forget()
        self._family.known.pop(self._identity.unit, None)
        self._forget_segment()
        self._inheritance.leave()
        self._family.serving.forget(self._identity)
        self._share.forget()

    def _forget_segment(self) -> None:
        if self._segment is not None:
            numbers = self._family.devices.pop(self._identity.unit)
            sound = not self._segment.damaged
            self._family.ledger.leave(self._identity.unit, numbers.group, sound=sound)
            self._tuning.end()
            remove_segment(self._segment)
            self._segment = None

    def medium_facts(self) -> dict[str, Value]:
        """Leaves of the group "medium" that are known here."""
        disk, info = self._medium.disk, self._info
        facts: dict[str, Value] = {
            "guest": self._guest,
            "vdev": self._vdev,
            "path": self._path,
            "path_state": self._medium.path_state.value,
            "hung_seconds": self._medium.hung_seconds(self._waits()),
        }
        return {**facts, **(facts_of(disk, info) if disk and info else {})}

    def process_facts(self) -> Mapping[str, Value]:
        """Those of the group "process"."""
        return process_facts(self._rings.process if self._rings is not None else None)

    def configured(self) -> Mapping[str, Value]:
        """The tunables as they are configured for it."""
        return tunable_words(self._config.tunables())

    def _woken(self) -> None:
        self._keep_loss()
        self._family.limits.look()
        if self._rings is not None and self._rings.lost is not None:
            self._rings.close()
            self.orphaned()
        if self._rings is not None:
            self._journal(woke(self.name, self._rings.status))
            self._lookout.look()
        self._wake()
