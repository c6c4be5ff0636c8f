"""Which records are shown: iostat's names and types, gstat's filter, sorts."""

from typing import Any

import pytest

from tests.unit.test_stat_sample import NEW, OLD, device, record, sample
from xbbd_bsd.stat.choice import (
    SORTS,
    Choice,
    checked_filter,
    names_of,
    sort_of,
    sorts,
    types_of,
)
from xbbd_bsd.stat.sample import Rate, compare

IDLE = record()
OTHER: dict[str, Any] = {"domid": 9, "guest": "db", "vdev": "xvdb"}


def rates() -> list[Rate]:
    before = sample(device(0, OLD), device(0, IDLE, **OTHER))
    return compare(sample(device(2, NEW), device(2, IDLE, **OTHER)), before)


def chosen(choice: Choice) -> list[str]:
    return [rate.name for rate in choice(rates())]


def test_all_in_order_by_default() -> None:
    assert chosen(Choice()) == ["xbb0", "xbbi0", "xbb1", "xbbi1"]


@pytest.mark.parametrize(
    ("operand", "names"),
    [("xbb0", ["xbb0"]), ("xbbi1", ["xbbi1"]), ("dev.xbbd.1", ["xbb1", "xbbi1"])],
)
def test_names(operand: str, names: list[str]) -> None:
    assert chosen(Choice(names=names_of(operand))) == names


@pytest.mark.parametrize("operand", ["xbb", "xbb01", "da0", "dev.xbbd", "dev.xbbd.0.rd_req", ""])
def test_what_names_no_device(operand: str) -> None:
    with pytest.raises(ValueError, match="must be like xbb0"):
        names_of(operand)


@pytest.mark.parametrize(
    ("types", "names"),
    [
        (["da"], ["xbb0", "xbbi0", "xbb1", "xbbi1"]),
        (["DA, other"], ["xbb0", "xbbi0", "xbb1", "xbbi1"]),
        (["cd"], []),
        (["da,scsi"], []),
        (["da,other,pass"], []),
        (["xbbi"], ["xbbi0", "xbbi1"]),
        (["da,xbb"], ["xbb0", "xbb1"]),
        (["cd", "xbb"], ["xbb0", "xbb1"]),
        (["xbb", "xbbi"], ["xbb0", "xbbi0", "xbb1", "xbbi1"]),
    ],
)
def test_types_as_iostat_has_them(types: list[str], names: list[str]) -> None:
    assert chosen(Choice(types=tuple(types_of(text) for text in types))) == names


@pytest.mark.parametrize("text", ["", ",", "da,cd", "xbb,xbbi", "disk", "da,other,pass,xbb,da"])
def test_types_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"category|unknown match item"):
        types_of(text)


def test_names_and_types_add_up_as_with_iostat() -> None:
    choice = Choice(names=("xbb0",), types=(types_of("xbbi"),))
    assert chosen(choice) == ["xbb0", "xbbi0", "xbbi1"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("^xbb[0-9]", ["xbb0", "xbb1"]),
        ("i1$", ["xbbi1"]),
        ("db:", ["xbb1", "xbbi1"]),
        ("no", []),
    ],
)
def test_the_filter_matches_names_and_owners(pattern: str, names: list[str]) -> None:
    assert chosen(Choice(filter=checked_filter(pattern))) == names


@pytest.mark.parametrize("pattern", ["(", "*", "[a", "a{2,1}", "(?P<x"])
def test_a_filter_that_is_none(pattern: str) -> None:
    with pytest.raises(ValueError, match="invalid filter"):
        checked_filter(pattern)


def test_only_what_is_active() -> None:
    assert chosen(Choice(active=True)) == ["xbb0", "xbbi0"]


def test_most() -> None:
    assert chosen(Choice(most=1)) == ["xbb0"]
    assert chosen(Choice(most=0)) == []
    assert chosen(Choice(most=2, names=("xbb1", "xbbi1"))) == ["xbb1", "xbbi1"]


@pytest.mark.parametrize("column", ["busy", "%busy", "qlen", "kw/s", "ms/o", "d/s", "tps"])
def test_sorts_are_largest_first_and_otherwise_as_they_were(column: str) -> None:
    before = sample(device(0, IDLE), device(0, OLD))
    now = sample(device(2, IDLE), device(2, NEW))
    found = Choice(sort=sort_of(column))(compare(now, before))
    assert [rate.name for rate in found] == ["xbb1", "xbbi1", "xbb0", "xbbi0"]


def test_every_sort_works() -> None:
    assert sorts() == ("name", *SORTS)
    for column in sorts():
        assert len(chosen(Choice(sort=sort_of(column)))) == 4
    with pytest.raises(ValueError, match="cannot sort by"):
        sort_of("colour")
