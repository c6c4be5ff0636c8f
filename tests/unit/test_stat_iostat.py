"""The layouts of iostat(8), character by character, and of CSV and JSON."""

import json
from typing import Any

import pytest

from tests.unit.test_stat_sample import NEW, OLD, device, record, sample
from xbbd_bsd.stat import iostat
from xbbd_bsd.stat.export import csv_header, csv_lines, json_lines
from xbbd_bsd.stat.export import milliseconds as gstat_milliseconds
from xbbd_bsd.stat.sample import Rate, compare


def rates() -> list[Rate]:
    latency = {"read": {"100": 10}, "write": {}, "flush": {}, "discard": {}}
    before = sample(device(0, OLD, latency={}), device(0, record()))
    new = device(2, {**NEW, "errors": {"write": 8}}, {**NEW, "errors": {"read_only": 3}})
    return compare(sample({**new, "latency": latency}, device(2, record())), before)


def test_extended() -> None:
    assert iostat.extended(rates()[1:3], totals=False) == [
        "                        extended device statistics",
        "device       r/s     w/s     kr/s     kw/s  ms/r  ms/w  ms/o  ms/t qlen  %b  e/s",
        "xbbi0         20      15    200.0   2048.0 5.000 100.0 50.00 52.22    3  62  1.5",
        "xbb1           0       0      0.0      0.0 0.000 0.000 0.000 0.000    0   0    0",
    ]


def test_extended_totals() -> None:
    assert iostat.extended(rates()[:1], totals=True) == [
        "                        extended device statistics",
        "device           r/i         w/i         kr/i         kw/i qlen   tsvc_t/i      sb/i"
        "      e/i",
        "xbb0            40.0        30.0        400.0       4096.0    3        4.7       1.2"
        "        8",
    ]


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [(0, "0"), (1e-9, "0.1"), (0.1, "0.1"), (9.94, "9.9"), (9.96, "10"), (19796.4, "19796")],
)
def test_errors(per_second: float, shown: str) -> None:
    """One that there was is never shown as none."""
    assert iostat.errors(per_second) == shown


SERVED: dict[str, Any] = {
    "process": 4711,
    "process_rss_kb": 5300,
    "process_age": 70,
    "takeovers": 3,
}


def test_who_serves_it() -> None:
    """Only if it is asked for; of a daemon that does not say there are zeros."""
    found = compare(sample(device(2, NEW, **SERVED), device(2, NEW)), None)[1:3]
    for totals in (False, True):
        plain = iostat.extended(found, totals=totals)
        more = iostat.extended(found, totals=totals, process=True)
        assert more[0] == plain[0]
        assert [line.removeprefix(plain[n + 1]) for n, line in enumerate(more[1:])] == [
            "     pid     rss     age takeovers",
            "    4711    5300      70         3",
            "       0       0       0         0",
        ]
    header = csv_header(deletes=False, others=False)
    assert csv_header(deletes=False, others=False, process=True) == (
        f"{header},pid,rss-KiB,age-s,takeovers"
    )
    (line,) = csv_lines(found[:1], "now", deletes=False, others=False)
    (more_of_it,) = csv_lines(found[:1], "now", deletes=False, others=False, process=True)
    assert more_of_it == f"{line},4711,5300,70,3"
    assert json.loads(json_lines(found, 0)[0])["process"] == {
        "pid": 4711, "rss_kb": 5300, "age": 70, "takeovers": 3
    }  # fmt: skip


def test_a_line_fits_a_terminal() -> None:
    assert {len(line) for line in iostat.extended(rates(), totals=False)[1:]} == {80}


def test_columns() -> None:
    found = rates()
    assert [*iostat.header(found, totals=False), iostat.columns(found, totals=False)] == [
        "            xbb0            xbbi0             xbb1            xbbi1",
        "  KB/t tps  MB/s   KB/t tps  MB/s   KB/t tps  MB/s   KB/t tps  MB/s",
        " 163.73  45  7.20  163.73  45  7.20   0.00   0  0.00   0.00   0  0.00",
    ]
    assert iostat.header(found[:1], totals=True)[1] == "  KB/t xfrs   MB"
    assert iostat.columns(found[:1], totals=True) == " 163.73  90 14.39"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.000"),
        (0.0234, "0.023"),
        (9.9994, "9.999"),
        (9.9996, "10.00"),
        (99.994, "99.99"),
        (99.996, "100.0"),
        (999.94, "999.9"),
        (999.96, " 1000"),
        (123456.0, "123456"),
    ],
)
def test_milliseconds(value: float, shown: str) -> None:
    assert iostat.milliseconds(value) == shown


def test_what_is_idle() -> None:
    assert [iostat.busy(rate) for rate in rates()] == [True, True, False, False]


HEADER = "timestamp,name,q-depth,total_ops/s,read/s,read-KiB/s,ms/read,write/s,write-KiB/s,ms/write"


@pytest.mark.parametrize(
    ("deletes", "others", "header", "line"),
    [
        (False, False, f"{HEADER},%busy,error/s", "20,200,5.0,15,2048,100.0,62.5,4.000"),
        (
            True,
            True,
            f"{HEADER},delete/s,delete-KiB/s,ms/delete,other/s,ms/other,%busy,error/s",
            "20,200,5.0,15,2048,100.0,5,5120,100.0,5,50.0,62.5,4.000",
        ),
        (
            False,
            True,
            f"{HEADER},other/s,ms/other,%busy,error/s",
            "20,200,5.0,15,2048,100.0,5,50.0,62.5,4.000",
        ),
    ],
)
def test_csv_is_gstats(deletes: bool, others: bool, header: str, line: str) -> None:
    assert csv_header(deletes=deletes, others=others) == header
    assert csv_lines(rates()[:1], "2026-08-01 12:00:00.5", deletes=deletes, others=others) == [
        f"2026-08-01 12:00:00.5,xbb0,3,45,{line}"
    ]
    assert len(line.split(",")) + 4 == len(header.split(","))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.000"), (1.0, "1.000"), (1.01, "1.0"), (1000, "1000.0"), (1001, "1001")],
)
def test_gstats_decimals(value: float, shown: str) -> None:
    assert gstat_milliseconds(value) == shown


def test_json() -> None:
    lines = json_lines(rates(), 1_780_000_000.25)
    assert all("\n" not in line for line in lines)
    found = [json.loads(line) for line in lines]
    assert [one["name"] for one in found] == ["xbb0", "xbbi0", "xbb1", "xbbi1"]
    first = found[1]
    assert first["time"] == 1_780_000_000.25
    assert (first["device"], first["record"]) == ("dev.xbbd.0", "xbbi")
    assert (first["domid"], first["guest"], first["vdev"]) == (3, "vm", "xvda")
    assert (first["path"], first["state"]) == ("/tank/vm", "Connected")
    assert (first["elapsed_s"], first["queue_length"]) == (2.0, 3)
    assert (first["busy_s"], first["busy_percent"]) == (1.25, 62.5)
    assert first["write"] == {
        "operations": 30,
        "bytes": 4 << 20,
        "duration_ns": 3_000_000_000,
        "per_second": 15.0,
        "kib_per_second": 2048.0,
        "ms_per_operation": 100.0,
        "latency_ms": {},
    }
    assert set(first["read"]["latency_ms"]) == {"p50", "p90", "p99", "p99.9"}
    assert "latency_ms" not in found[0]["read"]
    assert first["total"]["operations"] == 90
    assert (found[0]["errors"], found[0]["errors_per_second"]) == ({"write": 8}, 4.0)
    assert (first["errors"], first["errors_per_second"]) == ({"read_only": 3}, 1.5)
