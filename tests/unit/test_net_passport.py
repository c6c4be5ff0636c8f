"""What a daemon leaves of a card for one of another version, and what that one makes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path

import pytest

from tests.unit.net_bench import IDENTITY, NAME, NetBench
from tests.unit.test_net_family import FRAME, HEADER, crosses
from tests.unit.test_net_takeover import connected
from tests.unit.test_passport import SPOILT
from xbbd_bsd.charter import NODE
from xbbd_bsd.config import Config, NetConfig
from xbbd_bsd.errors import HostError
from xbbd_bsd.inheritance import Former
from xbbd_bsd.native import (
    HvKind,
    NetAccepts,
    NetOffload,
    NetParams,
    NetRefusal,
    NetState,
    SegmentIdentity,
    Transport,
)
from xbbd_bsd.net import passport as passport_file
from xbbd_bsd.net.passport import Passport
from xbbd_bsd.xenbus.family import Identity
from xbbd_bsd.xenbus.states import Queue

LEFT = "xnb.0.left"


def leave(card: NetBench, *, answered: bool = True) -> None:
    """The daemon leaves, and its version cannot be read by who follows."""
    card.backend.leave()
    card.drained()
    card.family.leave()
    text = (card.run / LEFT).read_bytes()
    if not answered:
        text = text.replace(b'"answered": true', b'"answered": false')
    left = card.die()
    (card.run / LEFT).write_bytes(text)
    with left.open("r+b") as file:
        file.seek(4)
        file.write(b"\xff")
    card.follow()


class Asked:
    """Whoever serves it, and does what he is told, later."""

    def __init__(self, former: Former[NetState]) -> None:
        self.inherit = former.inherit
        self.said: list[str] = []
        self.done: Callable[[bool | None], None] = lambda outcome: None

    def release(self, who: Identity, done: Callable[[bool | None], None]) -> None:
        self.said.append("release")
        self.done = done

    def drop(self, who: Identity, done: Callable[[], None]) -> None:
        self.said.append("drop")
        done()


def asked_to_hand_over(card: NetBench) -> Asked:
    leave(card, answered=False)
    asked = Asked(card.family.serving)
    card.backend._inheritance._former = asked
    with pytest.raises(HostError, match="about to hand it over") as error:
        card.adopt()
    assert error.value.passes
    assert asked.said == ["release"]
    return asked


def test_both_rings_go_on_under_another_version(card: NetBench) -> None:
    """As agreed, whatever is configured, and what was counted goes on."""
    card.family.configure(Config(net=NetConfig(offload="safe")))
    connected(card)
    assert card.backend._segment is not None
    card.backend._segment.handle.ring[0].counters.refused[NetRefusal.BAD_GSO] = 77
    agreed = card.backend_nodes[NODE]
    leave(card)
    card.guest.wire.send(HEADER + FRAME)
    assert card.backend.adoptable
    assert card.adopt() == f"1 queue, sg csum-ipv4, interface {NAME}"
    assert card.wire.recv(3000)[12:] == FRAME
    crosses(card)
    numbers = card.backend.numbers()
    assert numbers.group("counters")["tx_packets"] == 3
    assert numbers.group("refusals")["refused.bad_gso"] == 77
    assert numbers.group("card")["link_offload"] == "safe"
    assert (card.backend.news, card.backend_nodes[NODE]) == ({}, agreed)
    assert sorted(os.listdir(card.run)) == ["xnb.0", "xnb.0.interface"]
    assert card.backend._segment is not None
    assert card.backend._segment.guest == "vm"
    card.die()  # and its own can be gone on with, as ever
    card.adopt()
    crosses(card)


def test_nothing_is_said_to_be_answered_of_what_is_begun(
    card: NetBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one who dies at that; who cannot begin it just now leaves it as it was."""
    connected(card)
    leave(card)
    begun: list[list[str]] = []

    def start(*_: object) -> None:
        begun.append(sorted(os.listdir(card.run)))
        raise HostError("no room for a mapping", ENOSPC)

    monkeypatch.setattr(card.backend, "_start", start)
    with pytest.raises(HostError, match="no room"):
        card.adopt()
    assert begun == [["xnb.0", "xnb.0.begun", "xnb.0.interface"]]
    assert sorted(os.listdir(card.run)) == ["xnb.0", "xnb.0.interface", LEFT]
    monkeypatch.undo()
    card.adopt()
    crosses(card)
    assert sorted(os.listdir(card.run)) == ["xnb.0", "xnb.0.interface"]


def test_another_version_does_not_go_on_with_what_is_begun(card: NetBench) -> None:
    """It cannot read off the segment what was read off the rings; all goes with the card."""
    connected(card)
    leave(card)
    card.backend._inheritance.begin()
    family = card.make(Config())
    assert family.unit_of("vif", 5, 0, card.backend_nodes.get) == 0
    backend = family.create(IDENTITY, card.wake, card.events.append)
    assert not backend.adoptable
    assert os.listdir(card.run) == []
    backend.forget()
    card.turn()
    assert card.fakes.names == []


def test_in_other_words_the_same_was_agreed(card: NetBench) -> None:
    """A version says in our node what it knows of; who goes on says it in his own words."""
    connected(card)
    ours = card.backend_nodes[NODE]
    card.backend_nodes[NODE] = b"0 digest"
    leave(card)
    text = (card.run / LEFT).read_text()
    (card.run / LEFT).write_text(text.replace(ours.decode(), "0 digest"))
    card.follow()
    card.adopt()
    assert card.backend.news == {NODE: ours}


def test_another_connections_passport_is_not_believed(card: NetBench) -> None:
    connected(card)
    leave(card)
    card.backend_nodes[NODE] = b"0 digest"
    with pytest.raises(HostError, match="not as its guest was connected"):
        card.adopt()
    assert not card.backend.adoptable
    assert os.listdir(card.run) == []


def leave_legibly(card: NetBench, change: Callable[[str], str] = str) -> None:
    """As `leave`, but who follows can read the segment as well."""
    card.backend.leave()
    card.drained()
    card.family.leave()
    text = (card.run / LEFT).read_text()
    card.die()
    (card.run / LEFT).write_text(change(text))
    card.follow()


def test_a_segment_that_says_enough_needs_none(card: NetBench) -> None:
    connected(card)
    leave_legibly(card)
    card.adopt()
    crosses(card)
    assert not (card.run / LEFT).exists()


def test_beside_it_in_other_words_the_same_was_agreed(card: NetBench) -> None:
    connected(card)
    ours = card.backend_nodes[NODE]
    card.backend_nodes[NODE] = b"0 digest"
    leave_legibly(card, lambda text: text.replace(ours.decode(), "0 digest"))
    card.adopt()
    assert card.backend.news == {NODE: ours}
    crosses(card)


def test_beside_one_that_is_begun_too(card: NetBench) -> None:
    """Whoever began had not come to say it in his own words."""
    connected(card)
    ours = card.backend_nodes[NODE]
    card.backend_nodes[NODE] = b"0 digest"
    leave_legibly(card, lambda text: text.replace(ours.decode(), "0 digest"))
    card.backend._inheritance.begin()
    card.follow()
    card.adopt()
    assert card.backend.news == {NODE: ours}
    crosses(card)


def test_beside_it_one_of_another_connection_says_nothing(card: NetBench) -> None:
    connected(card)
    ours = card.backend_nodes[NODE]
    card.backend_nodes[NODE] = b"0 digest"
    leave_legibly(
        card,
        lambda text: text.replace(ours.decode(), "0 digest").replace(
            '"rx_polls": false', '"rx_polls": true'
        ),
    )
    with pytest.raises(HostError, match="not as its guest was connected"):
        card.adopt()


def test_what_has_ended_after_its_daemon_left_was_not_served_then(card: NetBench) -> None:
    """Its guest has closed it since; the passport is of before that."""
    connected(card)
    leave_legibly(card, lambda text: text.replace('"answered": true', '"answered": false'))
    state = NetState.open(str(card.run / "xnb.0"), writable=True)
    state.handle.ring[0].common.connected = 0
    state.close()
    card.follow()
    assert not card.backend.adoptable
    assert card.backend.lost == "it was not served then"


def test_whoever_serves_another_version_hands_over_first(card: NetBench) -> None:
    connected(card)
    asked = asked_to_hand_over(card)
    with pytest.raises(HostError):
        card.adopt()
    assert asked.said == ["release"], "once"
    asked.done(None)
    with pytest.raises(HostError):
        card.adopt()
    assert asked.said == ["release"] * 2
    asked.done(True)
    card.follow()  # which dies before it has gone on, and leaves word
    card.adopt()
    crosses(card)


def test_what_it_left_unanswered_nobody_can_go_on_with(card: NetBench) -> None:
    connected(card)
    asked = asked_to_hand_over(card)
    asked.done(False)
    assert not card.backend.adoptable
    assert card.backend.lost == "another version left requests unanswered"
    assert asked.said == ["release", "drop"]
    assert card.queue is Queue.NONE


def test_one_that_dies_before_it_has_gone_on_leaves_it_to_the_next(card: NetBench) -> None:
    connected(card)
    leave(card)
    fresh = card.backend._inheritance.take()
    assert fresh.connection_rings == 1
    card.backend._inheritance.begin()
    fresh.close()
    card.follow()
    card.adopt()
    crosses(card)


def test_what_is_about_to_end_gets_none(card: NetBench) -> None:
    connected(card)
    card.backend.drain()
    card.drained()
    card.family.leave()
    assert not (card.run / LEFT).exists()


@pytest.mark.parametrize(
    "text",
    [
        *SPOILT,
        lambda text: text.replace('"SG"', '"SAGA"'),
        lambda text: text.replace('"FULL"', '"FOOL"'),
        lambda text: text.replace('"source": null', '"source": "xx"'),
        lambda text: text.replace('"domid": 5', '"domid": "5"'),
        lambda text: text.replace('"rx_polls": false', '"rx_polls": 0'),
        lambda text: text.replace('"tx_ref"', '"tx-ref"'),
        lambda text: text.replace('"unit": 0', '"unit": 1', 1),
    ],
)
def test_a_passport_that_is_none(card: NetBench, text: str | Callable[[str], str]) -> None:
    """Its interface goes with the card, which begins anew."""
    connected(card)
    leave(card)
    file = card.run / LEFT
    file.write_text(text if isinstance(text, str) else text(file.read_text()))
    family = card.make(Config())
    assert family.unit_of("vif", 5, 0, card.backend_nodes.get) == 0
    backend = family.create(IDENTITY, card.wake, card.events.append)
    assert not backend.adoptable
    assert sorted(os.listdir(card.run)) == []
    backend.forget()
    card.turn()
    assert card.fakes.names == []


def test_a_passport_says_all_of_a_queue(tmp_path: Path) -> None:
    """Whatever the values are, and what this version does not know is left out."""
    params = NetParams(-1, -1, -1, -1, HvKind.SIM, 5, 3, 8, 9)
    identity = SegmentIdentity("vif", 5, 0, 0, "/vm/1")
    for changes in (
        {},
        {"source": b"\x00\x16\x3e\x01\x02\x03", "offload": NetOffload.SAFE, "rx_polls": True},
        {"accepts": NetAccepts(sum(NetAccepts)), "transport": Transport.COPY, "queue": 3},
    ):
        made = {0: params, 3: replace(params, **changes)}  # type: ignore[arg-type]
        passport = Passport(identity, made, {0: {"tx_packets": 1}}, "0 digest", True)
        path = str(tmp_path / "xnb.0")
        passport_file.write(path, passport)
        assert passport_file.read(path) == passport
        file = Path(f"{path}.left")
        file.write_text(file.read_text().replace('"domid": 5', '"domid": 5, "colour": "red"'))
        assert passport_file.read(path) == passport
        assert file.stat().st_mode & 0o777 == 0o600
