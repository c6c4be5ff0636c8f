"""Which records are shown, and in which order: names, types, filter, activity, sort.

Names and types are those of iostat(8), the filter is gstat(8)'s.  Pure; any
thread.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from xbbd_bsd.block.oids import DRIVER, RECORDS
from xbbd_bsd.net.oids import DRIVER as CARDS
from xbbd_bsd.stat.cards import CardRate
from xbbd_bsd.stat.sample import Rate

LEAST_BUSY: Final = 0.1  # per cent, of what is active

# devstat(3)'s table of types.  The kernel's driver says of its records that they
# are direct access devices with another interface than IDE or SCSI; so do we.
_DEVICE_TYPES: Final = (
    "da", "sa", "printer", "proc", "worm", "cd", "scanner", "optical", "changer", "comm",
    "array", "enclosure", "floppy",
)  # fmt: skip
_INTERFACES: Final = ("ide", "scsi", "nvme", "other")
_CATEGORIES: Final[Mapping[str, str]] = {
    **dict.fromkeys(_DEVICE_TYPES, "device type"),
    **dict.fromkeys(_INTERFACES, "interface"),
    "pass": "passthrough",
    **dict.fromkeys((*RECORDS, CARDS.name), "record"),
}
_OURS: Final = ("da", "other")


def _of(operation: str, what: str) -> Callable[[Rate], float]:
    return lambda rate: float(getattr(rate.kinds[operation], what))


def _latency(operation: str, percent: float) -> Callable[[Rate], float]:
    return lambda rate: rate.percentiles.get(operation, {}).get(percent, 0.0)


_LETTERS: Final = {"r": "read", "w": "write", "d": "discard"}

SORTS: Final[Mapping[str, Callable[[Rate], float]]] = {
    "%busy": lambda rate: rate.busy_percent,
    "L(q)": lambda rate: rate.queue,
    "ops/s": lambda rate: rate.total.per_second,
    **{f"{x}/s": _of(name, "per_second") for x, name in _LETTERS.items()},
    **{f"k{x}/s": _of(name, "kib_per_second") for x, name in _LETTERS.items()},
    **{f"ms/{x}": _of(name, "ms") for x, name in _LETTERS.items()},
    "o/s": _of("flush", "per_second"),
    "ms/o": _of("flush", "ms"),
    "p50/r": _latency("read", 50.0),
    "p99/r": _latency("read", 99.0),
    "p50/w": _latency("write", 50.0),
    "p99/w": _latency("write", 99.0),
    "e/s": lambda rate: rate.errors_per_second,
}
"""Columns to sort by, largest first; besides, "name"."""

ALIASES: Final = {"busy": "%busy", "%b": "%busy", "qlen": "L(q)", "tps": "ops/s"}


@dataclass(frozen=True, slots=True)
class Choice:
    """What is shown of all records; `most` None for all of them."""

    names: tuple[str, ...] = ()
    types: tuple[frozenset[str], ...] = ()
    filter: str = ""
    sort: str = "name"
    active: bool = False
    most: int | None = None

    def __call__(self, rates: Iterable[Rate]) -> list[Rate]:
        """The chosen ones in order."""
        pattern = re.compile(self.filter)
        found = [
            rate
            for rate in rates
            if self.selects(rate.name, rate.record.record)
            and (pattern.search(rate.name) or pattern.search(rate.record.label))
            and (not self.active or rate.busy_percent >= LEAST_BUSY)
        ]
        if self.sort != "name":
            found.sort(key=SORTS[self.sort], reverse=True)
        return found if self.most is None else found[: self.most]

    def of_cards(self, rates: Iterable[CardRate]) -> list[CardRate]:
        """The chosen ones of network cards, in order."""
        pattern = re.compile(self.filter)
        found = [
            rate
            for rate in rates
            if (not self.names or rate.name in self.names)
            and (pattern.search(rate.name) or pattern.search(rate.record.label))
        ]
        return found if self.most is None else found[: self.most]

    @property
    def cards(self) -> bool:
        """Whether it is of network cards; ValueError if it is of disks too."""
        asked = [is_card(name) for name in self.names]
        asked += [CARDS.name in kinds for kinds in self.types]
        if any(asked) and not all(asked):
            raise ValueError("disks and network cards are not shown together")
        return any(asked)

    def selects(self, name: str, record: str) -> bool:
        """Whether a record was asked for by its name or type, or nothing was."""
        return (
            not (self.names or self.types)
            or name in self.names
            or any(kinds <= {*_OURS, record} for kinds in self.types)
        )


def names_of(operand: str) -> tuple[str, ...]:
    """The records that an operand names: xbb0, xbbi0 or, of both, dev.xbbd.0; ValueError.

    Of a network card it is xnb0 or dev.xnb.0.
    """
    card = CARDS.split(operand)
    if card is not None and not card[1]:
        return (f"{CARDS.name}{card[0]}",)
    if is_card(operand):
        return (operand,)
    parts = DRIVER.split(operand)
    if parts is not None and not parts[1]:
        return tuple(f"{record}{parts[0]}" for record in RECORDS)
    match = re.fullmatch(r"([a-z]+)(0|[1-9][0-9]*)", operand)
    if match is None or match[1] not in RECORDS:
        raise ValueError(f"{operand}: must be like xbb0, xbbi0, {DRIVER.node(0)} or xnb0")
    return (operand,)


def is_card(name: str) -> bool:
    """Whether a name is a network card's."""
    return re.fullmatch(rf"{CARDS.name}(0|[1-9][0-9]*)", name) is not None


def types_of(text: str) -> frozenset[str]:
    """Of iostat's `type,if,pass`, or a record's kind, xbb, xbbi or xnb; ValueError."""
    kinds = [kind.strip().lower() for kind in text.split(",") if kind.strip()]
    for kind in kinds:
        if kind not in _CATEGORIES:
            raise ValueError(f'unknown match item "{kind}"')
    categories = [_CATEGORIES[kind] for kind in kinds]
    if not kinds or len(set(categories)) != len(categories):
        raise ValueError(f'"{text}": must name one item of each category at most')
    return frozenset(kinds)


def sort_of(column: str) -> str:
    """The sort by a column's name; ValueError."""
    found = ALIASES.get(column, column)
    if found != "name" and found not in SORTS:
        raise ValueError(f'cannot sort by "{column}"; by name, {", ".join(SORTS)}')
    return found


def checked_filter(pattern: str) -> str:
    """The filter, if it is a regular expression; ValueError."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"invalid filter: {error}") from None
    return pattern


def sorts() -> Sequence[str]:
    """All there are, in the order in which a key goes through them."""
    return ("name", *SORTS)
