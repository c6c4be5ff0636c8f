"""When a process that has died is started again."""

from __future__ import annotations

import pytest

from xbbd_bsd.guests.deaths import FIRST_WAIT, MOST, WINDOW, Deaths


def test_the_first_time_at_once_then_later_and_later() -> None:
    deaths = Deaths()
    assert deaths.wait(100.0) == 0
    waits = []
    for now in (100.0, 110.0, 120.0, 130.0):
        deaths.died(now, "killed by signal 9")
        waits.append(deaths.wait(now))
    assert waits == [0, FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT]
    assert deaths.wait(130.5) == 4 * FIRST_WAIT - 0.5
    assert deaths.wait(200.0) == 0
    assert deaths.reason == ""


def test_too_often_in_too_short_a_time() -> None:
    deaths = Deaths()
    for now in range(MOST):
        assert deaths.reason == ""
        deaths.died(now * 2.0, f"of {now}")
    assert deaths.reason == "its process has died 5 times in 8 s, at last of 4"
    deaths.forgive()
    assert (deaths.reason, deaths.wait(8.0)) == ("", 0)
    deaths.died(9.0, "again")
    assert deaths.reason == ""


@pytest.mark.parametrize(("between", "given_up"), [(WINDOW / 4, True), (WINDOW / 4 + 0.1, False)])
def test_what_is_long_ago_is_forgotten(between: float, given_up: bool) -> None:
    deaths = Deaths()
    for number in range(12):
        deaths.died(number * between, "x")
    assert bool(deaths.reason) == given_up
