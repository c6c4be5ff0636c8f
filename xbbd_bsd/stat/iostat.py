"""Reports in the layout of iostat(8): a line a device with -x, else columns side by side.

The widths are iostat's.  Milliseconds have decimals as far as they fit, where
iostat cuts them off: most requests here take far less than one.  A name is never
cut.  What iostat does not have, errors, comes last.  Pure; any thread.
"""

from collections.abc import Sequence
from typing import Final

from xbbd_bsd.stat.sample import Rate

MOST_ABREAST: Final = 4  # devices in a line of 80 columns

_EXTENDED: Final = (
    "device       r/s     w/s     kr/s     kw/s  ms/r  ms/w  ms/o  ms/t qlen  %b  e/s",
    "device           r/i         w/i         kr/i         kw/i qlen   tsvc_t/i      sb/i      e/i",
)
_PROCESS: Final = "     pid     rss     age takeovers"


def extended(rates: Sequence[Rate], *, totals: bool, process: bool = False) -> list[str]:
    """The report of -x; `totals` of the interval in place of rates, `process`: who serves it."""
    return [
        f"{'':24}extended device statistics",
        _EXTENDED[totals] + _PROCESS * process,
        *(
            (_totals(rate) if totals else _rates(rate)) + _served(rate) * process + _paused(rate)
            for rate in rates
        ),
    ]


def header(rates: Sequence[Rate], *, totals: bool) -> list[str]:
    """The two lines above columns."""
    names = "".join(f"{rate.name:>16} " for rate in rates)
    units = ("  KB/t xfrs   MB " if totals else "  KB/t tps  MB/s ") * len(rates)
    return [names.rstrip(), units.rstrip()]


def columns(rates: Sequence[Rate], *, totals: bool) -> str:
    """The line of a report with devices side by side."""
    return "".join(
        f" {rate.total.kib:5.2f} {rate.total.operations:3d} {rate.total.bytes / (1 << 20):5.2f} "
        if totals
        else f" {rate.total.kib:5.2f} {rate.total.per_second:3.0f}"
        f" {rate.total.kib_per_second / 1024:5.2f} "
        for rate in rates
    ).rstrip()


def busy(rate: Rate) -> bool:
    """Whether -z shows it: iostat's limits, for all kinds of transactions; or it has errors."""
    return (
        rate.total.per_second > 0.05
        or rate.total.kib_per_second > 0.0005
        or rate.busy_percent > 0.5
        or rate.errors_per_second > 0
    )


def milliseconds(value: float) -> str:
    """In five columns, with as many decimals as fit, three at most."""
    for decimals, limit in ((3, 9.9995), (2, 99.995), (1, 999.95)):
        if value < limit:
            return f"{value:5.{decimals}f}"
    return f"{value:5.0f}"


def errors(per_second: float) -> str:
    """Errors a second: whole numbers from 10 on, and none that there was is a 0."""
    if per_second <= 0:
        return "0"
    return f"{max(0.1, per_second):.1f}" if per_second < 9.95 else f"{per_second:.0f}"


def _rates(rate: Rate) -> str:
    read, write = rate.kinds["read"], rate.kinds["write"]
    times = (read.ms, write.ms, rate.kinds["flush"].ms, rate.total.ms)
    return (
        f"{rate.name:<8} {int(read.per_second):7d} {int(write.per_second):7d}"
        f" {read.kib_per_second:8.1f} {write.kib_per_second:8.1f}"
        f" {' '.join(milliseconds(ms) for ms in times)}"
        f" {rate.queue:4d} {rate.busy_percent:3.0f} {errors(rate.errors_per_second):>4}"
    )


def _served(rate: Rate) -> str:
    found = rate.record.process
    return f" {found.pid:7d} {found.rss_kb:7d} {found.age:7d} {found.takeovers:9d}"


def _paused(rate: Rate) -> str:
    """Behind all columns: there is hardly ever any."""
    return f" paused ({rate.record.paused})" if rate.record.paused else ""


def _totals(rate: Rate) -> str:
    read, write = rate.kinds["read"], rate.kinds["write"]
    return (
        f"{rate.name:<8} {read.operations:11.1f} {write.operations:11.1f}"
        f" {read.bytes / 1024:12.1f} {write.bytes / 1024:12.1f} {rate.queue:4d}"
        f" {rate.total.duration_ns / 1e9:10.1f} {rate.busy_seconds:9.1f}"
        f" {sum(rate.errors.values()):8d}"
    )
