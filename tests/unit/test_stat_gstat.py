"""The layout of gstat(8), and what fits on which screen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_stat_sample import NEW, OLD, device, record, sample
from xbbd_bsd.stat.gstat import (
    Latency,
    Line,
    Load,
    columns,
    load,
    narrowed,
    screen,
    status,
    table,
)
from xbbd_bsd.stat.sample import Rate, compare

HEADING = " L(q)  ops/s    r/s   kBps   ms/r    w/s   kBps   ms/w   %busy Name"


def rates() -> list[Rate]:
    latency = {"read": {"100": 10}, "write": {"50": 1}, "flush": {}, "discard": {}}
    before = sample(device(0, OLD, latency={}), device(0, record()))
    now = sample(device(2, NEW, latency=latency), device(2, record(), guest="", vdev="xvdb"))
    return compare(now, before)


def texts(
    latency: Latency = Latency.NEVER,
    *,
    deletes: bool = False,
    others: bool = False,
    width: int = 80,
) -> list[str]:
    shown = columns(latency, deletes=deletes, others=others, width=width, name_width=5)
    return [line.text for line in table(rates(), shown)]


def test_gstats_columns() -> None:
    assert texts() == [
        HEADING,
        "    3     45     20    200    5.0     15   2048  100.0   62.5| xbb0  vm:xvda",
        "    3     45     20    200    5.0     15   2048  100.0   62.5| xbbi0 vm:xvda",
        "    0      0      0      0  0.000      0      0  0.000    0.0| xbb1  3:xvdb",
        "    0      0      0      0  0.000      0      0  0.000    0.0| xbbi1 3:xvdb",
    ]


def test_deletes_and_others() -> None:
    heading, first, *_ = texts(deletes=True, others=True)
    assert heading == (
        " L(q)  ops/s    r/s   kBps   ms/r    w/s   kBps   ms/w"
        "    d/s   kBps   ms/d    o/s   ms/o   %busy Name"
    )
    assert first.endswith("      5   5120  100.0      5   50.0   62.5| xbb0  vm:xvda")


def test_errors_are_shown_on_the_screen() -> None:
    failed = sample(
        device(2, {**OLD, "errors": {"write": 9}}, {**OLD, "errors": {"grants": 99999}})
    )
    for latency in Latency:
        shown = columns(latency, deletes=False, others=False, width=80, name_width=5, errors=True)
        heading, disk, guest = table(compare(failed, None), shown)
        at = heading.text.index(" e/s   %busy") + len(" e/s")
        assert (disk.text[at - 4 : at], guest.text[at - 4 : at]) == (" 0.2", "  2k")
        assert len(disk.text) <= 80


def test_who_serves_it() -> None:
    """What is asked for stays longer than throughput and times."""
    served = device(2, OLD, process=4711, process_rss_kb=5300, process_age=70, takeovers=3)
    found = compare(sample(served), None)
    for width, heading in (
        (200, "L(q) ops/s r/s kBps ms/r w/s kBps ms/w e/s pid rss age takeovers"),
        (80, "L(q) ops/s r/s w/s e/s pid rss age takeovers"),
    ):
        shown = columns(
            Latency.NEVER,
            deletes=False,
            others=False,
            width=width,
            name_width=5,
            errors=True,
            process=True,
        )
        shown = narrowed(shown, width=width, name_width=5)
        assert " ".join(column.heading for column in shown) == heading
        assert table(found, shown)[1].text.split()[-7:-3] == ["4711", "5300", "70", "3"]


def test_percentiles_come_in_where_they_fit() -> None:
    assert texts(Latency.FITTING, width=95)[0] == HEADING
    heading, dispatched, asked, *_ = texts(Latency.FITTING, width=96)
    assert heading == (
        " L(q)  ops/s    r/s   kBps   ms/r  p50/r  p99/r"
        "    w/s   kBps   ms/w  p50/w  p99/w   %busy Name"
    )
    assert "      -      -" in dispatched  # it is the guest who waits
    assert asked.startswith("    3     45     20    200    5.0  0.027  0.027     15")


def test_percentiles_in_place_of_throughput() -> None:
    heading = " L(q)  ops/s    r/s  p50/r  p99/r    w/s  p50/w  p99/w   %busy Name"
    assert texts(Latency.ALWAYS)[0] == heading
    assert len(texts(Latency.ALWAYS)[1]) <= 80
    assert "ms/r  p50/r" in texts(Latency.ALWAYS, width=200)[0]
    assert texts(Latency.NEVER, width=200)[0] == HEADING


def test_what_is_least_asked_for_goes_first() -> None:
    everything = columns(Latency.NEVER, deletes=True, others=True, width=0, name_width=5)

    def left(width: int) -> str:
        return " ".join(c.heading for c in narrowed(everything, width=width, name_width=5))

    every = "L(q) ops/s r/s kBps ms/r w/s kBps ms/w d/s kBps ms/d o/s ms/o"
    assert left(103) == every
    assert left(102) == "L(q) ops/s r/s kBps ms/r w/s kBps ms/w d/s ms/d o/s ms/o"
    assert left(80) == "L(q) ops/s r/s ms/r w/s ms/w d/s o/s ms/o"
    assert left(0) == "L(q) ops/s r/s w/s d/s o/s"


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0, Load.LOW), (50, Load.LOW), (50.1, Load.MEDIUM), (80, Load.MEDIUM), (80.1, Load.HIGH)],
)
def test_loads(percent: float, expected: Load) -> None:
    assert load(percent) is expected


def test_the_load_is_marked() -> None:
    shown = columns(Latency.NEVER, deletes=False, others=False, width=80, name_width=5)
    line = table(rates(), shown)[1]
    assert line.load is Load.MEDIUM
    assert line.text[line.start : line.end] == "   62.5"


def test_the_first_line() -> None:
    assert status(1.0004, 1.0, "") == "dT: 1.000s  w: 1.000s"
    assert status(0.5, 2.0, "xbb1") == "dT: 0.500s  w: 2.000s  filter: xbb1"


def lines(first: int, width: int, height: int) -> list[Line]:
    shown = columns(Latency.FITTING, deletes=False, others=False, width=width, name_width=5)
    return screen(rates(), "dT", shown, first=first, width=width, height=height)


def test_a_screen_that_is_too_low_says_which_rows_it_shows() -> None:
    found = lines(1, 80, 4)
    assert [line.text for line in found[:2]] == [f"dT{'2-3 of 4':>78}", HEADING]
    assert [line.text[62:68].strip() for line in found[2:]] == ["xbbi0", "xbb1"]
    assert lines(0, 80, 24)[0].text == "dT"


def test_names_of_guests_cannot_write_to_the_terminal() -> None:
    evil = sample(device(0, OLD, guest="\x1b[2J\n" + "x" * 99))
    shown = columns(Latency.NEVER, deletes=False, others=False, width=80, name_width=5)
    text = table(compare(evil, None), shown)[1].text
    assert "\x1b" not in text
    assert "\n" not in text
    assert len(text) < 120


@given(width=st.integers(0, 300), height=st.integers(0, 40), first=st.integers(0, 3))
def test_nothing_is_outside_the_screen(width: int, height: int, first: int) -> None:
    found = lines(first, width, height)
    assert len(found) <= height
    for line in found:
        assert len(line.text) <= width
        assert 0 <= line.start <= line.end <= width
