"""What the metrics say of network cards: text, with directions that are a host's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import generate_latest

from tests.unit.test_metrics import DAEMON
from xbbd_bsd.control.families import Collector, library
from xbbd_bsd.net.oids import COUNTERS, REFUSALS

CARD: Mapping[str, Any] = {
    "domid": 3,
    "guest": "vm",
    "handle": 1,
    "mac": "00:16:3e:01:02:03",
    "interface": "vif3.1",
    "bridge": "xenbr0",
    "state": "Connected",
    "queues": 2,
    "rx_full_seconds": 7,
    "takeovers": 1,
    "process": 77,
    "process_rss_kb": 3,
    "process_age": 9,
    "net": {**dict.fromkeys(COUNTERS, 0), "tx_packets": 5, "rx_bytes": 6, "tx_dropped": 8},
    "refused": {"bad_grant": 9},
}
BARE = {"domid": 4, "state": "InitWait", "queues": 0}


def text(**devices: Mapping[str, Any]) -> str:
    snapshot = {"hw.xbbd": DAEMON, **{f"dev.xnb.{oid[1:]}": card for oid, card in devices.items()}}
    collector = Collector(snapshot, library())
    return generate_latest(collector).decode()


@pytest.mark.parametrize(
    "line",
    [
        "xbbd_cards 2.0",
        "xbbd_disks 0.0",
        'xbbd_card_info{bridge="xenbr0",device="dev.xnb.0",domid="3",guest="vm",handle="1",'
        'interface="vif3.1",mac="00:16:3e:01:02:03",unit="0"} 1.0',
        'xbbd_card_connected{device="dev.xnb.0"} 1.0',
        'xbbd_card_connected{device="dev.xnb.1"} 0.0',
        'xbbd_card_queues{device="dev.xnb.0"} 2.0',
        'xbbd_card_rx_full_seconds{device="dev.xnb.0"} 7.0',
        'xbbd_card_takeovers_total{device="dev.xnb.0"} 1.0',
        'xbbd_card_process_resident_memory_bytes{device="dev.xnb.0"} 3072.0',
        'xbbd_card_process_age_seconds{device="dev.xnb.0"} 9.0',
        'xbbd_card_packets_total{card="vif1",device="dev.xnb.0",direction="input",guest="vm"} 5.0',
        'xbbd_card_bytes_total{card="vif1",device="dev.xnb.0",direction="output",guest="vm"} 6.0',
        'xbbd_card_drops_total{card="vif1",device="dev.xnb.0",direction="input",guest="vm"} 8.0',
    ],
)
def test_what_is_told(line: str) -> None:
    assert f"\n{line}\n" in text(_0=CARD, _1=BARE)


def test_every_reason_has_a_metric_before_there_is_one() -> None:
    """And a card without a segment, which counts nothing, has none."""
    told = text(_0=CARD, _1=BARE)
    for reason in REFUSALS:
        count = 9.0 if reason == "bad_grant" else 0.0
        who = 'card="vif1",device="dev.xnb.0",guest="vm"'
        assert f'xbbd_card_refused_total{{{who},reason="{reason}"}} {count}\n' in told
    assert 'packets_total{card="vif0"' not in told
