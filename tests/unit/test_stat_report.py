"""Report after report: what is written when, on a clock that nobody waits for."""

import json
import re
from dataclasses import replace

import pytest

from tests.unit.test_stat_sample import NEW, OLD, device, record, sample
from tests.unit.test_stat_watch import AWAY, FakeTime, Script, at
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.stat.choice import Choice
from xbbd_bsd.stat.report import Form, Plan, Reports
from xbbd_bsd.stat.sample import Sample
from xbbd_bsd.stat.watch import Watch

EXTENDED = Plan(Form.EXTENDED, Choice(names=("xbb0",)), 1.0, None)
ONCE = replace(EXTENDED, count=1)


class Run:
    """What became of a plan."""

    def __init__(self, plan: Plan, *answers: Sample | OperatorError, rows: int = 20) -> None:
        self.time = FakeTime()
        self.written: list[str] = []
        self.warned: list[str] = []
        watch = Watch(Script(*answers), self.time.clock())
        self.reports = Reports(
            plan, watch, self.time.clock(), self.written.append, self.warned.append, lambda: rows
        )

    def ended(self) -> "Run":
        self.reports.run()
        return self

    def interrupted(self, after: int) -> "Run":
        """By the so manyth pause."""
        sleep = self.time.sleep

        def once(seconds: float) -> None:
            sleep(seconds)
            if len(self.time.slept) == after:
                raise KeyboardInterrupt

        self.time.sleep = once  # type: ignore[method-assign]
        self.reports._clock = self.time.clock()
        return self


def counts(run: Run) -> list[int]:
    """The r/s or r/i of every report."""
    return [
        int(float(line.split()[1]))
        for text in run.written
        for line in text.splitlines()
        if line.startswith("xbb0")
    ]


def test_one_report_is_since_the_start() -> None:
    run = Run(replace(ONCE, totals=True), at(0, OLD)).ended()
    assert counts(run) == [60]
    assert run.time.slept == []


def test_reports_are_of_their_intervals() -> None:
    run = Run(replace(EXTENDED, totals=True, count=3), at(0, OLD), at(2, NEW), at(3, NEW)).ended()
    assert counts(run) == [60, 40, 0]
    assert run.time.slept == [1.0, 1.0]
    assert all(text.count("\n") == 3 for text in run.written)


@pytest.mark.parametrize("form", [Form.BATCH, Form.CSV])
def test_gstats_begin_with_an_interval(form: Form) -> None:
    run = Run(replace(ONCE, form=form), at(0, OLD), at(2, NEW)).ended()
    text = "".join(run.written)
    if form is Form.BATCH:
        assert text.splitlines()[0] == "dT: 2.000s  w: 1.000s"
        assert text.splitlines()[2].endswith("  62.5  xbb0")
        assert text.count("\n") == 3
    else:
        heading, line = text.splitlines()
        assert heading.startswith("timestamp,name,q-depth,")
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9},xbb0,3,45,.*,62\.5,0\.000", line
        )


def test_json_is_an_object_a_line() -> None:
    run = Run(replace(EXTENDED, form=Form.JSON, count=2), at(0, OLD), at(2, NEW)).ended()
    found = [json.loads(line) for text in run.written for line in text.splitlines()]
    assert [one["read"]["operations"] for one in found] == [60, 40]


def test_headings_of_columns_come_back() -> None:
    plan = replace(EXTENDED, form=Form.COLUMNS, choice=Choice(most=1), count=5)
    run = Run(plan, *[at(n, OLD) for n in range(5)], rows=2).ended()
    assert [text.count("\n") for text in run.written] == [3, 1, 3, 1, 3]


def test_headings_follow_the_devices() -> None:
    plan = replace(EXTENDED, form=Form.COLUMNS, choice=Choice(), count=5)
    two = sample(device(3, OLD), device(3, OLD))
    run = Run(plan, at(0, OLD), at(1, OLD), two, two, sample()).ended()
    assert [text.count("\n") for text in run.written] == [3, 1, 3, 1]
    assert "xbb1" in run.written[2]


def test_idle_devices_are_left_out() -> None:
    plan = replace(EXTENDED, choice=Choice(), idle=False, count=2)
    both = sample(device(2, NEW), device(2, record()))
    run = Run(plan, sample(device(0, OLD), device(0, record())), both).ended()
    assert all("xbb0" in text and "xbb1" not in text for text in run.written)


def test_the_daemon_goes_and_comes_back() -> None:
    plan = replace(EXTENDED, totals=True, count=2)
    run = Run(plan, at(0, OLD), AWAY, AWAY, at(8, OLD), at(10, NEW)).ended()
    assert run.warned == ["no xbbd listens; waiting"]
    assert counts(run) == [60, 40]
    assert run.time.slept == [1.0] * 4


def test_two_outages_are_told_of_twice() -> None:
    answers = (at(0, OLD), AWAY, at(1, OLD), AWAY, at(8, OLD), at(10, NEW))
    assert len(Run(replace(EXTENDED, count=2), *answers).ended().warned) == 2


def test_no_daemon_at_first() -> None:
    with pytest.raises(OperatorError, match="no xbbd listens"):
        Run(EXTENDED, AWAY).ended()


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(OperatorError, match=r"^xbb7: no such device$"):
        Run(replace(ONCE, choice=Choice(names=("xbb0", "xbb7"))), at(0, OLD)).ended()
    # It may come yet.
    plan = replace(EXTENDED, choice=Choice(names=("xbb1",)), count=2)
    run = Run(plan, at(0, OLD), sample(device(2, NEW), device(2, NEW))).ended()
    assert "xbb1" in run.written[1]


def test_an_interrupt_is_a_last_report_as_with_iostat() -> None:
    plan = replace(EXTENDED, totals=True)
    run = Run(plan, at(0, OLD), at(2, NEW)).interrupted(1).ended()
    assert counts(run) == [60, 40]


def test_an_interrupt_ends_gstats() -> None:
    with pytest.raises(KeyboardInterrupt):
        Run(replace(EXTENDED, form=Form.CSV), at(0, OLD)).interrupted(1).ended()
