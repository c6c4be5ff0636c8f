"""Requests that failed, as the state segment has them counted (faults.h).

What stands there may be damaged: whatever it is becomes numbers, or words, and nothing
raises.  Any thread and any process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from xbbd_bsd.faults import (
    DISK_OPERATIONS,
    GUEST_KINDS,
    REFUSALS,
    DiskFault,
    Faults,
    GuestFault,
    together,
)
from xbbd_bsd.native._xbb import ffi, lib

_DISK_OPERATIONS: Final[Mapping[int, str]] = {
    int(getattr(lib, f"XBB_DISK_OP_{name.upper()}")): name for name in DISK_OPERATIONS
}
_REFUSALS: Final[Mapping[int, str]] = {
    int(getattr(lib, f"XBB_REFUSED_{name.upper()}")): name for name in REFUSALS
}
_OPERATIONS: Final[Mapping[int, str]] = {
    lib.XBB_OP_READ: "read",
    lib.XBB_OP_WRITE: "write",
    lib.XBB_OP_WRITE_BARRIER: "barrier",
    lib.XBB_OP_FLUSH_DISKCACHE: "flush",
    lib.XBB_OP_DISCARD: "discard",
}

ffi.new("struct xbb_faults *")  # fails at import if the header does not fit


def count_failures(state: object) -> int:
    """Requests of all rings that have failed so far, whoever is to blame; costs next to nothing."""
    return int(lib.xbb_state_failures(state))


def read_faults(state: object) -> Faults:
    """Of all rings of a mapped segment."""
    return together(_of_ring(state, ring) for ring in range(lib.xbb_state_rings(state)))


def _of_ring(state: object, ring: int) -> Faults:
    faults = ffi.new("struct xbb_faults *")
    lib.xbb_state_faults(state, ring, faults)  # what was torn is as if there were none
    disk: dict[tuple[str, int], int] = {}
    for entry in faults.disk:
        if entry.count:
            what = (_word(_DISK_OPERATIONS, entry.operation), int(entry.errnum))
            disk[what] = disk.get(what, 0) + int(entry.count)
    guest = dict.fromkeys(GUEST_KINDS, 0)
    for number, name in _REFUSALS.items():
        guest[REFUSALS[name][0]] += int(faults.guest[number])
    return Faults(
        disk,
        guest,
        _disk_fault(faults.last_disk),
        _guest_fault(faults.last_guest),
        _disk_fault(faults.last_held),
    )


def _disk_fault(fault: Any) -> DiskFault | None:
    if not fault.sequence:
        return None
    return DiskFault(
        operation=_word(_DISK_OPERATIONS, fault.operation),
        sector=int(fault.sector),
        sectors=int(fault.nsectors),
        errno=int(fault.errnum),
        reason=os.strerror(fault.errnum),
        shrunk=bool(fault.shrunk),
        time_ns=int(fault.when_ns),
    )


def _guest_fault(fault: Any) -> GuestFault | None:
    if not fault.sequence:
        return None
    return GuestFault(
        operation=_word(_OPERATIONS, fault.operation),
        sector=int(fault.sector),
        sectors=int(fault.nsectors),
        refusal=_word(_REFUSALS, fault.refusal),
        time_ns=int(fault.when_ns),
    )


def _word(words: Mapping[int, str], number: int) -> str:
    return words.get(number, f"operation {number}" if words is not _REFUSALS else f"{number}")
