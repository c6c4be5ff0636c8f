"""What xbbstat shows of network cards: literal counters, literal lines of netstat's and ours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.test_stat_sample import DAEMON, SECOND, START
from tests.unit.test_stat_sample import OLD as DISK
from tests.unit.test_stat_sample import device as disk
from tests.unit.test_stat_watch import FakeTime, Script
from xbbd_bsd import xbbstat
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.net.oids import COUNTERS
from xbbd_bsd.stat.cards import CardRate
from xbbd_bsd.stat.choice import Choice, names_of, types_of
from xbbd_bsd.stat.report import CardReports, Form, Plan
from xbbd_bsd.stat.sample import Sample, compare_cards, read_sample
from xbbd_bsd.stat.watch import Watch


def card(at: float, **counts: int) -> dict[str, Any]:
    """What the daemon says of a card, so many seconds after the start."""
    facts = ("created_ns", "domid", "handle")
    more: dict[str, Any] = {name: counts.pop(name) for name in facts if name in counts}
    return {
        "domid": 3,
        "guest": "vm",
        "handle": 0,
        "mac": "00:16:3e:01:02:03",
        "interface": "vif3.0",
        "bridge": "xenbr0",
        "state": "Connected",
        "now_ns": START + int(at * SECOND),
        "takeovers": 1,
        "net": {**dict.fromkeys(COUNTERS, 0), **counts},
        "refused": {"bad_grant": counts.get("tx_errors", 0)},
        **more,
    }


def sample(*cards: dict[str, Any], pid: int = 77) -> Sample:
    found = {f"dev.xnb.{unit}": values for unit, values in enumerate(cards)}
    found["dev.xbbd.0"] = disk(0, DISK)
    return read_sample(found, {**DAEMON, "hw.xbbd.pid": pid})


OLD = card(0, tx_packets=100, tx_bytes=10240, rx_packets=50, rx_bytes=5120)
NEW = card(
    2, tx_packets=300, tx_errors=2, tx_dropped=4, tx_bytes=1034240,
    rx_packets=1050, rx_errors=6, rx_dropped=8, rx_bytes=2053120,
)  # fmt: skip


def rate(before: dict[str, Any] | None, now: dict[str, Any], pid: int = 77) -> CardRate:
    previous = None if before is None else sample(before)
    (found,) = compare_cards(sample(now, pid=pid), previous)
    return found


# Arithmetic.


def test_input_is_what_came_from_the_guest() -> None:
    found = rate(OLD, NEW)
    assert (found.name, found.record.label, found.elapsed) == ("xnb0", "vm:vif0", 2.0)
    into, out = found.input, found.output
    assert (into.packets, into.errors, into.drops, into.bytes) == (200, 2, 4, 1024000)
    assert (out.packets, out.errors, out.drops, out.bytes) == (1000, 6, 8, 2048000)
    assert (into.packets_per_second, into.kib_per_second) == (100.0, 500.0)
    assert (out.errors_per_second, out.drops_per_second) == (3.0, 4.0)


@pytest.mark.parametrize(
    "now",
    [
        card(2, tx_packets=30, domid=4),
        card(2, tx_packets=30, handle=1),
        card(2, tx_packets=30),  # fewer than before
        card(2, tx_packets=130, created_ns=START),
    ],
)
def test_another_card_begins_anew(now: dict[str, Any]) -> None:
    before = {**OLD, "created_ns": START - SECOND} if "created_ns" in now else OLD
    assert rate(before, now).input.packets == now["net"]["tx_packets"]


def test_without_a_sample_before_it_is_since_the_card_was_made() -> None:
    found = rate(None, card(2, tx_packets=80, created_ns=START - 2 * SECOND))
    assert (found.elapsed, found.input.packets_per_second) == (4.0, 20.0)
    assert rate(None, OLD).elapsed == 50.0, "the daemon's age"
    assert rate(NEW, OLD, pid=78).input.packets == 100, "another daemon counts anew"


def test_a_card_without_a_segment_is_left_out() -> None:
    bare = {name: value for name, value in OLD.items() if name not in ("net", "now_ns", "refused")}
    assert list(sample(bare, OLD).cards) == ["xnb1"]
    assert sample().cards == {}


def test_what_is_no_answer() -> None:
    with pytest.raises(ValueError, match="unexpected answer: KeyError: 'domid'"):
        sample({"net": {}})


# Reports.

NETSTAT = Plan(Form.NETSTAT, Choice(names=("xnb0",)), 1.0, None)


def written(plan: Plan, *samples: Sample) -> list[str]:
    """All lines of a plan that ends with these."""
    time, lines = FakeTime(), []  # type: tuple[FakeTime, list[str]]
    watch = Watch(Script(*samples), time.clock())
    reports = CardReports(plan, watch, time.clock(), lines.append, lines.append, lambda: 20)
    try:
        reports.run()
    except IndexError:  # no answer is left
        assert plan.count is None
    return "".join(lines).splitlines()


def test_netstats_heading_and_line() -> None:
    """Of interval after interval; what there was before is not in it."""
    assert written(NETSTAT, sample(OLD), sample(NEW), sample(NEW)) == [
        "            input            xnb0          output",
        "   packets  errs idrops      bytes    packets  errs      bytes colls",
        "       200     2     4    1024000       1000     6    2048000     0",
        "         0     0     0          0          0     0          0     0",
    ]


def test_drops_of_the_output_and_all_cards_together() -> None:
    plan = Plan(Form.NETSTAT, Choice(types=(types_of("xnb"),)), 1.0, None, deletes=True)
    other = card(2, domid=4, tx_packets=1, rx_dropped=1)
    assert written(plan, sample(OLD, card(0, domid=4)), sample(NEW, other)) == [
        "            input         (Total)          output",
        "   packets  errs idrops      bytes    packets  errs      bytes colls drops",
        "       201     2     4    1024000       1000     6    2048000     0     9",
    ]


def test_one_report_is_of_all_the_time_before() -> None:
    plan = Plan(Form.NETSTAT, Choice(names=("xnb0",)), 1.0, 1)
    (*_, line) = written(plan, sample(NEW))
    assert line.split() == ["300", "2", "4", "1034240", "1050", "6", "2053120", "0"]
    with pytest.raises(OperatorError, match=r"^xnb0: no such device$"):
        written(plan, sample())


def test_a_line_a_card() -> None:
    plan = Plan(Form.EXTENDED, Choice(types=(types_of("xnb"),)), 1.0, 2, idle=False)
    samples = sample(OLD, card(0, domid=4)), sample(NEW, card(2, domid=4))
    assert written(plan, *samples)[-2:] == [
        "device   ipkts/s  ierr/s idrop/s    ikB/s   opkts/s  oerr/s odrop/s    okB/s",
        "xnb0         100     1.0     2.0    500.0       500     3.0     4.0   1000.0",
    ]
    totals = Plan(Form.EXTENDED, Choice(types=(types_of("xnb"),)), 1.0, 2, totals=True)
    assert written(totals, *samples)[-3:] == [
        "device   ipkts/i  ierr/i idrop/i    ikB/i   opkts/i  oerr/i odrop/i    okB/i",
        "xnb0         200       2       4   1000.0      1000       6       8   2000.0",
        "xnb1           0       0       0      0.0         0       0       0      0.0",
    ]


def test_comma_separated() -> None:
    header, line = written(Plan(Form.CSV, NETSTAT.choice, 1.0, 1), sample(OLD), sample(NEW))
    assert header == (
        "timestamp,name,ipackets/s,ierrors/s,idrops/s,iKiB/s,opackets/s,oerrors/s,odrops/s,oKiB/s"
    )
    assert line.partition(",")[2] == "xnb0,100,1.000,2.000,500.0,500,3.000,4.000,1000.0"


def test_json() -> None:
    first, second = map(
        json.loads, written(Plan(Form.JSON, NETSTAT.choice, 1.0, 2), sample(OLD), sample(NEW))
    )
    assert (first["name"], first["device"], first["elapsed_s"]) == ("xnb0", "dev.xnb.0", 50.0)
    assert (second["interface"], second["bridge"], second["mac"]) == (
        "vif3.0", "xenbr0", "00:16:3e:01:02:03",
    )  # fmt: skip
    assert second["input"] == {
        "packets": 200, "errors": 2, "drops": 4, "bytes": 1024000, "packets_per_second": 100.0,
        "errors_per_second": 1.0, "drops_per_second": 2.0, "kib_per_second": 500.0,
    }  # fmt: skip
    assert (second["refused"], second["takeovers"]) == ({"bad_grant": 2}, 1)
    assert set(second["counters"]) == set(COUNTERS)


# Which are shown.


def test_names_and_the_filter() -> None:
    rates = compare_cards(sample(NEW, card(0, domid=4, handle=2)), None)

    def chosen(**how: Any) -> list[str]:
        return [rate.name for rate in Choice(**how).of_cards(rates)]

    assert names_of("dev.xnb.1") == names_of("xnb1") == ("xnb1",)
    assert chosen() == ["xnb0", "xnb1"]
    assert chosen(names=("xnb1",)) == ["xnb1"]
    assert chosen(filter="vif2$") == ["xnb1"]
    assert chosen(filter="^vm:", most=1) == ["xnb0"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["xbb0", "xnb0"], "disks and network cards are not shown together"),
        (["-t", "xnb", "xbb0"], "disks and network cards are not shown together"),
        (["-t", "xnb", "-t", "da"], "disks and network cards are not shown together"),
        (["-t", "xnb,xbb"], "must name one item of each category"),
        (["-i", "xnb0"], "network cards have no -i, -b or -B: plain, -x, -C or -j"),
        (["-b", "xnb0"], "network cards have no -i"),
        (["-s", "e/s", "xnb0"], "-s is of disks"),
        (["-a", "xnb0"], "-a is of disks"),
        (["-x", "-v", "xnb0"], "-v is of disks"),
        (["xnb01"], "must be like xbb0, xbbi0, dev.xbbd.0 or xnb0"),
    ],
)
def test_what_cannot_be_asked(
    words: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        xbbstat.main(words)
    assert error in capsys.readouterr().err


def test_the_form_of_a_plain_report() -> None:
    def form(*words: str) -> tuple[Form, bool, int | None]:
        plan = xbbstat._plan(xbbstat._parser().parse_args(words))
        return plan.form, plan.choice.cards, plan.count

    assert form("xnb0") == (Form.NETSTAT, True, 1)
    assert form("-w", "1", "-t", "xnb") == (Form.NETSTAT, True, None)
    assert form("-x", "dev.xnb.0", "1", "2") == (Form.EXTENDED, True, 2)
    assert form() == (Form.COLUMNS, False, 1), "disks, as ever"
