"""What network cards did between two samples.

As netstat(1) shows it of their interfaces on this host: input is what came from the guest,
which its rings call tx; output is what went to it.  Pure; any thread.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from xbbd_bsd.net.oids import COUNTERS, DRIVER

INPUT: Final[Mapping[str, str]] = {
    "packets": "tx_packets",
    "errors": "tx_errors",
    "drops": "tx_dropped",
    "bytes": "tx_bytes",
}
OUTPUT: Final[Mapping[str, str]] = {
    "packets": "rx_packets",
    "errors": "rx_errors",
    "drops": "rx_dropped",
    "bytes": "rx_bytes",
}
"""Counters of a card by what netstat calls them."""


@dataclass(frozen=True, slots=True)
class CardRecord:
    """What a card has done since it was made; times in nanoseconds of the daemon's clock."""

    name: str
    unit: int
    domid: int
    guest: str
    handle: int
    mac: str
    interface: str
    bridge: str
    state: str
    now_ns: int
    created_ns: int | None
    takeovers: int
    counts: Mapping[str, int]
    refused: Mapping[str, int]

    @property
    def label(self) -> str:
        """Whose card it is: "guest:vif0"."""
        return f"{self.guest or self.domid}:vif{self.handle}"

    def follows(self, other: "CardRecord") -> bool:
        """Whether the counters are those of `other`, later: neither another card, nor a new one."""
        return (
            (self.domid, self.handle, self.mac) == (other.domid, other.handle, other.mac)
            and (self.created_ns == other.created_ns or None in (self.created_ns, other.created_ns))
            and self.now_ns >= other.now_ns
            and all(count >= other.counts.get(name, 0) for name, count in self.counts.items())
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one direction, in an interval of `elapsed` seconds."""

    packets: int
    errors: int
    drops: int
    bytes: int
    elapsed: float

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.elapsed

    @property
    def errors_per_second(self) -> float:
        return self.errors / self.elapsed

    @property
    def drops_per_second(self) -> float:
        return self.drops / self.elapsed

    @property
    def kib_per_second(self) -> float:
        return self.bytes / 1024 / self.elapsed

    @property
    def idle(self) -> bool:
        """Whether there was nothing at all."""
        return not (self.packets or self.errors or self.drops)

    def and_of(self, other: "Traffic") -> "Traffic":
        """Both in the same interval."""
        return Traffic(
            self.packets + other.packets,
            self.errors + other.errors,
            self.drops + other.drops,
            self.bytes + other.bytes,
            max(self.elapsed, other.elapsed),
        )


@dataclass(frozen=True, slots=True)
class CardRate:
    """What a card did in an interval."""

    record: CardRecord
    elapsed: float
    input: Traffic
    output: Traffic

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def idle(self) -> bool:
        """Whether it did nothing."""
        return self.input.idle and self.output.idle


def read_cards(stat: Mapping[str, Any]) -> dict[str, CardRecord]:
    """Those of the answer to `stat`, by name in order of unit.

    Cards without a state segment have no counters yet and are left out.
    """
    found = [
        _record(parts[0], values)
        for oid, values in stat.items()
        if (parts := DRIVER.split(oid)) is not None and not parts[1] and "net" in values
    ]
    return {record.name: record for record in sorted(found, key=lambda record: record.unit)}


def card_rate(record: CardRecord, before: CardRecord | None, elapsed_ns: int) -> CardRate:
    """What a card did since `before` (None: since there was none), so many nanoseconds ago."""
    elapsed = elapsed_ns / 1e9 if elapsed_ns > 0 else 1.0
    return CardRate(
        record, elapsed, *(_traffic(record, before, names, elapsed) for names in (INPUT, OUTPUT))
    )


def total(rates: list[CardRate], elapsed: float) -> tuple[Traffic, Traffic]:
    """What all of them did, input and output."""
    both = []
    for side in ("input", "output"):
        found = Traffic(0, 0, 0, 0, elapsed)
        for rate in rates:
            found = found.and_of(getattr(rate, side))
        both.append(found)
    return both[0], both[1]


def _traffic(
    record: CardRecord, before: CardRecord | None, names: Mapping[str, str], elapsed: float
) -> Traffic:
    counts = {
        what: record.counts[name] - (before.counts.get(name, 0) if before is not None else 0)
        for what, name in names.items()
    }
    return Traffic(**counts, elapsed=elapsed)


def _record(unit: int, values: Mapping[str, Any]) -> CardRecord:
    created = values.get("created_ns")
    counts = values["net"]
    return CardRecord(
        name=f"{DRIVER.name}{unit}",
        unit=unit,
        domid=int(values["domid"]),
        guest=str(values.get("guest", "")),
        handle=int(values.get("handle", 0)),
        mac=str(values.get("mac", "")),
        interface=str(values.get("interface", "")),
        bridge=str(values.get("bridge", "")),
        state=str(values["state"]),
        now_ns=int(values["now_ns"]),
        created_ns=None if created is None else int(created),
        takeovers=int(values.get("takeovers", 0)),
        counts=dict(_numbers({name: counts.get(name, 0) for name in COUNTERS})),
        refused=dict(_numbers(values.get("refused", {}))),
    )


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    return ((str(name), int(count)) for name, count in values.items())
