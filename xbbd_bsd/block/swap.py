"""A guest's disk is exchanged for another one, and the guest goes on with that.

What the disk is our node "served" says, by a digest, and nothing else: it changes in one
transaction with what names the disk, while nobody serves the rings.  What it shall say is
noted beside the segment before that.  So whoever goes on, after whatever death, finds either
the old disk or the new one, and for everybody the same.  The disk is paused meanwhile, so
that nothing is written to either.

An exchange goes on by itself, whether or not whoever wanted it waits.  Control thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from errno import EBUSY, ECANCELED, EINVAL, EIO, ENOTCONN, ETIMEDOUT
from typing import Final, Protocol, TypeVar

from xbbd_bsd.block import passport as passport_file
from xbbd_bsd.block.disk import Disk, Key
from xbbd_bsd.block.fit import check_fits, note_of_exchange
from xbbd_bsd.block.medium import Medium, Wanted
from xbbd_bsd.block.named import named_anew
from xbbd_bsd.block.negotiate import DiskInfo
from xbbd_bsd.block.passport import NOTE
from xbbd_bsd.block.pauses import Pauses, have_look
from xbbd_bsd.block.queues import DISK_KINDS
from xbbd_bsd.block.servers import NOTHING_KEPT, carry, is_connected
from xbbd_bsd.block.sharing import Owner
from xbbd_bsd.charter import NODE
from xbbd_bsd.deeds import DiskSwapped
from xbbd_bsd.errands import Pending
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.events import Event
from xbbd_bsd.native import Kept, State, can_flush
from xbbd_bsd.serving import ServedRings
from xbbd_bsd.storeuri import is_store
from xbbd_bsd.xenbus.family import Changes

T = TypeVar("T")

LIMIT: Final = 30.0  # seconds, for each thing that somebody else has to do
_TURN: Final = 0.01  # seconds between looks whether that is done
_LONGEST: Final = 1000  # bytes of a path, which a segment has whole


@dataclass(frozen=True, slots=True)
class Serves:
    """What a device serves just now.

    `node` names the disk in XenStore, by its `path`, and `params` may; `shared` and
    `sector_size` as of Wanted.
    """

    segment: State
    rings: ServedRings
    medium: Medium
    disk: Disk
    info: DiskInfo
    owner: Owner
    node: str
    params: bytes
    path: str
    shared: bool
    sector_size: int


class Device(Protocol):
    """The device whose disk it is."""

    @property
    def serves(self) -> Serves | None:
        """What it serves; None if it serves nothing."""

    @property
    def segment(self) -> State | None:
        """Its own, None if there is none."""

    @property
    def waits(self) -> bool:
        """Whether its guest is connected, even if nobody serves it just now."""

    def another(self) -> Medium:
        """A medium that may take the place of its own; LimitError."""

    def park(self, nodes: Changes) -> None:
        """Its rings are served by nobody: say this, and adopt them then (`Swaps.release`)."""

    def orphaned(self) -> None:
        """Its rings are served by nobody: adopt them, as our node says."""

    def settled(self) -> None:
        """It has one disk again."""

    def distrust(self, errno: int) -> None:
        """Its disk has lost something."""


class Nobody:
    """Has a medium that is nobody's yet, or any more: it is asked for what it does."""

    def woken(self) -> None:
        """Of no matter."""

    def resized(self, before: int) -> None:
        """Likewise, as all here."""

    def closed(self) -> None:
        """What was taken for it is given back when all is over."""

    def lost_disk(self, fault: HostError) -> None:
        """Nothing is served by it."""

    def distrust(self, errno: int) -> None:
        """As before."""


class _Running:
    """One exchange, from when it is wanted until it has ended."""

    def __init__(self, steps: Iterator[None], loop: asyncio.AbstractEventLoop) -> None:
        self._steps = steps
        self._loop = loop
        self.ended = False
        self.error: Exception | None = None
        self._go_on()

    def _go_on(self) -> None:
        try:
            next(self._steps)
        except StopIteration:
            self.ended = True
        except Exception as error:  # for whoever waits
            self.ended, self.error = True, error
        else:
            self._loop.call_later(_TURN, self._go_on)


class Swaps:
    """Those of one device, one at a time."""

    def __init__(
        self,
        name: str,
        device: Device,
        loop: asyncio.AbstractEventLoop,
        pauses: Pauses,
        journal: Callable[[Event], None],
    ) -> None:
        self._name = name
        self._device = device
        self._loop = loop
        self._pauses = pauses
        self._journal = journal
        self._running: _Running | None = None
        self._candidate: Medium | None = None
        self._holds = False

    @property
    def holds(self) -> bool:
        """Whether rings that are not served, or soon will not be, are no end of a connection."""
        return self._holds

    def release(self) -> bool:
        """That is over; whether it was so."""
        held, self._holds = self._holds, False
        return held

    @property
    def runs(self) -> bool:
        """Whether a disk is being exchanged."""
        return self._running is not None and not self._running.ended

    def check_free(self) -> None:
        """That no disk is being exchanged: who resumes it then would lose writes; OperatorError."""
        if self.runs:
            raise OperatorError(f"{self._name}: its disk is being exchanged", EBUSY)

    def take(self, key: Key | None) -> Medium | None:
        """What is to take the place of the device's medium, if it is this disk; once."""
        found = self._candidate
        if found is None or found.disk is None or found.disk.key != key:
            return None
        self._candidate = None
        return found

    def swap(self, path: str, who: str) -> Iterator[None]:
        """Exchange the disk for the one at `path`; over when the guest goes on with that.

        OperatorError, HostError: it goes on with the one that it has.
        """
        self.check_free()
        running = self._running = _Running(self._steps(path, who), self._loop)
        while not running.ended:
            yield None
        if running.error is not None:
            raise running.error

    def _steps(self, path: str, who: str) -> Iterator[None]:
        now = self._device.serves
        if now is None:
            reason = "no guest is connected: detach the disk, and attach the other one"
            raise OperatorError(f"{self._name}: {reason}", ENOTCONN)
        name = os.fsencode(path)
        if not (path.startswith("/") or is_store(name)) or len(name) > _LONGEST:
            reason = f"neither a path from the root nor a store's name, of {_LONGEST} bytes at most"
            raise OperatorError(f"{self._name}: that is {reason}", EINVAL)
        before = now.disk.path
        medium = self._candidate = self._device.another()
        try:
            disk = yield from self._open(now, medium, path)
            yield from self._pause(now)
            yield from self._flush(now, disk, medium)
            yield from self._exchange(now, disk, medium, path)
        except Exception:
            self._go_on(now)
            self._let_go(now.medium if self._candidate is None else medium)
            raise
        self._journal(DiskSwapped(self._name, before, disk.path, who))
        self._pauses.end(now.segment)  # an error's is over with its disk
        self._go_on(now)
        self._let_go(now.medium)

    def _open(self, now: Serves, medium: Medium, path: str) -> Generator[None, None, Disk]:
        """The other disk, if it fits."""
        wanted = Wanted(
            os.fsencode(path),
            read_only=now.disk.read_only,
            shared=now.shared,
            sector_size=now.sector_size,
            other=now.disk.key,
        )
        disk = yield from self._asked(lambda: medium.open(wanted, now.owner))
        check_fits(disk, now.disk, now.info, now.segment.connection_rings)
        self._nodes(now, disk, path)  # it must have a name there
        return disk

    def _pause(self, now: Serves) -> Iterator[None]:
        """Until nothing is under way at the old disk.

        One that a server has is not waited for here: its ring does not leave without what it
        was told, and if that says nothing, it leaves soon (nbd.c).
        """
        self._check(now)
        now.segment.pause_for_swap()
        if is_connected(now.disk):
            self._look()
            return
        for _ in self._pauses.follow(now.segment, self._rings):
            yield None
            self._check(now)  # the segment may be gone with its guest
        self._check(now)

    def _flush(self, now: Serves, disk: Disk, medium: Medium) -> Iterator[None]:
        """What the guest was told is written is so on the old disk, and on its copy.

        But on an old one that an error paused, which does not do what it is told anyway, and
        on one of a server's, which only its ring can flush.
        """
        paused = now.segment.paused
        flushes = now.disk.store is None and not (paused is not None and paused.failed)

        def work() -> HostError | None:
            if flushes:
                try:
                    can_flush(now.disk.fd, DISK_KINDS[now.disk.geometry.medium])
                except HostError as error:
                    return error
            carry(NOTHING_KEPT, disk, DISK_KINDS[disk.geometry.medium])
            return None

        if disk.read_only:
            return
        lost = yield from self._asked(
            lambda: medium.errands.ask("flushing the disks", self, work, lambda _: None)
        )
        self._check(now)
        if lost is not None:
            self._device.distrust(lost.errno)
            raise lost

    def _exchange(self, now: Serves, disk: Disk, medium: Medium, path: str) -> Iterator[None]:
        """Nobody serves the rings, our nodes say which disk it is, and they are adopted."""
        note = note_of_exchange(now.segment, disk, path)
        nodes = {**self._nodes(now, disk, path), NODE: note.served.encode()}
        if disk.sectors != now.info.sectors:
            nodes["sectors"] = b"%d" % disk.sectors
        yield from self._give_up(now)
        try:
            yield from self._carry(now, disk, medium)
            passport_file.write(now.segment.path, note, NOTE)
        except (HostError, OperatorError):
            self._device.orphaned()
            raise
        self._device.park(nodes)
        end = self._loop.time() + LIMIT
        while self._holds and self._loop.time() < end:
            yield None
        if self._holds:  # nobody has written it, for want of a store or of a guest
            self._device.orphaned()
        while self._device.serves is None:
            if not self._device.waits:
                raise self._cancelled()
            yield None
        if self._candidate is not None:
            raise HostError(f"{self._name}: XenStore has not taken what names the disk", EIO)

    def _carry(self, now: Serves, disk: Disk, medium: Medium) -> Iterator[None]:
        """What the old disk's server had acknowledged and not flushed is on the new disk."""
        unflushed = now.segment.link().unflushed
        if now.disk.store is None or disk.read_only or unflushed == 0:
            return
        kept = Kept(now.disk.fd, unflushed, now.info.sectors * 512)

        def work() -> None:
            carry(kept, disk, DISK_KINDS[disk.geometry.medium])

        yield from self._asked(
            lambda: medium.errands.ask("writing to the disk", kept, work, lambda _: None)
        )

    def _asked(self, ask: Callable[[], T]) -> Generator[None, None, T]:
        """What a disk has to do first; HostError if that takes too long."""
        end = self._loop.time() + LIMIT
        while self._loop.time() < end:
            try:
                return ask()
            except Pending:
                yield None
        raise HostError(f"{self._name}: one of the disks does not answer", ETIMEDOUT)

    def _let_go(self, medium: Medium) -> None:
        """Close the one that is not the device's, however long that takes."""
        self._candidate = None
        medium.belong_to(Nobody())
        medium.errands.abandon()
        _Running(self._close(medium), self._loop)

    def _close(self, medium: Medium) -> Iterator[None]:
        while medium.disk is not None:
            try:
                medium.close()
            except Pending:
                yield None
        self._device.settled()

    def _nodes(self, now: Serves, disk: Disk, path: str) -> dict[str, bytes | None]:
        return named_anew(now.node, now.params, disk, now.path, path)

    def _give_up(self, now: Serves) -> Iterator[None]:
        self._holds = True
        while self._holds:
            try:
                now.rings.give_up()
            except Pending:
                yield None
                continue
            except HostError:
                self._holds = False
                raise
            if now.rings.lost is None:
                return
            self._device.orphaned()  # it was the last that was heard of them
        raise self._cancelled()

    def _rings(self) -> ServedRings | None:
        found = self._device.serves
        return found.rings if found is not None else None

    def _check(self, now: Serves) -> None:
        """That it is still served, by who served it; HostError."""
        if self._rings() is not now.rings or now.rings.lost is not None:
            raise self._cancelled()

    def _cancelled(self) -> HostError:
        reason = "whoever served it has ended meanwhile, or its guest has let go of it"
        return HostError(f"{self._name}: {reason}", ECANCELED)

    def _go_on(self, now: Serves) -> None:
        """It is over: the disk is paused only if it would be without."""
        if self._device.segment is now.segment:
            now.segment.end_swap()
            self._look()

    def _look(self) -> None:
        have_look(self._rings())
