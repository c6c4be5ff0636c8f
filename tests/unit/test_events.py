"""The page of events, its two switches and the limit of rate."""

from dataclasses import fields, is_dataclass

import pytest

from xbbd_bsd import deeds, events, faults
from xbbd_bsd.events import (
    AttachFailed,
    Connected,
    ConnectionFailed,
    DeviceEvent,
    Event,
    GuestFailed,
    InternalError,
    Opened,
    Path,
    QueueStatus,
    Severity,
    StateChanged,
    StoreBack,
)
from xbbd_bsd.journal import AGAIN_SECONDS, BURST, KEPT, KEPT_OF_DEVICE, REFILL_SECONDS, Journal

BASES = (Event, DeviceEvent, faults.RequestErrors)
ALL = [
    value
    for value in (*vars(events).values(), *vars(deeds).values(), *vars(faults).values())
    if isinstance(value, type) and issubclass(value, Event) and value not in BASES
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


GONE = "the disk is gone: Device not configured"


@pytest.mark.parametrize("noise", [GuestFailed("xbbd0", "node is 'x'"), CONTROL], ids=type)
def test_a_guest_cannot_hide_that_the_disk_is_gone(noise: DeviceEvent) -> None:
    log = Log(Path.CONTROL)
    for _ in range(200):
        log.journal(noise)
    log.journal(ConnectionFailed("xbbd0", GONE))
    assert log.lines[-1][0] is Severity.ERROR
    assert log.lines[-1][1].startswith(f"xbbd0: connection failed: {GONE}")
    assert len(log.lines) == BURST + 1


def test_a_guest_that_has_the_host_fail_hides_nothing_else() -> None:
    """The numbers may be the guest's own, as those of a grant."""
    log = Log()
    for i in range(5000):
        log.journal(ConnectionFailed("xbbd0", f"map grant {i}: Invalid argument"))
    assert len(log.lines) == 1 + BURST
    log.journal(ConnectionFailed("xbbd0", GONE))
    log.journal(AttachFailed("xbbd0", GONE))
    assert len(log.lines) == 3 + BURST
    log.journal(ConnectionFailed("xbbd0", GONE))
    assert len(log.lines) == 3 + BURST, "it has been said"
    for _ in range(20):
        log.now += AGAIN_SECONDS / 20
        for i in range(100):
            log.journal(ConnectionFailed("xbbd0", f"map grant {i}: Invalid argument"))
    before = len(log.lines)
    log.journal(ConnectionFailed("xbbd0", GONE))
    assert len(log.lines) == before + 1, "a minute later it is news again"


def test_urgent_lines_have_a_limit_too() -> None:
    log = Log()
    for i in range(5000):
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(i))
        log.journal(InternalError("xbbd0", letters))
    assert len(log.lines) == 2 * BURST
    assert log.journal.left_out == 5000 - 2 * BURST


def test_what_was_dropped_can_be_asked_for() -> None:
    log = Log()
    log.journal(ConnectionFailed("xbbd0", GONE))
    for i in range(1000):
        log.now += REFILL_SECONDS / 2
        log.journal(GuestFailed("xbbd0", f"number {i}"))
    texts = [text for _, _, text in log.journal.last("xbbd0")]
    assert texts[0] == f"xbbd0: connection failed: {GONE}", "not washed away"
    assert all(any(f"number {i}" in text for text in texts) for i in range(950, 1000))
    assert len(texts) == 1 + 2 * KEPT_OF_DEVICE


def test_no_control_character_reaches_the_log() -> None:
    log = Log()
    log.journal(Opened("xbbd0", "/tank/\x1b]0;owned\x07\n\udcff"))
    shown = "xbbd0: opened /tank/\\x1b]0;owned\\x07\\x0a\\xff"
    assert log.lines == [(Severity.INFO, shown)]
    assert [text for _, _, text in log.journal.last("xbbd0")] == [shown]


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


def test_what_host_or_operator_have_to_know_is_urgent() -> None:
    """Whatever warns of a device, but for what its guest is to blame for."""
    warnings = {
        kind.__name__
        for kind in ALL
        if issubclass(kind, DeviceEvent) and kind.severity >= Severity.WARNING and not kind.urgent
    }
    assert warnings == {"GuestErrors", "GuestFailed", "GuestSays"}
