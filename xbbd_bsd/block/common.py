"""What all disks of a daemon have in common, as each of them knows it.

Declarations: who makes it, and what it does, is not known here.  Control thread.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from xbbd_bsd.accounts import Accounts
from xbbd_bsd.block.heritage import Heritage
from xbbd_bsd.block.marks import Marks
from xbbd_bsd.block.medium import Holder, Medium
from xbbd_bsd.block.numbers import SegmentNumbers
from xbbd_bsd.block.sharing import Sharing
from xbbd_bsd.block.stores import Store
from xbbd_bsd.block.tuning import Allowances
from xbbd_bsd.config import Config
from xbbd_bsd.errands import Run
from xbbd_bsd.events import Event
from xbbd_bsd.host import Host, MediumName
from xbbd_bsd.ledger import Ledger
from xbbd_bsd.native import QueueParams, State
from xbbd_bsd.serving import Serving


class Common(Protocol):
    """What all disks of a daemon have in common: see BlockFamily, which is this.

    `media`: by kind, nodes that may name the disk, best first.  `devices`: numbers by unit,
    of those with a state segment; `known`: all there are, by unit.
    """

    media: Mapping[str, Mapping[str, MediumName]]
    host: Host
    config: Config
    state_dir: str
    loop: asyncio.AbstractEventLoop
    run: Run
    serving: Serving[QueueParams, State]
    sharing: Sharing
    marks: Marks
    heritage: Heritage
    limits: Accounts
    allowances: Allowances
    ledger: Ledger
    devices: dict[int, SegmentNumbers]
    known: dict[int, Any]

    def again(self, unit: int) -> None:
        """What a device waits for may have come."""

    def store(self, name: bytes) -> Store | None:
        """What a medium's name stands for that is no path; OperatorError."""


def medium_of(
    family: Common, name: str, holder: Holder, journal: Callable[[Event], None]
) -> Medium:
    """A medium of a device of that name, closed."""
    return Medium(
        name,
        holder,
        host=family.host,
        loop=family.loop,
        run=family.run,
        stores=family.store,
        sharing=family.sharing,
        marks=family.marks,
        journal=journal,
    )
