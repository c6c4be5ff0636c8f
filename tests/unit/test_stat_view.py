"""The keys of the full-screen view."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.stat.choice import Choice
from xbbd_bsd.stat.gstat import Latency
from xbbd_bsd.stat.view import HELP, LEAST_WAIT, MOST_WAIT, View, press

START = View(Choice(filter="xbb", names=("xbb0",)), 1.0)


def pressed(*keys: str, view: View = START, rows: int = 100, page: int = 22) -> View:
    for key in keys:
        view = press(view, key, start=START, rows=rows, page=page)
    return view


def test_quit() -> None:
    assert pressed("q").quit


def test_intervals_as_gstats() -> None:
    assert pressed(">").wait == 2.0
    assert pressed("<", "<").wait == 0.25
    assert pressed(*"<" * 50).wait == LEAST_WAIT
    assert pressed(*">" * 50).wait == MOST_WAIT


def test_the_filter_is_typed() -> None:
    view = pressed("f", "a", "q", "BACKSPACE", "1", "$")
    assert view.typed == "a1$"
    assert view.choice.filter == "xbb"
    view = pressed("ENTER", view=view)
    assert (view.typed, view.choice.filter, view.quit) == (None, "a1$", False)
    assert pressed("F", view=view).choice.filter == ""


def test_a_filter_is_given_up() -> None:
    view = pressed("f", "z", "ESC")
    assert (view.typed, view.choice.filter) == (None, "xbb")
    assert pressed("f", "BACKSPACE", "UP", "ENTER").choice.filter == ""


def test_a_filter_that_is_none() -> None:
    view = pressed("f", "(", "ENTER")
    assert (view.typed, view.choice.filter) == (None, "xbb")
    assert re.fullmatch(r"Invalid filter, .*unterminated.*: \(", view.notice)
    assert not view.passing
    assert pressed("x", view=view).notice == ""


def test_a_filter_has_a_length() -> None:
    assert len(pressed("f", *"x" * 500).typed or "") == 99


def test_who_serves_it() -> None:
    assert not START.process
    assert pressed("v").process
    assert not pressed("v", "v").process


def test_sorts() -> None:
    assert pressed("s").choice.sort == "%busy"
    assert pressed("s", "S").choice.sort == "name"
    assert pressed("S", "s").choice.sort == "name"


def test_switches() -> None:
    assert pressed("a").choice.active
    assert not pressed("a", "a").choice.active
    assert pressed("d").deletes
    assert pressed("o").others
    assert pressed("l").latency is Latency.ALWAYS
    assert pressed("l").passing
    assert pressed("l", "l").latency is Latency.NEVER
    assert pressed("l", "l", "l").latency is Latency.FITTING


def test_reset() -> None:
    assert pressed("a", "d", "o", "l", "s", ">", "DOWN", "F", "r") == START


@pytest.mark.parametrize("key", ["h", "?"])
def test_help(key: str) -> None:
    assert pressed(key).notice == HELP
    assert len(HELP) <= 80


def test_rows() -> None:
    assert pressed("DOWN", "DOWN", "UP").first == 1
    assert pressed("UP").first == 0
    assert pressed("PAGEDOWN").first == 22
    assert pressed("PAGEDOWN", "PAGEUP").first == 0
    assert pressed("END").first == 78
    assert pressed("END", "DOWN").first == 78
    assert pressed("END", "HOME").first == 0
    assert pressed("END", "s").first == 0
    # Rows that have gone meanwhile are no place to go back through.
    assert pressed("UP", view=pressed("END"), rows=30).first == 7
    assert pressed("DOWN", rows=5).first == 0


KEYS = ["ENTER", "ESC", "BACKSPACE", "UP", "DOWN", "PAGEUP", "PAGEDOWN", "HOME", "END"]


@given(st.lists(st.one_of(st.characters(), st.sampled_from(KEYS))), st.integers(0, 50))
def test_any_keys(keys: list[str], rows: int) -> None:
    view = pressed(*keys, rows=rows)
    assert 0 <= view.first <= rows
    assert LEAST_WAIT <= view.wait <= MOST_WAIT
    assert Choice(filter=view.choice.filter, sort=view.choice.sort)([]) == []
