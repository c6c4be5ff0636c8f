"""The registry of families: which directory of XenStore is served by what.

A new one is a line here.  Control thread.
"""

from collections.abc import Mapping
from typing import Final

from xbbd_bsd.block.entry import BLOCK
from xbbd_bsd.net.entry import NET
from xbbd_bsd.surroundings import Entry, Surroundings
from xbbd_bsd.xenbus.family import Family

ENTRIES: Final[tuple[Entry, ...]] = (BLOCK, NET)


def families(given: Surroundings) -> Mapping[str, Family]:
    """The family of every kind that could be served, by the name of its directory."""
    return {kind: family for entry in ENTRIES for kind, family in entry.make(given).items()}
