"""What is wrong with cards, judged by facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xbbd_bsd.findings import Finding, Kind, Severity
from xbbd_bsd.net.health import CardFacts, of_card
from xbbd_bsd.xenbus.family import Standing

FACTS = CardFacts(3, guest="web1", mac="00:16:3e:01:02:03", interface="vif5.0", connected=True)
SUBJECT = "xnb3 (web1 00:16:3e:01:02:03)"


def test_one_that_is_well() -> None:
    assert of_card(FACTS) == of_card(CardFacts(0)) == []
    assert of_card(CardFacts(0, interface_up=False, full_seconds=99)) == [], "nobody is connected"


def test_one_that_is_closed_or_waits() -> None:
    (found,) = of_card(replace(FACTS, standing=Standing(closed="no such thing")))
    assert found == Finding(
        Severity.ERROR,
        Kind.CLOSED,
        SUBJECT,
        "it is closed: no such thing",
        "see to the reason, then attach it again, or start its guest again; xbbctl log xnb3 says"
        " more",
    )
    (found,) = of_card(replace(FACTS, standing=Standing(held_back="no room")))
    assert (found.kind, found.what) == (Kind.HELD_BACK, "the guest waits for its card: no room")
    assert found.severity is Severity.ERROR


@pytest.mark.parametrize("standing", [Standing("x", "", True), Standing("", "x", True)])
def test_what_a_guest_does_to_itself_is_a_notice(standing: Standing) -> None:
    (found,) = of_card(replace(FACTS, standing=standing))
    assert (found.severity, found.action) == (Severity.NOTICE, "look into the guest")


def test_an_interface_that_is_down_under_a_guest() -> None:
    (found,) = of_card(replace(FACTS, interface_up=False))
    assert (found.severity, found.kind) == (Severity.WARNING, Kind.LINK)
    assert found.what == "its interface vif5.0 is down, so that the guest reaches nobody"
    assert of_card(replace(FACTS, interface_up=False, connected=False)) == []


def test_a_guest_that_takes_nothing() -> None:
    """Its own affair, and news only when it takes long: buffers run out under load."""
    (found,) = of_card(replace(FACTS, full_seconds=11.0))
    assert (found.severity, found.kind) == (Severity.NOTICE, Kind.GUEST)
    assert found.what == "the guest has posted too few buffers for 11 s: it gets nothing"
    assert of_card(replace(FACTS, full_seconds=10.0)) == []
    assert of_card(replace(FACTS, full_seconds=11.0), bound=60) == []
    assert of_card(replace(FACTS, full_seconds=11.0, connected=False)) == []


@pytest.mark.parametrize(
    ("refused", "what"), [(1, "1 packet was refused"), (7, "7 packets were refused")]
)
def test_a_guest_that_sends_nonsense(refused: int, what: str) -> None:
    (found,) = of_card(replace(FACTS, refused=refused))
    assert (found.severity, found.kind) == (Severity.NOTICE, Kind.GUEST)
    assert found.what == f"{what}, see dev.xnb.3.refused"


def test_one_of_which_little_is_known() -> None:
    (found,) = of_card(CardFacts(0, standing=Standing(closed="x")))
    assert found.subject == "xnb0"
