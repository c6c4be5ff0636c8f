"""Faults in words, of several rings together, and which of them are told, and when."""

from collections.abc import Iterator

import pytest

from xbbd_bsd.block.faults import AGAIN_SECONDS, Reports
from xbbd_bsd.events import Severity
from xbbd_bsd.faults import (
    GUEST_KINDS,
    REFUSALS,
    DiskErrors,
    DiskFault,
    Faults,
    GuestFault,
    RequestErrors,
    errno_name,
    together,
)

FULL = DiskFault("write", 1234, 8, 28, "No space left on device", False, 1_000)
BAD = GuestFault("write", 1234, 8, "read_only", 1_000)
NOTHING = dict.fromkeys(GUEST_KINDS, 0)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (FULL, "write of 4096 bytes at sector 1234 of /d failed: No space left on device (ENOSPC)"),
        (
            DiskFault("flush", 0, 0, 5, "Input/output error", False, 0),
            "flush of /d failed: Input/output error (EIO)",
        ),
        (
            DiskFault("read", 9, 1, 5, "Input/output error", True, 0),
            "read of 512 bytes at sector 9 of /d failed: beyond the end of a disk that has"
            " shrunk (EIO)",
        ),
        (
            DiskFault("discard", 9, 0, 99999, "Unknown error", False, 0),
            "discard at sector 9 of /d failed: Unknown error (99999)",
        ),
    ],
)
def test_a_disks_fault_in_words(fault: DiskFault, sentence: str) -> None:
    assert fault.sentence("/d") == sentence


def test_no_path_can_write_to_a_terminal() -> None:
    assert FULL.sentence("/a\x1b[2J\n\udcff").split(" of ")[2].startswith(r"/a\x1b[2J\x0a\xff fail")


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_guests_fault_in_words(refusal: str) -> None:
    kind, words = REFUSALS[refusal]
    assert kind in GUEST_KINDS
    fault = GuestFault("read", 7, 16, refusal, 0)
    assert str(fault) == f"read of 8192 bytes at sector 7 refused: {words}"


def test_what_nobody_knows_is_a_number() -> None:
    assert str(GuestFault("operation 9", 7, 0, "77", 0)) == "operation 9 at sector 7 refused: 77"
    assert errno_name(0) == "other"
    assert errno_name(-3) == "-3"


def test_counts_by_operation_and_errno() -> None:
    faults = Faults(
        {("write", 28): 3, ("write", 5): 2, ("write", 0): 1, ("read", 5): 4, ("operation 9", 5): 7},
        NOTHING,
    )
    assert faults.by_operation() == {"read": 4, "write": 6, "flush": 0, "discard": 0}
    assert faults.by_errno() == {
        "write": {"ENOSPC": 3, "EIO": 2, "other": 1},
        "read": {"EIO": 4},
    }


def test_rings_are_added_up_and_the_last_fault_is_the_last() -> None:
    later = DiskFault("read", 1, 1, 5, "Input/output error", False, 2_000)
    refused = GuestFault("read", 1, 1, "grants", 2_000)
    found = together(
        (
            Faults({("write", 28): 3}, {**NOTHING, "grants": 1}, FULL, BAD),
            Faults({("read", 5): 1, ("write", 28): 2}, {**NOTHING, "grants": 2}, later, refused),
            Faults({}, NOTHING),
        )
    )
    assert found == Faults(
        {("write", 28): 5, ("read", 5): 1}, {**NOTHING, "grants": 3}, later, refused
    )
    assert together((found, Faults({}, NOTHING, FULL, BAD))).last_disk is later
    assert together(()) == Faults({}, NOTHING)


class Look:
    """One device's reports, with counts and a clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.disk = self.guest = self.reads = 0
        self.reports = Reports("xbbd0")
        self.reports.begin(self.now, self.read())
        self.reads = 0

    def read(self) -> Faults:
        self.reads += 1
        counts = {**NOTHING, "read_only": self.guest}
        return Faults({("write", 28): self.disk}, counts, FULL, BAD)

    def __call__(self, seconds: float = 1.0, *, ended: bool = False) -> list[str]:
        self.now += seconds
        events = self.reports.look(self.now, self.disk + self.guest, self.read, "/d", ended=ended)
        return list(self.lines(events))

    def lines(self, events: Iterator[object]) -> Iterator[str]:
        for event in events:
            assert isinstance(event, RequestErrors)
            blame = "host" if isinstance(event, DiskErrors) else "guest"
            yield f"{blame} {event.more} {event.seconds}"


def test_the_first_is_told_at_once_and_the_rest_now_and_then() -> None:
    look = Look()
    assert look() == []
    look.disk = 1
    assert look() == ["host 0 1"]
    said = []
    for _ in range(90):
        look.disk += 10
        said += look()
    assert said == [f"host {10 * AGAIN_SECONDS - 1:.0f} {AGAIN_SECONDS:.0f}"] * 3
    # The last ones, though nothing happens any more; and then silence.
    look.disk += 7
    assert look() == []
    assert look(AGAIN_SECONDS) == ["host 6 31"]
    assert [look() for _ in range(100)] == [[]] * 100
    look.disk += 1
    assert look() == ["host 0 1"]


def test_blames_are_told_apart() -> None:
    look = Look()
    look.disk = 3
    assert look() == ["host 2 1"]
    look.guest = 5
    look.disk += 1
    assert look() == ["guest 4 1"]
    assert look(AGAIN_SECONDS - 1) == ["host 0 30"]


def test_what_is_left_is_told_at_the_end() -> None:
    look = Look()
    look.disk = 1
    look()
    look.disk = 4
    assert look(0.5) == []
    assert look(0.5, ended=True) == ["host 2 1"]
    assert look(0.5, ended=True) == []
    # The same guest comes back: nothing is told twice, and nothing is lost.
    look.disk += 1
    look.reports.begin(look.now, None)
    assert look(AGAIN_SECONDS) == ["host 0 30"]
    # Another segment counts from 0.
    look.disk = 2
    look.reports.begin(look.now, Faults({}, NOTHING))
    assert look(AGAIN_SECONDS) == ["host 1 30"]


def test_what_an_earlier_daemon_has_told_is_not_told_anew() -> None:
    look = Look()
    look.disk, look.guest = 40, 7
    look.reports.begin(look.now, look.read())
    assert look(AGAIN_SECONDS) == []
    look.disk += 2
    assert look() == ["host 1 1"]


def test_nothing_is_read_while_nothing_happens() -> None:
    look = Look()
    for _ in range(10):
        look()
    assert look.reads == 1
    look.guest = 1
    look()
    for _ in range(10):
        look()
    assert look.reads == 2


def test_a_segment_that_is_damaged_says_nothing_strange() -> None:
    look = Look()
    look.disk = 5
    look()
    look.disk = 0
    assert look() == []
    look.reports.begin(look.now, None)
    unknown = look.reports.look(
        look.now + 60, 9, lambda: Faults({("read", 5): 9}, NOTHING), "/d", ended=False
    )
    (event,) = unknown
    assert str(event) == (
        "xbbd0: a request of /d failed: somebody has damaged the state segment (other);"
        " 8 more in 60 s"
    )


def test_the_lines() -> None:
    reports = Reports("xbbd0 (vbd/1/51712)")
    reports.begin(0.0, Faults({}, NOTHING))
    faults = Faults({("write", 28): 312}, {**NOTHING, "read_only": 1}, FULL, BAD)
    disk, guest = reports.look(10.0, 313, lambda: faults, "/d")
    assert str(disk) == (
        "xbbd0 (vbd/1/51712): write of 4096 bytes at sector 1234 of /d failed:"
        " No space left on device (ENOSPC); 311 more in 10 s"
    )
    assert str(guest) == (
        "xbbd0 (vbd/1/51712): write of 4096 bytes at sector 1234 refused, the guest's fault:"
        " the disk is read-only"
    )
    assert (disk.severity, disk.urgent) == (Severity.ERROR, True)
    assert (guest.severity, guest.urgent) == (Severity.WARNING, False)
