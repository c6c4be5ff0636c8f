"""What an operator sees of a card: names against the data path, values of a real one."""

from __future__ import annotations

import json
import re
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.net_bench import IDENTITY, NAME, NetBench
from tests.unit.test_net_family import FRAME, HEADER, crosses
from tests.unit.test_numbers import ALPHABETS, FIRST
from tests.waiting import eventually
from xbbd_bsd.config import Config, NetConfig
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.findings import Kind, Severity
from xbbd_bsd.native import NET_COUNTERS, NET_TUNABLES, NetRefusal
from xbbd_bsd.net import numbers as numbers_module
from xbbd_bsd.net.oids import COUNTERS, DRIVER, REFUSALS, TUNABLES
from xbbd_bsd.oids import Type, declared
from xbbd_bsd.xenbus.family import Standing

WELL = Standing()


def test_every_counter_of_the_data_path_is_described() -> None:
    assert set(COUNTERS) == set(NET_COUNTERS)
    assert set(REFUSALS) == {why.name.lower() for why in NetRefusal}
    assert set(TUNABLES) == set(NET_TUNABLES)


def test_names_are_those_of_the_kernels_driver() -> None:
    names = dict(declared(DRIVER))
    assert names["dev.xnb.N.dump_rings"].type is Type.STRING
    assert names["dev.xnb.N.unit_test_results"].description == "Results of builtin unit tests"
    assert DRIVER.oid(3, "tx_packets") == "dev.xnb.3.tx_packets"
    assert len(DRIVER.leaves) == sum(map(len, DRIVER.groups.values())), "each name is one leaf"


def test_every_leaf_of_a_connected_card_has_a_value_of_its_type(card: NetBench) -> None:
    card.open()
    card.connect()
    crosses(card)
    numbers = card.backend.numbers()
    for group, leaves in DRIVER.own.items():
        values = numbers.group(group)
        assert set(values) == {leaf.name for leaf in leaves}, group
        for leaf in leaves:
            assert isinstance(values[leaf.name], str) == (leaf.type is Type.STRING), leaf.name
    assert numbers.rings() == [0]
    assert set(numbers.ring(0)) == set(DRIVER.ring_leaves)
    assert numbers.group("medium") == {}
    assert numbers.inflight() == ()


def test_what_there_is_of_one_that_is_not_offered_yet(card: NetBench) -> None:
    card.backend.introduce(card.backend_nodes.get, "vm", "")
    numbers = card.backend.numbers()
    shown = numbers.group("card")
    assert (shown["guest"], shown["bridge"], shown["interface"]) == ("vm", "xenbr0", "")
    assert shown["mac"] == "00:16:3e:01:02:03"
    assert numbers.group("counters") == numbers.configured() == {}
    assert numbers.group("debug")["dump_rings"] == ""
    assert numbers.rings() == ()
    assert set(numbers.stat(latency=False)) == {*shown, *numbers.group("process")}
    with pytest.raises(OperatorError, match="has no state segment"):
        numbers.set("poll_max_us", 1, "dev.xnb.0.poll_max_us")


def test_what_was_agreed(card: NetBench) -> None:
    card.frontend_nodes |= {"feature-gso-tcpv4": b"1", "feature-ipv6-csum-offload": b"1"}
    card.open()
    card.connect()
    shown = card.backend.numbers().group("card")
    assert shown["accepts"] == "sg gso-tcpv4 csum-ipv4 csum-ipv6"
    assert (shown["queues"], shown["link_offload"]) == (1, "full")
    assert shown["data_path"] in ("map", "copy"), "as suits the hypervisor"
    assert shown["interface"] == NAME


def test_what_is_counted(card: NetBench) -> None:
    card.open()
    card.connect()
    crosses(card)
    stat = card.backend.numbers().stat(latency=False)
    assert (stat["net"]["tx_packets"], stat["net"]["tx_bytes"]) == (1, len(FRAME))
    assert (stat["net"]["rx_packets"], stat["net"]["rx_bytes"]) == (1, len(FRAME))
    assert stat["refused"] == dict.fromkeys(REFUSALS, 0)
    assert stat["created_ns"] < stat["now_ns"]
    assert stat["takeovers"] == 0


def test_tunables_have_ranges(card: NetBench) -> None:
    card.offer()
    numbers = card.backend.numbers()
    with pytest.raises(OperatorError, match=r"^here=10001: must be 0 to 10000$"):
        numbers.set("poll_max_us", 10_001, "here")
    numbers.set("poll_max_us", 10_000, "here")
    assert numbers.group("tunables") == {"poll_max_us": 10_000}


def test_what_is_configured_is_shown(card: NetBench) -> None:
    shown = card.backend.numbers().group("limits")
    assert shown == {"max_queues": 4, "offload": "auto", "mac_filter": 0}
    assert set(shown) | set(TUNABLES) == set(NetConfig.__dataclass_fields__)


def test_both_rings_side_by_side(card: NetBench) -> None:
    card.open()
    card.connect()
    crosses(card)
    text = str(card.backend.numbers().group("debug")["dump_rings"])
    rows = [line.split() for line in text.splitlines()]
    assert rows[:2] == [[], ["queue", "0", "TX", "RX"]]
    dump = {name: (int(tx), int(rx)) for name, tx, rx in rows[2:]}
    assert list(dump) == [
        *("req_cons", "nr_ents", "rsp_prod_pvt"),
        *("req_prod", "req_event", "rsp_prod", "rsp_event"),
    ]
    assert dump["req_cons"] == (1, 1)
    assert dump["nr_ents"] == (256, 256)
    assert len(text) <= 720, "as much as the kernel's has"


def test_the_self_test_is_run_when_it_is_read(
    card: NetBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = card.backend.numbers()
    passed = re.fullmatch(r"\n(\d+) Tests Passed", str(numbers.group("debug")["unit_test_results"]))
    assert passed is not None
    assert int(passed[1]) >= 48
    monkeypatch.setattr(
        numbers_module, "self_test", lambda: [("one", True), ("two", False), ("three", True)]
    )
    assert numbers.group("debug")["unit_test_results"] == (
        "\ntwo FAILED\n2 Tests Passed\n1 Tests FAILED"
    )


def test_a_card_that_is_well(card: NetBench) -> None:
    card.open()
    card.connect()
    assert card.backend.numbers().health(WELL, 10, (), alone=True) == []


def test_what_a_card_suffers_from(card: NetBench) -> None:
    card.open()
    card.connect()
    card.fakes.there[NAME].up = False
    card.guest.wire.send(HEADER + FRAME[:10])  # no Ethernet header
    refused = "refused.too_short"
    eventually(lambda: card.backend.numbers().group("refusals")[refused] == 1, "it is counted")
    card.guest.stop()  # it posts nothing any more
    for _ in range(300):
        card.wire.send(HEADER + FRAME)
        if card.backend.numbers().group("counters")["rx_full"]:
            break
    eventually(lambda: card.backend.numbers().group("counters")["rx_full"] != 0, "it has no room")
    found = card.backend.numbers().health(Standing(closed="so it is"), 0.0, (), alone=True)
    subject = "xnb0 (vm 00:16:3e:01:02:03)"
    assert [one.subject for one in found] == [subject] * 4
    assert [(one.severity, one.kind) for one in found] == [
        (Severity.ERROR, Kind.CLOSED),
        (Severity.WARNING, Kind.LINK),
        (Severity.NOTICE, Kind.GUEST),
        (Severity.NOTICE, Kind.GUEST),
    ]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(), alphabet=st.sampled_from(ALPHABETS))
def test_garbage_is_shown_and_taken_over_by_nobody(
    card: NetBench, seed: int, alphabet: bytes
) -> None:
    """Somebody has written into the segment."""
    card.offer()
    path = card.run / "xnb.0"
    size = path.stat().st_size - FIRST
    with path.open("r+b") as file:
        file.seek(FIRST)
        file.write(bytes(Random(seed).choices(alphabet, k=size)))
    numbers = card.backend.numbers()
    for group in DRIVER.own:
        json.dumps(numbers.group(group))
    for ring in numbers.rings():
        json.dumps(numbers.ring(ring))
    json.dumps(numbers.stat(latency=True))
    numbers.health(WELL, 10, (), alone=True)
    garbage = path.read_bytes()
    card.backend.forget()
    path.write_bytes(garbage)
    card.events.clear()
    family = card.make(Config())
    for kind in ("vif", "vbd"):
        family.settle(kind)
    for unit in family.promised:
        assert isinstance(family.unit_of("vif", 5, unit, card.backend_nodes.get), int | None)
    path.unlink(missing_ok=True)
    card.fakes.there.clear()
    card.backend = card.create(IDENTITY)
