"""How often a device is looked at, and how long it waits; by a clock of our own."""

from xbbd_bsd.xenbus.pace import LAST_WAIT, LOOKS, RETURNS, RETURNS_SECONDS, Pace


def test_a_flood_of_looks_gets_its_measure_each_second() -> None:
    pace = Pace()
    assert [pace.look(10.0) for _ in range(LOOKS)] == [10.0] * LOOKS
    assert [pace.look(10.5) for _ in range(1000)] == [11.0] * 1000
    assert pace.look(11.0) == 11.0


def test_a_look_now_and_then_waits_for_nothing() -> None:
    pace = Pace()
    for now in range(1000):
        assert pace.look(now / 10) == now / 10


def test_what_fails_waits_twice_as_long_each_time() -> None:
    pace = Pace()
    assert [pace.failed() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    for _ in range(5000):
        assert pace.failed() == LAST_WAIT
    assert pace.connected(0.0) == 0
    assert pace.failed() == 1


def test_a_guest_that_connects_again_and_again_is_slowed_down() -> None:
    pace = Pace()
    waits = [pace.connected(now) for now in range(RETURNS + 3)]
    assert waits == [0.0] * (RETURNS - 1) + [1, 2, 4, 8]
    now = float(RETURNS + 3)
    for _ in range(2 * RETURNS):
        now += RETURNS_SECONDS / (RETURNS - 1) + 1
        last = pace.connected(now)
    assert last == 0
    assert [pace.connected(now) for _ in range(RETURNS)].count(1) == 1, "it begins small again"
