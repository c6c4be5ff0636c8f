"""xbbctl list: a line a device; and the table that it is in.

Of disks and of network cards the columns are the same, and what one of them does not have
is "-".  Runs in xbbctl's process.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from errno import ENOENT
from typing import Any, Final

from xbbd_bsd.control.client import Connection
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.ctl.daemon import connect, short
from xbbd_bsd.errors import OperatorError, one_line, shown
from xbbd_bsd.net.oids import DRIVER as CARDS
from xbbd_bsd.oids import DAEMON_ROOT

_COLUMNS: Final = ("name", "guest", "vdev", "mode", "MiB", "state", "path")
# For the curious: who serves it.
_MORE_COLUMNS: Final = (
    *_COLUMNS[:-1],
    *("process", "rss_kb", "age", "takeovers"),
    _COLUMNS[-1],
)
# What that takes, by the names of leaves, and of the STAT verb's own.
_LEAVES: Final = (
    *("guest", "vdev", "mode", "sectors", "hung_seconds", "path"),
    *("paused", "paused_since", "paused_reason"),
    *("handle", "interface", "mac", "bridge"),
)
_MORE_LEAVES: Final = (*_LEAVES, "process", "process_rss_kb", "process_age", "takeovers")
# What no card has.
_OF_DISKS: Final = ("mode", "MiB")
_OF_CARDS: Final = ("handle", "interface", "mac", "bridge")


def run_list(options: argparse.Namespace) -> None:
    """The verb."""
    with connect(options) as connection:
        # No more than is shown, which takes long where there are many.
        leaves = _MORE_LEAVES if options.verbose or options.json else _LEAVES
        devices = connection.whole(Request(Verb.STAT, "", " ".join(leaves)))
        if options.guest:
            devices = _of_guest(devices, options.guest)
        by_hand = {name: _by_hand(connection, name) for name in devices} if options.verbose else {}
        short_of = connection.whole(Request(Verb.GET, DAEMON_ROOT)).get(f"{DAEMON_ROOT}.shortage")
    if short_of:
        print(f"xbbctl: the daemon is out of {one_line(short_of)}", file=sys.stderr)
    rows = [
        _row(device, found) | ({"set_by_hand": by_hand[device]} if options.verbose else {})
        for device, found in devices.items()
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        print_table(
            _MORE_COLUMNS if options.verbose else _COLUMNS,
            [_as_text(row) for row in rows],
            [
                [f"{leaf}: {value} (configured: {said})" for leaf, (value, said) in found.items()]
                for found in by_hand.values()
            ],
        )


def _row(device: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of a device, as JSON has it."""
    row = {
        "name": short(device),
        "guest": found.get("guest") or str(found["domid"]),
        "vdev": found.get("vdev", ""),
        "mode": found.get("mode", ""),
        "MiB": found.get("sectors", 0) // 2048,
        "state": found["state"],
        "hung": found.get("hung_seconds", 0),
        "paused": found.get("paused", ""),
        "paused_since": found.get("paused_since", 0),
        "paused_reason": found.get("paused_reason", ""),
        "reason": found.get("reason", ""),
        "path": found.get("path", ""),
        "process": found.get("process", 0),
        "process_rss_kb": found.get("process_rss_kb", 0),
        "process_age": found.get("process_age", 0),
        "takeovers": found.get("takeovers", 0),
    }
    if CARDS.split(device) is not None:
        row["vdev"] = f"vif{found.get('handle', 0)}"
        row |= {name: found.get(name, "") for name in _OF_CARDS}
    return row


def _as_text(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a table: what a card does not have is "-", and its path is its interface."""
    told = {**row, "rss_kb": row["process_rss_kb"], "age": row["process_age"]}
    told["path"] = shown(row["path"])
    if "interface" in row:
        told |= dict.fromkeys(_OF_DISKS, "-")
        told["path"] = " ".join(filter(None, (row[name] for name in _OF_CARDS[1:])))
    if row["hung"]:
        told["state"] += f", hung {row['hung']} s"
    if row["paused"]:
        told["state"] += f", paused ({row['paused']})"
    if row["paused"] not in ("", "operator"):
        told["path"] += f" ({row['paused_reason']})"
    if row["reason"]:
        told["path"] += f" ({row['reason']})"
    return told


def _of_guest(devices: Mapping[str, Any], guest: str) -> dict[str, Any]:
    """Those of a guest by name or number; OperatorError if it has none."""
    chosen = {
        device: found
        for device, found in devices.items()
        if guest in (found.get("guest") or None, str(found["domid"]), short(device))
    }
    if not chosen:
        raise OperatorError(f"guest {guest} has no device of xbbd", ENOENT)
    return chosen


def _by_hand(connection: Connection, device: str) -> dict[str, tuple[Any, Any]]:
    """The leaves that differ from the configuration: what they are, and what that says."""
    try:
        configured = connection.whole(Request(Verb.CONFIGURED, device))
        found = {leaf: connection.whole(Request(Verb.GET, leaf))[leaf] for leaf in configured}
    except OperatorError:  # it has gone meanwhile
        return {}
    return {
        leaf.removeprefix(f"{device}."): (value, configured[leaf])
        for leaf, value in found.items()
        if value != configured[leaf]
    }


def print_table(
    columns: Sequence[str],
    rows: Sequence[dict[str, Any]],
    below: Sequence[Sequence[str]] = (),
) -> None:
    """Columns as wide as they must be; numbers to the right, the last one free.

    `below`: lines that belong to each row.
    """
    cells = [[one_line(str(row[column])) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    right = [any(isinstance(row[column], int) for row in rows) for column in columns]
    for number, line in enumerate(([name.upper() for name in columns], *cells)):
        fields = [
            text.rjust(width) if at_right else text.ljust(width)
            for text, width, at_right in zip(line, widths, right, strict=True)
        ]
        print("  ".join(fields).rstrip())
        for more in below[number - 1] if below and number else ():
            print(f"    {one_line(more)}")
