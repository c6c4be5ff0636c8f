"""The page of events, its two switches and the limit of rate."""

from dataclasses import fields, is_dataclass

import pytest

from xbbd_bsd import events
from xbbd_bsd.events import (
    BURST,
    KEPT,
    KEPT_OF_DEVICE,
    REFILL_SECONDS,
    Connected,
    DeviceEvent,
    Event,
    Journal,
    Path,
    QueueStatus,
    Severity,
    StateChanged,
    StoreBack,
)

ALL = [
    value
    for value in vars(events).values()
    if isinstance(value, type) and issubclass(value, Event) and value not in (Event, DeviceEvent)
]


class Log:
    """A journal with a log that is a list and a clock that stands still until moved."""

    def __init__(self, *switches: Path) -> None:
        self.now = 100.0
        self.lines: list[tuple[Severity, str]] = []
        self.journal = Journal(
            lambda severity, line: self.lines.append((severity, line)),
            lambda: self.now,
            frozenset(switches),
            lambda: self.now + 1000,
        )


CONTROL = StateChanged("xbbd0", "InitWait", "Initialised", "connect the ring", "Connected")
DATA = QueueStatus("xbbd0", "drained", "none", 0)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_field_is_in_the_line(kind: type[Event]) -> None:
    assert is_dataclass(kind)
    assert kind.__doc__
    names = [field.name for field in fields(kind)]
    values: dict[str, object] = {
        name: 4711 + i if name in ("limit", "port", "errno", "devices", "seconds") else f"<{name}>"
        for i, name in enumerate(names)
    }
    line = str(kind(**values))
    for value in values.values():
        assert str(value) in line
    assert "\n" not in line
    assert "{" not in line


def test_literal_line() -> None:
    line = str(Connected("xbbd0 (vbd/5/51712)", "ring of 16 pages, x86_64 layout"))
    assert line == "xbbd0 (vbd/5/51712): connected: ring of 16 pages, x86_64 layout"


@pytest.mark.parametrize(
    ("switches", "expected"),
    [((), 0), ((Path.CONTROL,), 1), ((Path.DATA,), 1), ((Path.CONTROL, Path.DATA), 2)],
)
def test_each_path_has_its_switch(switches: tuple[Path, ...], expected: int) -> None:
    log = Log(*switches)
    log.journal(CONTROL)
    log.journal(DATA)
    assert len(log.lines) == expected


def test_what_is_not_chatter_needs_no_switch() -> None:
    log = Log()
    log.journal(StoreBack())
    assert log.lines == [(Severity.INFO, "XenStore is back")]


def test_a_guest_cannot_flood_the_log() -> None:
    log = Log(Path.CONTROL)
    for _ in range(5_000):
        log.journal(CONTROL)
    assert len(log.lines) == BURST
    log.journal(Connected("xbbd1", "another device is not silenced"))
    assert len(log.lines) == BURST + 1
    log.now += REFILL_SECONDS
    log.journal(CONTROL)
    log.journal(CONTROL)
    assert len(log.lines) == BURST + 2
    assert log.lines[-1][1].endswith(f"({5_000 - BURST} lines before this left out)")


def test_events_of_the_daemon_have_no_limit() -> None:
    log = Log()
    for _ in range(3 * BURST):
        log.journal(StoreBack())
    assert len(log.lines) == 3 * BURST


def test_a_device_that_is_gone_leaves_nothing() -> None:
    log = Log()
    for _ in range(BURST + 1):
        log.journal(Connected("xbbd0", "ring"))
    log.journal.forget("xbbd0")
    log.journal.forget("xbbd0")
    log.journal(Connected("xbbd0", "ring"))
    assert log.lines[-1] == (Severity.INFO, "xbbd0: connected: ring")
    assert len(log.lines) == BURST + 1


def test_the_last_lines_are_kept() -> None:
    """Of a device also those that the switches leave out, and never more than so many."""
    log = Log()
    log.journal(StoreBack())
    log.journal(CONTROL)
    log.now += 1
    log.journal(Connected("xbbd0", "ring"))
    assert log.journal.last() == [
        (1100.0, "info", "XenStore is back"),
        (1101.0, "info", "xbbd0: connected: ring"),
    ]
    assert log.journal.last("xbbd0") == [
        (1100.0, "debug", str(CONTROL)),
        (1101.0, "info", "xbbd0: connected: ring"),
    ]
    assert log.journal.last("xbbd1") == []
    for _ in range(2 * KEPT):
        log.journal(StoreBack())
        log.journal(DATA)
    assert len(log.journal.last()) == KEPT
    kept = log.journal.last("xbbd0")
    assert len(kept) == 1 + KEPT_OF_DEVICE, "steps do not wash away what was logged"
    assert kept[0] == (1101.0, "info", "xbbd0: connected: ring")
    log.journal.forget("xbbd0")
    assert log.journal.last("xbbd0") == []


def test_what_was_left_out_is_counted() -> None:
    log = Log()
    for _ in range(BURST + 7):
        log.journal(Connected("xbbd0", "ring"))
    assert log.journal.left_out == 7
    assert len(log.journal.last()) == BURST
