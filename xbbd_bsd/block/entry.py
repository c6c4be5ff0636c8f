"""How the block family is made: its line of the registry.

What all disks of a daemon share is made here: marks, who uses which, what an
earlier daemon left.  Control thread.
"""

from collections.abc import Iterable, Mapping
from errno import EINVAL
from typing import Final

from xbbd_bsd.block.family import BlockFamily
from xbbd_bsd.block.heritage import Heritage
from xbbd_bsd.block.marks import Marks
from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.block.queues import disks_within
from xbbd_bsd.block.rings import CRAFT
from xbbd_bsd.block.sharing import Sharing
from xbbd_bsd.errors import OperatorError, printable
from xbbd_bsd.events import FewDescriptors
from xbbd_bsd.serving import ByProcess, Here
from xbbd_bsd.surroundings import Entry, Surroundings

MANY: Final = 200  # disks, more than most hosts have


def tap_params(value: bytes) -> bytes:
    """The node params of a tap disk: "aio:PATH" is a raw disk, the only format served."""
    scheme, _, path = value.partition(b":")
    if scheme != b"aio" or not path:
        raise OperatorError(f"node params is '{printable(value)}': only aio:PATH is served", EINVAL)
    return path


def warn_of_few(descriptors: int, given: Surroundings) -> None:
    """Say for how many disks that is enough, if it may be what there is too little of."""
    rings = given.config.disk.max_queues
    disks = disks_within(descriptors, given.config.disk, given.host.hv)
    if disks < MANY:
        given.journal(FewDescriptors(descriptors, disks, rings))


def make(given: Surroundings) -> Mapping[str, BlockFamily]:
    """One family for both directories of disks, "vbd" and "vbd3"."""

    def try_again(units: Iterable[int]) -> None:
        given.try_again(DRIVER, units)

    media = {"vbd": given.host.media, "vbd3": {"params": tap_params}}
    serving = (
        Here(CRAFT, given.host, given.loop)
        if given.guests is None
        else ByProcess(CRAFT, given.host, given.guests)
    )
    warn_of_few(given.limits.limits.descriptors, given)
    marks = Marks(given.state_dir)
    family = BlockFamily(
        media,
        host=given.host,
        config=given.config,
        state_dir=given.state_dir,
        loop=given.loop,
        run=given.run,
        serving=serving,
        sharing=Sharing(),
        marks=marks,
        heritage=Heritage(given.state_dir, marks, given.journal),
        limits=given.limits,
        journal=given.journal,
        try_again=try_again,
    )
    return dict.fromkeys(media, family)


BLOCK = Entry(DRIVER, make)
