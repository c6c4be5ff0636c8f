"""Errors that nobody has seen to: since when they count, and what a device leaves behind."""

from __future__ import annotations

from collections.abc import Mapping

from xbbd_bsd.ledger import MOST, NO_ERRORS, Errors, Ledger


class Device:
    """The numbers of a device, by groups."""

    def __init__(self, path: str = "/vm.img", **counts: int) -> None:
        self.medium: dict[str, int | str] = {"path": path, "guest": "vm1"}
        self.errors: dict[str, int | str] = {}
        self.count(**counts)

    def count(self, **counts: int) -> None:
        self.errors.update({f"errors.{name}": n for name, n in counts.items()})

    def group(self, name: str) -> Mapping[str, int | str]:
        return {"medium": self.medium, "errors": self.errors}[name]


def test_a_device_without_errors() -> None:
    ledger = Ledger()
    nothing = Device()
    assert ledger.errors(0, nothing.group) == NO_ERRORS
    assert ledger.errors(0, Device(read=0, write=0).group) == NO_ERRORS
    assert ledger.clear(0, nothing.group) == (0, 0)
    ledger.leave(0, nothing.group, sound=True)
    assert ledger.past == ()


def test_what_failed_and_what_was_last() -> None:
    device = Device(read=0, write=3, flush=1)
    device.errors |= {
        "errors.last": "write failed",
        "errors.last_errno": 5,
        "errors.last_time": 77,
        "errors.guest.read_only": 2,
        "errors.guest.last": "write refused",
        "errors.guest.last_time": 78,
    }
    ledger = Ledger()
    assert ledger.errors(0, device.group) == Errors(
        {"write": 3, "flush": 1}, "write failed", 5, 77.0
    )
    assert ledger.errors(0, device.group).total == 4
    assert ledger.guest_errors(0, device.group) == Errors(
        {"read_only": 2}, "write refused", 0, 78.0
    )


def test_what_was_seen_to_counts_no_more() -> None:
    ledger = Ledger()
    device = Device(write=3)
    device.errors["errors.guest.grants"] = 2
    assert ledger.clear(0, device.group) == (3, 2)
    assert ledger.errors(0, device.group) == NO_ERRORS
    assert ledger.guest_errors(0, device.group) == NO_ERRORS
    assert ledger.clear(0, device.group) == (0, 0)
    device.count(write=5, read=1)
    assert ledger.errors(0, device.group).counts == {"read": 1, "write": 2}
    assert ledger.errors(1, device.group).counts == {"read": 1, "write": 5}, "another device"
    device.errors["errors.guest.grants"] = 3
    assert ledger.guest_errors(0, device.group).counts == {"grants": 1}


def test_a_counter_that_went_back_counts_from_nothing() -> None:
    ledger = Ledger()
    device = Device(write=3)
    ledger.clear(0, device.group)
    device.count(write=2)
    assert ledger.errors(0, device.group).counts == {"write": 2}


def test_what_a_device_leaves_is_kept_by_path_until_it_is_seen_to() -> None:
    ledger = Ledger()
    for n in (1, 2):
        ledger.leave(0, Device(write=n, read=n - 1).group, sound=True)
    ledger.leave(1, Device("/other", flush=1).group, sound=True)
    assert [(past.path, past.guest, past.errors.counts) for past in ledger.past] == [
        ("/vm.img", "vm1", {"write": 3, "read": 1}),
        ("/other", "vm1", {"flush": 1}),
    ]
    assert ledger.clear_path("/vm.img") == 4
    assert [past.path for past in ledger.past] == ["/other"]
    assert ledger.clear_path("/vm.img") == 0


def test_a_unit_that_is_used_again_begins_anew() -> None:
    ledger = Ledger()
    device = Device(write=3)
    ledger.clear(0, device.group)
    ledger.leave(0, device.group, sound=True)
    assert ledger.past == (), "that was seen to"
    assert ledger.errors(0, Device(write=4).group).total == 4


def test_numbers_that_mean_nothing_are_not_kept() -> None:
    ledger = Ledger()
    ledger.clear(0, Device(write=3).group)
    ledger.leave(0, Device(write=1 << 60).group, sound=False)
    assert ledger.past == ()
    assert ledger.errors(0, Device(write=4).group).total == 4


def test_it_does_not_grow_without_bound() -> None:
    ledger = Ledger()
    for n in range(MOST + 2):
        ledger.leave(0, Device(f"/{n}", write=1).group, sound=True)
    assert len(ledger.past) == MOST
    assert [past.path for past in ledger.past][:2] == ["/2", "/3"]
