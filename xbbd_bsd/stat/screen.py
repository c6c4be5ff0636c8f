"""The full-screen view, driven: samples when they are due, keys when they come.

What is seen and what a key changes is in gstat.py and view.py; this module knows
a terminal by three calls, and curses(3) behind them.  The command's only thread.
"""

import curses
import locale
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Final, Protocol

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.stat import gstat
from xbbd_bsd.stat.gstat import Line, Load
from xbbd_bsd.stat.view import View, press
from xbbd_bsd.stat.watch import Clock, Interval, Schedule, Watch

FIRST: Final = 0.25  # seconds at most, until the first rates are seen


class Terminal(Protocol):
    """A screen with keys."""

    def size(self) -> tuple[int, int]:
        """Width and height in characters, now."""

    def draw(self, lines: Sequence[Line], cursor: int | None) -> None:
        """Show these lines and nothing else; a cursor in the first one, or none."""

    def key(self, timeout: float) -> str | None:
        """The next key by its name (view.press), "" if something else happened, None if nothing.

        Waits so many seconds; OperatorError if the terminal is gone.
        """


def show(terminal: Terminal, watch: Watch, start: View, clock: Clock) -> None:
    """Until it is quit; OperatorError if the daemon does not answer at first."""
    view = start
    interval = Interval([], 0.0)
    watch.begin()
    schedule = Schedule(clock.now(), view.wait)
    schedule.due += min(FIRST, view.wait)
    while True:
        rates = view.choice(interval.rates)
        width, height = terminal.size()
        _draw(terminal, view, interval, watch.trouble, width, height)
        left = schedule.due - clock.now()
        key = terminal.key(left) if left > 0 else None
        if key:
            wait = view.wait
            page = max(1, height - gstat.MARGIN)
            view = press(view, key, start=start, rows=len(rates), page=page)
            if view.quit:
                return
            if view.wait != wait:
                schedule.change(clock.now(), view.wait)
        elif key is None and clock.now() >= schedule.due:
            interval = watch.next() or interval
            schedule.after(clock.now())
            if view.passing:
                view = replace(view, notice="", passing=False)


def _draw(
    terminal: Terminal, view: View, interval: Interval, trouble: str | None, width: int, height: int
) -> None:
    rates = view.choice(interval.rates)
    top = gstat.status(interval.elapsed, view.wait, view.choice.filter)
    if view.choice.sort != "name":
        top += f"  sort: {view.choice.sort}"
    top = view.notice or trouble or top
    cursor = None
    if view.typed is not None:
        top = f"Filter: {view.typed}"
        cursor = min(len(top), max(0, width - 1))
    name_width = max((len(rate.name) for rate in rates), default=4)
    shown = gstat.columns(
        view.latency,
        deletes=view.deletes,
        others=view.others,
        width=width,
        name_width=name_width,
        errors=True,
        process=view.process,
    )
    shown = gstat.narrowed(shown, width=width, name_width=name_width)
    first = max(0, min(view.first, len(rates) - (height - gstat.MARGIN)))
    lines = gstat.screen(rates, top, shown, first=first, width=width, height=height)
    terminal.draw(lines, cursor)


_KEYS: Final = {
    curses.KEY_UP: "UP",
    curses.KEY_DOWN: "DOWN",
    curses.KEY_PPAGE: "PAGEUP",
    curses.KEY_NPAGE: "PAGEDOWN",
    curses.KEY_HOME: "HOME",
    curses.KEY_END: "END",
    curses.KEY_BACKSPACE: "BACKSPACE",
    curses.KEY_ENTER: "ENTER",
}
_CHARACTERS: Final = {
    "\n": "ENTER",
    "\r": "ENTER",
    "\x1b": "ESC",
    "\x7f": "BACKSPACE",
    "\b": "BACKSPACE",
}
_COLOURS: Final = {
    Load.LOW: (1, curses.COLOR_GREEN),
    Load.MEDIUM: (2, curses.COLOR_MAGENTA),
    Load.HIGH: (3, curses.COLOR_RED),
}


class CursesTerminal:
    """The terminal that standard input and output are."""

    def __init__(self, window: curses.window) -> None:
        self._window = window
        self._encoding = locale.getpreferredencoding(False)
        self._colours: dict[Load, int] = {}
        with suppress(curses.error):
            curses.start_color()
            curses.use_default_colors()
            for load, (pair, colour) in _COLOURS.items():
                curses.init_pair(pair, colour, -1)
                self._colours[load] = curses.color_pair(pair)

    def size(self) -> tuple[int, int]:
        height, width = self._window.getmaxyx()
        return width, height

    def draw(self, lines: Sequence[Line], cursor: int | None) -> None:
        self._window.erase()
        for row, line in enumerate(lines):
            self._put(row, 0, line.text, 0)
            if line.load in self._colours:
                marked = line.text[line.start : line.end]
                self._put(row, line.start, marked, self._colours[line.load])
        with suppress(curses.error):  # not every terminal can hide it
            curses.curs_set(cursor is not None)
        with suppress(curses.error):
            self._window.move(0, cursor or 0)
        self._window.refresh()

    def key(self, timeout: float) -> str | None:
        self._window.timeout(max(1, int(timeout * 1000)))
        try:
            key = self._window.get_wch()
        except curses.error:
            self._check()
            return None
        if key == curses.KEY_RESIZE:
            curses.update_lines_cols()
            return ""
        if isinstance(key, int):
            return _KEYS.get(key, "")
        return _CHARACTERS.get(key, key)

    def _check(self) -> None:
        """Whether silence is one: a terminal that has hung up returns at once, for ever."""
        poll = select.poll()
        poll.register(sys.stdin.fileno(), select.POLLIN)
        if any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL)
               for _, event in poll.poll(0)):  # fmt: skip
            raise OperatorError("the terminal is gone")

    def _put(self, row: int, column: int, text: str, colour: int) -> None:
        plain = text.encode(self._encoding, "replace").decode(self._encoding)
        with suppress(curses.error):  # of the last character of the screen
            self._window.addstr(row, column, plain, colour)


@contextmanager
def opened() -> Iterator[CursesTerminal]:
    """The terminal, given back as it was in every case; OperatorError if there is none."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise OperatorError("-i needs a terminal; -b, -B, -C and -j do without")
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _leave) for number in numbers}
    with suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "")
    try:
        try:
            window = curses.initscr()
        except curses.error as error:
            name = os.environ.get("TERM", "")
            raise OperatorError(f"terminal {name:.40}: {error}") from None
        try:
            curses.noecho()
            curses.cbreak()
            curses.set_escdelay(50)
            window.keypad(True)
            yield CursesTerminal(window)
        finally:
            with suppress(curses.error):
                curses.curs_set(1)
            window.keypad(False)
            curses.nocbreak()
            curses.echo()
            curses.endwin()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
