"""The configuration: TOML text to a frozen Config, and what differs between two.

Pure: files and signals are the daemon's business.  Leaf names equal those of
the control tree.  Every error is an OperatorError that names the file, the line
or the key, and what is allowed.  Any thread.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.events import Path

KINDS: Final = ("vbd", "vbd3")
TRANSPORTS: Final = ("best", "map", "copy")
LOGS: Final = tuple(path.value for path in Path)

# Allowed values, lowest and highest.  The highest are those of the data path (xbb.h).
RANGES: Final[Mapping[str, tuple[int, int]]] = {
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
}


CHOICES: Final[Mapping[str, tuple[int, ...]]] = {"sector_size": (0, 512)}


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """Section [daemon].

    kinds: backend directories served.  log: paths whose every step is logged,
    "control" and "data".  state_dir and pidfile: None for the platform's place.
    """

    kinds: tuple[str, ...] = KINDS
    state_dir: str | None = None
    pidfile: str | None = None
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DiskConfig:
    """Section [disk], for every device.

    workers: most I/O threads of a device.  max_ring_page_order: largest ring
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
    disable_flush, flush_interval, no_coalesce_reqs, poll_max_us and
    persistent_grant_unused_seconds: the tunables of the same names (stats.py).
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

    def tunables(self) -> dict[str, int]:
        """The part that a running data path can be given, as it wants it."""
        return {
            "disable_flush": int(self.disable_flush),
            "flush_interval": self.flush_interval,
            "no_coalesce_reqs": int(self.no_coalesce_reqs),
            "poll_max_us": self.poll_max_us,
            "persistent_grant_unused_seconds": self.persistent_grant_unused_seconds,
        }


@dataclass(frozen=True, slots=True)
class Config:
    """All sections."""

    daemon: DaemonConfig = DaemonConfig()
    disk: DiskConfig = DiskConfig()


@dataclass(frozen=True, slots=True)
class Change:
    """A key whose value differs, e.g. "disk.workers"."""

    key: str
    old: object
    new: object


def parse(text: str, source: str) -> Config:
    """The Config that `text` describes; `source` names the file in errors.

    Raises OperatorError.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OperatorError(f"{source}: {error}") from None
    _refuse_unknown(source, "section", document, ("daemon", "disk"))
    return Config(
        DaemonConfig(**_section(source, document, "daemon", DaemonConfig)),
        DiskConfig(**_section(source, document, "disk", DiskConfig)),
    )


def difference(old: Config, new: Config) -> tuple[Change, ...]:
    """What changed between two configurations, in the order of their fields."""
    changes = []
    for section in fields(Config):
        before, after = getattr(old, section.name), getattr(new, section.name)
        for key in fields(before):
            values = getattr(before, key.name), getattr(after, key.name)
            if values[0] != values[1]:
                changes.append(Change(f"{section.name}.{key.name}", *values))
    return tuple(changes)


def _section(
    source: str, document: Mapping[str, Any], name: str, section: type[DaemonConfig | DiskConfig]
) -> dict[str, Any]:
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise OperatorError(f"{source}: {name} must be a section: write [{name}]")
    defaults = {field.name: field.default for field in fields(section)}
    _refuse_unknown(source, f"key in [{name}]", table, tuple(defaults))
    return {
        key: _value(f"{source}: [{name}] {key}", key, value, defaults[key])
        for key, value in table.items()
    }


def _refuse_unknown(
    source: str, what: str, table: Mapping[str, Any], known: tuple[str, ...]
) -> None:
    for name in table:
        if name not in known:
            raise OperatorError(f"{source}: unknown {what}: {name}; known are {', '.join(known)}")


def _value(where: str, key: str, value: object, default: object) -> object:
    """Check one value; what its default is tells what it must be."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise OperatorError(f"{where} = {value!r}: must be true or false")
        return value
    if key in CHOICES:
        if isinstance(value, bool) or value not in CHOICES[key]:
            allowed = " or ".join(str(choice) for choice in CHOICES[key])
            raise OperatorError(f"{where} = {value!r}: must be {allowed}")
        return value
    if key == "max_indirect_segments" and value in range(1, 11):
        raise OperatorError(f"{where} = {value!r}: must be 0, or 11 to 256")
    if isinstance(default, int):
        low, high = RANGES[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise OperatorError(f"{where} = {value!r}: must be a whole number, {low} to {high}")
        return value
    if key == "transport":
        if value not in TRANSPORTS:
            names = ", ".join(f'"{name}"' for name in TRANSPORTS)
            raise OperatorError(f"{where} = {value!r}: must be one of {names}")
        return value
    if isinstance(default, tuple):
        return _choices(where, value, *((LOGS, 0) if key == "log" else (KINDS, 1)))
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise OperatorError(f"{where} = {value!r}: must be an absolute path")
    return value


def _choices(where: str, value: object, allowed: tuple[str, ...], least: int) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or not all(item in allowed for item in value)
        or not least <= len(value) == len(set(value))
    ):
        some = "at least one" if least else "any"
        names = ", ".join(f'"{name}"' for name in allowed)
        raise OperatorError(f"{where} = {value!r}: must be a list of {some} of {names}")
    return tuple(value)
