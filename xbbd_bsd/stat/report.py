"""Report after report on standard output: iostat's, netstat's, gstat's without a screen, CSV, JSON.

Layouts are elsewhere; here is what comes first, when the next one is due, and
what an interrupt or a daemon that is gone means.  The command's only thread.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.stat import export, gstat, iostat, netstat
from xbbd_bsd.stat.choice import Choice
from xbbd_bsd.stat.gstat import Latency
from xbbd_bsd.stat.sample import Rate
from xbbd_bsd.stat.watch import Clock, Interval, Schedule, Watch

HEADER_ROWS: Final = 20  # reports below one heading, where no terminal says how many fit


class Form(Enum):
    """What a report looks like."""

    COLUMNS = "iostat"
    EXTENDED = "iostat -x"
    BATCH = "gstat -b"
    CSV = "gstat -C"
    JSON = "json"
    SCREEN = "gstat"
    NETSTAT = "netstat -w"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted; `wait` in seconds, `count` None without end."""

    form: Form
    choice: Choice
    wait: float
    count: int | None
    totals: bool = False
    idle: bool = True
    deletes: bool = False
    others: bool = False
    latency: Latency = Latency.FITTING
    process: bool = False

    @property
    def since_attach(self) -> bool:
        """Whether the first report is of all the time before, as iostat's."""
        if self.form is Form.NETSTAT:
            return self.count == 1  # else it begins with an interval
        return self.form in (Form.COLUMNS, Form.EXTENDED, Form.JSON)


class Reports:
    """Makes them and writes them."""

    def __init__(
        self,
        plan: Plan,
        watch: Watch,
        clock: Clock,
        write: Callable[[str], None],
        warn: Callable[[str], None],
        rows: Callable[[], int] = lambda: HEADER_ROWS,
    ) -> None:
        """`rows` says how many reports fit below a heading."""
        self._plan = plan
        self._watch = watch
        self._clock = clock
        self._write = write
        self._warn = warn
        self._rows = rows
        self._headed: Sequence[str] = ()
        self._below = 0
        self._made = 0

    def run(self) -> None:
        """All that were asked for; OperatorError if the daemon does not answer at first.

        Where iostat(8) does so, an interrupt makes the last report, of the time
        until then; KeyboardInterrupt otherwise.
        """
        schedule = Schedule(self._clock.now(), self._plan.wait)
        first = self._watch.begin()
        try:
            self._go_on(first, schedule)
        except KeyboardInterrupt:
            if not self._as_iostat:
                raise

    def _go_on(self, first: Interval, schedule: Schedule) -> None:
        plan, watch = self._plan, self._watch
        if plan.since_attach:
            missing = self._missing(first)
            if missing and plan.count == 1:
                raise OperatorError(f"{', '.join(missing)}: no such device")
            self._report(first)
        if plan.form is Form.CSV:
            self._write(self._csv_header() + "\n")
        told = stop = False
        while not stop and (plan.count is None or self._made < plan.count):
            stop = self._interrupted(schedule)
            interval = watch.next()
            if interval is not None:
                self._report(interval)
            if watch.trouble is not None and not told:
                self._warn(f"{watch.trouble}; waiting")
            told = watch.trouble is not None

    def _interrupted(self, schedule: Schedule) -> bool:
        """Wait until the next report is due, or for an interrupt."""
        try:
            left = schedule.after(self._clock.now()) - self._clock.now()
            self._clock.sleep(max(0.0, left))
        except KeyboardInterrupt:
            if not self._as_iostat:
                raise
            return True
        return False

    @property
    def _as_iostat(self) -> bool:
        return self._plan.form in (Form.COLUMNS, Form.EXTENDED)

    @property
    def _also(self) -> dict[str, bool]:
        """What CSV has only if it is asked for."""
        plan = self._plan
        return {"deletes": plan.deletes, "others": plan.others, "process": plan.process}

    def _missing(self, interval: Interval) -> list[str]:
        there = {rate.name for rate in interval.rates} | {card.name for card in interval.cards}
        return [name for name in self._plan.choice.names if name not in there]

    def _csv_header(self) -> str:
        return export.csv_header(**self._also)

    def _report(self, interval: Interval) -> None:
        self._made += 1
        lines = self._lines(interval)
        if lines:
            self._write("\n".join(lines) + "\n")

    def _lines(self, interval: Interval) -> Sequence[str]:
        plan = self._plan
        rates = plan.choice(interval.rates)
        if not plan.idle:
            rates = [rate for rate in rates if iostat.busy(rate)]
        match plan.form:
            case Form.EXTENDED:
                return iostat.extended(rates, totals=plan.totals, process=plan.process)
            case Form.COLUMNS:
                return self._columns(rates)
            case Form.CSV:
                when = timestamp(self._clock.wall_ns())
                return export.csv_lines(rates, when, **self._also)
            case Form.JSON:
                return export.json_lines(rates, self._clock.wall_ns() / 1e9)
            case _:
                return self._batch(rates, interval.elapsed)

    def _columns(self, rates: Sequence[Rate]) -> list[str]:
        totals = self._plan.totals
        return self._under(
            [rate.name for rate in rates],
            lambda: iostat.header(rates, totals=totals),
            lambda: iostat.columns(rates, totals=totals),
        )

    def _under(
        self, names: Sequence[str], header: Callable[[], list[str]], line: Callable[[], str]
    ) -> list[str]:
        """With a heading at first, when devices have changed, and again when it scrolls away."""
        if not names:
            return []
        lines = []
        if names != self._headed or self._below <= 0:
            self._headed, self._below = names, self._rows()
            lines = header()
        self._below -= 1
        return [*lines, line()]

    def _batch(self, rates: Sequence[Rate], elapsed: float) -> list[str]:
        plan = self._plan
        shown = gstat.columns(
            plan.latency,
            deletes=plan.deletes,
            others=plan.others,
            width=0,  # gstat's columns and no more, but where all are asked for
            name_width=0,
            process=plan.process,
        )
        lines = gstat.table(rates, shown, bar=" ", labels=False)
        top = gstat.status(elapsed, plan.wait, plan.choice.filter)
        return [top, *(line.text for line in lines)]


class CardReports(Reports):
    """Those of network cards."""

    def _csv_header(self) -> str:
        return netstat.csv_header()

    def _lines(self, interval: Interval) -> Sequence[str]:
        plan = self._plan
        rates = plan.choice.of_cards(interval.cards)
        if plan.form is Form.NETSTAT:
            return self._under(
                [rate.name for rate in rates],
                lambda: netstat.header(rates, drops=plan.deletes),
                lambda: netstat.line(rates, interval.elapsed, drops=plan.deletes),
            )
        if not plan.idle:
            rates = [rate for rate in rates if not rate.idle]
        match plan.form:
            case Form.CSV:
                return netstat.csv_lines(rates, timestamp(self._clock.wall_ns()))
            case Form.JSON:
                return netstat.json_lines(rates, self._clock.wall_ns() / 1e9)
        return netstat.each(rates, totals=plan.totals)


def timestamp(wall_ns: int) -> str:
    """As gstat writes it: local time, with nanoseconds."""
    seconds, rest = divmod(wall_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}.{rest:09d}"
