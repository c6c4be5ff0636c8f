"""How the block family is made, and what a dead daemon's is cleaned up: its line of the registry.

What all disks of a daemon share is made here: limits, marks, who uses which.  Control
thread.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from errno import EINVAL

from xbbd_bsd.block.family import BlockFamily
from xbbd_bsd.block.limits import Accounts, Limits
from xbbd_bsd.block.marks import Marks, cause_of_loss
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.block.sharing import Sharing
from xbbd_bsd.errors import OperatorError, printable
from xbbd_bsd.events import Event, WritesLost
from xbbd_bsd.native import bound_io
from xbbd_bsd.surroundings import Entry, Surroundings


def tap_params(value: bytes) -> bytes:
    """The node params of a tap disk: "aio:PATH" is a raw disk, the only format served."""
    scheme, _, path = value.partition(b":")
    if scheme != b"aio" or not path:
        raise OperatorError(f"node params is '{printable(value)}': only aio:PATH is served", EINVAL)
    return path


def make(given: Surroundings) -> Mapping[str, BlockFamily]:
    """One family for both directories of disks, "vbd" and "vbd3"."""

    def try_again(units: Iterable[int]) -> None:
        given.try_again(DRIVER, units)

    media = {"vbd": given.host.media, "vbd3": {"params": tap_params}}
    limits = Accounts(
        Limits.of(given.config.daemon, given.host.resources),
        bound_beyond=bound_io,
        freed=try_again,
        journal=given.journal,
        clock=time.monotonic,
    )
    family = BlockFamily(
        media,
        host=given.host,
        config=given.config,
        state_dir=given.state_dir,
        loop=given.loop,
        run=given.run,
        sharing=Sharing(),
        marks=Marks(given.state_dir),
        limits=limits,
        journal=given.journal,
        try_again=try_again,
    )
    return dict.fromkeys(media, family)


def sweep(state_dir: str) -> Iterator[Event]:
    """Remove the state segments of a daemon that died: nobody takes its devices over yet.

    But what they say of a loss is kept, and said.
    """
    marks = Marks(state_dir)
    for name in os.listdir(state_dir):
        if re.fullmatch(rf"{DRIVER.name}\.\d+", name):
            path = os.path.join(state_dir, name)
            if (mark := marks.take_over(path)) is not None:
                yield WritesLost(name.replace(".", ""), mark.path, cause_of_loss(mark.errno))
            os.unlink(path)


BLOCK = Entry(DRIVER, make, sweep)
