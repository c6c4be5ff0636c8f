"""Work that may not come back: a thread does it, and the loop goes on with everybody else's.

Opening, closing and measuring a disk wait for whoever has it: a file server that does
not answer keeps a system call for ever.  A device has one thing done at a time, so
that whoever asks again and again makes no thread again and again.  What the work
is is not known here.  Control thread, but for the work.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from errno import EAGAIN
from typing import Any, Final, Protocol, TypeVar

from xbbd_bsd.errors import HostError

T = TypeVar("T")

HUNG_SECONDS: Final = 5.0  # what takes longer is told to the operator
AGAIN_SECONDS: Final = 1.0  # until a thread is asked for again that could not be had


class Pending(Exception):
    """What was asked for is under way.  Whoever asked is woken, and asks once more."""


Ended = Callable[[], bool]
"""Whether something has ended, for who asks every so often; raises what it failed of."""


def until(ended: Ended) -> Iterator[None]:
    """Nothing, as often as it takes until something has ended; raises what it failed of."""
    while not ended():
        yield None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What work came to: what it returned, or what it raised."""

    value: Any = None
    error: Exception | None = None

    def get(self) -> Any:
        """Return, or raise, the same."""
        if self.error is not None:
            raise self.error
        return self.value


class Run(Protocol):
    """How work is done: see `Threads`."""

    def __call__(
        self, what: str, work: Callable[[], object], then: Callable[[Outcome], None], whose: str
    ) -> None:
        """Do `work`, and call `then` on the loop; HostError if there is nobody to do it.

        `whose`: for whom, for who looks at threads.
        """


class Threads:
    """Each piece of work a thread, which nobody waits for when the program ends."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, called: Callable[[str], None] = lambda name: None
    ) -> None:
        """`called` tells the operating system what the calling thread is."""
        self._loop = loop
        self._called = called

    def __call__(
        self, what: str, work: Callable[[], object], then: Callable[[Outcome], None], whose: str
    ) -> None:
        # There is room for hardly more than whose it is.
        name = f"{whose} {what.partition(' ')[0].rstrip(':')}"

        def main() -> None:
            self._called(name)
            try:
                outcome = Outcome(work())
            except Exception as error:
                outcome = Outcome(error=error)
            with suppress(RuntimeError):  # the loop is closed: the program ends
                self._loop.call_soon_threadsafe(then, outcome)

        try:
            threading.Thread(target=main, name=name, daemon=True).start()
        except RuntimeError as error:
            raise HostError(f"no thread for {what}: {error}", EAGAIN) from None


@dataclass(slots=True)
class _Errand:
    what: str
    key: object  # None: nobody asks for it
    since: float
    drop: Callable[[Any], object] | None
    wanted: bool = True
    outcome: Outcome | None = None


class Hung(Protocol):
    """Is told of work that takes long."""

    def __call__(self, what: str, seconds: float | None) -> None:
        """It has not come back for HUNG_SECONDS; or has now, after so many."""


class Errands:
    """What is done for one device, one thing at a time."""

    def __init__(
        self,
        run: Run,
        loop: asyncio.AbstractEventLoop,
        woken: Callable[[], None],
        hung: Hung,
        whose: str,
    ) -> None:
        """`woken` is called when whoever was told to wait may ask again; `whose`: as Run's."""
        self._whose = whose
        self._run = run
        self._loop = loop
        self._woken = woken
        self._hung = hung
        self._now: _Errand | None = None
        self._awaited = False

    @property
    def busy(self) -> tuple[str, float] | None:
        """What is being done now, and for how many seconds by now; None if nothing is."""
        if self._now is None or self._now.outcome is not None:
            return None
        return self._now.what, self._loop.time() - self._now.since

    def ask(self, what: str, key: object, work: Callable[[], T], drop: Callable[[T], object]) -> T:
        """What `work` comes to; raises Pending until it has come to something.

        Asked with the same `key`, which is not None, it is the same work.  `drop` is for
        what came of work that nobody asks for any more, and is done like work itself.
        Raises what the work raised, and HostError if nobody can do it.
        """
        if self._now is not None and self._now.outcome is not None and self._now.key != key:
            self._drop(self._now)
        if self._now is None:
            self._begin(_Errand(what, key, self._loop.time(), drop), work)
        errand = self._now
        if errand is None or errand.key != key or errand.outcome is None:
            if errand is not None and errand.key == key:
                errand.wanted = True
            self._awaited = True
            raise Pending
        self._now = None
        self._tell()
        found: T = errand.outcome.get()
        return found

    def post(self, what: str, work: Callable[[], object], then: Callable[[Outcome], None]) -> None:
        """Have something done that is not asked for twice; `then` is told.

        Raises Pending if something else is being done, and HostError if nobody can do it.
        """
        if self._now is not None:
            self._awaited = True
            raise Pending
        self._begin(_Errand(what, None, self._loop.time(), None), work, then)

    def wait(self) -> None:
        """Raises Pending while something is being done."""
        if self.busy is not None:
            self._awaited = True
            raise Pending

    def give_back(self, what: str, drop: Callable[[], object]) -> None:
        """After `ask`, and in its place: what came of it is not wanted after all."""
        found = _Errand(what, object(), self._loop.time(), lambda _: drop(), False, Outcome())
        self._now = found
        self._drop_unwanted()

    def abandon(self) -> None:
        """Nobody asks any more for what was asked for."""
        if self._now is not None:
            self._now.wanted = False
            self._drop_unwanted()

    def _begin(
        self,
        errand: _Errand,
        work: Callable[[], object],
        then: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        late = self._loop.call_later(HUNG_SECONDS, self._hung, errand.what, None)

        def done(outcome: Outcome) -> None:
            late.cancel()
            took = self._loop.time() - errand.since
            if took >= HUNG_SECONDS:
                self._hung(errand.what, took)
            errand.outcome = outcome
            if errand.key is None:
                self._now = None
                then(outcome)
            self._drop_unwanted()
            self._tell()

        self._now = errand
        try:
            self._run(errand.what, work, done, self._whose)
        except HostError:
            late.cancel()
            self._now = None
            raise

    def _tell(self) -> None:
        if self._awaited:
            self._awaited = False
            self._woken()

    def _drop_unwanted(self) -> None:
        errand = self._now
        if errand is not None and errand.outcome is not None and not errand.wanted:
            try:
                self._drop(errand)
            except HostError:  # nobody can do it just now
                self._loop.call_later(AGAIN_SECONDS, self._drop_unwanted)

    def _drop(self, errand: _Errand) -> None:
        """Give back what came of work, if it left anything; HostError."""
        drop, outcome = errand.drop, errand.outcome
        self._now = None
        if drop is None or outcome is None or outcome.error is not None:
            return
        undo = _Errand(f"undoing: {errand.what}", None, self._loop.time(), None)
        self._awaited = True  # by whoever is kept from asking until then
        try:
            self._begin(undo, lambda: drop(outcome.value))
        except HostError:
            self._now = errand
            raise
