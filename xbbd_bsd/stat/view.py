"""What the full-screen view shows, and what the keys change of it; gstat's keys where it has them.

Pure: a key is a name, a view is a value, the result another.  Any thread.

    q      quit                      f F    set the filter, remove it
    < >    half, double the interval s S    next, previous column to sort by
    a      only what is busy         d o    deletes, other operations
    l      percentiles of latency    v      who serves it
    r      as it was at the start
    arrows, page up and down, home, end     other rows
    h ?    the keys
"""

from dataclasses import dataclass, replace
from typing import Final

from xbbd_bsd.stat.choice import Choice, checked_filter, sorts
from xbbd_bsd.stat.gstat import Latency

LEAST_WAIT: Final = 0.001  # seconds, as gstat's
MOST_WAIT: Final = 3600.0
FILTER_LENGTH: Final = 99  # characters, as gstat's

HELP: Final = "q quit f/F filter </> interval s/S sort a busy d/o/v columns l latency r reset"


@dataclass(frozen=True, slots=True)
class View:
    """`wait`: seconds of an interval.  `first`: number of the topmost row.

    `typed`: the filter while it is being typed, else None.  `notice`: a line to show
    in place of the first one until the next key, or sample if it is `passing`.
    """

    choice: Choice
    wait: float
    deletes: bool = False
    others: bool = False
    latency: Latency = Latency.FITTING
    process: bool = False
    first: int = 0
    typed: str | None = None
    notice: str = ""
    passing: bool = False
    quit: bool = False


def press(view: View, key: str, *, start: View, rows: int, page: int) -> View:
    """The view after a key; there are `rows` rows, `page` of them fit.

    `key`: a character, or one of ENTER, ESC, BACKSPACE, UP, DOWN, PAGEUP,
    PAGEDOWN, HOME, END.
    """
    if view.typed is not None:
        return _typing(view, key)
    view = replace(view, notice="", passing=False)
    last = max(0, rows - page)
    match key:
        case "q":
            return replace(view, quit=True)
        case "f":
            return replace(view, typed="")
        case "F":
            return _choose(view, filter="")
        case ">":
            return replace(view, wait=min(view.wait * 2, MOST_WAIT))
        case "<":
            return replace(view, wait=max(view.wait / 2, LEAST_WAIT))
        case "s" | "S":
            order = sorts()
            step = 1 if key == "s" else -1
            column = order[(order.index(view.choice.sort) + step) % len(order)]
            return _choose(view, sort=column)
        case "a":
            return _choose(view, active=not view.choice.active)
        case "d":
            return replace(view, deletes=not view.deletes)
        case "o":
            return replace(view, others=not view.others)
        case "v":
            return replace(view, process=not view.process)
        case "l":
            order_of = list(Latency)
            found = order_of[(order_of.index(view.latency) + 1) % len(order_of)]
            return replace(view, latency=found, notice=f"percentiles: {found.value}", passing=True)
        case "r":
            return start
        case "h" | "?":
            return replace(view, notice=HELP)
        case "UP":
            return replace(view, first=max(0, min(view.first, last) - 1))
        case "DOWN":
            return replace(view, first=min(last, view.first + 1))
        case "PAGEUP":
            return replace(view, first=max(0, min(view.first, last) - page))
        case "PAGEDOWN" | " ":
            return replace(view, first=min(last, view.first + page))
        case "HOME":
            return replace(view, first=0)
        case "END":
            return replace(view, first=last)
    return view


def _typing(view: View, key: str) -> View:
    typed = view.typed or ""
    if key == "ESC":
        return replace(view, typed=None)
    if key == "BACKSPACE":
        return replace(view, typed=typed[:-1])
    if key == "ENTER":
        view = replace(view, typed=None)
        try:
            return _choose(view, filter=checked_filter(typed))
        except ValueError as error:
            reason = str(error).partition(": ")[2]
            return replace(view, notice=f"Invalid filter, {reason}: {typed}")
    if len(key) == 1 and key.isprintable() and len(typed) < FILTER_LENGTH:
        return replace(view, typed=typed + key)
    return view


def _choose(
    view: View, *, filter: str | None = None, sort: str | None = None, active: bool | None = None
) -> View:
    """Another choice, seen from its first row on."""
    old = view.choice
    return replace(
        view,
        first=0,
        choice=replace(
            old,
            filter=old.filter if filter is None else filter,
            sort=old.sort if sort is None else sort,
            active=old.active if active is None else active,
        ),
    )
