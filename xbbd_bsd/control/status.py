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
from xbbd_bsd.oids import split

Found = Mapping[str, list[dict[str, Any]]]
"""What the verb answers: findings by names of the tree."""


class Exit(IntEnum):
    """The statuses of the command."""

    WELL = 0
    UNWELL = 1
    UNKNOWN = 2


def tell(ask: Callable[[], Found], *, verbose: bool, as_json: bool) -> Exit:
    """Ask the daemon how disks are, and print it; the status to exit with.

    `verbose`: with notices, of what guests did to themselves.  JSON has them always.
    """
    try:
        found = ask()
    except OperatorError as error:
        print(f"xbbctl: {one_line(str(error))}", file=sys.stderr)
        return Exit.UNKNOWN
    well = not any(_unwell(finding) for finding in _all(found))
    if as_json:
        print(json.dumps({"well": well, "disks": _disks(found), "findings": found}, indent=2))
    else:
        _print(found, well=well, verbose=verbose)
    return Exit.WELL if well else Exit.UNWELL


def _print(found: Found, *, well: bool, verbose: bool) -> None:
    if well:
        print(f"all is well: {told}" if (told := _counted(found)) else "no disks")
    for finding in _all(found):
        if verbose or _unwell(finding):
            print(
                one_line("{severity}: {subject}: {what}".format(**finding)) + _date(finding["when"])
            )
            print(one_line(f"    {finding['action']}"))


def _disks(found: Found) -> int:
    return sum(DRIVER.split(node) is not None for node in found)


def _counted(found: Found) -> str:
    """How many devices there are, disks first; "" if none."""
    disks = _disks(found)
    others = Counter(
        parts[0] for node in found if (parts := split(node)) is not None and parts[0] != DRIVER.name
    )
    told = [f"{disks} disk{'' if disks == 1 else 's'}"] if disks else []
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
