"""How disks and daemon are, gathered from those who know, and how an operator takes it back.

What is wrong with it is judged elsewhere (control/health.py).  Reads what is known
already: no store is asked, no disk waited for.  Control thread.
"""

import asyncio
import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence

from xbbd_bsd.block.disk import key_of
from xbbd_bsd.block.family import BlockFamily
from xbbd_bsd.block.limits import Accounts
from xbbd_bsd.block.marks import Marks, cause_of_loss
from xbbd_bsd.block.numbers import Numbers, Value
from xbbd_bsd.control.health import DaemonFacts, DiskFacts, Limit, Loss
from xbbd_bsd.deeds import DiskCleared, ErrorsCleared
from xbbd_bsd.errands import HUNG_SECONDS, Ended, Outcome, Run
from xbbd_bsd.errors import GuestError, HostError, OperatorError
from xbbd_bsd.events import Event
from xbbd_bsd.ledger import Group, Ledger
from xbbd_bsd.xenbus.device import Device
from xbbd_bsd.xenbus.pace import RESTLESS


def disk_facts(device: Device, group: Group, numbers: Numbers | None, ledger: Ledger) -> DiskFacts:
    """Of one device, with the values of its groups; `numbers`: None if it has no segment."""
    unit, medium = device.identity.unit, group("medium")
    held_back, failed = device.held_back, device.failed
    return DiskFacts(
        unit,
        guest=str(medium.get("guest", "")),
        vdev=str(medium.get("vdev", "")),
        path=str(medium.get("path", "")),
        errors=ledger.errors(unit, group),
        guest_errors=ledger.guest_errors(unit, group),
        hung_seconds=int(medium.get("hung_seconds", 0)),
        ages=numbers.ages() if numbers is not None else (),
        path_state=str(medium.get("path_state", "")),
        held_back=held_back,
        closed="" if failed is None or held_back else str(failed),
        by_guest=held_back == RESTLESS if held_back else isinstance(failed, GuestError),
    )


class Condition:
    """That of the daemon, and of disks that no device has."""

    def __init__(
        self,
        *,
        marks: Marks,
        limits: Accounts,
        families: Sequence[BlockFamily],
        run: Run,
        loop: asyncio.AbstractEventLoop,
        journal: Callable[[Event], None],
        try_again: Callable[[], None],
    ) -> None:
        """`limits` go by time.monotonic; `try_again`: what held devices back may be over."""
        self._marks = marks
        self._limits = limits
        self._families = families
        self._run = run
        self._loop = loop
        self._journal = journal
        self._try_again = try_again

    def facts(self, values: Mapping[str, Value]) -> DaemonFacts:
        """What is known now; `values`: the daemon's leaves."""
        began = time.time() - time.monotonic()
        return DaemonFacts(
            store_connected=bool(values.get("store_connected", 1)),
            store_since=float(values.get("store_since", 0)),
            refused=str(values.get("configuration_refused", "")),
            refused_since=float(values.get("configuration_refused_since", 0)),
            shortage=str(values.get("shortage", "")),
            limits=[
                Limit(limit.what, limit.where, began + limit.since)
                for limit in self._limits.reached()
            ],
            losses=[
                Loss(mark.path, cause_of_loss(mark.errno), mark.guest, mark.time)
                for mark in self._marks.all()
            ],
            past=[past for family in self._families for past in family.ledger.past],
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
        errors = refused = 0
        for family in self._families:
            errors += family.ledger.clear_path(path)
            for unit, numbers in family.devices.items():
                if numbers.group("medium").get("path") == path:
                    of_disk, of_guest = family.ledger.clear(unit, numbers.group)
                    errors, refused = errors + of_disk, refused + of_guest
        return errors, refused
