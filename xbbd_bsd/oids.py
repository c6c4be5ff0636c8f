"""Every name that an operator can read or change: type, access, one-line description.

Declared once, here; the daemon's tree, `xbbctl -d`, the manual page xbbd(4) and
the tests follow.  Names, types, access and descriptions of the in-kernel xbbd
are kept (sys/dev/xen/blkback/blkback.c, sys/xen/xenbus/xenbusb.c,
sys/kern/subr_bus.c), those of Linux's xen-blkback in name and meaning; ours are
in the same manner.  Pure declarations: where a value comes from is not known
here.  Any thread.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Final

from xbbd_bsd.config import DaemonConfig, DiskConfig, describe_key
from xbbd_bsd.faults import DISK_OPERATIONS, GUEST_KINDS
from xbbd_bsd.stats import COUNTERS, GAUGES, TUNABLES

ROOT: Final = "dev.xbbd"
DAEMON_ROOT: Final = "hw.xbbd"


class Type(Enum):
    """What a leaf holds; values as `sysctl -t` spells them."""

    INT = "integer"
    UINT = "unsigned integer"
    U64 = "uint64_t"
    STRING = "string"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A name below a device, a ring or the daemon.

    `tunable`: the configuration file sets it, as loader.conf does a kernel's.
    """

    name: str
    type: Type
    description: str
    writable: bool = False
    tunable: bool = False


def _strings(**named: str) -> tuple[Leaf, ...]:
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
    *_strings(
        xenstore_path="XenStore path to device",
        xenbus_dev_type="XenBus device type",
        xenbus_connection_state="XenBus state of peer connection",
    ),
    Leaf("xenbus_peer_domid", Type.INT, "Xen domain ID of peer"),
    *_strings(
        xenstore_peer_path="XenStore path to peer device",
        xenbus_peer_state="XenBus state of peer",
        held_back="why a guest that came back waits for its disk",
    ),
)

# Whom and what a device serves, and what was agreed with the guest.
MEDIUM: Final = (
    *_strings(
        guest="name of the guest",
        vdev="name of the disk in the guest",
        path="file or device that is served",
        medium="what that is: file or device",
        mode="access: r for read-only, w for writable",
        physical_device="major:minor of the device, in hexadecimal",
    ),
    Leaf("hung_seconds", Type.UINT, "for how long something of the disk has hung, 0 if not"),
    Leaf("sectors", Type.U64, "size of the disk in sectors of 512 bytes"),
    Leaf("sector_bytes", Type.UINT, "sector size that the guest is told"),
    Leaf("physical_sector_bytes", Type.UINT, "physical sector size that the guest is told"),
    Leaf("discard_granularity", Type.UINT, "bytes that can be discarded at once, 0 for none"),
    Leaf("queues", Type.UINT, "rings in use (negotiated)"),
    Leaf("abi", Type.STRING, "layout of the ring (negotiated)"),
    Leaf("persistent", Type.INT, "grants stay mapped (negotiated)"),
    Leaf("data_path", Type.STRING, "how data moves: map or copy"),
)


def _config(section: type[DaemonConfig | DiskConfig], *, prefix: str = "") -> tuple[Leaf, ...]:
    """A leaf for every key of a section of the configuration."""
    leaves = []
    for field in fields(section):
        numeric = isinstance(field.default, int)
        leaves.append(
            Leaf(
                prefix + field.name,
                Type.INT if numeric else Type.STRING,
                describe_key(field.name),
                tunable=True,
            )
        )
    return tuple(leaves)


TUNABLE: Final = tuple(
    Leaf(name, Type.INT, text, writable=True, tunable=True) for name, text in TUNABLES.items()
)
LIMITS: Final = tuple(leaf for leaf in _config(DiskConfig) if leaf.name not in TUNABLES)
COUNTER: Final = tuple(Leaf(name, Type.U64, text, writable=True) for name, text in COUNTERS.items())
OUT_OF_REQUESTS: Final = Leaf(
    "oo_req", Type.U64, "how many times we have run out of requests, as Linux names it"
)
GAUGE: Final = tuple(Leaf(name, Type.UINT, text) for name, text in GAUGES.items())
INFLIGHT: Final = Leaf(
    "inflight_table",
    Type.STRING,
    "requests in flight: ring, index, operation, sector, sectors, state, age in ms",
)

RECORDS: Final[Mapping[str, str]] = {
    "xbb": "as given to the disk",
    "xbbi": "as the guest asked for it",
}
OPERATIONS: Final = ("flush", "read", "write", "discard")  # by devicestat.h: no data ... free
PERCENTILES: Final[Mapping[str, float]] = {
    "p50_us": 50.0,
    "p90_us": 90.0,
    "p99_us": 99.0,
    "p999_us": 99.9,
}


def _devstat() -> Iterator[Leaf]:
    for record, text in RECORDS.items():
        name = f"devstat.{record}"
        yield Leaf(f"{name}.start_count", Type.U64, f"transactions begun, {text}")
        yield Leaf(f"{name}.end_count", Type.U64, f"transactions ended, {text}")
        for operation in OPERATIONS:
            kind = f"{name}.{operation}"
            yield Leaf(f"{kind}.operations", Type.U64, f"{operation} transactions, {text}")
            yield Leaf(f"{kind}.bytes", Type.U64, f"bytes of {operation} transactions, {text}")
            yield Leaf(f"{kind}.duration_ns", Type.U64, f"time of {operation} transactions, {text}")
        yield Leaf(f"{name}.tag_simple", Type.U64, f"transactions in any order, {text}")
        yield Leaf(f"{name}.tag_ordered", Type.U64, f"barriers and flushes, {text}")
        yield Leaf(f"{name}.busy_ns", Type.U64, f"time with a transaction under way, {text}")


def _latency() -> Iterator[Leaf]:
    for operation in OPERATIONS:
        name = f"latency.{operation}"
        yield Leaf(f"{name}.count", Type.U64, f"{operation} requests answered")
        for percentile, p in PERCENTILES.items():
            yield Leaf(
                f"{name}.{percentile}",
                Type.U64,
                f"{p:g} % of {operation} requests were answered within so many microseconds",
            )
        yield Leaf(
            f"{name}.histogram",
            Type.STRING,
            f"{operation} requests by latency: nanoseconds:count, up to and including",
        )


DEVSTAT: Final = tuple(_devstat())
LATENCY: Final = tuple(_latency())

# Requests that failed: the host's fault, and below errors.guest the guest's.
ERRORS: Final = (
    *(
        Leaf(f"errors.{operation}", Type.U64, f"requests that the disk failed at a {operation}")
        for operation in DISK_OPERATIONS
    ),
    Leaf("errors.last_errno", Type.INT, "errno of the last of them, 0 if there was none"),
    Leaf("errors.last_time", Type.U64, "when that was, in seconds since 1970"),
    Leaf("errors.last", Type.STRING, "the same in words: operation, place, reason"),
    *(
        Leaf(f"errors.guest.{kind}", Type.U64, f"refused: {text}")
        for kind, text in GUEST_KINDS.items()
    ),
    Leaf("errors.guest.last", Type.STRING, "the last of these in words: operation, place, reason"),
    Leaf("errors.guest.last_time", Type.U64, "when that was, in seconds since 1970"),
)

# Below ring.M; what the whole device has of these is their sum, or the first ring's.
RING: Final = (
    Leaf("req_cons", Type.UINT, "index of the next request to read"),
    Leaf("rsp_prod", Type.UINT, "index after the last response pushed"),
    *GAUGE,
    *(Leaf(leaf.name, leaf.type, leaf.description) for leaf in COUNTER),
)

GROUPS: Final[Mapping[str, tuple[Leaf, ...]]] = {
    "xenbus": NEWBUS + XENBUS,
    "medium": MEDIUM,
    "tunables": TUNABLE,
    "limits": LIMITS,
    "counters": (*COUNTER, OUT_OF_REQUESTS),
    "gauges": (*GAUGE, INFLIGHT),
    "errors": ERRORS,
    "devstat": DEVSTAT,
    "latency": LATENCY,
}
"""The leaves of a device, by the call that has their values."""

GROUP_OF: Final = {leaf.name: name for name, leaves in GROUPS.items() for leaf in leaves}

DAEMON: Final = (
    Leaf("version", Type.STRING, "version of the daemon"),
    Leaf("pid", Type.INT, "process ID of the daemon"),
    Leaf("host", Type.STRING, "hypervisor that is served"),
    Leaf("uptime", Type.UINT, "seconds since the daemon started"),
    Leaf("devices", Type.UINT, "devices there are"),
    Leaf("maxrss_kb", Type.U64, "most memory the daemon has had resident, KiB"),
    Leaf("event_channels", Type.UINT, "event channels of all disks, one a ring"),
    Leaf("threads", Type.UINT, "threads of all disks; two a ring, there or not, and more"),
    Leaf("descriptors", Type.UINT, "file descriptors of all disks, at most"),
    Leaf("buffer_kb", Type.U64, "buffers of all disks, at most, KiB"),
    Leaf("lines_left_out", Type.U64, "log lines that guests caused beyond their rate"),
    Leaf("mappings", Type.UINT, "mappings of guests' memory, kept or set aside for rings"),
    Leaf("grants", Type.UINT, "grants that stay mapped now, of all disks"),
    Leaf("log.control", Type.INT, "log every step of the control path", writable=True),
    Leaf("log.data", Type.INT, "log every step of the data path", writable=True),
    *(leaf for leaf in _config(DaemonConfig) if leaf.name != "log"),
    *_config(DiskConfig, prefix="disk."),
)

_DEVICE: Final = {leaf.name: leaf for group in GROUPS.values() for leaf in group}
_RING: Final = {leaf.name: leaf for leaf in RING}
_DAEMON: Final = {leaf.name: leaf for leaf in DAEMON}


def oid(unit: int, name: str) -> str:
    """The name of a leaf of device `unit`, as sysctl(8) spells it."""
    return f"{ROOT}.{unit}.{name}"


def split(name: str) -> tuple[int, str] | None:
    """Unit and rest ("" for the device itself) of a name below dev.xbbd; None of any other."""
    rest = name.removeprefix(f"{ROOT}.")
    unit, _, leaf = rest.partition(".")
    if rest == name or not (unit.isascii() and unit.isdigit()) or unit != str(int(unit)):
        return None
    return int(unit), leaf


def leaf_of(name: str) -> Leaf | None:
    """The declaration of a full name; None of a node, or of what does not exist."""
    if name.startswith(f"{DAEMON_ROOT}."):
        return _DAEMON.get(name.removeprefix(f"{DAEMON_ROOT}."))
    parts = split(name)
    if parts is None:
        return None
    first, _, rest = parts[1].partition(".")
    if first == "ring":
        return _RING.get(rest.partition(".")[2])
    return _DEVICE.get(parts[1])


def declared() -> Iterator[tuple[str, Leaf]]:
    """Every name with its leaf, as documents spell them: dev.xbbd.N, ring.M, hw.xbbd."""
    for group in GROUPS.values():
        yield from ((f"{ROOT}.N.{leaf.name}", leaf) for leaf in group)
    yield from ((f"{ROOT}.N.ring.M.{leaf.name}", leaf) for leaf in RING)
    yield from ((f"{DAEMON_ROOT}.{leaf.name}", leaf) for leaf in DAEMON)
