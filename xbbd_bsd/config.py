"""The configuration: a frozen Config, what each key may be, and what differs between two.

Sections [daemon], [guest], [disk] and [net], any number of [group.NAME], and of
[[override]], which change [disk] for the disks they match; later ones win.

Pure: how it is written is conftext.py's business, files and signals are the
daemon's.  Leaf names equal those of the control tree.  Any thread.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from errno import EINVAL
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Final

from xbbd_bsd.errors import OperatorError, shown
from xbbd_bsd.events import Path
from xbbd_bsd.stats import POLICIES, RATES, TUNABLES, WORDS
from xbbd_bsd.storesections import StoreConfig, Stores
from xbbd_bsd.tomltext import spelled

KINDS: Final = ("vbd", "vbd3", "vif")
OF_DISKS: Final = ("vbd", "vbd3")  # what is served unless somebody says otherwise
TRANSPORTS: Final = ("best", "map", "copy")
OFFLOADS: Final = ("auto", "full", "safe")
LOGS: Final = tuple(path.value for path in Path)

# Allowed values, lowest and highest.  The highest are those of the data path (xbb.h).
RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "max_mappings": (0, 1_000_000),
    "max_grants": (0, 1_000_000),
    "max_guest_grants": (0, 1_000_000),
    "workers": (1, 64),
    "max_ring_page_order": (0, 5),
    "max_batch_segments": (11, 256),
    "max_queues": (1, 8),
    "max_indirect_segments": (0, 256),
    "max_persistent_grants": (0, 4096),
    "persistent_grant_unused_seconds": (0, 86_400),
    "resize_interval": (0, 3600),
    "flush_interval": (0, 1_000_000),
    "poll_max_us": (0, 10_000),
    "max_disks_per_guest": (1, 4096),
    "max_cards_per_guest": (1, 4096),
    "max_guest_share": (1, 100),
    "max_event_channels": (0, 131_072),
    "max_threads": (0, 1_000_000),
    "max_descriptors": (0, 10_000_000),
    "max_buffer_mb": (0, 1_000_000),
    "memory_mb": (0, 1_000_000),
    "descriptors": (0, 10_000_000),
    "cpu_percent": (0, 102_400),
    "retry_seconds": (0, 86_400),
    **dict.fromkeys(("iops_max", "read_iops_max", "write_iops_max"), (0, 100_000_000)),
    **dict.fromkeys(("bytes_max", "read_bytes_max", "write_bytes_max"), (0, 1 << 40)),
    "burst_ms": (10, 60_000),
}
GROUP_NAME: Final = "[A-Za-z0-9_-]{1,32}"
LEAST_BYTES: Final = 4096  # a second, of a limit: fewer, and one request waits for minutes


MOST_CPUS: Final = 1024  # that the process of a guest can be told apart (guest/contract.h)

CHOICES: Final[Mapping[str, tuple[int, ...]]] = {"sector_size": (0, 512)}

LATER: Final = ("daemon.state_dir", "daemon.pidfile", "guest.processes")  # read at a start alone
MATCHES: Final = ("path", "guest", "vdev")  # what an [[override]] goes by

# One line each, of keys that are no tunables of a running disk (stats.TUNABLES).
DESCRIPTIONS: Final[Mapping[str, str]] = {
    "kinds": "backend directories of XenStore that are served",
    "state_dir": "directory of state segments and control socket",
    "pidfile": "file that holds the process ID and is locked",
    "log": "paths whose every step is logged",
    "group": "group whose members may read by the control socket",
    "metrics": "address where OpenMetrics are served",
    "max_disks_per_guest": "most disks of one guest",
    "max_cards_per_guest": "most network cards of one guest",
    "max_guest_share": "percent of all devices' limits that one guest may take",
    "max_event_channels": "most event channels of all devices, one a ring",
    "max_threads": "most threads of all devices",
    "max_descriptors": "most file descriptors of all devices",
    "max_buffer_mb": "most MiB of buffers of all devices",
    "max_mappings": "most mappings of guests' memory, of all devices together",
    "max_grants": "most grants kept mapped, of all devices together",
    "max_guest_grants": "most grants of one guest kept mapped, of all its devices together",
    "processes": "each guest's disks and cards are served by a process of its own",
    "user": "user that these processes become",
    "memory_mb": "most MiB of addresses of one of them, 0 for any",
    "descriptors": "most file descriptors of one of them, 0 for any",
    "cpus": "processors that they may run on, empty for all",
    "cpu_percent": "most time of one of them, in percent of one processor, 0 for any",
    "workers": "most I/O threads of a ring",
    "max_ring_page_order": "largest ring offered, 4096 << order bytes",
    "max_batch_segments": "most pages of one disk operation",
    "transport": "how data moves between guest and disk: best, map or copy",
    "max_queues": "most rings of one disk, or queues of one card",
    "max_indirect_segments": "most segments of a request, 0 for no indirect ones",
    "max_persistent_grants": "most grants a ring keeps mapped, 0 for none",
    "discard": "offer discarding where the disk can",
    "sector_size": "512: present larger sectors as such, 0: as they are",
    "resize_interval": "seconds between looks at the size of the disk, 0 for none",
    "shared": "the disk may be used by others while one writes to it",
    "offload": "what interfaces of cards are given: full, safe or auto",
    "mac_filter": "a guest's frames must come from the address of its card",
    "limit_group": "section [group.NAME] whose limits the disk shares",
}


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Section [daemon].

    kinds: backend directories served.  log: paths whose every step is logged,
    "control" and "data".  state_dir and pidfile: None for the platform's place.
    group: whose members may read by the control socket, None for root alone.
    metrics: where OpenMetrics are served, "127.0.0.1:9531" or the path of a
    socket, None for nowhere.
    max_disks_per_guest, max_cards_per_guest, and max_event_channels, max_threads,
    max_descriptors and max_buffer_mb (MiB) of all devices, 0 for what suits the host: bounds
    of what the host has only once.  max_guest_share: percent of those that one guest may take.
    max_mappings: most mappings that the process has for
    guests' memory, of which those that a ring needs are set aside.  max_grants and
    max_guest_grants: most grants that stay mapped, of all guests and of each.
    """

    kinds: tuple[str, ...] = OF_DISKS
    state_dir: str | None = None
    pidfile: str | None = None
    log: tuple[str, ...] = ()
    group: str | None = None
    metrics: str | None = None
    max_disks_per_guest: int = 64
    max_cards_per_guest: int = 32
    max_guest_share: int = 25
    max_event_channels: int = 0
    max_threads: int = 0
    max_descriptors: int = 0
    max_buffer_mb: int = 0
    max_mappings: int = 32_768
    max_grants: int = 131_072
    max_guest_grants: int = 2048


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """Section [guest].

    processes: whether each guest's devices are served by a process of its own.  user: what
    that becomes, if we are root.  memory_mb (MiB of addresses) and descriptors: most that
    it may have, 0 for no limit of its own.  cpus: the processors that it may run on, as
    parse_cpus() has them, "" for all.  cpu_percent: most time that it may have of them, in
    percent of one, 0 for any.  iops_max and so on: as in [disk], of all disks of one guest
    together.
    """

    processes: bool = False
    user: str = "nobody"
    memory_mb: int = 0
    descriptors: int = 0
    cpus: str = ""
    cpu_percent: int = 0
    iops_max: int = 0
    bytes_max: int = 0
    read_iops_max: int = 0
    read_bytes_max: int = 0
    write_iops_max: int = 0
    write_bytes_max: int = 0
    burst_ms: int = 100


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """A section [group.NAME], for all disks that name it in limit_group, together.

    As the keys of these names in [disk].
    """

    iops_max: int = 0
    bytes_max: int = 0
    read_iops_max: int = 0
    read_bytes_max: int = 0
    write_iops_max: int = 0
    write_bytes_max: int = 0
    burst_ms: int = 100


def rates_of(section: "DiskConfig | GuestConfig | GroupConfig | None") -> dict[str, int]:
    """The limits in a section, by name; none of None."""
    found = GroupConfig() if section is None else section
    return {name: int(getattr(found, name)) for name in RATES}


@dataclass(frozen=True, slots=True)
class DiskConfig:
    """Section [disk], for every device.

    workers: most I/O threads of a ring.  max_ring_page_order: largest ring
    offered to guests, 4096 << order bytes.  max_batch_segments: most pages of
    one disk operation.  transport: how data moves between guest and disk, by
    mapping its pages, by grant copy, or as suits the hypervisor; grants that stay
    mapped need neither.
    max_queues: most rings of one guest's disk.  max_indirect_segments: most
    segments of a request, 0 or 11 to 256; 0 offers no indirect ones.
    max_persistent_grants: most grants a ring keeps mapped, 0 for none.
    discard: whether discarding is offered where the disk can.  sector_size: 512
    presents disks with larger sectors as having such, 0 all as they are.
    resize_interval: seconds between looks at the size of disks, 0 for none.
    shared: whether a disk may be used by others while one writes to it.
    limit_group: the section [group.NAME] whose limits it shares, "" for none.
    iops_max, bytes_max: most operations, and bytes moved, in a second, 0 for any;
    read_ and write_: the same of what is read, and written.  burst_ms: what would take so
    long may be done at once, after a rest.
    These, disable_flush, flush_interval, no_coalesce_reqs, poll_max_us and
    persistent_grant_unused_seconds: the tunables of the same names (stats.py).
    on_error, on_full, retry_seconds: likewise, what is done when the disk fails.
    """

    workers: int = 8
    max_ring_page_order: int = 4
    max_batch_segments: int = 64
    disable_flush: bool = False
    flush_interval: int = 0
    no_coalesce_reqs: bool = False
    poll_max_us: int = 50
    transport: str = "best"
    max_queues: int = 4
    max_indirect_segments: int = 256
    max_persistent_grants: int = 1056
    persistent_grant_unused_seconds: int = 60
    discard: bool = True
    sector_size: int = 0
    resize_interval: int = 5
    shared: bool = False
    on_error: str = "report"
    on_full: str = "auto"
    retry_seconds: int = 30
    limit_group: str = ""
    iops_max: int = 0
    bytes_max: int = 0
    read_iops_max: int = 0
    read_bytes_max: int = 0
    write_iops_max: int = 0
    write_bytes_max: int = 0
    burst_ms: int = 100

    def tunables(self) -> dict[str, int]:
        """The part that a running data path can be given, as it wants it."""
        return {
            "disable_flush": int(self.disable_flush),
            "flush_interval": self.flush_interval,
            "no_coalesce_reqs": int(self.no_coalesce_reqs),
            "poll_max_us": self.poll_max_us,
            "persistent_grant_unused_seconds": self.persistent_grant_unused_seconds,
            "on_error": POLICIES.index(self.on_error),
            "on_full": POLICIES.index(self.on_full),
            "retry_seconds": self.retry_seconds,
            **rates_of(self),
        }


@dataclass(frozen=True, slots=True)
class NetConfig:
    """Section [net], for every network card.

    max_queues: most queues of one card, where interfaces can have several.  offload: what
    an interface is given, "full": frames whose sums are to be filled in, or that are to
    be split, "safe": only frames as they are on a wire, "auto": what suits the host.
    mac_filter: whether a guest's frames must come from the address that its card was
    given.  poll_max_us: the tunable of that name (stats.py).
    """

    max_queues: int = 4
    offload: str = "auto"
    mac_filter: bool = False
    poll_max_us: int = 50

    def tunables(self) -> dict[str, int]:
        """The part that a running data path can be given, as it wants it."""
        return {"poll_max_us": self.poll_max_us}


_DEFAULTS: Final = {field.name: field.default for field in fields(DiskConfig)}


@dataclass(frozen=True, slots=True)
class Override:
    """One [[override]]: which disks, and their keys of [disk].

    `path` is a pattern as of a shell, of which "*" takes slashes too, for the name
    itself or for what the log shows of it, as TOML is text and names are octets; `guest` a
    name or a domain's number; `vdev` as vdev_name has it.  None of these: any.
    """

    path: str | None
    guest: str | None
    vdev: str | None
    values: tuple[tuple[str, object], ...]

    def matches(self, path: str, guests: tuple[str, ...], vdevs: tuple[str, ...]) -> bool:
        """Whether it is about that disk, whose guest and vdev have those names."""
        return (
            (self.path is None or self._names(path))
            and (self.guest is None or self.guest in guests)
            and (self.vdev is None or self.vdev in vdevs)
        )

    def _names(self, path: str) -> bool:
        pattern = self.path or ""
        return fnmatchcase(path, pattern) or fnmatchcase(shown(path), pattern)

    def __str__(self) -> str:
        named = [(name, getattr(self, name)) for name in MATCHES]
        return ", ".join(f"{name} {value}" for name, value in named if value is not None)


@dataclass(frozen=True, slots=True)
class Config:
    """All sections."""

    daemon: DaemonConfig = DaemonConfig()
    guest: GuestConfig = GuestConfig()
    disk: DiskConfig = DiskConfig()
    net: NetConfig = NetConfig()
    overrides: tuple[Override, ...] = ()
    groups: tuple[tuple[str, GroupConfig], ...] = ()
    store: tuple[tuple[str, StoreConfig], ...] = ()

    def group(self, name: str) -> GroupConfig | None:
        """The section [group.NAME], None if there is no such."""
        return dict(self.groups).get(name)

    @property
    def stores(self) -> Stores:
        """The sections [store.NAME], by their names."""
        return dict(self.store)

    def disk_for(self, path: str, guests: tuple[str, ...], vdevs: tuple[str, ...]) -> DiskConfig:
        """[disk] as it is for one disk."""
        found = self.disk
        for override in self.overrides:
            if override.matches(path, guests, vdevs):
                found = replace(found, **dict(override.values))  # type: ignore[arg-type]
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value differs, e.g. "disk.workers".

    Of "override" and of "group.NAME" both are told in words.
    """

    key: str
    old: object
    new: object

    def told(self) -> tuple[str, str]:
        """Both values, as TOML has them."""
        return self._told(self.old), self._told(self.new)

    def _told(self, value: object) -> str:
        in_words = self.key == "override" or self.key.startswith("group.")
        return str(value) if in_words else spelled(value)


SECTIONS: Final[Mapping[str, type[DaemonConfig | GuestConfig | DiskConfig | NetConfig]]] = {
    "daemon": DaemonConfig,
    "guest": GuestConfig,
    "disk": DiskConfig,
    "net": NetConfig,
}
"""What may stand in the file besides overrides: fields of Config, by the names of both."""


def difference(old: Config, new: Config) -> tuple[Change, ...]:
    """What changed between two configurations, in the order of their fields."""
    changes = []
    for section in SECTIONS:
        before, after = getattr(old, section), getattr(new, section)
        for key in fields(before):
            values = getattr(before, key.name), getattr(after, key.name)
            if values[0] != values[1]:
                changes.append(Change(f"{section}.{key.name}", *values))
    for name in sorted(dict(old.groups) | dict(new.groups)):
        pair = old.group(name), new.group(name)
        if pair[0] != pair[1]:
            changes.append(Change(f"group.{name}", *map(_limits_in_words, pair)))
    for name in sorted({*old.stores, *new.stores}):
        stores = old.stores.get(name), new.stores.get(name)
        if stores[0] != stores[1]:
            told = ("none" if store is None else store.uri for store in stores)
            changes.append(Change(f"store.{name}", *told))
    if old.overrides != new.overrides:
        changes.append(Change("override", *map(_in_words, (old.overrides, new.overrides))))
    return tuple(changes)


def describe_key(key: str) -> str:
    """The one-line description of a key of a section; KeyError."""
    return TUNABLES[key] if key in TUNABLES else DESCRIPTIONS[key]


def check_tunable(key: str, value: int, where: str) -> None:
    """That a tunable of a running disk may have a value; OperatorError of `where`.

    Switches are 0 and 1, as a kernel's.
    """
    if key in WORDS:
        low, high = 0, len(WORDS[key]) - 1
    else:
        low, high = (0, 1) if isinstance(_DEFAULTS[key], bool) else RANGES[key]
    if not low <= value <= high:
        raise OperatorError(f"{where}={value}: must be {low} to {high}", EINVAL)
    if key.endswith("bytes_max") and 0 < value < LEAST_BYTES:
        raise OperatorError(f"{where}={value}: must be 0, or {LEAST_BYTES} to {high}", EINVAL)


def _in_words(overrides: tuple[Override, ...]) -> str:
    return (
        "; ".join(
            f"{override}: " + ", ".join(f"{key} {spelled(value)}" for key, value in override.values)
            for override in overrides
        )
        or "none"
    )


def _limits_in_words(group: GroupConfig | None) -> str:
    if group is None:
        return "none"
    found = rates_of(group).items()
    return ", ".join(f"{key} {value}" for key, value in found if value) or "no limits"


def can_fit(pattern: str) -> bool:
    """Whether the pattern of an [[override]] fits any disk at all: paths begin with a slash."""
    begin = pattern[:1]
    if begin == "[":  # up to where fnmatch has the end of it
        end = pattern.find("]", 3 if pattern.startswith(("[!]",)) else 2)
        begin = pattern[: end + 1]
    return begin != "" and fnmatchcase("/", begin)


def parse_cpus(text: str) -> frozenset[int]:
    """Numbers of processors as cpuset(1) and taskset(1) have them; OperatorError.

    Numbers and ranges with commas between them, "0-3,6"; "" is none.
    """
    found: set[int] = set()
    for part in text.split(",") if text else ():
        match = re.fullmatch(r" *([0-9]{1,9}) *(?:- *([0-9]{1,9}) *)?", part, re.ASCII)
        if match is None:
            raise OperatorError(f'must be processors like "0-3,6", which {spelled(part)} is not')
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise OperatorError(f"{first}-{last} has its end first")
        if last >= MOST_CPUS:
            raise OperatorError(f"processors are 0 to {MOST_CPUS - 1}, not {last}")
        found.update(range(first, last + 1))
    return frozenset(found)


def parse_address(value: object) -> str | tuple[str, int]:
    """The path of a socket, or a loopback address and its port; OperatorError."""
    if isinstance(value, str) and value.startswith("/") and "\0" not in value:
        return value
    match = re.fullmatch(r"(127\.[0-9.]{1,11}|\[::1\]):([0-9]{1,5})", str(value))
    try:
        if match is None or not 0 < int(match[2]) < 65536:
            raise ValueError
        return str(ip_address(match[1].strip("[]"))), int(match[2])
    except ValueError:
        raise OperatorError(
            "must be the path of a socket, or a loopback address like"
            ' "127.0.0.1:9531" or "[::1]:9531"'
        ) from None
