"""Numbers of devices: always the smallest that is free, as a count from 0 would find it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.xenbus.units import Units

NUMBERS = st.integers(0, 12)


def test_the_smallest_that_is_free() -> None:
    units = Units()
    for wanted in range(3):
        assert units.smallest(()) == wanted
        units.take(wanted)
    units.give_back(1)
    assert (1 in units, 2 in units) == (False, True)
    assert units.smallest(()) == 1
    assert units.smallest({1}) == 3
    assert units.smallest(()) == 1, "it was not taken"


def test_one_far_off_costs_nothing() -> None:
    units = Units()
    units.take(10**9)
    assert units.smallest({0, 1}) == 2
    units.give_back(10**9)
    assert units.smallest(()) == 0


def test_devices_that_come_and_go_leave_nothing() -> None:
    units = Units()
    for _ in range(1000):
        unit = units.smallest(())
        units.take(unit)
        units.give_back(unit)
    assert units._free == [0]


@given(st.lists(st.tuples(st.sampled_from(("new", "take", "give")), NUMBERS, st.sets(NUMBERS))))
def test_as_a_count_from_nought(steps: list[tuple[str, int, set[int]]]) -> None:
    units, used = Units(), set[int]()
    for step, number, kept in steps:
        if step == "new":
            number = units.smallest(kept)
            assert number == next(n for n in itertools.count() if n not in used | kept)
        if step != "give":
            units.take(number)
            used.add(number)
        elif number in used:
            units.give_back(number)
            used.remove(number)
        assert all((n in units) == (n in used) for n in range(14))
