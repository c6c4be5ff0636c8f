"""Names that an operator can read or change: how they are made, and those that any device has.

A leaf is declared once; the daemon's tree, `xbbctl -d`, the manual page xbbd(4) and
the tests follow.  Names, types, access and descriptions of newbus and xenbus are
kept (sys/xen/xenbus/xenbusb.c, sys/kern/subr_bus.c).  What the devices of a driver have
besides is their family's to say, in a `Driver`.  Pure declarations: where a value comes
from is not known here.  Any thread.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from typing import Any, Final

from xbbd_bsd.config import RANGES, SECTIONS, DaemonConfig, describe_key

DAEMON_ROOT: Final = "hw.xbbd"

Value = int | str
"""What a leaf has."""


class Type(Enum):
    """What a leaf holds; values as `sysctl -t` spells them."""

    INT = "integer"
    UINT = "unsigned integer"
    U64 = "uint64_t"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A name below a device, a ring or the daemon.

    `tunable`: the configuration file sets it, as loader.conf does a kernel's.  `words`: all
    that it may be, of one that is set by a word.
    """

    name: str
    type: Type
    description: str
    writable: bool = False
    tunable: bool = False
    words: tuple[str, ...] = ()


def strings(**named: str) -> tuple[Leaf, ...]:
    """Leaves that hold text, by their names."""
    return tuple(Leaf(name, Type.STRING, text) for name, text in named.items())


# Of newbus (subr_bus.c) and of xenbusb.c.
NEWBUS: Final = (
    Leaf("%desc", Type.STRING, "device description"),
    Leaf("%driver", Type.STRING, "device driver name"),
    Leaf("%location", Type.STRING, "device location relative to parent"),
    Leaf("%pnpinfo", Type.STRING, "device identification"),
    Leaf("%parent", Type.STRING, "parent device"),
)

XENBUS: Final = (
    *strings(
        xenstore_path="XenStore path to device",
        xenbus_dev_type="XenBus device type",
        xenbus_connection_state="XenBus state of peer connection",
    ),
    Leaf("xenbus_peer_domid", Type.INT, "Xen domain ID of peer"),
    *strings(
        xenstore_peer_path="XenStore path to peer device",
        xenbus_peer_state="XenBus state of peer",
        held_back="why a guest that came back waits for its device",
        closed_reason="what failed, of a device that is Closing or Closed for it",
    ),
)


# Who serves a device whose rings are threads, as the kernel says; all 0 if nobody does.
PROCESS: Final = (
    Leaf("process", Type.UINT, "number of the process that serves it, 0 if none does"),
    Leaf("process_rss_kb", Type.U64, "memory that this process has resident, KiB"),
    Leaf("process_age", Type.U64, "seconds since this process began"),
)


@dataclass(frozen=True, eq=False)
class Driver:
    """What the devices of a driver are called, and what each has to show.

    `name`: as newbus has it; its devices are name0, name1 and so on.  `noun`: what one is
    to an operator; `description`: the same in a sentence.  `own`: leaves by the call that
    has their values, besides those of any device; `ring`: those of each of its rings.
    `verbs`: of the control protocol, that only its devices know, and who may write.
    """

    name: str
    noun: str
    description: str
    own: Mapping[str, tuple[Leaf, ...]]
    ring: tuple[Leaf, ...] = ()
    verbs: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        """The node above its devices."""
        return f"dev.{self.name}"

    def node(self, unit: int) -> str:
        """That of a device."""
        return f"{self.root}.{unit}"

    def oid(self, unit: int, name: str) -> str:
        """The name of a leaf of a device, as sysctl(8) spells it."""
        return f"{self.root}.{unit}.{name}"

    @cached_property
    def groups(self) -> Mapping[str, tuple[Leaf, ...]]:
        """All leaves of a device, by the call that has their values."""
        return {"xenbus": NEWBUS + XENBUS, **self.own}

    @cached_property
    def group_of(self) -> Mapping[str, str]:
        """The group of each leaf."""
        return {leaf.name: group for group, leaves in self.groups.items() for leaf in leaves}

    @cached_property
    def leaves(self) -> Mapping[str, Leaf]:
        """Those of a device by name, without its rings'."""
        return {leaf.name: leaf for leaves in self.groups.values() for leaf in leaves}

    @cached_property
    def ring_leaves(self) -> Mapping[str, Leaf]:
        """Those of a ring by name."""
        return {leaf.name: leaf for leaf in self.ring}

    def split(self, name: str) -> tuple[int, str] | None:
        """Unit and rest ("" for the device itself) of a name below its root; None of any other."""
        parts = split(name)
        return parts[1:] if parts is not None and parts[0] == self.name else None

    def leaf_of(self, name: str) -> Leaf | None:
        """The declaration of what follows a device's node; None if it is no leaf."""
        first, _, rest = name.partition(".")
        if first == "ring":
            return self.ring_leaves.get(rest.partition(".")[2])
        return self.leaves.get(name)


def number_type(key: str) -> Type:
    """What holds a number of the configuration."""
    return Type.U64 if key in RANGES and RANGES[key][1] >= 1 << 31 else Type.INT


def config_leaves(section: type[Any], *, prefix: str = "") -> tuple[Leaf, ...]:
    """A leaf for every key of a section of the configuration, which is a dataclass."""
    leaves = []
    for field in fields(section):
        leaves.append(
            Leaf(
                prefix + field.name,
                number_type(field.name) if isinstance(field.default, int) else Type.STRING,
                describe_key(field.name),
                tunable=True,
            )
        )
    return tuple(leaves)


DAEMON: Final = (
    Leaf("version", Type.STRING, "version of the daemon"),
    Leaf("pid", Type.INT, "process ID of the daemon"),
    Leaf("host", Type.STRING, "hypervisor that is served"),
    Leaf("uptime", Type.UINT, "seconds since the daemon started"),
    *strings(
        configuration_file="configuration file that is read",
        configuration_refused="what was wrong with it when it was read last, empty if nothing",
    ),
    Leaf(
        "configuration_refused_since",
        Type.U64,
        "since when it has been refused, seconds since 1970; 0 if it is not",
    ),
    Leaf("devices", Type.UINT, "devices there are"),
    Leaf("maxrss_kb", Type.U64, "most memory the daemon has had resident, KiB"),
    Leaf("event_channels", Type.UINT, "event channels of all devices, one a ring"),
    Leaf(
        "threads",
        Type.UINT,
        "threads of all devices; one a queue of a card's, two a disk's ring, and more",
    ),
    Leaf("descriptors", Type.UINT, "file descriptors of all devices, at most"),
    Leaf("buffer_kb", Type.U64, "buffers of all devices, at most, KiB"),
    Leaf("store_connected", Type.INT, "XenStore answers"),
    Leaf("store_since", Type.U64, "since when it does, or does not: seconds since 1970"),
    Leaf("shortage", Type.STRING, "what the daemon is out of just now, to let clients in"),
    Leaf("lines_left_out", Type.U64, "log lines that guests caused beyond their rate"),
    Leaf("mappings", Type.UINT, "mappings of guests' memory, kept or set aside for rings"),
    Leaf("grants", Type.UINT, "grants that stay mapped now, of all devices"),
    Leaf("log.control", Type.INT, "log every step of the control path", writable=True),
    Leaf("log.data", Type.INT, "log every step of the data path", writable=True),
    *(leaf for leaf in config_leaves(DaemonConfig) if leaf.name != "log"),
    *(
        leaf
        for name, section in SECTIONS.items()
        if section is not DaemonConfig
        for leaf in config_leaves(section, prefix=f"{name}.")
    ),
)

_DAEMON: Final = {leaf.name: leaf for leaf in DAEMON}


def split(name: str) -> tuple[str, int, str] | None:
    """Driver, unit and rest ("" for the device itself) of a device's name; None of any other.

    That there is such a driver is not said.
    """
    root, _, below = name.partition(".")
    driver, _, rest = below.partition(".")
    unit, _, leaf = rest.partition(".")
    if root != "dev" or not driver or not (unit.isascii() and unit.isdigit()):
        return None
    return (driver, int(unit), leaf) if unit == str(int(unit)) else None


def leaf_of(name: str, drivers: Mapping[str, Driver]) -> Leaf | None:
    """The declaration of a full name; None of a node, or of what does not exist."""
    if name.startswith(f"{DAEMON_ROOT}."):
        return _DAEMON.get(name.removeprefix(f"{DAEMON_ROOT}."))
    parts = split(name)
    driver = drivers.get(parts[0]) if parts is not None else None
    return driver.leaf_of(parts[2]) if parts is not None and driver is not None else None


def declared(*drivers: Driver) -> Iterator[tuple[str, Leaf]]:
    """Every name with its leaf, as documents spell them: dev.xbbd.N, ring.M, hw.xbbd."""
    for driver in drivers:
        for group in driver.groups.values():
            yield from ((f"{driver.root}.N.{leaf.name}", leaf) for leaf in group)
        yield from ((f"{driver.root}.N.ring.M.{leaf.name}", leaf) for leaf in driver.ring)
    yield from ((f"{DAEMON_ROOT}.{leaf.name}", leaf) for leaf in DAEMON)
