"""The log for those who follow it: in order, bounded, and with nothing missed in silence."""

import json

from tests.unit.test_events import CONTROL, Log
from xbbd_bsd.deeds import ValueSet
from xbbd_bsd.events import Connected, DeviceGone, Hangs, StoreBack
from xbbd_bsd.feed import LIMIT, Feed, Record
from xbbd_bsd.journal import BURST, KEPT_OF_DEVICE


def record(number: int, device: str | None = None) -> Record:
    return Record(float(number), "info", device, "Said", {"number": number}, f"line {number}")


def drained(feed: Feed) -> list[dict[str, object]]:
    found = []
    while (line := feed.take()) is not None:
        found.append(line)
    return found


def test_what_a_line_is_made_of() -> None:
    log = Log()
    feed = log.journal.follow(None, 0)
    log.journal(Hangs("xbbd0 (vbd/5/51712)", "requests\n\x1b"))
    log.journal(StoreBack())
    lines = drained(feed)
    assert lines[0] == {
        "time": 1100.0,
        "severity": "warning",
        "device": "xbbd0",
        "event": "Hangs",
        "fields": {"what": "requests\n\x1b"},
        "text": "xbbd0 (vbd/5/51712): hangs: requests\\x0a\\x1b",
    }
    assert (lines[1]["device"], lines[1]["event"], lines[1]["fields"]) == (None, "StoreBack", {})
    assert json.loads(json.dumps(lines)) == lines


def test_all_lines_that_are_logged_and_no_others() -> None:
    log = Log()
    feed = log.journal.follow(None, 0)
    log.journal(CONTROL)  # its switch is off
    for _ in range(BURST + 5):
        log.journal(Connected("xbbd0", "ring"))
    assert [line["text"] for line in drained(feed)] == [line for _, line in log.lines]
    log.journal.unfollow(feed)
    log.journal(StoreBack())
    assert drained(feed) == []


def test_the_lines_before() -> None:
    log = Log()
    for number in range(5):
        log.journal(Connected(f"xbbd{number % 2}", str(number)))
    for device, last, wanted in ((None, 2, ["3", "4"]), ("xbbd0", 2, ["2", "4"]), (None, 0, [])):
        feed = log.journal.follow(device, last)
        assert [line["fields"] for line in drained(feed)] == [{"ring": n} for n in wanted]


def test_one_device_until_it_is_gone() -> None:
    log = Log()
    feed, other = log.journal.follow("xbbd0", 0), log.journal.follow("xbbd1", 0)
    log.journal(StoreBack())
    log.journal(Connected("xbbd1", "ring"))
    log.journal(DeviceGone("xbbd0"))
    log.journal.forget("xbbd0")
    assert not feed.over, "its last line is to be taken"
    assert [line["event"] for line in drained(feed)] == ["DeviceGone"]
    assert feed.over
    assert len(drained(other)) == 1
    assert not other.over


def test_what_a_slow_reader_missed_stands_where_it_was() -> None:
    feed = Feed(None)
    for number in range(LIMIT + 7):
        feed.add(record(number))
    assert feed.take() == record(0).values()
    feed.add(record(LIMIT + 7))
    feed.add(record(LIMIT + 8))
    lines = drained(feed)
    assert lines[LIMIT - 1] == {"missed": 7}
    assert lines[LIMIT:] == [record(LIMIT + 7).values(), {"missed": 1}]
    assert drained(feed) == []


def test_who_waits_is_woken_once() -> None:
    feed, woken = Feed(None), []
    feed.when_there(lambda: woken.append(1))
    feed.add(record(1))
    feed.add(record(2))
    assert woken == [1]
    feed.when_there(lambda: woken.append(2))
    feed.end()
    assert woken == [1, 2]


def test_what_an_operator_does_has_no_limit_and_is_not_washed_away() -> None:
    log = Log()
    for number in range(3 * BURST):
        log.journal(ValueSet("xbbd0", "flush_interval", number, number + 1, "root (uid 0)"))
    assert len(log.lines) == 3 * BURST
    assert log.lines[-1][1] == "xbbd0: flush_interval: 59 -> 60, set by root (uid 0)"
    for _ in range(10 * KEPT_OF_DEVICE):
        log.journal(Connected("xbbd0", "ring"))
    texts = [text for _, _, text in log.journal.last("xbbd0")]
    assert sum("set by" in text for text in texts) == 3 * BURST
