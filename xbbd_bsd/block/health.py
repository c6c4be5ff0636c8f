"""What is wrong with disks, and what to do about it: judged by facts that others have gathered.

Pure: what is known of a disk `DiskFacts` has, of what all disks share `SharedFacts`;
times are handed in.  What a guest does to itself is no ill health of the host: it is a
notice.  Control thread.
"""

import errno
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.errors import shown
from xbbd_bsd.findings import BOUND, DAEMON, Finding, Kind, Severity
from xbbd_bsd.ledger import NO_ERRORS, Errors, Past

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_PLAIN: Final = re.compile(r"[\w@%+=:,./-]+", re.ASCII)
_OCTET: Final = re.compile(r"\\x(..)")  # as shown() has it, which shells do not agree on


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What is known of one device.

    `errors` are the host's, `guest_errors` what its guest did wrong.  `ages`: seconds, of
    each request in flight.  `paused`: who keeps requests back, "" if nobody does.
    `path_state`: "" if the path leads to the file that is
    open, else "gone", "another", or "truncated".  `held_back` and `closed` are
    reasons, "" if it is neither; `by_guest`: the guest is to blame for that.
    """

    unit: int
    guest: str = ""
    vdev: str = ""
    path: str = ""
    errors: Errors = NO_ERRORS
    guest_errors: Errors = NO_ERRORS
    hung_seconds: int = 0
    ages: Sequence[float] = ()
    paused: str = ""
    paused_since: int = 0
    paused_reason: str = ""
    path_state: str = ""
    held_back: str = ""
    closed: str = ""
    by_guest: bool = False


@dataclass(frozen=True, slots=True)
class Loss:
    """A disk that lost something and is kept closed: why, under which guest, since when."""

    path: str
    reason: str
    guest: str = ""
    when: float = 0.0


@dataclass(frozen=True, slots=True)
class SharedFacts:
    """What is known of disks that are no device's now."""

    losses: Sequence[Loss] = ()
    past: Sequence[Past] = ()


def of_shared(facts: SharedFacts) -> list[Finding]:
    """What is wrong with all that."""
    return [*map(_of_loss, facts.losses), *map(_of_past, facts.past)]


def of_one(
    facts: DiskFacts, bound: float, shared: Sequence[Finding], *, alone: bool
) -> list[Finding]:
    """What is wrong with a device, where what is `shared` is known or told besides.

    `alone`: it is not told, so that what it says of the disk of this path belongs here.
    """
    lost = {found.subject for found in shared if found.kind is Kind.LOST}
    found = of_disk(facts, bound, lost=lost)
    return [*found, *(one for one in shared if one.subject == facts.path)] if alone else found


def _of_loss(loss: Loss) -> Finding:
    if not loss.path.startswith("/"):
        return Finding(
            Severity.ERROR,
            Kind.LOST,
            DAEMON,
            "of a disk that has lost something only that is known: its file is damaged",
            "the disk that does not open for that says so: check it or restore it, then run"
            " xbbctl clear with its path",
        )
    whose = f" under guest {loss.guest}" if loss.guest else ""
    return Finding(
        Severity.ERROR,
        Kind.LOST,
        loss.path,
        f"writes may be lost, {loss.reason}{whose}: it is not opened again",
        f"check the disk or restore it, then run: xbbctl clear {_word(loss.path)}",
        loss.when or None,
    )


def _of_past(past: Past) -> Finding:
    whose = f" while guest {past.guest} had it" if past.guest else ""
    return Finding(
        Severity.ERROR,
        Kind.ERRORS,
        past.path,
        f"{_failures(past.errors)}{whose}{_last(past.errors)}",
        f"{_cure(past.errors, past.path)}, then run: xbbctl clear {_word(past.path)}",
        past.errors.when or None,
    )


def of_disk(
    facts: DiskFacts, bound: float = BOUND, lost: frozenset[str] | set[str] = frozenset()
) -> list[Finding]:
    """What is wrong with a device; `bound`: seconds that a request may take.

    `lost`: paths of disks that are found to have lost something, which is why those are closed.
    """
    name = f"{DRIVER.name}{facts.unit}"
    who = " ".join(word for word in (facts.guest, facts.vdev) if word)
    subject = f"{name} ({who})" if who else name
    found = []

    def find(
        severity: Severity, kind: Kind, what: str, action: str, when: float | None = None
    ) -> None:
        found.append(Finding(severity, kind, subject, what, action, when))

    errors = facts.errors
    if errors.total:
        find(
            Severity.ERROR,
            Kind.ERRORS,
            f"{_failures(errors)}{_last(errors)}",
            f"{_cure(errors, facts.path)}, then run: xbbctl clear {name}",
            errors.when or None,
        )
    older = [age for age in facts.ages if age > bound]
    if facts.paused not in ("", "swap"):  # which is over soon
        failed = facts.paused != "operator"
        full = any(f"({errno.errorcode[number]})" in facts.paused_reason for number in _FULL)
        cure = f"{_cure_of(full, facts.path)}, then run" if failed else "run"
        find(
            Severity.ERROR if failed else Severity.WARNING,
            Kind.PAUSED,
            f"it is paused, and its guest waits: {facts.paused_reason}",
            f"{cure}: xbbctl resume {name}",
            float(facts.paused_since) or None,
        )
    elif facts.hung_seconds:
        find(
            Severity.ERROR,
            Kind.HUNG,
            f"{facts.path or 'the disk'} has not answered for {facts.hung_seconds} s",
            f"{_where_it_hangs(facts.path, name)}; what waits: xbbctl inflight {name}",
        )
    elif older:
        find(
            Severity.WARNING,
            Kind.SLOW,
            f"{_number(len(older), 'request is', 'requests are')} older than {bound:g} s,"
            f" the oldest {max(older):.0f} s",
            f"see xbbctl inflight {name}, and how {facts.path or 'the disk'} does",
        )
    if facts.path_state in _PATHS:
        severity, what, action = _PATHS[facts.path_state]
        find(severity, Kind.PATH, f"{facts.path} {what}", action.format(name=name))
    # That it waits or is closed for a loss is said where the loss is.
    for kind, reason, what, action in (
        (
            Kind.HELD_BACK,
            facts.held_back,
            "the guest waits for its disk",
            "it is tried again by itself",
        ),
        (
            Kind.CLOSED,
            facts.closed,
            "it is closed",
            "then attach it again, or start its guest again",
        ),
    ):
        if reason and facts.by_guest:
            find(Severity.NOTICE, kind, f"{what}: {reason}", "look into the guest")
        elif reason and facts.path not in lost:
            find(
                Severity.ERROR,
                kind,
                f"{what}: {reason}",
                f"see to the reason, {action}; xbbctl log {name} says more",
            )
    if facts.guest_errors.total:
        find(
            Severity.NOTICE,
            Kind.GUEST,
            f"the guest asked for what cannot be: {_list(facts.guest_errors.counts)}"
            + _last(facts.guest_errors),
            "look into the guest; nothing is wrong with the disk",
            facts.guest_errors.when or None,
        )
    return found


_PATHS: Final[Mapping[str, tuple[Severity, str, str]]] = {
    "gone": (
        Severity.ERROR,
        "leads nowhere any more, and the guest uses what it led to",
        "what the guest has is lost when it lets go of it: save it from within the guest,"
        " or give the file its name back",
    ),
    "another": (
        Severity.WARNING,
        "is another file by now than the one that the guest uses",
        "the guest has the new one when it starts again: if that is meant, stop and start"
        " it; if not, put the old one back",
    ),
    "truncated": (
        Severity.ERROR,
        "was cut off while the guest uses it",
        "what was beyond its end is lost: restore it and check what is in it; if that is"
        " meant, run: xbbctl resize {name}",
    ),
}


# What is counted: one of it, and many.
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "read": ("read", "reads"),
    "write": ("write", "writes"),
    "flush": ("flush", "flushes"),
    "discard": ("discard", "discards"),
    "read_only": ("write to a read-only disk", "writes to a read-only disk"),
    "beyond_end": ("request beyond the end", "requests beyond the end"),
    "grants": ("request with bad grants", "requests with bad grants"),
    "malformed": ("malformed request", "malformed requests"),
}


def _failures(errors: Errors) -> str:
    return f"{_list(errors.counts)} failed since that was last cleared"


def _last(errors: Errors) -> str:
    return f"; the last: {errors.last}" if errors.last else ""


def _where_it_hangs(path: str, name: str) -> str:
    """What to look into; a store that is no path has no file server, and no file system."""
    if path and not path.startswith("/"):
        return f"see whether what serves it runs and can be reached, xbbctl log {name} says why not"
    return "see whether what it is on hangs, as a file server or a file system that is frozen"


def _cure(errors: Errors, path: str) -> str:
    return _cure_of(errors.errno in _FULL, path)


def _cure_of(full: bool, path: str) -> str:
    if full:
        return f"make room where {path or 'the disk'} is"
    return f"look into {path or 'the disk'} and what it is on"


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(_number(n, *_WORDS.get(name, (name, name))) for name, n in counts.items() if n)


def _number(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _word(path: str) -> str:
    """A path as one word of a shell, that can be printed and typed."""
    if not path.isprintable():
        octal = _OCTET.sub(lambda found: f"\\{int(found[1], 16):03o}", shown(path))
        return "$'" + octal.replace("'", "\\'") + "'"
    return path if _PLAIN.fullmatch(path) else "'" + path.replace("'", "'\\''") + "'"
