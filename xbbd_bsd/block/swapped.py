"""A disk for a guest, as backend.py has it, that can be exchanged for another one.

When, and in which order, swap.py says; here is what of the backend it is about.  Control
thread.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from xbbd_bsd.accounts import LimitError, Part
from xbbd_bsd.block.backend import BlockBackend
from xbbd_bsd.block.common import medium_of
from xbbd_bsd.block.disk import Disk
from xbbd_bsd.block.medium import Medium
from xbbd_bsd.block.named import named_medium
from xbbd_bsd.block.pauses import have_look
from xbbd_bsd.block.queues import OF_DISK
from xbbd_bsd.block.served import Served
from xbbd_bsd.block.swap import Nobody, Serves, Swaps
from xbbd_bsd.native import State
from xbbd_bsd.xenbus.family import Changes, Connection, Nodes
from xbbd_bsd.xenbus.states import Queue


class SwappedBackend(BlockBackend):
    """One disk for one guest, or one after the other."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._params = b""  # the node, as it was when the disk was opened
        self._closes = False
        self._swaps = Swaps(self.name, self, self._family.loop, self._pauses, self._journal)

    # For the device.

    @property
    def queue(self) -> Queue:
        return Queue.RUNNING if self._swaps.holds else super().queue

    def medium_named(self, backend: Nodes) -> bool:
        # What we are about to write, or have written, is what it says when it is adopted.
        if self._swaps.holds or self.adoptable:
            return named_medium(self._media, backend) is not None
        return super().medium_named(backend)

    def told(self) -> None:
        super().told()
        if self._rings is None and self._swaps.holds:
            self.orphaned()

    def closing(self) -> None:
        # Once: else a guest that goes on meanwhile would have no limits.
        if self._segment is not None and self._rings is not None and not self._closes:
            self._segment.pardon()
            self._closes = True

    def connect(self, frontend: Nodes) -> Connection:
        self._closes = False
        return super().connect(frontend)

    def drain(self) -> None:
        if self._rings is None and self._swaps.holds:
            self.orphaned()
        else:
            self._swaps.release()
            super().drain()

    def adopt(self, backend: Nodes) -> str:
        said = super().adopt(backend)
        self._adopted_for = ""
        if self._segment is not None and not self._swaps.runs:
            # Whoever began to exchange it has died: what was his pause is nobody's.
            self._segment.end_swap()
            have_look(self._rings)
        return said

    def orphaned(self) -> None:
        self._swaps.release()
        super().orphaned()

    def _open(self, backend: Nodes) -> str:
        self._params = backend("params") or b""
        return super()._open(backend)

    def _disk_as(self, backend: Nodes, served: Served) -> Disk:
        self._params = backend("params") or b""
        medium = self._swaps.take(served.wanted.key) if served.exchanged else None
        if medium is not None and medium.disk is not None and self._info is not None:
            medium.belong_to(self)
            self._medium = medium
            self._info = replace(self._info, sectors=medium.disk.sectors)
            self._opened = named_medium(self._media, backend)
            self._path = os.fsdecode(served.wanted.name)
            self._adopted_for = "with another disk"
            self.configure()
            self._has_opened()
        disk = super()._disk_as(backend, served)
        if served.exchanged and self._segment is not None:
            self._segment.medium = served.exchanged
            if not self._swaps.runs:
                self._pauses.end(self._segment)  # an error's is over with its disk
        return disk

    # For operators.

    def swap(self, path: str, who: str) -> Iterator[None]:
        """Exchange the disk for the one at `path`, with which the guest goes on."""
        return self._swaps.swap(path, who)

    def pause(self, who: str) -> Iterator[None]:
        self._swaps.check_free()
        return super().pause(who)

    def resume(self, who: str) -> Iterator[None]:
        self._swaps.check_free()
        return super().resume(who)

    # For the exchange.

    @property
    def serves(self) -> Serves | None:
        """What is served, None if nothing is."""
        segment, rings, medium, info = self._segment, self._rings, self._medium, self._info
        if segment is None or rings is None or info is None or self._opened is None:
            return None
        if medium.disk is None or segment.medium is None:
            return None
        return Serves(
            segment,
            rings,
            medium,
            medium.disk,
            info,
            self._owner,
            self._opened[0],
            self._params,
            self._path,
            segment.medium.shared,
            self._sector_size,
        )

    @property
    def segment(self) -> State | None:
        """The device's, None if there is none."""
        return self._segment

    @property
    def waits(self) -> bool:
        """Whether a guest is connected, even if nobody serves it just now."""
        return self._rings is not None or self.adoptable or self._swaps.holds

    def another(self) -> Medium:
        """A medium that may take the place of ours; LimitError."""
        try:
            self._share.take(Part.MEDIUM, OF_DISK + OF_DISK)
        except LimitError:
            self.settled()  # an operator may ask again: nobody waits for it
            raise
        return medium_of(self._family, self.name, Nobody(), self._journal)

    def park(self, nodes: Changes) -> None:
        """Nobody serves the rings: say this, and adopt them then."""
        self._rings, self._adopted_for = None, "served on"
        self._lookout.end()
        self._medium.end_rings()
        self._news = nodes
        self._wake()

    def settled(self) -> None:
        """There is one disk again, at most."""
        if self._family.known.get(self._identity.unit) is not self:
            return
        if self.medium_open:
            self._share.keep(Part.MEDIUM, OF_DISK)
        else:
            self._share.give_back(Part.MEDIUM)
