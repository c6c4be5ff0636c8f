"""Network cards for attach and detach: offered, joined to their bridge, found, taken back.

What xl has a hotplug script do is done here if no script is named, by the commands of this
host: the daemon runs none.  Runs in xbbctl's process.
"""

import asyncio
import re
from dataclasses import replace
from errno import ENOENT
from typing import Final

from xbbd_bsd.cards import BRIDGE, MTU, CardOffer, CardSpec, check_mac, find_card, offer_card
from xbbd_bsd.ctl.bridges import Bridges
from xbbd_bsd.ctl.offers import domain_of, find_domain, see_through, take_back
from xbbd_bsd.errors import HostError, OperatorError, one_line
from xbbd_bsd.xenstore.client import Store

_SPEC: Final = "[a-z]+=.*"
_CARD: Final = "vif[0-9]{1,9}"


def is_spec(word: str) -> bool:
    """Whether it describes a card, where a disk's path might stand: key=value."""
    return re.fullmatch(_SPEC, word, re.DOTALL) is not None


def is_card(word: str) -> bool:
    """Whether it names a card of a guest, where a disk's name might stand."""
    return re.fullmatch(_CARD, word) is not None or ":" in word


def attach_card(
    store: Store,
    loop: asyncio.AbstractEventLoop,
    domid: int,
    spec: CardSpec,
    bridges: Bridges,
    limit: float,
) -> CardOffer:
    """Offer a card, join it to its bridge when its interface is there; what it has become.

    HostError with the backend's reason if it does not get so far, or the reason of the
    command that failed; no node is left then.  OperatorError if it cannot be offered.
    """
    bridge = BRIDGE if spec.bridge is None else spec.bridge
    script = bridges.script(spec.script) if spec.script else ""
    # Before anything is offered: what cannot be joined need not be there for a moment.
    mtu = MTU if script or not bridge else bridges.mtu(bridge)
    card, token = offer_card(store, domid, replace(spec, script=script), mtu)

    def hotplug() -> None:
        if script:
            bridges.run_script(script, card.backend, interface(card, bridges), online=True)
        elif bridge:
            bridges.join(bridge, interface(card, bridges), card.mtu)

    see_through(store, loop, card, token, limit, hotplug)
    return card


def detach_card(
    store: Store,
    loop: asyncio.AbstractEventLoop,
    card: CardOffer,
    bridges: Bridges,
    limit: float,
    *,
    force: bool = False,
) -> None:
    """Ask guest and backend to let go, then remove the nodes; by force in any case.

    The interface leaves its bridge when the backend removes it; where there is a script it
    is told before the nodes go, as they do though it fails.  HostError if it did, or they
    did not let go in time.
    """
    failed: list[HostError] = []

    def hotplug() -> None:
        try:
            bridges.run_script(card.script, card.backend, interface(card, bridges), online=False)
        except HostError as error:
            failed.append(error)

    script = hotplug if card.script else None
    take_back(store, loop, card, limit, "take it down", script, force=force)
    if failed:
        raise HostError(f"the card is detached, but {failed[0]}")


def interface(card: CardOffer, bridges: Bridges) -> str:
    """The name of a card's interface in this domain."""
    return card.vifname or f"{bridges.prefix}{card.domid}.{card.handle}"


def card_of(store: Store, domain: str, word: str) -> CardOffer:
    """A card of a guest by number or address, or what is left of one; OperatorError."""
    if ":" in word:
        word = check_mac(word)
    domid = domain_of(store, domain, "card", "xnbN")
    card = find_card(store, domid, word)
    if card is None:
        find_domain(store, str(domid))  # the better reason, if it fails
        raise OperatorError(f"guest {domid} has no card {one_line(word)}", ENOENT)
    return card
