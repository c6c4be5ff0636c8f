"""What one device has of an earlier daemon, of whatever family: its segment, and who serves it.

A guest whose device was served then goes on waiting, and whoever serves it again goes by
what its segment says.  What that is its family knows.  Control thread.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY
from typing import Final, Generic, Protocol, Self, TypeVar

from xbbd_bsd import passportfiles
from xbbd_bsd.errors import HostError
from xbbd_bsd.native.segment import MappedSegment
from xbbd_bsd.segmentfiles import remove_file
from xbbd_bsd.xenbus.family import Identity

MACHINE_LENGTH: Final = 63  # of what a segment has of a virtual machine's name


class AnyLeft(Protocol):
    """A segment of somebody who is gone.

    `refusal`: why nothing can come of it, "" if something may.  `legible`: our version can
    read it, or else its passport says what is known (passportfiles.py); `answered`: so it does,
    and that nothing was left unanswered.
    """

    @property
    def path(self) -> str:
        """Its file."""

    @property
    def machine(self) -> str:
        """Of the guest, "" if unknown."""

    @property
    def refusal(self) -> str:
        """As above."""

    @property
    def legible(self) -> bool:
        """As above."""

    @property
    def answered(self) -> bool:
        """As above."""

    def refused(self, refusal: str) -> Self:
        """The same, but that nothing can come of it."""

    def handed_over(self) -> Self:
        """The same, but that nothing is left unanswered, which whoever dies leaves in words."""


L = TypeVar("L", bound=AnyLeft)
S_co = TypeVar("S_co", bound=MappedSegment, covariant=True)


class Former(Protocol[S_co]):
    """Whoever served before, as far as they can be reached."""

    def inherit(self, path: str) -> S_co:
        """The segment of rings that an earlier daemon had; HostError, EBUSY: they are not free."""

    def release(self, who: Identity, done: Callable[[bool | None], None]) -> None:
        """Have a process of another version hand over what it serves.

        `done` is told whether it has, and left nothing unanswered; None: it has not yet.
        """

    def drop(self, who: Identity, done: Callable[[], None]) -> None:
        """Nobody goes on with what an earlier daemon served: have it given back.

        `done` is called, maybe at once, when it has been, or cannot be.
        """


class Inheritance(Generic[L, S_co]):
    """As long as something may come of it."""

    def __init__(
        self,
        left: L | None,
        former: Former[S_co],
        who: Identity,
        woken: Callable[[], None],
    ) -> None:
        """`woken`: what could not be taken may be there now."""
        self._left = left
        self._former = former
        self._who = who
        self._woken = woken
        self._closing = False
        self._asked = False  # whoever serves it, to hand over
        if self.refusal:
            self._drop()

    @property
    def adoptable(self) -> bool:
        return self._left is not None and not self._left.refusal

    @property
    def refusal(self) -> str:
        return self._left.refusal if self._left is not None else ""

    def is_for(self, machine: str) -> None:
        """The guest is that virtual machine, "" if unknown: it may be another of its number."""
        left = self._left
        if left is not None and machine and left.machine not in ("", machine[:MACHINE_LENGTH]):
            self.give_up("its state segment is another virtual machine's")

    def _take(self, fresh: Callable[[L], S_co]) -> S_co:
        """The segment, which is the device's from now on; HostError.

        EBUSY: whoever serves it has been asked to hand over.  `fresh` makes one in place of
        another version's.
        """
        left = self._left
        assert left is not None
        if left.legible:
            return self._former.inherit(left.path)
        if not left.answered:
            self._ask(left)
            raise HostError("its process is about to hand it over", EBUSY)
        return fresh(left)

    def _ask(self, left: L) -> None:
        if self._asked:
            return
        self._asked = True

        def done(handed_over: bool | None) -> None:
            self._asked = False
            if self._left is not left:
                return
            if handed_over:
                self._left = left.handed_over()
            elif handed_over is False:
                self.give_up("another version left requests unanswered")
            self._woken()

        self._former.release(self._who, done)

    def begin(self) -> None:
        """Somebody is about to go on with it; HostError.

        Should he die only a version that can read the segment knows what he has not answered.
        """
        if self._left is not None and self._left.answered:
            passportfiles.begin(self._left.path)

    def rest(self) -> None:
        """After `begin`: nobody has, after all."""
        if self._left is not None:
            passportfiles.rest(self._left.path)

    def orphan(self, left: L) -> None:
        """Whoever served the device is gone while this daemon is not."""
        self._left = left

    def taken(self) -> None:
        """Somebody goes on with it: nothing is left."""
        self._left = None

    def give_up(self, refusal: str) -> None:
        """Nothing can come of it any more."""
        if self._left is not None:
            self._remove(self._left)
            self._left = self._left.refused(refusal)
            self._drop()

    def close(self) -> None:
        """Its guest has closed it since: whoever still serves it shall give it back."""
        if self.adoptable:
            self._closing = True
            self.give_up("its guest has closed it")

    @property
    def closing(self) -> bool:
        """After `close`: whether that has not been done yet."""
        return self._closing

    def leave(self) -> bool:
        """The device begins anew, or is gone.  Whether something was left until now."""
        left = self._left is not None
        if self.adoptable:
            self.give_up("it was begun anew")
        self.taken()
        return left

    def _remove(self, left: L) -> None:
        """What there is of it in the daemon's directory."""
        remove_file(left.path)

    def _drop(self) -> None:
        def done() -> None:
            self._closing = False
            self._woken()

        self._former.drop(self._who, done)
