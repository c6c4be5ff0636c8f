"""What there is to say of network cards, as families of metrics for prometheus_client.

Directions are a host's: input is what came from the guest, output what went to it, as
xbbstat and netstat(1) have it of the card's interface.  A snapshot is as families.py has
it.  Runs on the metrics thread.
"""

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Final

from xbbd_bsd.net.oids import DRIVER, REFUSALS

DIRECTIONS: Final[Mapping[str, str]] = {"input": "tx", "output": "rx"}
"""And what the rings call them, which are the guest's."""

_LABELS: Final = ["device", "guest", "card"]


def card_families(
    snapshot: Mapping[str, Mapping[str, Any]], prometheus: ModuleType
) -> Iterator[Any]:
    """Every family of cards; without metrics where there are none."""
    core = prometheus.metrics_core
    cards = {
        oid: values
        for oid, values in snapshot.items()
        if (parts := DRIVER.split(oid)) is not None and not parts[1]
    }
    yield core.GaugeMetricFamily("xbbd_cards", "Network cards there are", value=len(cards))
    yield from _facts(cards, core)
    counted = {oid: values for oid, values in cards.items() if "net" in values}
    yield from _traffic(counted, core)
    yield _refused(counted, core)


def _facts(cards: Mapping[str, Mapping[str, Any]], core: Any) -> Iterator[Any]:
    """Whose a card is, and how it is."""
    info = core.InfoMetricFamily("xbbd_card", "Whose network card a device is", labels=["device"])
    connected = core.GaugeMetricFamily(
        "xbbd_card_connected", "Whether a guest is connected", labels=["device"]
    )
    queues = core.GaugeMetricFamily(
        "xbbd_card_queues", "Queues in use, each of two rings", labels=["device"]
    )
    full = core.GaugeMetricFamily(
        "xbbd_card_rx_full_seconds",
        "For how long the guest has posted too few buffers",
        labels=["device"],
    )
    takeovers = core.CounterMetricFamily(
        "xbbd_card_takeovers",
        "Times that another process went on where the one that served it had died",
        labels=["device"],
    )
    memory = core.GaugeMetricFamily(
        "xbbd_card_process_resident_memory_bytes",
        "Memory resident of the process that serves it",
        labels=["device"],
    )
    age = core.GaugeMetricFamily(
        "xbbd_card_process_age_seconds",
        "Seconds since the process that serves it began",
        labels=["device"],
    )
    for oid, values in cards.items():
        names = ("domid", "guest", "handle", "mac", "interface", "bridge")
        facts = {name: _text(values.get(name, "")) for name in names}
        info.add_metric([oid], {"unit": oid.rpartition(".")[2], **facts})
        connected.add_metric([oid], int(values.get("state") == "Connected"))
        queues.add_metric([oid], int(values.get("queues", 0)))
        full.add_metric([oid], int(values.get("rx_full_seconds", 0)))
        if values.get("process"):
            memory.add_metric([oid], values["process_rss_kb"] * 1024)
            age.add_metric([oid], values["process_age"])
        if "net" in values:
            takeovers.add_metric([oid], int(values.get("takeovers", 0)))
    yield from (info, connected, queues, full, takeovers, memory, age)


def _traffic(cards: Mapping[str, Mapping[str, Any]], core: Any) -> Iterator[Any]:
    """What went through them, in both directions."""
    for name, text, counter in (
        ("xbbd_card_packets", "Packets of the guest and to it", "packets"),
        ("xbbd_card_bytes", "Bytes of these", "bytes"),
        ("xbbd_card_errors", "Packets refused, or lost for pages of the guest's", "errors"),
        ("xbbd_card_drops", "Packets that interface or guest would not have", "dropped"),
        ("xbbd_card_split_frames", "Frames made of larger ones", "split"),
        ("xbbd_card_summed_frames", "Frames with sums filled in", "summed"),
    ):
        family = core.CounterMetricFamily(name, text, labels=[*_LABELS, "direction"])
        for oid, values in cards.items():
            for direction, ring in DIRECTIONS.items():
                count = values["net"].get(f"{ring}_{counter}", 0)
                family.add_metric([*_labels(oid, values), direction], count)
        yield family


def _refused(cards: Mapping[str, Mapping[str, Any]], core: Any) -> Any:
    """Of each reason before there is one, so that the first is an increase."""
    refused = core.CounterMetricFamily(
        "xbbd_card_refused",
        "Packets refused, the guest's fault",
        labels=[*_LABELS, "reason"],
    )
    for oid, values in cards.items():
        for reason in REFUSALS:
            refused.add_metric([*_labels(oid, values), reason], values["refused"].get(reason, 0))
    return refused


def _labels(oid: str, values: Mapping[str, Any]) -> list[str]:
    return [oid, _text(values.get("guest", "")), f"vif{values.get('handle', 0)}"]


def _text(value: object) -> str:
    """A label's value: what is no UTF-8 is escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode()
