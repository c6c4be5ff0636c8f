"""What a card and its guest tell each other: records to and from nodes, no store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.errors import GuestError, OperatorError
from xbbd_bsd.native.tap import MOST_NAME
from xbbd_bsd.net.negotiate import (
    Accepted,
    Card,
    FrontendParams,
    Offer,
    QueueRings,
    mac_text,
)

LEAST = {
    "event-channel": b"3",
    "tx-ring-ref": b"8",
    "rx-ring-ref": b"9",
    "request-rx-copy": b"1",
}
EVERY = {
    **LEAST,
    "feature-sg": b"1",
    "feature-gso-tcpv4": b"1",
    "feature-gso-tcpv6": b"1",
    "feature-ipv6-csum-offload": b"1",
    "feature-rx-notify": b"1",
}
# What xen-netfront of Linux publishes (xennet_talk_to_netback(), with two queues).
LINUX = {
    **{f"queue-{n}/{name}": b"%d" % (10 * n + i) for n in range(2)
       for i, name in enumerate(("tx-ring-ref", "rx-ring-ref", "event-channel"))},
    "multi-queue-num-queues": b"2",
    **{name: EVERY[name] for name in EVERY if name not in LEAST},
    "request-rx-copy": b"1",
}  # fmt: skip
# And netfront of FreeBSD, which has one, with its sums and TSO.
FREEBSD = {**LEAST, "feature-rx-notify": b"1", "feature-sg": b"1", "feature-gso-tcpv4": b"1",
           "feature-no-csum-offload": b"0"}  # fmt: skip


def published(nodes: dict[str, bytes], offer: Offer | None = None) -> FrontendParams:
    return FrontendParams.from_nodes(nodes.get, offer or Offer(4))


def without(*names: str) -> dict[str, bytes]:
    return {name: value for name, value in EVERY.items() if name not in names}


def test_the_whole_offer() -> None:
    assert Offer(4).to_nodes() == {
        "feature-sg": b"1",
        "feature-gso-tcpv4": b"1",
        "feature-gso-tcpv6": b"1",
        "feature-ipv6-csum-offload": b"1",
        "feature-rx-copy": b"1",
        "feature-rx-flip": b"0",
        "multi-queue-max-queues": b"4",
    }


def test_one_queue_is_not_talked_about() -> None:
    assert Offer(1).to_nodes()["multi-queue-max-queues"] is None


def test_what_a_frontend_wants() -> None:
    wanted = published(EVERY)
    assert wanted.queues == (QueueRings(port=3, tx_ref=8, rx_ref=9),)
    assert wanted.accepted == Accepted(True, True, True, True, True)
    assert not wanted.polls


def test_absent_is_0() -> None:
    wanted = published(LEAST)
    assert wanted.accepted == Accepted(csum_ipv4=True)
    assert wanted.polls
    assert published({**LEAST, "feature-rx-notify": b"0"}).polls


@pytest.mark.parametrize(
    ("nodes", "accepted"),
    [
        (without("feature-sg"), Accepted(csum_ipv4=True, csum_ipv6=True)),
        ({**EVERY, "feature-sg": b"0"}, Accepted(csum_ipv4=True, csum_ipv6=True)),
        (
            {**EVERY, "feature-no-csum-offload": b"1"},
            Accepted(sg=True, gso_tcpv6=True, csum_ipv6=True),
        ),
        (
            without("feature-ipv6-csum-offload"),
            Accepted(sg=True, gso_tcpv4=True, csum_ipv4=True),
        ),
        ({**LEAST, "feature-sg": b"1"}, Accepted(sg=True, csum_ipv4=True)),
    ],
)
def test_who_cannot_take_the_parts_cannot_take_the_whole(
    nodes: dict[str, bytes], accepted: Accepted
) -> None:
    """TCP to be split has several slots, and sums that are left to whoever splits."""
    assert published(nodes).accepted == accepted


@pytest.mark.parametrize("value", [None, b"0"])
def test_pages_are_not_exchanged(value: bytes | None) -> None:
    nodes = without("request-rx-copy") | ({} if value is None else {"request-rx-copy": value})
    with pytest.raises(GuestError, match="node request-rx-copy is absent or 0"):
        published(nodes)


def test_several_queues() -> None:
    wanted = published(LINUX)
    assert wanted.queues == (QueueRings(2, 0, 1), QueueRings(12, 10, 11))
    assert wanted.accepted == Accepted(True, True, True, True, True)


def test_freebsd() -> None:
    wanted = published(FREEBSD, Offer(1))
    assert wanted.queues == (QueueRings(3, 8, 9),)
    assert wanted.accepted == Accepted(sg=True, gso_tcpv4=True, csum_ipv4=True)


def test_several_queues_that_were_not_offered_are_an_earlier_connections() -> None:
    for value in (b"2", b"0", b"x"):
        stale = {**EVERY, "multi-queue-num-queues": value}
        assert len(published(stale, Offer(1)).queues) == 1
    for count in (1, 4):
        asked = {**EVERY, **LINUX, "multi-queue-num-queues": b"%d" % count}
        more = {f"queue-{n}/{name}": b"%d" % (90 + n) for n in (2, 3) for name in LEAST}
        assert len(published({**more, **asked}).queues) == count
    for number in (b"0", b"5"):
        with pytest.raises(GuestError, match=f"num-queues is {int(number)}, not within 1 to 4"):
            published({**EVERY, "multi-queue-num-queues": number})


def test_an_event_channel_is_one_queues() -> None:
    with pytest.raises(GuestError, match="event-channel are not all different"):
        published({**LINUX, "queue-1/event-channel": b"2"})


@pytest.mark.parametrize("name", ["event-channel", "tx-ring-ref", "rx-ring-ref"])
def test_one_error_names_the_node(name: str) -> None:
    with pytest.raises(GuestError, match=f"^frontend node {name} is missing$"):
        published(without(name))
    for value in (b"", b"-1", b"4294967296", b"0x10", b" 3", b"\xb2", b"00000000003"):
        with pytest.raises(GuestError, match=rf"^frontend node {name} is '.*', not a 32-bit"):
            published({**EVERY, name: value})
    assert published({**EVERY, name: b"4294967295"})


@pytest.mark.parametrize("name", [name for name in EVERY if name.startswith("feature")])
def test_a_feature_is_a_number(name: str) -> None:
    with pytest.raises(GuestError, match=rf"^frontend node {name} is 'yes', not a 32-bit"):
        published({**EVERY, name: b"yes"})


@given(
    st.dictionaries(
        st.sampled_from([*EVERY, *LINUX, "feature-no-csum-offload"]), st.binary(max_size=12)
    )
)
def test_any_nodes_are_a_value_or_the_guests_fault(nodes: dict[str, bytes]) -> None:
    try:
        wanted = published({**EVERY, **nodes})
    except GuestError:
        return
    assert 1 <= len(wanted.queues) <= 4
    assert wanted.accepted.sg or not (wanted.accepted.gso_tcpv4 or wanted.accepted.gso_tcpv6)


# What the toolstack says.


def test_a_card() -> None:
    nodes = {
        "handle": b"2",
        "mac": b"00:16:3E:aa:bb:cc",
        "bridge": b"xenbr0",
        "vifname": b"web1-eth0",
        "mtu": b"9000",
        "script": b"/etc/xen/scripts/vif-bridge",
    }
    card = Card.from_nodes(nodes.get, 7)
    mac = bytes.fromhex("00163eaabbcc")
    assert card == Card(2, mac, "xenbr0", "web1-eth0", 9000, True)
    assert card.interface("vif", 5) == "web1-eth0"
    assert mac_text(mac) == "00:16:3e:aa:bb:cc"


def test_a_card_of_which_nothing_is_said() -> None:
    card = Card.from_nodes({"vifname": b"", "mtu": b""}.get, 7)
    assert card == Card(7)
    for mtu in (68, 65_521):
        assert Card.from_nodes({"mtu": b"%d" % mtu}.get, 7).mtu == mtu
    assert mac_text(card.mac) == ""
    assert card.interface("xnb", 5) == "xnb5.7"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"handle": b"x"}, "node handle is 'x'"),
        ({"mac": b"00:16:3e:aa:bb"}, "node mac is '00:16:3e:aa:bb'"),
        ({"mac": b"00:16:3e:aa:bb:cg"}, "node mac is "),
        ({"mtu": b"67"}, "node mtu is 67, not within 68 to 65521"),
        ({"mtu": b"65522"}, "node mtu is 65522"),
        ({"mtu": b"-1"}, "node mtu is '-1'"),
        *(
            ({"vifname": name}, "node vifname is '.*', no name of an interface")
            for name in (b"../etc", b"a b", b"x" * 16, b".", b"..", b"a/b", b"\xff", b"a\0")
        ),
    ],
)
def test_a_card_that_cannot_be(nodes: dict[str, bytes], message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        Card.from_nodes(nodes.get, 0)


def test_a_number_that_fits_no_name() -> None:
    assert Card(655_350).interface("vif", 32_751) == "vif32751.655350"
    with pytest.raises(OperatorError, match=r"^node handle is 1234567, too large"):
        Card(1_234_567).interface("vif", 32_751)
    assert Card(1_234_567, vifname="short").interface("vif", 32_751) == "short"


@given(
    st.dictionaries(
        st.sampled_from(["handle", "mac", "bridge", "vifname", "mtu"]), st.binary(max_size=40)
    )
)
def test_any_card_has_an_interface_or_is_refused(nodes: dict[str, bytes]) -> None:
    try:
        name = Card.from_nodes(nodes.get, 0).interface("vif", 32751)
    except OperatorError:
        return
    assert len(name) <= MOST_NAME
    assert "/" not in name
    assert name.isprintable()
