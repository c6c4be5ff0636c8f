"""What xl does for a network card: what may be said of one, its nodes, its number and address.

Nodes are those of libxl 4.19 (libxl_nic.c).  How any device is offered and taken back is
in toolstack.py; a bridge is not known here.  A card's number, and its address if it was
given none, are chosen in the transaction that offers it, so that two who offer at once
get two.  Runs on the thread of the store's loop.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from errno import EEXIST, EINVAL, ENOENT
from typing import Final

from xbbd_bsd.errors import OperatorError, one_line, printable
from xbbd_bsd.toolstack import named_backend, new_token, place, there
from xbbd_bsd.xenbus.states import State
from xbbd_bsd.xenstore.client import Store, StoreError, Transaction

BRIDGE: Final = "xenbr0"  # xl's, if none is named
MTU: Final = 1500
LEAST_MTU: Final = 68
MOST_MTU: Final = 65521  # what a frame of 65535 bytes has room for
OUI: Final = "00:16:3e"  # Xen's
_BACKENDS: Final = "/local/domain/0/backend/vif"
_INTERFACE: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,14}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CardSpec:
    """A card as a word of the command line describes it, in xl's spelling of vif.

    "bridge=xenbr0,mac=00:16:3e:01:02:03".  `bridge`: None for xl's, "" for none at all;
    `mac`: None for one that nobody has; `mtu`: None for the bridge's; `script`: in place of
    joining the bridge; `vifname`: of the interface, "" for the usual one.
    """

    bridge: str | None = None
    mac: str | None = None
    mtu: int | None = None
    script: str = ""
    vifname: str = ""

    @classmethod
    def parse(cls, text: str) -> "CardSpec":
        """OperatorError that names the key."""
        found: dict[str, str | int] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, mark, value = part.partition("=")
            if not mark:
                raise _wrong(part, "must be key=value, as in bridge=xenbr0,mac=00:16:3e:01:02:03")
            if key in found:
                raise _wrong(key, "stands there twice")
            if key == "type":
                if value != "vif":
                    raise _wrong(key, f"{value} is of device models; a card of xbbd is of type vif")
                continue
            if key not in KEYS:
                raise _wrong(key, f"no key of a card; there are {', '.join(KEYS)}")
            found[key] = _CHECKS[key](value)
        return cls(**found)  # type: ignore[arg-type]


KEYS: Final = tuple(field.name for field in fields(CardSpec))
"""What may be said of a card; besides, type=vif."""


def _wrong(what: str, words: str) -> OperatorError:
    return OperatorError(f"{one_line(what):.64}: {one_line(words)}", EINVAL)


def _bridge(value: str) -> str:
    return _interface("bridge", value) if value else ""


def _vifname(value: str) -> str:
    return _interface("vifname", value)


def _interface(key: str, value: str) -> str:
    if _INTERFACE.fullmatch(value) is None:
        raise _wrong(key, f"{value} is no name of an interface, which has 15 characters at most")
    return value


def check_mac(value: str) -> str:
    """An Ethernet address that a card may have, as it is written in XenStore; OperatorError."""
    if re.fullmatch("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}", value) is None:
        raise _wrong("mac", f"{value} is no Ethernet address, write {OUI}:01:02:03")
    if int(value[:2], 16) & 1:
        raise _wrong("mac", f"{value} is the address of a group, not of a card")
    if not int(value.replace(":", ""), 16):
        raise _wrong("mac", f"{value} is nobody's address")
    return value.lower()


def _mtu(value: str) -> int:
    if not (re.fullmatch("[0-9]{1,5}", value) and LEAST_MTU <= int(value) <= MOST_MTU):
        raise _wrong("mtu", f"{value}: must be {LEAST_MTU} to {MOST_MTU}")
    return int(value)


def _script(value: str) -> str:
    if not value:
        raise _wrong("script", "has no name")
    return value


_CHECKS: Final[dict[str, Callable[[str], str | int]]] = {
    "bridge": _bridge,
    "mac": check_mac,
    "mtu": _mtu,
    "script": _script,
    "vifname": _vifname,
}


@dataclass(frozen=True, slots=True)
class CardOffer:
    """A card for a guest, with all that is known of it.

    `script` empty: whoever offers it does what the script would.
    """

    domid: int
    handle: int
    mac: str
    bridge: str = BRIDGE
    mtu: int = MTU
    script: str = ""
    vifname: str = ""

    @property
    def noun(self) -> str:
        """For messages."""
        return "card"

    @property
    def name(self) -> str:
        """By its number, since a guest calls it as it likes."""
        return f"vif{self.handle}"

    @property
    def backend(self) -> str:
        """The backend's directory."""
        return f"{_BACKENDS}/{self.domid}/{self.handle}"

    @property
    def frontend(self) -> str:
        """The frontend's directory."""
        return f"/local/domain/{self.domid}/device/vif/{self.handle}"

    def backend_nodes(self) -> dict[str, bytes]:
        """What libxl writes for the backend; the last, so that it waits for the script."""
        said = {
            "script": self.script,
            "vifname": self.vifname,
            "mtu": str(self.mtu) if self.mtu != MTU else "",
            "bridge": self.bridge,
        }
        return {
            "frontend": self.frontend.encode(),
            "frontend-id": b"%d" % self.domid,
            "online": b"1",
            "state": State.INITIALISING.node,
            **{name: os.fsencode(value) for name, value in said.items() if value},
            "mac": self.mac.encode(),
            "handle": b"%d" % self.handle,
            "type": b"vif",
            "hotplug-status": b"",
        }

    def frontend_nodes(self) -> dict[str, bytes]:
        """What libxl writes for the frontend."""
        return {
            "backend": self.backend.encode(),
            "backend-id": b"0",
            "state": State.INITIALISING.node,
            "handle": b"%d" % self.handle,
            "mac": self.mac.encode(),
            "mtu": b"%d" % self.mtu,
            "trusted": b"1",
        }

    @property
    def read_only(self) -> tuple[str, ...]:
        """What the guest goes by, and its host decides."""
        return ("mtu",)

    @property
    def hotplug_nodes(self) -> dict[str, bytes]:
        """That the interface is where it belongs."""
        return {"hotplug-status": b"connected"}


# Offering.


def random_mac() -> str:
    """Of Xen's, as libxl draws them: the first bit of its own half is 0."""
    own = secrets.token_bytes(3)
    return f"{OUI}:{own[0] & 0x7F:02x}:{own[1]:02x}:{own[2]:02x}"


def offer_card(
    store: Store, domid: int, spec: CardSpec, mtu: int, draw: Callable[[], str] = random_mac
) -> tuple[CardOffer, bytes]:
    """Write all nodes of both ends, with the next number; the card, and what names the offer.

    `mtu` if the spec has none.  OperatorError if the guest is gone, or another card has that
    address.
    """
    token = new_token()

    def body(transaction: Transaction) -> CardOffer | OperatorError:
        taken = dict(_addresses(transaction))
        if spec.mac in taken:
            who = taken[spec.mac]
            return OperatorError(f"{spec.mac} is the address of {who} already", EEXIST)
        card = CardOffer(
            domid,
            _free_handle(transaction, domid),
            spec.mac or next(mac for mac in iter(draw, "") if mac not in taken),
            bridge=BRIDGE if spec.bridge is None else spec.bridge,
            mtu=spec.mtu or mtu,
            script=spec.script,
            vifname=spec.vifname,
        )
        return place(transaction, card, token) or card

    found = store.transaction(body)
    if isinstance(found, OperatorError):
        raise found
    return found, token


def _free_handle(transaction: Transaction, domid: int) -> int:
    """The lowest number that neither end of any card has."""
    taken = {
        name
        for path in (f"{_BACKENDS}/{domid}", f"/local/domain/{domid}/device/vif")
        for name in _children(transaction, path)
    }
    return next(number for number in range(len(taken) + 1) if str(number) not in taken)


def _addresses(nodes: Store | Transaction) -> Iterator[tuple[str, str]]:
    """Address of each card that this domain serves, and whose it is."""
    for domid in _children(nodes, _BACKENDS):
        for handle in _children(nodes, f"{_BACKENDS}/{domid}"):
            mac = nodes.get(f"{_BACKENDS}/{domid}/{handle}/mac")
            if mac:
                yield printable(mac).lower(), f"guest {domid}'s card vif{handle}"


def _children(nodes: Store | Transaction, path: str) -> list[str]:
    try:
        return nodes.list(path)
    except StoreError as error:
        if error.errno != ENOENT:
            raise
        return []


# What there is.


def card_number(word: str) -> int | None:
    """The number of a card of a guest, vif0 or 0; None if it is something else."""
    match = re.fullmatch("(?:vif)?([0-9]{1,9})", word)
    return int(match[1]) if match else None


def find_card(store: Store, domid: int, word: str) -> CardOffer | None:
    """A card of a guest by its number or address, or what is left of one; None if there is none.

    OperatorError if another domain serves it.
    """
    frontends = f"/local/domain/{domid}/device/vif"
    handle = card_number(word)
    handles = (
        [str(handle)]
        if handle is not None
        else {*_children(store, frontends), *_children(store, f"{_BACKENDS}/{domid}")}
    )
    for name in handles:
        card = _card_there(store, domid, name)
        if card is not None and (handle is not None or card.mac == word.lower()):
            return card
    return None


def _card_there(store: Store, domid: int, handle: str) -> CardOffer | None:
    if not handle.isdigit():
        return None
    card = CardOffer(domid, int(handle), "")
    kind = named_backend(store, domid, card.frontend)
    if kind not in ("vif", None):
        raise OperatorError(f"{card.frontend} is of another kind of backend, {kind}")
    if kind is None and not there(store, card):
        return None

    def said(name: str) -> str:
        value = store.get(f"{card.backend}/{name}")
        if value is None and name == "mac":
            value = store.get(f"{card.frontend}/{name}")
        return os.fsdecode(value or b"")

    return CardOffer(
        domid,
        int(handle),
        said("mac").lower(),
        bridge=said("bridge"),
        script=said("script"),
        vifname=said("vifname"),
    )
