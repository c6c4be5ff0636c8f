"""Samples over a daemon's restarts, and a schedule that does not drift."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_stat_sample import NEW, OLD, device, sample
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.stat.sample import Sample
from xbbd_bsd.stat.watch import Clock, Schedule, Watch

AWAY = OperatorError("no xbbd listens")


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.now, self.sleep, lambda: int(self.now * 1e9))


class Script:
    """A daemon's answers, one after the other."""

    def __init__(self, *answers: Sample | OperatorError) -> None:
        self.answers = list(answers)

    def __call__(self) -> Sample:
        answer = self.answers.pop(0)
        if isinstance(answer, OperatorError):
            raise answer
        return answer


def reads(watch: Watch) -> int | None:
    interval = watch.next()
    return None if interval is None else interval.rates[0].kinds["read"].operations


def at(seconds: float, counts: dict[str, Any]) -> Sample:
    return sample(device(seconds, counts))


def test_one_after_the_other() -> None:
    watch = Watch(Script(at(0, OLD), at(2, NEW), at(3, NEW)), FakeTime().clock())
    first = watch.begin()
    assert first.rates[0].kinds["read"].operations == 60
    assert first.elapsed == 50.0
    second = watch.next()
    assert second is not None
    assert second.elapsed == 2.0
    assert second.rates[0].kinds["read"].operations == 40
    assert reads(watch) == 0


def test_without_devices_the_interval_is_ours() -> None:
    time = FakeTime()
    watch = Watch(Script(sample(), sample()), time.clock())
    watch.begin()
    time.sleep(3)
    interval = watch.next()
    assert interval is not None
    assert (interval.rates, interval.elapsed) == ([], 3.0)


def test_a_daemon_that_never_was_there() -> None:
    with pytest.raises(OperatorError, match="no xbbd listens"):
        Watch(Script(AWAY), FakeTime().clock()).begin()


def test_a_daemon_that_goes_and_comes_back() -> None:
    script = Script(at(0, OLD), AWAY, AWAY, at(8, OLD), at(10, NEW))
    watch = Watch(script, FakeTime().clock())
    watch.begin()
    assert reads(watch) is None
    assert watch.trouble == "no xbbd listens"
    assert reads(watch) is None
    # Whatever happened meanwhile, and to whose counters, is not of any interval.
    assert reads(watch) is None
    assert watch.trouble is None
    assert reads(watch) == 40


def test_a_schedule_does_not_drift() -> None:
    schedule = Schedule(10.0, 1.0)
    assert [schedule.after(now) for now in (10.2, 11.4, 12.9)] == [11.0, 12.0, 13.0]


def test_what_went_by_is_left_out() -> None:
    schedule = Schedule(10.0, 1.0)
    assert schedule.after(14.5) == 15.0
    assert schedule.after(15.0) == 16.0
    schedule.change(16.0, 4.0)
    assert schedule.due == 20.0
    assert schedule.after(20.1) == 24.0


@given(st.floats(0.001, 100), st.lists(st.floats(0, 1000), max_size=20))
def test_due_is_ahead_and_a_whole_number_of_intervals_away(
    wait: float, delays: Sequence[float]
) -> None:
    schedule = Schedule(0.0, wait)
    now = 0.0
    for delay in delays:
        now += delay
        due = schedule.after(now)
        assert due >= now
        assert abs(due / wait - round(due / wait)) < 1e-3
