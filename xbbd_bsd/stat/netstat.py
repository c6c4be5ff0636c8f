"""Reports of network cards: netstat -w's, a line a card, CSV, and JSON.

Of one card, or of all that are shown together, there is a line for each interval under
netstat(1)'s heading, in its widths; what happened, not how much of it a second.  Pure: the
time of day is given.  Any thread.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from xbbd_bsd.net.oids import DRIVER
from xbbd_bsd.stat.cards import CardRate, Traffic, total

_CSV: Final = (
    "timestamp,name,ipackets/s,ierrors/s,idrops/s,iKiB/s,opackets/s,oerrors/s,odrops/s,oKiB/s"
)


def header(rates: Sequence[CardRate], *, drops: bool) -> list[str]:
    """The two lines of netstat -w; `drops`: those of the output, too, as its -d."""
    name = rates[0].name if len(rates) == 1 else "(Total)"
    return [
        f"{'input':>17} {name:>15} {'output':>15}",
        f"{'packets':>10} {'errs':>5} {'idrops':>5} {'bytes':>10} {'packets':>10} {'errs':>5}"
        f" {'bytes':>10} {'colls':>5}" + f" {'drops':>5}" * drops,
    ]


def line(rates: Sequence[CardRate], elapsed: float, *, drops: bool) -> str:
    """What all of them did in an interval; there are no collisions."""
    into, out = total(list(rates), elapsed)
    return (
        f"{into.packets:10d} {into.errors:5d} {into.drops:5d} {into.bytes:10d}"
        f" {out.packets:10d} {out.errors:5d} {out.bytes:10d} {0:5d}" + f" {out.drops:5d}" * drops
    )


def each(rates: Sequence[CardRate], *, totals: bool) -> list[str]:
    """A line a card; `totals` of the interval in place of rates."""
    per = "i" if totals else "s"
    sides = (
        f" {f'{x}pkts/{per}':>7} {f'{x}err/{per}':>7} {f'{x}drop/{per}':>7} {f'{x}kB/{per}':>8}"
        for x in "io"
    )
    return [
        f"{'device':<8}" + "  ".join(sides),
        *((_totals if totals else _rates)(rate) for rate in rates),
    ]


def _rates(rate: CardRate) -> str:
    return f"{rate.name:<8}" + "  ".join(
        f" {side.packets_per_second:7.0f} {side.errors_per_second:7.1f}"
        f" {side.drops_per_second:7.1f} {side.kib_per_second:8.1f}"
        for side in (rate.input, rate.output)
    )


def _totals(rate: CardRate) -> str:
    return f"{rate.name:<8}" + "  ".join(
        f" {side.packets:7d} {side.errors:7d} {side.drops:7d} {side.bytes / 1024:8.1f}"
        for side in (rate.input, rate.output)
    )


def csv_header() -> str:
    """In the manner of gstat's."""
    return _CSV


def csv_lines(rates: Sequence[CardRate], when: str) -> list[str]:
    """A line a card."""
    return [
        ",".join(
            [
                when,
                rate.name,
                *(field for side in (rate.input, rate.output) for field in _fields(side)),
            ]
        )
        for rate in rates
    ]


def _fields(side: Traffic) -> list[str]:
    return [
        f"{side.packets_per_second:.0f}",
        f"{side.errors_per_second:.3f}",
        f"{side.drops_per_second:.3f}",
        f"{side.kib_per_second:.1f}",
    ]


def json_lines(rates: Sequence[CardRate], seconds: float) -> list[str]:
    """An object a card; `seconds` since 1970.  Totals and rates are both there."""
    return [json.dumps(_object(rate, seconds)) for rate in rates]


def _object(rate: CardRate, seconds: float) -> dict[str, Any]:
    record = rate.record
    return {
        "time": round(seconds, 6),
        "name": record.name,
        "device": DRIVER.node(record.unit),
        "domid": record.domid,
        "guest": record.guest,
        "handle": record.handle,
        "mac": record.mac,
        "interface": record.interface,
        "bridge": record.bridge,
        "state": record.state,
        "elapsed_s": round(rate.elapsed, 6),
        "input": _side(rate.input),
        "output": _side(rate.output),
        "counters": record.counts,
        "refused": record.refused,
        "takeovers": record.takeovers,
    }


def _side(side: Traffic) -> dict[str, Any]:
    return {
        "packets": side.packets,
        "errors": side.errors,
        "drops": side.drops,
        "bytes": side.bytes,
        "packets_per_second": round(side.packets_per_second, 3),
        "errors_per_second": round(side.errors_per_second, 3),
        "drops_per_second": round(side.drops_per_second, 3),
        "kib_per_second": round(side.kib_per_second, 3),
    }
