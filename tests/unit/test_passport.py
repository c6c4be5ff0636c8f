"""What a daemon leaves for one of another version, and what that one makes of it."""

import re
from collections.abc import Callable
from dataclasses import replace
from errno import EIO
from pathlib import Path

import pytest

from tests.unit import estate as estates
from tests.unit.estate import CONFIG, DISK, MACHINE, Estate, FakeFormer, identity, inheritance_of
from xbbd_bsd.block import passport as passport_file
from xbbd_bsd.block.heritage import Inheritance
from xbbd_bsd.block.served import Served, note_passport, read, served_by
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import (
    State,
)

estate = estates.estate


# What is no passport of any family, or a change that makes one that.
SPOILT: list[str | Callable[[str], str]] = [
    "",
    "[]",
    "null",
    '{"format": 2}',
    '{"format": 1}',
    "[" * 100000,
    lambda text: re.sub(
        r'"params": \{.*\},\s*"counters"', '"params": {}, "counters"', text, flags=re.S
    ),
]


def of_another_version(estate: Estate, *, answered: bool = True, unit: int = 0) -> Served:
    """A segment that we cannot read, with its passport; what it would say."""
    segment = estate.make(unit)
    segment.handle.ring[1].counters.rd_req = 77
    note_passport(segment, answered=answered, journal=estate.events.append)
    served = read(segment)
    segment.close()
    with open(estate.path(unit), "r+b") as file:
        file.seek(4)
        file.write(b"\xff")
    return served


def passed_on(estate: Estate, former: FakeFormer | None = None) -> Inheritance:
    return inheritance_of(estate.heritage().claim(identity()), former)


def asked_to_hand_over(estate: Estate) -> tuple[Inheritance, FakeFormer]:
    """Of a device that a process of another version serves still."""
    of_another_version(estate, answered=False)
    former = FakeFormer()
    inheritance = passed_on(estate, former)
    with pytest.raises(HostError, match="about to hand it over") as error:
        inheritance.take(CONFIG)
    assert error.value.passes
    assert former.said == ["release"]
    return inheritance, former


def test_another_versions_disk_is_taken_with_its_passport(estate: Estate) -> None:
    """All rings as they were agreed, whatever is configured, and the counters go on."""
    before = of_another_version(estate)
    inheritance = passed_on(estate)
    assert inheritance.adoptable
    inheritance.is_for(MACHINE)
    segment = inheritance.take(CONFIG)
    served = inheritance.served(segment)
    assert served == replace(before, answered=True)
    made = served.maker(9)(1, served.rings[1], 7, 8, 6)
    assert (made.adopt, made.answered, made.disk_fd, made.ring_refs) == (True, True, 9, (11, 21))
    assert (segment.rings, segment.connection_rings, segment.medium) == (2, 2, DISK)
    assert segment.table_entries >= 64
    assert (segment.counters(1)["rd_req"], segment.counters(0)["rd_req"]) == (77, 0)
    assert served.news(segment, served.maker(9)) == {}
    inheritance.taken()
    assert estate.files() == ["xbbd.0"]
    segment.close()


def test_an_operators_pause_goes_on_under_another_version(estate: Estate) -> None:
    segment = estate.make(0)
    segment.pause()
    note_passport(segment, answered=True, journal=estate.events.append)
    segment.close()
    with open(estate.path(0), "r+b") as file:
        file.seek(4)
        file.write(b"\xff")
    segment = passed_on(estate).take(CONFIG)
    assert segment.paused is not None
    assert segment.paused.asked
    segment.close()


def test_one_that_dies_before_it_has_taken_it_leaves_it_to_the_next(estate: Estate) -> None:
    of_another_version(estate)
    passed_on(estate).take(CONFIG).close()
    again = passed_on(estate)
    assert again.adoptable
    assert again.served(again.take(CONFIG)).answered


@pytest.mark.parametrize("served", [(), (0, 1)])
def test_nothing_is_said_to_be_answered_of_what_is_begun(
    estate: Estate, served: tuple[int, ...]
) -> None:
    """By one who dies at that: another version cannot know what he has read off the rings."""
    of_another_version(estate)
    inheritance = passed_on(estate)
    segment = inheritance.take(CONFIG)
    inheritance.begin()
    for ring in served:
        estates.serve(segment, ring)
    segment.close()
    again = passed_on(estate)  # of the version that has begun
    assert again.adoptable
    segment = again.take(CONFIG)
    assert again.served(segment).answered == (not served)
    again.begin()
    segment.close()
    with open(estate.path(0), "r+b") as file:
        file.seek(4)
        file.write(b"\xff")
    assert not passed_on(estate).adoptable
    assert estate.files() == []


def test_what_could_not_be_begun_after_all_is_there_for_any_version(estate: Estate) -> None:
    of_another_version(estate)
    inheritance = passed_on(estate)
    inheritance.take(CONFIG).close()
    inheritance.rest()
    inheritance.begin()
    inheritance.begin()
    assert estate.files() == ["xbbd.0", "xbbd.0.begun"]
    inheritance.rest()
    assert estate.files() == ["xbbd.0", "xbbd.0.left"]
    inheritance.begin()
    inheritance.taken()
    assert estate.files() == ["xbbd.0"]


def test_a_process_is_there_to_hand_over_as_long_as_it_serves(estate: Estate) -> None:
    """What is unanswered its passport says, whoever goes on."""
    of_another_version(estate, answered=False)
    passed_on(estate).begin()
    assert estate.files() == ["xbbd.0", "xbbd.0.left"]


def test_what_cannot_be_taken_back_is_not_begun(estate: Estate) -> None:
    of_another_version(estate)
    inheritance = passed_on(estate)
    estate.path(0).with_suffix(".0.begun").mkdir()
    with pytest.raises(HostError, match="begun"):
        inheritance.begin()


def test_whoever_serves_another_version_hands_over_first(estate: Estate) -> None:
    inheritance, former = asked_to_hand_over(estate)
    with pytest.raises(HostError):
        inheritance.take(CONFIG)
    assert former.said == ["release"], "once"
    former.done(None)
    with pytest.raises(HostError):
        inheritance.take(CONFIG)
    assert former.said == ["release", "woken", "release"]
    former.done(True)
    assert inheritance.served(inheritance.take(CONFIG)).answered


def test_one_that_dies_after_it_was_handed_over_leaves_word(estate: Estate) -> None:
    inheritance, former = asked_to_hand_over(estate)
    former.done(True)
    inheritance.take(CONFIG).close()
    again = passed_on(estate)
    assert again.served(again.take(CONFIG)).answered


def test_what_has_ended_after_its_daemon_left_was_not_served_then(estate: Estate) -> None:
    """Its guest has closed it since; the passport is of before that."""
    segment = estate.make(0)
    note_passport(segment, answered=False, journal=estate.events.append)
    for ring in (0, 1):
        segment.handle.ring[ring].common.connected = 0
    segment.close()
    assert passed_on(estate).refusal == "it was not served then"


def test_what_it_left_unanswered_nobody_can_go_on_with(estate: Estate) -> None:
    inheritance, former = asked_to_hand_over(estate)
    former.done(False)
    assert inheritance.refusal == "another version left requests unanswered"
    assert (former.said, estate.files()) == (["release", "drop", "woken"], [])
    former.done(True)
    assert not inheritance.adoptable


def test_a_segment_that_says_enough_needs_no_passport(estate: Estate) -> None:
    segment = estate.make(0)
    note_passport(segment, answered=True, journal=estate.events.append)
    segment.close()
    inheritance = passed_on(estate)
    segment = inheritance.take(CONFIG)
    assert not inheritance.served(segment).answered
    inheritance.leave()
    assert estate.files() == []
    segment.close()


def test_what_is_lost_or_ends_gets_none(estate: Estate) -> None:
    spoilt: list[Callable[[State], None]] = [lambda s: s.lose(EIO), lambda s: s.connect(3)]
    for spoils in spoilt:
        segment = estate.make(0)
        spoils(segment)
        note_passport(segment, answered=True, journal=estate.events.append)
        segment.close()
        assert estate.files() == ["xbbd.0"]


@pytest.mark.parametrize(
    "text",
    [
        *SPOILT,
        lambda text: text.replace("X86_64", "X86_63"),
        lambda text: text.replace('"domid": 5', '"domid": "5"'),
        lambda text: text.replace('"domid": 5', '"domid": -2'),
        lambda text: text.replace('"domid": 5', '"domid": 4294967296'),
        lambda text: text.replace('"sector_size"', '"sector-size"'),
        lambda text: text.replace("file", "file\\", 1),
    ],
)
def test_a_passport_that_is_none(
    estate: Estate, text: str | Callable[[str], str], tmp_path: Path
) -> None:
    of_another_version(estate)
    file = tmp_path / "xbbd.0.left"
    file.write_text(text if isinstance(text, str) else text(file.read_text()))
    heritage = estate.heritage()
    assert heritage.unit_of("vbd", 5, 51712, b"0 digest") == 0
    inheritance = inheritance_of(heritage.claim(identity()))
    assert not inheritance.adoptable
    assert inheritance.refusal.startswith("map ")
    said = [str(event) for event in estate.events]
    assert "is like none of ours" in said[0]
    assert estate.files() == []


def test_a_later_versions_passport_has_more(estate: Estate, tmp_path: Path) -> None:
    """What an earlier one does not know it leaves out; what it lacks is as it ever was."""
    of_another_version(estate)
    file = tmp_path / "xbbd.0.left"
    text = file.read_text().replace('"domid": 5', '"domid": 5, "colour": "red"')
    file.write_text(text.replace('"max_grants": 2816,', ""))
    passport = passport_file.read(str(estate.path(0)))
    assert passport is not None
    assert served_by(passport).any_ring.max_grants == 2816


def test_a_passport_is_nobody_elses_to_read_or_to_place(estate: Estate, tmp_path: Path) -> None:
    of_another_version(estate)
    file = tmp_path / "xbbd.0.left"
    assert file.stat().st_mode & 0o777 == 0o600
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert not passed_on(estate).adoptable
