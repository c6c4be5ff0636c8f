"""A device's disk, from its opening to its close: whatever may have to wait for it.

The disk may be a file on a server that does not answer, or on a file system that
is frozen for a backup; so it is opened, locked, measured and closed by a thread
(errands.py), and whoever wants it open or closed asks until it is.  Nodes, rings
and guests are not known here.  Control thread.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from errno import EBUSY, ENODEV, ENXIO, ESTALE, ETIMEDOUT
from typing import Final, Protocol

from xbbd_bsd.block.connecting import Connecting, Give
from xbbd_bsd.block.disk import Disk, Key, disk_path, open_disk
from xbbd_bsd.block.marks import Marks
from xbbd_bsd.block.path import PathState, state_of
from xbbd_bsd.block.servers import can_measure, is_connected, kind_of, size_of
from xbbd_bsd.block.sharing import Owner, Sharing, check_shared
from xbbd_bsd.block.stores import Store, StoreNamed
from xbbd_bsd.errands import AGAIN_SECONDS, HUNG_SECONDS, Ended, Errands, Outcome, Pending, Run
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.events import (
    DiskAnother,
    DiskNamed,
    DiskTruncated,
    DiskUnnamed,
    Event,
    HangEnded,
    Hangs,
    Resized,
    SizeRefused,
    SizeRounded,
)
from xbbd_bsd.host import Host
from xbbd_bsd.native import State

_REQUESTS: Final = "requests at the disk"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which disk, and how.

    `shared`: others may use it as well.  `sector_size`: bytes of the sectors that the
    guest shall see, 0 for the disk's own.  `key`: it must be this very disk (Disk.key).
    `other`: it must be any but this.  `former`: who served it and died, as its store calls him.
    `lend`: copies of the descriptors of whoever serves it still, if somebody does: its own,
    and then its lock's.  By a thread; HostError.
    """

    name: bytes
    read_only: bool
    shared: bool
    sector_size: int
    key: Key | None = None
    other: Key | None = None
    former: str = field(default="", compare=False)
    lend: Callable[[], list[int]] = field(default=list, compare=False)


class Holder(Protocol):
    """Who has the disk, and hears of it."""

    def woken(self) -> None:
        """Ask again for what was pending."""

    def resized(self, before: int) -> None:
        """The disk had so many sectors of 512 bytes, and has others now."""

    def closed(self) -> None:
        """The disk is closed."""

    def lost_disk(self, fault: HostError) -> None:
        """The disk is not to be used any more."""

    def distrust(self, errno: int) -> None:
        """Under another it has lost something (cause_of_loss in marks.py)."""


class Medium:
    """The disk of one device."""

    def __init__(
        self,
        name: str,
        holder: Holder,
        *,
        host: Host,
        loop: asyncio.AbstractEventLoop,
        run: Run,
        stores: StoreNamed,
        sharing: Sharing,
        marks: Marks,
        journal: Callable[[Event], None],
    ) -> None:
        """`name`: of the device, for messages."""
        self.name = name
        self.disk: Disk | None = None
        self.errands = Errands(run, loop, self._woken, self._hung, name.partition(" ")[0])
        self._connecting = Connecting(name, loop, run, journal)
        self._holder = holder
        self._stores = stores
        self._host = host
        self._loop = loop
        self._sharing = sharing
        self._marks = marks
        self._journal = journal
        self._closing = False
        self._lent = False  # another domain of its machine has the disk's lock
        self._alone = False  # that domain has left since
        self._looks_begun = self._looks_ended = 0  # at the size
        self._look_due = False
        self._stuck = 0.0  # seconds that a ring has waited, if that is long
        self._gone = self._forgotten = False
        self._odd_size = -1  # bytes; one that was complained about
        self.path_state = PathState.NAMED
        self._opened_as = ""
        self._whole_size = 0  # bytes; the most that the disk has had, or was said to be meant
        self._size_is_meant = False  # whatever the next look finds

    def open(self, wanted: Wanted, owner: Owner) -> Disk:
        """The disk, open and ours; raises Pending until it is, OperatorError if it cannot be."""
        disk, refused = self.errands.ask(
            "opening the disk",
            wanted,
            lambda: self._open(wanted, self._stores(wanted.name)),
            lambda found: found[0].close(),
        )
        try:
            if wanted.key not in (None, disk.key):
                raise OperatorError("it is another disk by now", ESTALE)
            if disk.key == wanted.other:
                raise OperatorError("it is the disk that its guest has already", EBUSY)
            self._marks.check(disk)
            if wanted.shared or disk.store is not None:
                check_shared(disk, wanted.sector_size)
            self._claim(disk, wanted, owner, refused)
        except OperatorError as error:
            self.errands.give_back("closing the disk", disk.close)
            raise type(error)(f"unable to open {disk.path}: {error}", error.errno) from None
        if disk.left_over:
            self._journal(SizeRounded(self.name, disk.left_over, disk.geometry.sector_size))
        self.disk = disk
        self._gone = False
        self._odd_size = -1
        self.path_state, self._opened_as = PathState.NAMED, disk_path(wanted.name)
        self._whole_size, self._size_is_meant = disk.geometry.size, False
        return disk

    def belong_to(self, holder: Holder) -> None:
        """Somebody else has the disk, and hears of it, from now on."""
        self._holder = holder

    def _open(self, wanted: Wanted, store: Store | None) -> tuple[Disk, OperatorError | None]:
        """By a thread: the disk, and why it has no lock if it ought to."""
        if store is not None:
            disk = kind_of(store).open(
                store, read_only=wanted.read_only, shared=wanted.shared, former=wanted.former
            )
            return _kept_by(disk, wanted.lend) if is_connected(disk) else disk, None
        host = self._host
        disk = open_disk(wanted.name, read_only=wanted.read_only, prepare=host.prepare_disk)
        if wanted.shared:
            return disk, None
        try:
            return replace(disk, lock=host.lock_disk(disk.fd, writable=not disk.read_only)), None
        except OperatorError as error:
            lock = _lock_of(disk, wanted.lend)
            return replace(disk, lock=lock), None if lock is not None else error
        except OSError as error:  # it has gone since it was opened
            disk.close()
            reason = f"unable to lock {disk.path}: {error.strerror}"
            raise OperatorError(reason, error.errno or 0) from None

    def _claim(
        self, disk: Disk, wanted: Wanted, owner: Owner, refused: OperatorError | None
    ) -> None:
        """Keep others off the disk: our own guests first, who have its lock, then other programs.

        `refused`: why there is no lock.  It is not needed where another domain of the same
        machine has it.
        """
        lent = self._sharing.claim(disk, self, shared=wanted.shared, owner=owner)
        if refused is not None and not lent:
            self._sharing.release(self)
            raise refused
        self._lent, self._alone = refused is not None, False

    @property
    def kept(self) -> list[int]:
        """What keeps others off the disk, beside it itself."""
        return [] if self.disk is None or self.disk.lock is None else [self.disk.lock]

    def left(self) -> None:
        """Take the lock, if another domain of our machine had it."""
        if self._lent:
            self._alone = True
            self._lock_if_due()

    def distrust(self, errno: int) -> None:
        self._holder.distrust(errno)

    def tell_others(self, errno: int) -> None:
        """The disk has lost something: whoever else has it shall not believe it either."""
        self._sharing.distrust(self, errno)

    def measure(self, *, meant: bool = False) -> Ended:
        """See whether the open disk has grown or shrunk, and tell the holder; when it is done.

        Also whether its path still leads to it.  `meant`: an operator says that its size
        is as it should be.  What is there of a sector at the end does not count.  If
        something else is being done, this is next.
        """
        self._size_is_meant |= meant
        began, number = self._loop.time(), self._looks_begun + 1
        self._look_due = self.disk is not None and can_measure(self.disk)
        self._look_if_due()

        def ended() -> bool:
            if self.disk is None or not can_measure(self.disk) or self._looks_ended >= number:
                return True
            if self._loop.time() - began >= HUNG_SECONDS:
                raise HostError(f"{self.name}: the disk does not answer", ETIMEDOUT)
            return False

        return ended

    def _look_if_due(self) -> None:
        disk = self.disk
        if disk is None or self._closing or not self._look_due:
            return
        path = self._opened_as
        self._looks_begun += 1
        self._look_due = False
        try:
            self.errands.post(
                "measuring the disk", lambda: self._measure(disk, path), self._measured
            )
        except (Pending, HostError):  # something else is being done, or there is no thread
            self._looks_begun -= 1
            self._look_due = True

    def _measure(self, disk: Disk, path: str) -> tuple[int, PathState | None]:
        """By a thread: how large the disk is, and what became of its path."""
        if disk.store is not None:
            return size_of(disk), None
        return self._host.disk_size(disk.fd), state_of(path, disk.fd)

    def _lock_if_due(self) -> None:
        disk = self.disk
        if disk is None or self._closing or not self._alone:
            return
        with suppress(Pending, HostError):
            self.errands.post(
                "locking the disk",
                lambda: self._host.lock_disk(disk.fd, writable=not disk.read_only),
                self._locked,
            )
            self._lent = self._alone = False

    def _locked(self, outcome: Outcome) -> None:
        if self.disk is not None and outcome.error is None:  # else quietly, we serve already
            self.disk = replace(self.disk, lock=outcome.value)

    def _measured(self, outcome: Outcome) -> None:
        disk = self.disk
        self._looks_ended += 1
        if disk is None:
            return
        try:
            size, path_state = outcome.get()
        except (HostError, OSError) as error:
            if error.errno == ESTALE:  # what a file server says of a file that is no more
                self._tell_path(PathState.GONE)
            if error.errno in (ENXIO, ENODEV) and not self._gone:
                self._gone = True
                reason = os.strerror(error.errno)
                self._holder.lost_disk(HostError(f"the disk is gone: {reason}", error.errno))
            return
        whole = size - size % disk.geometry.sector_size
        self._whole_size = whole if self._size_is_meant else max(whole, self._whole_size)
        self._size_is_meant = False
        if path_state is PathState.NAMED and whole < self._whole_size:
            path_state = PathState.TRUNCATED
        self._tell_path(path_state)
        if whole == disk.geometry.size:
            return
        if whole == 0:
            if size != self._odd_size:
                self._odd_size = size
                self._journal(SizeRefused(self.name, size))
            return
        self.disk = replace(disk, geometry=replace(disk.geometry, size=whole))
        self._journal(Resized(self.name, disk.sectors, self.disk.sectors))
        self._holder.resized(disk.sectors)

    def _tell_path(self, found: PathState | None) -> None:
        """Say it when something becomes of the path, not again and again; None: nobody knows."""
        disk = self.disk
        if disk is None or found is None or found is self.path_state:
            return
        self.path_state = found
        match found:
            case PathState.NAMED:
                self._journal(DiskNamed(self.name, disk.path))
            case PathState.GONE:
                self._journal(DiskUnnamed(self.name, disk.path))
            case PathState.ANOTHER:
                self._journal(DiskAnother(self.name, disk.path))
            case PathState.TRUNCATED:
                self._journal(DiskTruncated(self.name, disk.path, self._whole_size // 512))

    def begin_rings(self, segment: State, give: Give) -> None:
        """A ring works for the disk; `give` hands it a connection, if it is reached over one."""
        if self.disk is not None:
            segment.holder = self.disk.holder
            self._connecting.begin(segment, self.disk, give)

    def end_rings(self, *, answered: bool = False) -> None:
        """It has ended; `answered`: and whatever waited has come to something."""
        self._connecting.end()
        if answered:
            self.tell_progress(0.0)

    def close(self) -> None:
        """Give the disk back; raises Pending until it is closed.

        Only then others may have it: what a file on a server was given is there by then.
        """
        if self.disk is None:
            return
        if not self._closing:
            self._closing = True
            try:
                self.errands.post("closing the disk", self.disk.close, self._closed)
            except Pending:
                self._closing = False
                raise
            except HostError:  # no thread can be had just now
                self._closing = False
                self._loop.call_later(AGAIN_SECONDS, self._holder.woken)
                raise Pending from None
        self.errands.wait()

    def _closed(self, outcome: Outcome) -> None:
        self.disk = None
        self.path_state = PathState.NAMED
        self._closing = False
        self._sharing.release(self)
        self._holder.closed()

    def look_anew(self) -> None:
        """Somebody has seen to the disk: if it is gone still, that is told once more."""
        self._gone = False

    def forget(self) -> None:
        """The device is gone; what still hangs for it has nobody to be told."""
        self._forgotten = True

    def hung_seconds(self, waits: float) -> int:
        """How long something has hung by now, 0 if nothing does; `waits`: what a ring waits."""
        busy = self.errands.busy
        seconds = max(waits, busy[1] if busy is not None else 0.0)
        return int(seconds) if seconds >= HUNG_SECONDS else 0

    def tell_progress(self, waits: float) -> None:
        """Say so when requests begin to take long, and when they do not any more."""
        hung = waits >= HUNG_SECONDS
        if hung and not self._stuck:
            self._hung(_REQUESTS, None)
        elif self._stuck and not hung:
            self._hung(_REQUESTS, self._stuck)
        self._stuck = waits if hung else 0.0

    def _woken(self) -> None:
        self._lock_if_due()
        self._look_if_due()
        self._holder.woken()

    def _hung(self, what: str, seconds: float | None) -> None:
        if self._forgotten:
            return
        if seconds is None:
            self._journal(Hangs(self.name, what))
        else:
            self._journal(HangEnded(self.name, what, seconds))


def _kept_by(disk: Disk, lend: Callable[[], list[int]]) -> Disk:
    """With the file of whoever serves it still, in place of its own, for what is not flushed."""
    try:
        lent = lend()
    except HostError:
        return disk
    if not lent:
        return disk
    os.close(disk.fd)
    for fd in lent[1:]:
        os.close(fd)
    return replace(disk, fd=lent[0])


def _lock_of(disk: Disk, lend: Callable[[], list[int]]) -> int | None:
    """The lock that whoever serves this very disk has on it; None if nobody does."""
    try:
        lent = lend()
    except HostError:
        return None
    lock = None
    if lent and os.path.samestat(os.fstat(lent[0]), os.fstat(disk.fd)):
        lock = lent.pop()  # which is the disk's own, where that has it (OFD locks)
    for fd in lent:
        os.close(fd)
    return lock
