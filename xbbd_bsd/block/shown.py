"""A disk as an operator sees it, with or without a state segment (family.Numbers).

Joins the numbers of the segment, what is known before there is one, and the errors that
nobody has seen to.  Control thread.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from xbbd_bsd.block.health import DiskFacts, of_one
from xbbd_bsd.block.numbers import Facts, SegmentNumbers
from xbbd_bsd.block.oids import RECORDS
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.findings import Finding
from xbbd_bsd.ledger import Group, Ledger
from xbbd_bsd.oids import Value
from xbbd_bsd.xenbus.family import Standing

_OF_STAT: Final = ("guest", "vdev", "path", "mode", "hung_seconds")


def disk_facts(
    unit: int, standing: Standing, group: Group, segment: SegmentNumbers | None, ledger: Ledger
) -> DiskFacts:
    """What is known of one disk, with the values of its groups."""
    medium, pause = group("medium"), group("pause")
    return DiskFacts(
        unit,
        guest=str(medium.get("guest", "")),
        vdev=str(medium.get("vdev", "")),
        path=str(medium.get("path", "")),
        errors=ledger.errors(unit, group),
        guest_errors=ledger.guest_errors(unit, group),
        hung_seconds=int(medium.get("hung_seconds", 0)),
        ages=segment.ages() if segment is not None else (),
        paused=str(pause.get("paused", "")),
        paused_since=int(pause.get("paused_since", 0)),
        paused_reason=str(pause.get("paused_reason", "")),
        path_state=str(medium.get("path_state", "")),
        held_back=standing.held_back,
        closed=standing.closed,
        by_guest=standing.by_guest,
    )


class DiskNumbers:
    """One disk; `segment` is None until there is one, `facts` are there before."""

    def __init__(
        self,
        unit: int,
        name: str,
        *,
        segment: SegmentNumbers | None,
        facts: Facts,
        process: Facts,
        configured: Callable[[], Mapping[str, Value]],
        ledger: Ledger,
    ) -> None:
        """`name` as messages have it.  `facts`: the group "medium" as far as it is known;
        `process`: that of this name.

        `configured`: the tunables as xbbd.conf has them for this disk.
        """
        self._unit = unit
        self._name = name
        self._segment = segment
        self._facts = facts
        self._process = process
        self._configured = configured
        self._ledger = ledger

    def group(self, name: str) -> Mapping[str, Value]:
        if self._segment is not None:
            return self._segment.group(name)
        groups = {"medium": self._facts, "process": self._process}
        return groups[name]() if name in groups else {}

    def rings(self) -> Sequence[int]:
        return self._segment.rings() if self._segment is not None else ()

    def ring(self, number: int) -> Mapping[str, Value]:
        assert self._segment is not None
        return self._segment.ring(number)

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        found: dict[str, Any] = {"names": [f"{record}{self._unit}" for record in RECORDS]}
        facts = self._facts()
        found.update({name: facts[name] for name in _OF_STAT if name in facts})
        found.update(self._process())
        if self._segment is not None:
            found.update(self._segment.stat(latency=latency))
            found.update(self._segment.group("pause"))
        return found

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        return self._segment.inflight() if self._segment is not None else ()

    def configured(self) -> Mapping[str, Value]:
        return self._configured() if self._segment is not None else {}

    def set(self, name: str, value: int, where: str) -> None:
        if self._segment is None:
            raise OperatorError(f"{self._name} has no state segment")
        self._segment.set(name, value, where)

    def health(
        self, standing: Standing, bound: float, shared: Sequence[Finding], *, alone: bool
    ) -> list[Finding]:
        facts = disk_facts(self._unit, standing, self.group, self._segment, self._ledger)
        return of_one(facts, bound, shared, alone=alone)
