"""Writes the lists of names in xbbd.4 and xnb.4 from what the program declares.

    python man/oids.py xbbd           shows that of a driver
    python man/oids.py man/xbbd.4     puts it between the two marks in its page

Only the names, types, access and descriptions come from the program (oids.py, and those of
block and net there); the words around them are here.  tests/test_man_tree.py compares.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from xbbd_bsd.block.oids import DRIVER as DISKS
from xbbd_bsd.net.oids import DRIVER as CARDS
from xbbd_bsd.oids import DAEMON, Driver, Leaf

BEGIN: Final = '.\\" Written by oids.py from here'
END: Final = '.\\" to here.'

DRIVERS: Final = {driver.name: driver for driver in (DISKS, CARDS)}
Texts = Mapping[str, tuple[str, str]]
"""Title and first words, by group."""

OF_DISKS: Final[Texts] = {
    "xenbus": ("Device and guest", "As of a device of newbus and of the bus of Xen's backends:"),
    "medium": ("Disk", "What is served to whom, and what was agreed:"),
    "process": ("Process", "Who serves it, as the kernel says; 0 if nobody does:"),
    "pause": (
        "Pause",
        "While a disk is paused nothing of it is begun, and its guest waits; see\n"
        ".Xr xbbd.conf 5 :",
    ),
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
OF_CARDS: Final[Texts] = {
    "xenbus": ("Device and guest", "As of a device of newbus and of the bus of Xen's backends:"),
    "card": (
        "Card",
        "What is given to whom, and what was agreed.\n"
        "What is negotiated is 0 or empty while no guest is connected:",
    ),
    "process": (
        "Process",
        "Who serves it, as the kernel says; 0 if nobody does.\n"
        "As of a disk, with which it may have it in common:",
    ),
    "tunables": (
        "Tunables",
        "To be changed at any time, for one card.\n"
        "They begin as\n.Xr xbbd.conf 5\nsays, and a key that changes there sets its name again:",
    ),
    "limits": ("Limits", "What\n.Xr xbbd.conf 5\nsays:"),
    "counters": (
        "Counters",
        "Since the card was attached, of all its queues.\n"
        ".Li tx\nand\n.Li rx\nare the guest's:\n.Li tx\nis what it sends.",
    ),
    "refusals": (
        "Refused packets",
        "Packets of the guest's that it should not have sent, each once; their sum is\n"
        ".Li tx_errors :",
    ),
    "takeovers": (
        "Take-overs",
        "Since the card was attached; what happens when a daemon dies, or the process of\n"
        "a guest, says\n.Xr xbbd 8 :",
    ),
    "debug": (
        "Of the kernel's driver",
        "The two that it has, by their names and for the same use.\n"
        "Reading the second runs the self-test:",
    ),
    "ring": ("Queues", "A card has as many as were negotiated, from 0:"),
}
TEXTS: Final = {DISKS.name: OF_DISKS, CARDS.name: OF_CARDS}


def access(leaf: Leaf) -> str:
    """What may be done with a leaf, as the page says it."""
    return ("read-write" if leaf.writable else "read-only") + ", tunable" * leaf.tunable


def section(texts: Texts, group: str, node: str, leaves: Iterable[Leaf]) -> Iterator[str]:
    """The lines about leaves below one node."""
    title, text = texts[group]
    yield f".Ss {title}"
    yield f"Names below\n.Va {node} .\n{text}"
    yield ".Bl -tag -width indent -compact"
    for leaf in leaves:
        yield f".It Va {leaf.name} Pq {leaf.type.value}, {access(leaf)}"
        text = leaf.description
        yield (f"\\&{text}" if text[0] in ".'" else text) + "."
    yield ".El"


def page(driver: Driver) -> str:
    """All of the list of a driver; the daemon's own names are with the disks'."""
    texts, unit = TEXTS[driver.name], rf"{driver.root}.\& Ns Ar N"
    lines: list[str] = []
    for group, leaves in driver.groups.items():
        lines += section(texts, group, unit, leaves)
    lines += section(texts, "ring", rf"{unit} Ns .ring.\& Ns Ar M", driver.ring)
    if "daemon" in texts:
        lines += section(texts, "daemon", "hw.xbbd", DAEMON)
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command."""
    path = Path(sys.argv[1])
    driver = DRIVERS[path.stem]
    if not path.suffix:
        print(page(driver), end="")
        return
    before, _, rest = path.read_text().partition(f"{BEGIN}\n")
    _, mark, after = rest.partition(f"{END}\n")
    assert mark, f"{path} has no marks"
    path.write_text(f"{before}{BEGIN}\n{page(driver)}{END}\n{after}")


if __name__ == "__main__":
    main()
