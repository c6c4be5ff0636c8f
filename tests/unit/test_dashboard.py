"""The Grafana dashboard: each metric and label that it names is one that the daemon gives.

Its queries were once run by a Prometheus; there is none here, nor a Grafana.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_card_metrics import CARD
from tests.unit.test_metrics import SNAPSHOT
from xbbd_bsd.block.oids import RECORDS
from xbbd_bsd.control.families import Collector, library

FILE = Path(__file__).parents[2] / "etc" / "grafana" / "xbbd.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
# Of every target, by Prometheus, and of histograms.
ADDED = {"instance", "job", "le"}
ENDINGS = {"counter": ("_total",), "info": ("_info",), "gauge": ("",)}
HISTOGRAM = ("_bucket", "_count", "_sum")
KINDS = {"bargauge", "row", "stat", "table", "timeseries"}


def given() -> dict[str, set[str]]:
    """Labels by metric."""
    found = {}
    for family in Collector({**SNAPSHOT, "dev.xnb.0": CARD}, library()).collect():
        labels = set(getattr(family, "_labelnames", ()))
        for sample in family.samples:
            labels |= set(sample.labels)
        for ending in ENDINGS.get(family.type, HISTOGRAM):
            found[f"{family.name}{ending}"] = labels
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DASHBOARD["panels"]
    return found


def targets() -> Iterator[dict[str, Any]]:
    for panel in panels():
        yield from panel.get("targets", ())


def named(query: str) -> list[str]:
    """The metrics of a query."""
    return re.findall(r"\bxbbd_\w+", query)


def labels_of(query: str) -> set[str]:
    """The labels that a query names."""
    lists = re.findall(r"\b(?:by|on|group_left|ignoring) \(([^)]*)\)", query)
    chosen = re.findall(r'[{,](\w+)=~?"', query)
    return {label.strip() for text in lists for label in text.split(",") if label.strip()} | set(
        chosen
    )


QUERIES = [target["expr"] for target in targets()]
CHOICES = [v["query"]["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]


@pytest.mark.parametrize("query", [*QUERIES, *CHOICES])
def test_every_metric_and_label_exists(query: str) -> None:
    there = given()
    metrics = named(query)
    assert metrics
    assert set(metrics) <= there.keys()
    known = set().union(*(there[name] for name in metrics)) | ADDED
    wanted = labels_of(query)
    if match := re.match(r"label_values\(.*, (\w+)\)$", query):
        wanted.add(match[1])
    assert wanted <= known


def test_counters_are_only_looked_at_as_rates() -> None:
    for query in QUERIES:
        for metric in re.findall(r"\bxbbd_\w+_(?:total|bucket)\b", query):
            assert re.search(rf"\b(?:rate|increase)\({metric}\b", query), query


def test_records_that_are_chosen_exist() -> None:
    chosen = {name for query in QUERIES for name in re.findall(r'record="(\w+)"', query)}
    assert chosen == set(RECORDS)


def test_legends_name_labels_that_are_left() -> None:
    """What is not in `by` is gone."""
    for target in targets():
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert re.search(rf"(?:by|group_left) \([^)]*\b{label}\b", target["expr"]), target


def test_every_metric_is_shown_but_those_that_say_nothing_by_themselves() -> None:
    shown = {name for query in QUERIES for name in named(query)}
    left_out = given().keys() - shown
    assert left_out == {
        "xbbd_build_info",
        "xbbd_disk_latency_seconds_count",
        "xbbd_disk_latency_seconds_sum",
        "xbbd_disk_ordered_operations_total",
        "xbbd_disk_queue_length",
    }


def test_variables_that_are_used_exist() -> None:
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", FILE.read_text()))
    assert used == variables


def test_the_shape_that_grafana_wants() -> None:
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= DASHBOARD.keys()
    numbers = [panel["id"] for panel in panels()]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["type"] in KINDS
        assert panel["title"]
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            names = [target["refId"] for target in panel["targets"]]
            assert len(names) == len(set(names)) >= 1
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
