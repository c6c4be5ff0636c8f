"""The full-screen view in the layout of gstat(8): rates to lines, at any width and height.

Columns and their widths are gstat's; percentiles of latency come in where the
width allows, or in place of throughput and mean where they are asked for.  What
follows a name, guest and disk, is shown where there is room.  Pure: no terminal,
no clock.  Any thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from xbbd_bsd.errors import printable
from xbbd_bsd.stat.export import milliseconds
from xbbd_bsd.stat.iostat import errors as per_second
from xbbd_bsd.stat.sample import KindRate, Rate

MARGIN: Final = 2  # lines above the first row
_LABEL: Final = 40  # characters of guest and disk, at most


class Latency(Enum):
    """Whether percentiles are shown."""

    FITTING = "where they fit"
    ALWAYS = "in place of throughput where they do not fit"
    NEVER = "never"


class Load(Enum):
    """How busy a device is; the colours are gstat's."""

    LOW = "green"
    MEDIUM = "magenta"  # above 50 %
    HIGH = "red"  # above 80 %


@dataclass(frozen=True, slots=True)
class Line:
    """One of the screen; columns `start` to `end` are marked by the load, if there is one."""

    text: str
    load: Load | None = None
    start: int = 0
    end: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, flush right, and what it shows.

    `spare`: where the screen is too narrow, those with more of it go first; 0: never.
    """

    heading: str
    width: int
    show: Callable[[Rate], str]
    spare: int = 0


def _percentile(operation: str, percent: float) -> Callable[[Rate], str]:
    def show(rate: Rate) -> str:
        found = rate.percentiles.get(operation)
        return "-" if found is None else milliseconds(found[percent])

    return show


def _kind(operation: str, show: Callable[[KindRate], str]) -> Callable[[Rate], str]:
    return lambda rate: show(rate.kinds[operation])


def _columns_of(operation: str, letter: str, *, means: bool, percentiles: bool) -> list[Column]:
    """Of reads, writes or deletes, in the order of gstat's."""
    found = [Column(f"{letter}/s", 7, _kind(operation, lambda kind: f"{kind.per_second:.0f}"))]
    if means:
        kib = _kind(operation, lambda kind: f"{kind.kib_per_second:.0f}")
        mean = _kind(operation, lambda kind: milliseconds(kind.ms))
        found += [Column("kBps", 7, kib, 3), Column(f"ms/{letter}", 7, mean, 2)]
    if percentiles:
        found += [
            Column(f"p50/{letter}", 7, _percentile(operation, 50.0), 3),
            Column(f"p99/{letter}", 7, _percentile(operation, 99.0), 2),
        ]
    return found


def _set(deletes: bool, others: bool, *, means: bool, percentiles: bool) -> list[Column]:
    found = [
        Column("L(q)", 5, lambda rate: str(rate.queue)),
        Column("ops/s", 7, lambda rate: f"{rate.total.per_second:.0f}"),
        *_columns_of("read", "r", means=means, percentiles=percentiles),
        *_columns_of("write", "w", means=means, percentiles=percentiles),
    ]
    if deletes:
        found += _columns_of("discard", "d", means=means, percentiles=percentiles)
    if others:
        found.append(Column("o/s", 7, _kind("flush", lambda kind: f"{kind.per_second:.0f}")))
        found.append(Column("ms/o", 7, _kind("flush", lambda kind: milliseconds(kind.ms)), 1))
    return found


def _errors(rate: Rate) -> str:
    """In three columns, or four: names are to fit as well."""
    found = rate.errors_per_second
    return per_second(found) if found < 999.5 else f"{found / 1000:.0f}k"


_ERRORS: Final = Column("e/s", 4, _errors)

# Of the process that serves a device; what was asked for goes last of what may go.
_PROCESS: Final = (
    Column("pid", 8, lambda rate: str(rate.record.process.pid), 1),
    Column("rss", 8, lambda rate: str(rate.record.process.rss_kb), 1),
    Column("age", 8, lambda rate: str(rate.record.process.age), 1),
    Column("takeovers", 10, lambda rate: str(rate.record.process.takeovers), 1),
)


def columns(
    latency: Latency,
    *,
    deletes: bool,
    others: bool,
    width: int,
    name_width: int,
    errors: bool = False,
    process: bool = False,
) -> list[Column]:
    """Those to show in so many columns of the screen, but for %busy and the name."""
    last = [*((_ERRORS,) if errors else ()), *(_PROCESS if process else ())]
    both = _set(deletes, others, means=True, percentiles=True) + last
    fits = _width(both) + len(" %busy  ") + 1 + name_width <= width
    if latency is Latency.NEVER or (latency is Latency.FITTING and not fits):
        return _set(deletes, others, means=True, percentiles=False) + last
    return both if fits else _set(deletes, others, means=False, percentiles=True) + last


def narrowed(shown: Sequence[Column], *, width: int, name_width: int) -> list[Column]:
    """Those of the columns for which there is room beside %busy and the name.

    What is asked for most goes last: numbers of operations, which always stay.
    """
    found = list(shown)
    while _width(found) + len(" %busy  ") + 1 + name_width > width:
        last = max(range(len(found)), key=lambda n: (found[n].spare, n))
        if found[last].spare == 0:
            break
        del found[last]
    return found


def load(percent: float) -> Load:
    """By gstat's limits."""
    if percent > 80:
        return Load.HIGH
    return Load.MEDIUM if percent > 50 else Load.LOW


def table(
    rates: Sequence[Rate],
    shown: Sequence[Column],
    *,
    bar: str = "|",
    labels: bool = True,
) -> list[Line]:
    """The heading, and a line for each; `bar` stands between load and name."""
    heading = "".join(f" {c.heading:>{c.width - 1}}" for c in shown) + "   %busy Name"
    lines = [Line(heading)]
    name_width = max((len(rate.name) for rate in rates), default=0)
    for rate in rates:
        start = _width(shown)
        text = "".join(f" {c.show(rate):>{c.width - 1}}" for c in shown)
        text += f" {rate.busy_percent:6.1f}{bar} "
        if labels:
            label = printable(rate.record.label.encode("utf-8", "replace"), _LABEL)
            text += f"{rate.name:<{name_width}} {label}"
        else:
            text += rate.name
        lines.append(Line(text, load(rate.busy_percent), start, start + 7))
    return lines


def screen(
    rates: Sequence[Rate],
    top_line: str,
    shown: Sequence[Column],
    *,
    first: int,
    width: int,
    height: int,
) -> list[Line]:
    """All lines of the screen, none longer than it is wide; rows from number `first` on."""
    heading, *rows = table(rates, shown)
    room = max(0, height - MARGIN)
    some = rows[first : first + room]
    if len(some) < len(rows):
        place = f"{first + 1}-{first + len(some)} of {len(rows)}"
        top_line = f"{top_line[: max(0, width - len(place) - 1)]:<{max(0, width - len(place))}}"
        top_line += place
    lines = [Line(top_line), heading, *some][: max(0, height)]
    return [
        Line(line.text[:width], line.load, min(line.start, width), min(line.end, width))
        for line in lines
    ]


def status(elapsed: float, wait: float, pattern: str) -> str:
    """gstat's first line: length of the interval, and the one wanted, in seconds."""
    return f"dT: {elapsed:5.3f}s  w: {wait:.3f}s" + (f"  filter: {pattern}" if pattern else "")


def _width(shown: Sequence[Column]) -> int:
    return sum(column.width for column in shown)
