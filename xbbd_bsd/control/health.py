"""What is wrong with the daemon, and how all that is wrong is gathered.

Pure: devices are not known here, each is judged by its family; the daemon by facts that
others have gathered, and times are handed in.  Control thread, and xbbctl.
"""

import errno
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from xbbd_bsd.control.protocol import Value
from xbbd_bsd.errors import OperatorError
from xbbd_bsd.findings import BOUND, DAEMON, MOST_BOUND, Finding, Kind, Severity
from xbbd_bsd.oids import DAEMON_ROOT

_LONGEST: Final = 400  # characters of a reason that may be many


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound of all devices that is in somebody's way: how much of what, where it is set.

    `since`: seconds since 1970.
    """

    what: str
    where: str
    since: float


@dataclass(frozen=True, slots=True)
class DaemonFacts:
    """What is known of the daemon.

    `store_since`: seconds since 1970 since when the store is there, or is not; 0 if that is not
    known.  `refused`: why the configuration was refused when it was last read, "" if it was
    not; `refused_since`: since when that is so, likewise.  `shortage`: what the daemon is out
    of, so that clients wait, "" if of nothing.  `limits`: those of all devices that are reached.
    """

    store_connected: bool = True
    store_since: float = 0.0
    refused: str = ""
    refused_since: float = 0.0
    shortage: str = ""
    limits: Sequence[Limit] = ()


class Judged(Protocol):
    """A device that can be asked."""

    def health(self, bound: float, shared: Sequence[Finding], *, alone: bool) -> list[Finding]:
        """What is wrong with it: see family.Numbers."""


def bound_of(value: Value | None) -> float:
    """Seconds that a request may take, as somebody has asked for it; OperatorError."""
    if value is None:
        return BOUND
    try:
        bound = float(value)
    except (ValueError, OverflowError):
        bound = math.nan
    if not 0 < bound <= MOST_BOUND:
        raise OperatorError(
            f"value: must be seconds, more than 0 and up to {MOST_BOUND:.0f}", errno.EINVAL
        )
    return bound


def examine(
    shared: list[Finding], devices: Iterable[tuple[str, Judged]], bound: float = BOUND
) -> Iterator[tuple[str, list[Finding]]]:
    """All that is wrong, by names of the tree: what is `shared` first, then of each device."""
    yield DAEMON_ROOT, shared
    for node, device in devices:
        yield node, device.health(bound, shared, alone=False)


def counted(findings: Iterable[Finding]) -> dict[str, int]:
    """How many there are of each severity that has somebody do something."""
    found = {severity.value: 0 for severity in Severity if severity.unwell}
    for finding in findings:
        if finding.severity.unwell:
            found[finding.severity.value] += 1
    return found


def of_daemon(facts: DaemonFacts) -> list[Finding]:
    """What is wrong with the daemon itself."""
    found = []
    if not facts.store_connected:
        found.append(
            Finding(
                Severity.ERROR,
                Kind.STORE,
                DAEMON,
                "XenStore is lost: connected guests are served, nothing else is until it is back",
                "see whether xenstored runs, and why not",
                facts.store_since or None,
            )
        )
    if facts.refused:
        found.append(
            Finding(
                Severity.WARNING,
                Kind.CONFIGURATION,
                DAEMON,
                "the configuration was refused, and the one before is in use:"
                f" {_cut(facts.refused)}",
                "mend it, see that xbbd -t has nothing to say, then run: xbbctl reload",
                facts.refused_since or None,
            )
        )
    if facts.shortage:
        found.append(
            Finding(
                Severity.WARNING,
                Kind.LIMIT,
                DAEMON,
                f"out of {facts.shortage}: whoever connects waits, devices are refused",
                "raise that limit and restart xbbd, or end what has so many",
                None,
            )
        )
    found += [
        Finding(
            Severity.WARNING,
            Kind.LIMIT,
            DAEMON,
            f"a limit is reached, {limit.what}: devices wait, are refused, or do with less",
            f"see {limit.where}, or detach what is not needed",
            limit.since,
        )
        for limit in facts.limits
    ]
    return found


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
