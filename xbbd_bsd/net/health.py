"""What is wrong with network cards, and what to do about it: judged by facts others have gathered.

Pure.  What a guest does to itself is no ill health of the host: it is a notice.  Control
thread.
"""

from dataclasses import dataclass
from typing import Final

from xbbd_bsd.findings import BOUND, Finding, Kind, Severity
from xbbd_bsd.net.oids import DRIVER
from xbbd_bsd.xenbus.family import Standing

_WELL: Final = Standing()


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What is known of one card.

    `connected`: its guest is.  `interface_up`: its interface is marked so.  `full_seconds`:
    for how long the guest has posted too few buffers.  `refused`: packets of the guest's.
    """

    unit: int
    guest: str = ""
    mac: str = ""
    interface: str = ""
    connected: bool = False
    interface_up: bool = True
    full_seconds: float = 0.0
    refused: int = 0
    standing: Standing = _WELL


_REASONS: Final = {
    Kind.HELD_BACK: ("the guest waits for its card", "it is tried again by itself"),
    Kind.CLOSED: ("it is closed", "then attach it again, or start its guest again"),
}


def of_card(facts: CardFacts, bound: float = BOUND) -> list[Finding]:
    """What is wrong with a card; `bound`: seconds that a guest may take."""
    name = f"{DRIVER.name}{facts.unit}"
    who = " ".join(word for word in (facts.guest, facts.mac) if word)
    subject = f"{name} ({who})" if who else name
    found = []

    def find(severity: Severity, kind: Kind, what: str, action: str) -> None:
        found.append(Finding(severity, kind, subject, what, action))

    standing = facts.standing
    for kind, reason in ((Kind.HELD_BACK, standing.held_back), (Kind.CLOSED, standing.closed)):
        what, action = _REASONS[kind]
        if reason and standing.by_guest:
            find(Severity.NOTICE, kind, f"{what}: {reason}", "look into the guest")
        elif reason:
            find(
                Severity.ERROR,
                kind,
                f"{what}: {reason}",
                f"see to the reason, {action}; xbbctl log {name} says more",
            )
    if facts.connected and not facts.interface_up:
        find(
            Severity.WARNING,
            Kind.LINK,
            f"its interface {facts.interface} is down, so that the guest reaches nobody",
            "bring it up, as its hotplug script should have, and see that it is in its bridge",
        )
    if facts.connected and facts.full_seconds > bound:
        find(
            Severity.NOTICE,
            Kind.GUEST,
            f"the guest has posted too few buffers for {facts.full_seconds:.0f} s: it gets nothing",
            "look into the guest; nothing is wrong with the card",
        )
    if facts.refused:
        packets = "packet was" if facts.refused == 1 else "packets were"
        find(
            Severity.NOTICE,
            Kind.GUEST,
            f"{facts.refused} {packets} refused, see {DRIVER.node(facts.unit)}.refused",
            "look into the guest; nothing is wrong with the card",
        )
    return found
