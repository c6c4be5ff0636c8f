"""What a family is made of: what the daemon gives to each, and how families.py knows it.

Nothing here is of any kind of device.  Control thread.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from xbbd_bsd.accounts import Accounts
from xbbd_bsd.config import Config
from xbbd_bsd.errands import Run
from xbbd_bsd.events import Event
from xbbd_bsd.guests.claims import Claims
from xbbd_bsd.host import Host
from xbbd_bsd.oids import Driver
from xbbd_bsd.xenbus.family import Family


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The daemon, as a family has it.

    `config` is the first one, others come by Family.configure; `state_dir` is for files
    named DRIVER.UNIT, and others that the family tells apart.  `run` does what may have to
    wait.  `guests`: the processes of guests, None if rings are served in this one.
    `limits`: what all devices share, of whatever family, and who has taken it.
    `try_again`: what held devices of a driver back, these units, may be over.
    """

    host: Host
    config: Config
    state_dir: str
    loop: asyncio.AbstractEventLoop
    run: Run
    guests: Claims | None
    limits: Accounts
    journal: Callable[[Event], None]
    try_again: Callable[[Driver, Iterable[int]], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the registry: a driver, and how its family is made.

    `make` gives the family of each kind that it serves, mostly one for all, and sees to
    what a daemon that died has left in the state directory.
    """

    driver: Driver
    make: Callable[[Surroundings], Mapping[str, Family]]
