"""How disks are that no device has, gathered from those who know, and how an operator sees to one.

What is wrong with it is judged elsewhere (health.py).  Reads what is known already: no
store is asked, no disk waited for.  Control thread.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Mapping

from xbbd_bsd.block.disk import key_of
from xbbd_bsd.block.health import Loss, SharedFacts
from xbbd_bsd.block.marks import Marks, cause_of_loss
from xbbd_bsd.block.numbers import SegmentNumbers
from xbbd_bsd.deeds import DiskCleared, ErrorsCleared
from xbbd_bsd.errands import HUNG_SECONDS, Ended, Outcome, Run
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.events import Event
from xbbd_bsd.ledger import Ledger


class Condition:
    """That of all disks."""

    def __init__(
        self,
        *,
        marks: Marks,
        ledger: Ledger,
        devices: Mapping[int, SegmentNumbers],
        run: Run,
        loop: asyncio.AbstractEventLoop,
        journal: Callable[[Event], None],
        try_again: Callable[[], None],
    ) -> None:
        """`devices`: those with a segment, by unit.

        `try_again`: what held devices back may be over.
        """
        self._marks = marks
        self._ledger = ledger
        self._devices = devices
        self._run = run
        self._loop = loop
        self._journal = journal
        self._try_again = try_again

    def facts(self) -> SharedFacts:
        """What is known now."""
        return SharedFacts(
            losses=[
                Loss(mark.path, cause_of_loss(mark.errno), mark.guest, mark.time)
                for mark in self._marks.all()
            ],
            past=list(self._ledger.past),
        )

    def clear(self, path: str, who: str) -> Ended:
        """An operator has seen to a disk: forget its errors, and open it if it has lost something.

        OperatorError if there was neither.
        """
        began, outcomes = self._loop.time(), list[Outcome]()
        errors, refused = self._clear_errors(path)
        seen_to = errors or refused
        if seen_to:  # now: who asked may not wait for the rest
            self._journal(ErrorsCleared(path, errors, refused, who))
        cleared = self._marks.clear(path)
        if not cleared:  # it may have had another path then, and whoever has it may not answer
            self._run(
                "looking for the disk", lambda: key_of(os.stat(path)), outcomes.append, "xbbd"
            )

        def ended() -> bool:
            nonlocal cleared
            if not cleared and not outcomes:
                if self._loop.time() - began < HUNG_SECONDS:
                    return False
                if not seen_to:
                    raise HostError(f"{path}: it does not answer", errno.ETIMEDOUT)
            elif not cleared and outcomes[0].error is None:
                cleared = self._marks.clear(path, outcomes[0].value)
            if not cleared and not seen_to:
                raise OperatorError(
                    f"{path}: it is not known to have lost anything, nor to have had errors",
                    errno.ENOENT,
                )
            if cleared:
                self._journal(DiskCleared(path, who))
                self._try_again()
            return True

        return ended

    def _clear_errors(self, path: str) -> tuple[int, int]:
        """Of all devices with that path, and of those that had it; how many, as Ledger.clear."""
        errors, refused = self._ledger.clear_path(path), 0
        for unit, numbers in self._devices.items():
            if numbers.group("medium").get("path") == path:
                of_disk, of_guest = self._ledger.clear(unit, numbers.group)
                errors, refused = errors + of_disk, refused + of_guest
        return errors, refused
