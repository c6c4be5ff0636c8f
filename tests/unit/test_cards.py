"""What may be said of a card, the nodes of its offer, its number and address, and its bridge."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier, Thread

import pytest

from tests.store.servers import Embedded
from tests.unit.test_toolstack import Bench
from xbbd_bsd import cards
from xbbd_bsd.cards import CardOffer, CardSpec, find_card, offer_card
from xbbd_bsd.ctl.cards import attach_card, card_of, detach_card
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.toolstack import detach, give_up
from xbbd_bsd.xenbus.states import State
from xbbd_bsd.xenstore.client import Store

MAC = "00:16:3e:01:02:03"
NOTHING = CardSpec()


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    server = Embedded(short_path)
    running = Bench(server)
    yield running
    running.close()
    server.stop()


# What is said of one.


def test_a_card_as_xl_spells_it() -> None:
    text = f" mac={MAC.upper()}, bridge=xenbr1,mtu=9000,script=vif-route,vifname=web0,type=vif"
    assert CardSpec.parse(text) == CardSpec("xenbr1", MAC, 9000, "vif-route", "web0")
    assert CardSpec.parse("") == NOTHING
    assert CardSpec.parse("bridge=").bridge == "", "none at all, which is not xl's own"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("xenbr0", r"^xenbr0: must be key=value"),
        ("brigde=xenbr0", r"^brigde: no key of a card; there are bridge, mac, mtu, script, vifn"),
        ("mtu=1500,mtu=1500", r"^mtu: stands there twice$"),
        ("type=ioemu", r"^type: ioemu is of device models; a card of xbbd is of type vif$"),
        ("mac=00:16:3e:01:02", r"^mac: 00:16:3e:01:02 is no Ethernet address, write 00:16:3e:0"),
        ("mac=01:16:3e:01:02:03", r"^mac: .* is the address of a group, not of a card$"),
        ("mac=00:00:00:00:00:00", r"^mac: .* is nobody's address$"),
        ("mtu=67", r"^mtu: 67: must be 68 to 65521$"),
        ("mtu=65522", r"^mtu: 65522: must be 68 to 65521$"),
        ("mtu=many", r"^mtu: many: must be 68 to 65521$"),
        ("bridge=-h", r"^bridge: -h is no name of an interface, which has 15 characters at most$"),
        ("vifname=a/b", r"^vifname: a/b is no name of an interface"),
        ("vifname=", r"^vifname:  is no name of an interface"),
        ("bridge=" + "b" * 16, r"^bridge: b{16} is no name of an interface"),
        ("script=", r"^script: has no name$"),
        ("a\x1b=1", r"^a\\x1b: no key"),
    ],
)
def test_what_cannot_be_said(text: str, error: str) -> None:
    with pytest.raises(OperatorError, match=error):
        CardSpec.parse(text)


# Its nodes.


def test_the_nodes_of_a_card_are_those_of_libxl() -> None:
    card = CardOffer(7, 2, MAC, "xenbr1", 9000, "/etc/xen/scripts/vif-bridge", "web0")
    assert card.backend == "/local/domain/0/backend/vif/7/2"
    assert card.frontend == "/local/domain/7/device/vif/2"
    assert card.backend_nodes() == {
        "frontend": b"/local/domain/7/device/vif/2",
        "frontend-id": b"7",
        "online": b"1",
        "state": b"1",
        "script": b"/etc/xen/scripts/vif-bridge",
        "vifname": b"web0",
        "mtu": b"9000",
        "mac": MAC.encode(),
        "bridge": b"xenbr1",
        "handle": b"2",
        "type": b"vif",
        "hotplug-status": b"",
    }
    assert card.frontend_nodes() == {
        "backend": b"/local/domain/0/backend/vif/7/2",
        "backend-id": b"0",
        "state": b"1",
        "handle": b"2",
        "mac": MAC.encode(),
        "mtu": b"9000",
        "trusted": b"1",
    }


def test_what_is_usual_has_no_node() -> None:
    nodes = CardOffer(7, 0, MAC, bridge="").backend_nodes()
    assert not {"script", "vifname", "mtu", "bridge"} & set(nodes)


def test_an_offer_belongs_to_whom_libxl_says(bench: Bench) -> None:
    """The guest goes by its mtu, and cannot change it."""
    card, token = offer_card(bench.store, 7, CardSpec(mac=MAC), 1400)
    assert card == CardOffer(7, 0, MAC, mtu=1400)
    for path, nodes in (
        (card.frontend, card.frontend_nodes()),
        (card.backend, card.backend_nodes()),
    ):
        assert {name: bench.store.get(f"{path}/{name}") for name in nodes} == nodes
    assert bench.store.permissions(f"{card.frontend}/state") == ["n7", "r0"]
    assert bench.store.permissions(f"{card.frontend}/mtu") == ["n0", "r7"]
    assert bench.store.permissions(f"{card.backend}/mac") == ["n0", "r7"]
    assert give_up(bench.store, card, token) == "the backend does not answer"
    assert bench.store.list("/local/domain/7/device") == []
    assert bench.store.list("/local/domain/0/backend/vif") == []


# Its number and address.


def test_numbers_are_the_lowest_that_nobody_has(bench: Bench) -> None:
    found = [offer_card(bench.store, 7, NOTHING, 1500)[0] for _ in range(3)]
    assert [card.handle for card in found] == [0, 1, 2]
    bench.store.remove(found[1].frontend)  # half of one is left
    assert offer_card(bench.store, 7, NOTHING, 1500)[0].handle == 3
    bench.store.remove(found[1].backend)
    assert offer_card(bench.store, 7, NOTHING, 1500)[0].handle == 1


def test_an_address_is_xens_and_nobodys(bench: Bench) -> None:
    bench.server.introduce(8)
    bench.store.write("/local/domain/8", b"")
    offer_card(bench.store, 8, CardSpec(mac=MAC), 1500)
    draws = iter([MAC, MAC, "00:16:3e:00:00:01"])
    card, _ = offer_card(bench.store, 7, NOTHING, 1500, draw=lambda: next(draws))
    assert card.mac == "00:16:3e:00:00:01"
    for _ in range(50):
        assert re.fullmatch("00:16:3e:[0-7][0-9a-f](:[0-9a-f]{2}){2}", cards.random_mac())


def test_an_address_that_another_card_has(bench: Bench) -> None:
    """Whatever its spelling is there, and whoever offered it."""
    bench.store.write("/local/domain/0/backend/vif/3/1/mac", MAC.upper().encode())
    with pytest.raises(OperatorError, match=f"^{MAC} is the address of guest 3's card vif1 alr"):
        offer_card(bench.store, 7, CardSpec(mac=MAC), 1500)
    assert bench.store.get("/local/domain/7/device/vif") is None


def test_a_guest_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(OperatorError, match=r"^there is no domain 9$"):
        offer_card(bench.store, 9, NOTHING, 1500)
    assert bench.store.get("/local/domain/9") is None


def test_two_offers_at_once_are_two_cards(bench: Bench) -> None:
    """Of one address only one, of one number never two."""
    start, hands = Barrier(4), []
    found: list[CardOffer | str] = []

    def hand(spec: CardSpec) -> None:
        loop = asyncio.new_event_loop()
        store = Store(bench.server.socket, loop=loop)
        store.connect()
        start.wait()
        try:
            found.append(offer_card(store, 7, spec, 1500)[0])
        except OperatorError as error:
            found.append(str(error))
        finally:
            store.close()
            loop.close()

    for spec in (CardSpec(mac=MAC), CardSpec(mac=MAC), NOTHING, NOTHING):
        hands.append(Thread(target=hand, args=(spec,)))
        hands[-1].start()
    for thread in hands:
        thread.join()
    offered = [card for card in found if isinstance(card, CardOffer)]
    assert sorted(card.handle for card in offered) == [0, 1, 2]
    assert len({card.mac for card in offered}) == 3
    (refused,) = [text for text in found if isinstance(text, str)]
    assert refused.startswith(f"{MAC} is the address of guest 7's card vif")


# With a backend and a bridge.


@dataclass
class Bridges:
    """What was asked of a host, and what fails of it."""

    prefix: str = "vif"
    fails: str = ""
    asked: list[tuple[object, ...]] = field(default_factory=list)

    def mtu(self, bridge: str) -> int:
        if bridge != "xenbr0":
            raise OperatorError(f"there is no bridge {bridge}")
        return 1400

    def join(self, bridge: str, interface: str, mtu: int) -> None:
        self._ask("join", bridge, interface, mtu)

    def script(self, name: str) -> str:
        return f"/scripts/{name}"

    def run_script(self, script: str, backend: str, interface: str, *, online: bool) -> None:
        self._ask(script, backend, interface, online)

    def _ask(self, *what: object) -> None:
        self.asked.append(what)
        if self.fails:
            raise HostError(self.fails)


CARD = CardOffer(7, 0, MAC, mtu=1400)


def serve(bench: Bench, answer: str = "2") -> None:
    """A backend that answers an offer, opens it when it is told to, and lets go."""

    def react(state: bytes | None) -> None:
        status = bench.other.get(f"{CARD.backend}/hotplug-status")
        if state == State.INITIALISING.node:
            nodes = {"hotplug_status": "error", "hotplug_error": "no tap"} if answer == "5" else {}
            bench.set(CARD, state=answer, **nodes)
        elif state == State.INIT_WAIT.node and status == b"connected":
            bench.set(CARD, state="4")
        elif state == State.CLOSING.node and answer != "5":
            bench.set(CARD, state="6")

    bench.backend(CARD, react)


def opens(bench: Bench, state: bytes | None) -> None:
    """A backend that opens what it is offered at once."""
    if state == State.INITIALISING.node:
        bench.set(CARD, state="4", hotplug_status="connected")


def attach(bench: Bench, bridges: Bridges, text: str = "", limit: float = 10) -> CardOffer:
    spec = replace(CardSpec.parse(text), mac=MAC)
    return attach_card(bench.store, bench.loop, 7, spec, bridges, limit)


def left(bench: Bench) -> list[str]:
    return [path for path in (CARD.backend, CARD.frontend) if bench.store.get(path) is not None]


def test_a_card_joins_its_bridge_when_its_interface_is_there(bench: Bench) -> None:
    serve(bench)
    bridges = Bridges()
    assert attach(bench, bridges) == CARD
    assert bridges.asked == [("join", "xenbr0", "vif7.0", 1400)]
    assert bench.store.get(f"{CARD.backend}/hotplug-status") == b"connected"
    assert bench.store.get(f"{CARD.backend}/script") is None
    found = card_of(bench.store, "7", "vif0")
    assert replace(found, mtu=1400) == CARD
    detach_card(bench.store, bench.loop, found, bridges, 10)
    assert (len(bridges.asked), left(bench)) == (1, [])


def test_a_script_is_in_the_place_of_that(bench: Bench) -> None:
    """It is run again before the nodes go, which it reads."""
    serve(bench)
    bridges = Bridges("xnb")
    card = attach(bench, bridges, "script=vif-route,vifname=web0,bridge=other")
    assert card.mtu == 1500, "nobody asks of a bridge, which there may not be"
    detach_card(bench.store, bench.loop, card_of(bench.store, "7", MAC.upper()), bridges, 10)
    assert bridges.asked == [
        ("/scripts/vif-route", CARD.backend, "web0", True),
        ("/scripts/vif-route", CARD.backend, "web0", False),
    ]
    assert left(bench) == []


def test_a_card_without_a_bridge(bench: Bench) -> None:
    serve(bench)
    bridges = Bridges()
    assert attach(bench, bridges, "bridge=,mtu=9000").mtu == 9000
    assert bridges.asked == []


def test_a_bridge_that_is_not_there_is_said_before_anything_is_offered(bench: Bench) -> None:
    with pytest.raises(OperatorError, match="there is no bridge br7"):
        attach(bench, Bridges(), "bridge=br7")
    assert bench.store.get("/local/domain/0/backend/vif") is None


@pytest.mark.parametrize("text", ["", "script=vif-route"])
@pytest.mark.parametrize("waits", [True, False])
def test_what_fails_of_the_bridge_is_the_reason(bench: Bench, text: str, waits: bool) -> None:
    """Some backends do not wait for it, and are told that they have opened it in vain."""
    if waits:
        serve(bench)
    else:
        bench.backend(CARD, lambda state: opens(bench, state))
    with pytest.raises(HostError, match=r"^device is busy$"):
        attach(bench, Bridges(fails="device is busy"), text)
    assert left(bench) == []


def test_a_script_that_fails_at_the_end_keeps_nothing(bench: Bench) -> None:
    serve(bench)
    bridges = Bridges()
    card = attach(bench, bridges, "script=vif-route")
    bridges.fails = "no route"
    with pytest.raises(HostError, match=r"^the card is detached, but no route$"):
        detach_card(bench.store, bench.loop, card, bridges, 10)
    assert left(bench) == []


@pytest.mark.parametrize(("answer", "reason"), [("5", "no tap"), ("1", "the backend does not")])
def test_a_backend_that_makes_no_interface(bench: Bench, answer: str, reason: str) -> None:
    serve(bench, answer)
    bridges = Bridges()
    with pytest.raises(HostError, match=f"^{reason}"):
        attach(bench, bridges, limit=10 if answer == "5" else 0.2)
    assert (bridges.asked, left(bench)) == ([], [])


def test_a_guest_that_keeps_its_card(bench: Bench) -> None:
    card, _ = offer_card(bench.store, 7, CardSpec(mac=MAC), 1500)
    bench.set(card, state="4")
    bench.store.write(f"{card.frontend}/state", b"4")
    with pytest.raises(HostError, match=r"^domain 7 holds vif0, and keeps it: take it down there"):
        detach_card(bench.store, bench.loop, card, Bridges(), 0.2)
    with pytest.raises(HostError, match=r"^the card was not let go in time; its nodes are removed"):
        detach_card(bench.store, bench.loop, card, Bridges(), 0.2, force=True)
    assert left(bench) == []


# What there is.


def test_a_card_is_found_by_number_and_address(bench: Bench) -> None:
    for mac in (MAC, "00:16:3e:00:00:09"):
        offer_card(bench.store, 7, CardSpec(mac=mac), 1500)
    bench.store.remove("/local/domain/0/backend/vif/7/0")  # a frontend alone
    for word, handle in (("vif1", 1), ("1", 1), ("00:16:3E:00:00:09", 1), ("vif0", 0), (MAC, 0)):
        card = card_of(bench.store, "7", word)
        assert (card.handle, card.mac == MAC) == (handle, handle == 0), word
    assert detach(bench.store, bench.loop, card_of(bench.store, "7", "vif0"))
    assert find_card(bench.store, 7, "vif0") is None
    bench.store.remove("/local/domain/7")
    assert card_of(bench.store, "7", "vif1").handle == 1, "its guest is gone"
    for domain, word, error in (
        ("7", "vif3", "^there is no domain 7$"),
        ("web", "vif0", "there is no domain web; if its card is still in .* detach xnbN$"),
        ("7", "0:1", "^mac: 0:1 is no Ethernet address"),
    ):
        with pytest.raises(OperatorError, match=error):
            card_of(bench.store, domain, word)
    bench.store.write("/local/domain/7", b"")
    with pytest.raises(OperatorError, match=r"^guest 7 has no card vif3$"):
        card_of(bench.store, "7", "vif3")


def test_a_card_that_others_serve(bench: Bench) -> None:
    for backend, error in (
        (b"/local/domain/3/backend/vif/7/0", "is served by another domain"),
        (b"/local/domain/0/backend/qnic/7/0", "is of another kind of backend, qnic"),
    ):
        bench.store.write(f"{CARD.frontend}/backend", backend)
        with pytest.raises(OperatorError, match=error):
            card_of(bench.store, "7", "vif0")
