"""Writes the list of names in xbbd.4 from what the program declares.

    python man/oids.py            shows it
    python man/oids.py xbbd.4     puts it between the two marks in that page

Only the names, types, access and descriptions come from the program (oids.py
and block/oids.py there); the words around them are here.  tests/test_man.py compares the page.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.oids import DAEMON, Leaf

BEGIN: Final = '.\\" Written by oids.py from here'
END: Final = '.\\" to here.'

UNIT: Final = r"dev.xbbd.\& Ns Ar N"
TEXTS: Final = {
    "xenbus": ("Device and guest", "As of a device of newbus and of the bus of Xen's backends:"),
    "medium": ("Disk", "What is served to whom, and what was agreed:"),
    "process": ("Process", "Who serves it, as the kernel says; 0 if nobody does:"),
    "tunables": (
        "Tunables",
        "To be changed at any time, for one disk.\n"
        "They begin as\n.Xr xbbd.conf 5\nsays, and a key that changes there sets its name again:",
    ),
    "limits": (
        "Limits",
        "What\n.Xr xbbd.conf 5\nsays of this disk, which is not always what its guest has"
        " agreed to:",
    ),
    "counters": (
        "Counters",
        "Since the disk was attached.\nWriting one lets it go on from there, and disturbs nobody:",
    ),
    "gauges": (
        "Gauges",
        "What is so now.\n"
        "Of several rings it is the sum, or the largest where a sum means nothing.\n"
        "All are 0 while no guest is connected:",
    ),
    "errors": (
        "Errors",
        "Requests that failed since the disk was attached, each once.\n"
        "The first are the host's fault, whose disk failed, or is shorter than when the\n"
        "guest connected; the guest's, who asked for what it cannot have, have names of\n"
        "their own.\n"
        "What a disk failed at is not always what the guest asked for: a barrier may fail\n"
        "for its flush.",
    ),
    "takeovers": (
        "Take-overs",
        "Since the disk was attached; what happens when a daemon dies, or the process of\n"
        "a guest, says\n.Xr xbbd 8 .\n"
        "Where each guest has a process, this is how often it was started again while\n"
        "the guest was connected:",
    ),
    "devstat": ("Records of devstat", "See\n.Sx STATISTICS :"),
    "latency": (
        "Latency",
        "From the moment a request is taken off the ring until it is answered.\n"
        "Percentiles are up to an eighth too high, never too low:",
    ),
    "ring": ("Rings", "A disk has as many as were negotiated, from 0:"),
    "daemon": ("The daemon", "Of the daemon itself, and what\n.Xr xbbd.conf 5\nsays:"),
}


def access(leaf: Leaf) -> str:
    """What may be done with a leaf, as the page says it."""
    return ("read-write" if leaf.writable else "read-only") + ", tunable" * leaf.tunable


def section(group: str, node: str, leaves: Iterable[Leaf]) -> Iterator[str]:
    """The lines about leaves below one node."""
    title, text = TEXTS[group]
    yield f".Ss {title}"
    yield f"Names below\n.Va {node} .\n{text}"
    yield ".Bl -tag -width indent -compact"
    for leaf in leaves:
        yield f".It Va {leaf.name} Pq {leaf.type.value}, {access(leaf)}"
        text = leaf.description
        yield (f"\\&{text}" if text[0] in ".'" else text) + "."
    yield ".El"


def page() -> str:
    """All of the list."""
    lines: list[str] = []
    for group, leaves in DRIVER.groups.items():
        lines += section(group, UNIT, leaves)
    lines += section("ring", rf"{UNIT} Ns .ring.\& Ns Ar M", DRIVER.ring)
    lines += section("daemon", "hw.xbbd", DAEMON)
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    if len(sys.argv) == 1:
        print(page(), end="")
        return
    path = Path(sys.argv[1])
    before, _, rest = path.read_text().partition(f"{BEGIN}\n")
    _, mark, after = rest.partition(f"{END}\n")
    assert mark, f"{path} has no marks"
    path.write_text(f"{before}{BEGIN}\n{page()}{END}\n{after}")


if __name__ == "__main__":
    main()
