"""The registry of families: which directory of XenStore is served by what.

A new one is a line here.  Control thread.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from xbbd_bsd.block.entry import BLOCK
from xbbd_bsd.events import Event
from xbbd_bsd.surroundings import Entry, Surroundings
from xbbd_bsd.xenbus.family import Family

ENTRIES: Final[tuple[Entry, ...]] = (BLOCK,)


def families(given: Surroundings) -> Mapping[str, Family]:
    """The family of every kind that could be served, by the name of its directory."""
    return {kind: family for entry in ENTRIES for kind, family in entry.make(given).items()}


def sweep(state_dir: str) -> Iterator[Event]:
    """Remove what a daemon that died has left there, and say what there is to say of it."""
    for entry in ENTRIES:
        yield from entry.sweep(state_dir)
