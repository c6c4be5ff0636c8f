"""Work that comes back when a test says so (errands.Run).  Holds no test."""

import asyncio
from collections.abc import Callable

from xbbd_bsd.errands import Errands, Outcome
from xbbd_bsd.errors import HostError


class SlowRun:
    """Keeps what is to be done; one thread, that of pytest."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.refuses = False
        self._work: list[tuple[Callable[[], object], Callable[[Outcome], None]]] = []

    def __call__(
        self, what: str, work: Callable[[], object], then: Callable[[Outcome], None], whose: str
    ) -> None:
        if self.refuses:
            raise HostError("no thread")
        self.waiting.append(what)
        self._work.append((work, then))

    def finish(self) -> None:
        """Do the oldest of it."""
        self.waiting.pop(0)
        work, then = self._work.pop(0)
        try:
            outcome = Outcome(work())
        except Exception as error:
            outcome = Outcome(error=error)
        then(outcome)

    def finish_last(self) -> None:
        """Do what was begun last, while all else is waited for still."""
        self.waiting.insert(0, self.waiting.pop())
        self._work.insert(0, self._work.pop())
        self.finish()

    def finish_all(self) -> None:
        """Also what is to be done after that."""
        while self.waiting:
            self.finish()


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time is told."""

    now = 100.0

    def time(self) -> float:
        return self.now


class Told:
    """An Errands, and all that it says."""

    def __init__(self) -> None:
        self.run = SlowRun()
        self.loop = Clock()
        self.wakes = 0
        self.hangs: list[tuple[str, float | None]] = []
        self.errands = Errands(
            self.run,
            self.loop,
            self._wake,
            lambda what, seconds: self.hangs.append((what, seconds)),
            "xbbd0",
        )

    def _wake(self) -> None:
        self.wakes += 1

    def pass_time(self, seconds: float) -> None:
        """Let time go by, and what is due then be called."""
        self.loop.now += seconds
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
