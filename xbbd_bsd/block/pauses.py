"""A disk of which nothing is begun for a while, and how an operator begins and ends that.

That it is so, and why, its state segment says, whoever serves it; so what is not paused
any more when a daemon begins was resumed by nobody else.  Control thread.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EINVAL, ETIMEDOUT
from typing import Final, Protocol

from xbbd_bsd.deeds import PauseAsked, PauseEnded
from xbbd_bsd.errands import HUNG_SECONDS
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.events import Event
from xbbd_bsd.native import Paused, State
from xbbd_bsd.oids import Value
from xbbd_bsd.stats import tunable_word

_GONE: Final = "the disk is gone"
_ASKED: Final = "an operator has paused it"
_SWAPPED: Final = "another disk is about to take its place"


class Rings(Protocol):
    """What can be told to look at its segment."""

    def look(self) -> None:
        """Look at what the segment says, sooner or later; HostError."""


class Pauses:
    """Those of one device."""

    def __init__(
        self, device: str, loop: asyncio.AbstractEventLoop, journal: Callable[[Event], None]
    ) -> None:
        self._device = device
        self._loop = loop
        self._journal = journal

    def pause(
        self, segment: State | None, rings: Callable[[], Rings | None], who: str
    ) -> Iterator[None]:
        """Have nothing begun; over when nothing of it is under way.

        OperatorError if it has no segment; HostError if the disk does not answer: it is
        paused then as soon as it does.
        """
        if segment is None:
            raise OperatorError(f"{self._device} has no state segment", EINVAL)
        segment.pause()
        self._journal(PauseAsked(self._device, who))
        yield from self.follow(segment, rings)

    def resume(
        self, segment: State | None, rings: Callable[[], Rings | None], who: str
    ) -> Iterator[None]:
        """Have all begun that waits, whoever had paused it; OperatorError if nobody had."""
        paused = None if segment is None else segment.paused
        if segment is None or paused is None:
            raise OperatorError(f"{self._device} is not paused", EINVAL)
        segment.resume()
        self._journal(PauseEnded(self._device, max(0, round(time.time() - paused.since)), who))
        yield from self.follow(segment, rings)

    def for_gone(self, segment: State, fault: HostError) -> bool:
        """Pause a disk that is gone, if that is wanted: then another may take its place."""
        if tunable_word("on_error", segment.tunables()["on_error"]) != "pause":
            return False
        segment.pause(failed=True)
        return True

    def end(self, segment: State | None) -> None:
        """Its guest has let go of it: whatever was held back has been answered.

        What an operator wants stays; what an error was the reason for does not.
        """
        paused = None if segment is None else segment.paused
        if segment is not None and paused is not None and paused.failed:
            segment.resume()
            if paused.asked:
                segment.pause()

    def follow(self, segment: State, rings: Callable[[], Rings | None]) -> Iterator[None]:
        """Until all rings have, as they are then: others may come, and they know by themselves."""
        end = self._loop.time() + HUNG_SECONDS
        have_look(rings())
        while not segment.followed and not segment.damaged and rings() is not None:
            if self._loop.time() >= end:
                raise HostError(
                    f"{self._device}: the disk has not answered yet what it was given before;"
                    " nothing else is begun",
                    ETIMEDOUT,
                )
            yield None


def have_look(rings: Rings | None) -> None:
    """Those that are lost have others in their place soon, which look by themselves."""
    if rings is not None:
        with suppress(HostError):
            rings.look()


def pause_facts(segment: State, path: str) -> dict[str, Value]:
    """Leaves of the group "pause"."""
    paused = segment.paused
    if paused is None:
        return {"paused": "", "paused_since": 0, "paused_reason": ""}
    return {
        "paused": _word(paused),
        "paused_since": int(paused.since),
        "paused_reason": why_paused(segment, paused, path),
    }


def _word(paused: Paused) -> str:
    if paused.asked and paused.failed:
        return "both"
    if paused.asked or paused.failed:
        return "error" if paused.failed else "operator"
    return "swap"


def why_paused(segment: State, paused: Paused, path: str) -> str:
    """In words."""
    if not paused.failed:
        return _ASKED if paused.asked else _SWAPPED
    held = segment.faults().last_held
    return held.sentence(path) if held is not None else _GONE
