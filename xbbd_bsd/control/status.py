"""xbbctl health: says what is wrong, for people, for mail and for monitoring.

In the manner of zpool status -x: one line if all is well, else what is not and
what to do.  What is wrong is the daemon's to judge.  Blocking; runs in xbbctl.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Any

from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.errors import OperatorError, one_line
from xbbd_bsd.findings import Severity
from xbbd_bsd.net.oids import DRIVER as CARDS
from xbbd_bsd.oids import split

Found = Mapping[str, list[dict[str, Any]]]
"""What the verb answers: findings by names of the tree."""


class Exit(IntEnum):
    """The statuses of the command."""

    WELL = 0
    UNWELL = 1
    UNKNOWN = 2


def tell(ask: Callable[[], Found], *, verbose: bool, as_json: bool) -> Exit:
    """Ask the daemon how all is, and print it; the status to exit with.

    `verbose`: with notices, of what guests did to themselves.  JSON has them always.
    """
    try:
        found = ask()
    except OperatorError as error:
        print(f"xbbctl: {one_line(str(error))}", file=sys.stderr)
        return Exit.UNKNOWN
    well = not any(_unwell(finding) for finding in _all(found))
    if as_json:
        told = {"well": well, **{f"{noun}s": n for noun, n in _known(found)}, "findings": found}
        print(json.dumps(told, indent=2))
    else:
        _print(found, well=well, verbose=verbose)
    return Exit.WELL if well else Exit.UNWELL


def _print(found: Found, *, well: bool, verbose: bool) -> None:
    if well:
        print(f"all is well: {told}" if (told := _counted(found)) else "no devices")
    for finding in _all(found):
        if verbose or _unwell(finding):
            print(
                one_line("{severity}: {subject}: {what}".format(**finding)) + _date(finding["when"])
            )
            print(one_line(f"    {finding['action']}"))


def _known(found: Found) -> list[tuple[str, int]]:
    """How many devices there are of the drivers that we have a word for, disks first."""
    return [
        (driver.noun, sum(driver.split(node) is not None for node in found))
        for driver in (DRIVER, CARDS)
    ]


def _counted(found: Found) -> str:
    """How many devices there are, in words; "" if none."""
    told = [
        f"{number} {noun}{'' if number == 1 else 's'}" for noun, number in _known(found) if number
    ]
    others = Counter(
        parts[0]
        for node in found
        if (parts := split(node)) is not None and parts[0] not in (DRIVER.name, CARDS.name)
    )
    return ", ".join([*told, *(f"{number} {name}" for name, number in others.items())])


def _all(found: Found) -> Iterable[dict[str, Any]]:
    return (finding for findings in found.values() for finding in findings)


def _unwell(finding: Mapping[str, Any]) -> bool:
    """What a newer daemon calls otherwise is taken for no notice."""
    return bool(finding["severity"] != Severity.NOTICE.value)


def _date(when: float | None) -> str:
    try:
        return time.strftime(" (%Y-%m-%d %H:%M:%S)", time.localtime(when)) if when else ""
    except (OverflowError, ValueError, OSError):  # somebody else has written to the segment
        return ""
