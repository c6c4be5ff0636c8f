"""What an operator sees of one card, and may change: by the names of net/oids.py.

Read off its state segment, which costs the data path nothing; where its rings stand just
now is asked of the queues.  Control thread.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from xbbd_bsd.config import NetConfig, check_tunable
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.findings import Finding
from xbbd_bsd.native import (
    NetIndices,
    NetRefusal,
    NetRingIndices,
    NetRingView,
    NetState,
    Transport,
    self_test,
)
from xbbd_bsd.net.health import CardFacts, of_card
from xbbd_bsd.net.oids import TUNABLES
from xbbd_bsd.net.queues import in_words
from xbbd_bsd.oids import Value
from xbbd_bsd.xenbus.family import Standing

Facts = Callable[[], Mapping[str, Value]]
Indices = Callable[[], Mapping[int, NetIndices]]

_DATA_PATHS: Final[dict[int, str]] = {Transport.MAP: "map", Transport.COPY: "copy"}
_INDICES: Final = tuple(field.name for field in fields(NetRingIndices))
_UNKNOWN: Final[Mapping[str, tuple[Value, Value]]] = dict.fromkeys(_INDICES, ("-", "-"))
_NS: Final = 1_000_000_000


class CardNumbers:
    """One card; without a state segment until there is one (family.Numbers)."""

    def __init__(
        self,
        unit: int,
        name: str,
        *,
        segment: NetState | None,
        created_ns: int,
        facts: Facts,
        process: Facts,
        indices: Indices,
        config: NetConfig,
    ) -> None:
        """`name` as messages have it; `created_ns`: when the segment was made.

        `facts`: leaves of the group "card" that no segment has; `process`: those of the
        group of that name.  `indices`: where the rings of each queue stand, as far as they are
        served here.
        """
        self._unit = unit
        self._name = name
        self._segment = segment
        self._created_ns = created_ns
        self._facts = facts
        self._process = process
        self._indices = indices
        self._config = config

    def group(self, name: str) -> Mapping[str, Value]:
        match name:
            case "card":
                return {**self._facts(), **self._negotiated()}
            case "process":
                return self._process()
            case "limits":
                return {
                    key: value if isinstance(value, str) else int(value)
                    for key in (field.name for field in fields(NetConfig))
                    if key not in TUNABLES
                    for value in (getattr(self._config, key),)
                }
            case "debug":
                return {"dump_rings": self._dump(), "unit_test_results": _test_results()}
        if self._segment is None:
            return {}
        match name:
            case "tunables":
                return self._segment.tunables()
            case "counters":
                return self._segment.counters()
            case "refusals":
                return _refusals(self._segment.refusals())
            case "takeovers":
                return {"takeovers": self._segment.takeovers}
        return {}

    def rings(self) -> Sequence[int]:
        return self._segment.served if self._segment is not None else ()

    def ring(self, number: int) -> Mapping[str, Value]:
        assert self._segment is not None
        view = self._segment.queue(number)
        return {
            "tx_req_cons": view.tx_req_cons,
            "tx_rsp_prod": view.tx_rsp_prod,
            "rx_req_cons": view.rx_req_cons,
            "rx_rsp_prod": view.rx_rsp_prod,
            **self._segment.counters(number),
            **_refusals(self._segment.refusals(number)),
        }

    def stat(self, *, latency: bool) -> Mapping[str, Any]:
        """The groups "card" and "process", with a segment the counters as "net" and "refused".

        With these go "now_ns", "created_ns" and "takeovers".
        """
        found: dict[str, Any] = {**self.group("card"), **self._process()}
        if self._segment is not None:
            found |= {
                "now_ns": time.monotonic_ns(),
                "created_ns": self._created_ns,
                "takeovers": self._segment.takeovers,
                "net": self._segment.counters(),
                "refused": {
                    why.name.lower(): count for why, count in self._segment.refusals().items()
                },
            }
        return found

    def inflight(self) -> Sequence[Mapping[str, Value]]:
        """Packets do not stay long enough to be looked at."""
        return ()

    def configured(self) -> Mapping[str, Value]:
        return self._config.tunables() if self._segment is not None else {}

    def set(self, name: str, value: int, where: str) -> None:
        if self._segment is None:
            raise OperatorError(f"{self._name} has no state segment")
        check_tunable(name, value, where)
        self._segment.set_tunable(name, value)

    def health(
        self, standing: Standing, bound: float, shared: Sequence[Finding], *, alone: bool
    ) -> list[Finding]:
        card = self.group("card")
        facts = CardFacts(
            self._unit,
            guest=str(card.get("guest", "")),
            mac=str(card.get("mac", "")),
            interface=str(card.get("interface", "")),
            connected=bool(card["queues"]),
            interface_up=bool(card.get("interface_up", 0)),
            full_seconds=max(map(_full_seconds, self._views()), default=0.0),
            refused=sum(self._segment.refusals().values()) if self._segment is not None else 0,
            standing=standing,
        )
        return of_card(facts, bound)

    def _views(self) -> list[NetRingView]:
        if self._segment is None:
            return []
        return [self._segment.queue(number) for number in self._segment.served]

    def _negotiated(self) -> dict[str, Value]:
        views = self._views()
        if not views:
            return {
                "queues": 0,
                "accepts": "",
                "link_offload": "",
                "data_path": "",
                "rx_full_seconds": 0,
            }
        offload = views[0].offload
        return {
            "queues": len(views),
            "accepts": in_words(views[0].accepts),
            "link_offload": getattr(offload, "name", str(offload)).lower(),
            "data_path": _DATA_PATHS.get(views[0].transport, str(int(views[0].transport))),
            "rx_full_seconds": int(max(map(_full_seconds, views))),
        }

    def _dump(self) -> str:
        """Both rings of each queue, side by side; "" as long as there are none."""
        return "".join(
            f"\n{f'queue {number}':>16} {'TX':>18} {'RX':>18}"
            + "".join(f"\n{name:>16} {tx:>18} {rx:>18}" for name, (tx, rx) in rows.items())
            for number, rows in self._dumped()
        )

    def _dumped(self) -> Iterator[tuple[int, Mapping[str, tuple[Value, Value]]]]:
        """What is shown of each queue, by name; "-": only who has the guest's pages knows."""
        here = self._indices()
        for number in self.rings():
            if number in here:
                tx, rx = here[number].tx, here[number].rx
                yield number, {name: (getattr(tx, name), getattr(rx, name)) for name in _INDICES}
            else:
                yield number, {**_UNKNOWN, **self._own_indices(number)}

    def _own_indices(self, number: int) -> Mapping[str, tuple[Value, Value]]:
        assert self._segment is not None
        view = self._segment.queue(number)
        return {
            "req_cons": (view.tx_req_cons, view.rx_req_cons),
            "nr_ents": (view.max_requests, view.max_requests),
            "rsp_prod_pvt": (view.tx_answering, view.rx_answering),
            "rsp_prod": (view.tx_rsp_prod, view.rx_rsp_prod),
        }


def _refusals(counts: Mapping[NetRefusal, int]) -> dict[str, Value]:
    return {f"refused.{why.name.lower()}": count for why, count in counts.items()}


def _full_seconds(view: NetRingView) -> float:
    """For how long the guest has posted too few buffers."""
    since = view.rx_full_since_ns
    return max(0, time.monotonic_ns() - since) / _NS if since else 0.0


def _test_results() -> str:
    """The self-test, run now: what does not hold by name, and how much does."""
    results = [*self_test()]
    failed = [name for name, holds in results if not holds]
    lines = [f"\n{name} FAILED" for name in failed]
    lines.append(f"\n{len(results) - len(failed)} Tests Passed")
    if failed:
        lines.append(f"\n{len(failed)} Tests FAILED")
    return "".join(lines)
