"""Where the instructions go: what blocks.c counted between marks, by world and function.

The whole emulated machine is counted, nothing is sampled.  A short run is subtracted from
a long one, so that what it takes to begin and end is gone; what is left is divided by how
much more was done.  Modules of dom0's kernel and of the guest's lie at the same addresses,
and are not told apart.  Run on the host; makes the plugin with the C compiler there is.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.images import LabError, say

SOURCE = Path(__file__).with_name("blocks.c")
_LINE = struct.Struct("=QQQQ")
_PAGE = 4096
XEN = range(0xFFFF82D000000000, 0xFFFF830000000000)
KERNEL = range(0xFFFFFFFF80000000, 0xFFFFFFFFC0000000)
MODULES = range(0xFFFFFFFFC0000000, 0xFFFFFFFFFF000000)
SHOWN = 40  # functions

Counts = Counter[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Block:
    """Where it is, in the emulated machine and in QEMU's memory, and what was run of it."""

    vaddr: int
    place: int
    instructions: int


def blocks(data: bytes) -> Iterator[Block]:
    """Of a mark's file."""
    for vaddr, place, runs, size in _LINE.iter_unpack(data):
        yield Block(vaddr, place, runs * size)


def plugin(directory: Path) -> Path:
    """blocks.c as QEMU wants it; LabError."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise LabError("a profile takes a C compiler")
    made = directory / "blocks.so"
    words = [compiler, "-std=c11", "-O2", "-shared", "-fPIC", "-o", str(made), str(SOURCE)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"the plugin cannot be built:\n{done.stderr}")
    return made


class Symbols:
    """Names by address, of lines that begin with address, kind and name."""

    def __init__(self, text: str) -> None:
        """Lines of another form, and addresses that are hidden, are left out."""
        words = (line.split() for line in text.splitlines())
        found = sorted((int(w[0], 16), w[2]) for w in words if len(w) >= 3 and len(w[1]) == 1)
        self._addresses = [address for address, _ in found if address]
        self._names = [name for address, name in found if address]

    def name(self, address: int) -> str:
        """Of what lies there, or begins last before it."""
        at = bisect_right(self._addresses, address) - 1
        return self._names[at] if at >= 0 else "?"


def shift(block: Block) -> int:
    """How far a block is from its address; one of a kernel that lies in one piece."""
    return block.place - block.vaddr


def dom0_shift(data: bytes) -> int:
    """That of dom0's kernel, of a mark before which nobody else had much to do."""
    counts: Counter[int] = Counter()
    for block in blocks(data):
        if block.vaddr in KERNEL:
            counts[shift(block)] += block.instructions
    if not counts:
        raise LabError("nothing was counted of dom0's kernel")
    return counts.most_common(1)[0][0]


def our_code(maps: str) -> Callable[[int], int | None]:
    """Of /proc/PID/maps: an address to its place in our extension, None elsewhere."""
    parts = []
    for line in maps.splitlines():
        words = line.split()
        if len(words) > 5 and "x" in words[1] and "/_xbb" in words[5]:
            first, last = (int(word, 16) for word in words[0].split("-"))
            parts.append((range(first, last), int(words[2], 16)))

    def place(address: int) -> int | None:
        return next((address - r.start + at for r, at in parts if address in r), None)

    return place


@dataclass(frozen=True, slots=True)
class Worlds:
    """Who runs at an address."""

    xen: Symbols
    kernel: Symbols
    ours: Symbols
    dom0: int
    place: Callable[[int], int | None]

    def of(self, block: Block) -> tuple[str, str]:
        """World and function."""
        if block.vaddr in XEN:
            return "Xen", self.xen.name(block.vaddr)
        if block.vaddr in KERNEL:
            world = "dom0's kernel" if shift(block) == self.dom0 else "guest's kernel"
            return world, self.kernel.name(block.vaddr)
        if block.vaddr in MODULES:
            return "modules", self.kernel.name(block.vaddr)
        at = self.place(block.vaddr)
        return ("programs", "") if at is None else ("xbbd", self.ours.name(at))

    def count(self, data: bytes) -> Counts:
        """Instructions of a mark's file."""
        counts: Counts = Counter()
        for block in blocks(data):
            counts[self.of(block)] += block.instructions
        return counts


def difference(short: Counts, long: Counts, units: float) -> dict[tuple[str, str], float]:
    """What each unit that the long one did more took."""
    return {key: (long[key] - short[key]) / units for key in short | long}


def table(row: str, costs: dict[tuple[str, str], float]) -> str:
    """Worlds, then the functions that cost most."""
    worlds: Counter[str] = Counter()
    for (world, _), cost in costs.items():
        worlds[world] += round(cost)
    lines = [f"{row}: {sum(worlds.values())} instructions for each I/O or packet", ""]
    lines += [f"{cost:10}  {world}" for world, cost in worlds.most_common()]
    most = sorted(costs.items(), key=lambda item: -item[1])[:SHOWN]
    return "\n".join(
        [*lines, "", *(f"{cost:10.0f}  {world:15}{name}" for (world, name), cost in most)]
    )


def show(out: Path, row: str, extension: Path) -> None:
    """Print what a boot came to; `extension` is ours, which has symbols."""
    results = out / "results"
    alone, short, long = json.loads((results / "marks.json").read_text())

    def read(which: dict[str, float]) -> bytes:
        return (out / f"mark-{which['mark']:.0f}").read_bytes()

    names = subprocess.run(["nm", str(extension)], capture_output=True, text=True, check=True)
    worlds = Worlds(
        Symbols((results / "xensyms").read_text()),
        Symbols((results / "kallsyms").read_text()),
        Symbols(names.stdout),
        dom0_shift(read(alone)),
        our_code((results / "maps").read_text()),
    )
    text = table(
        row,
        difference(
            worlds.count(read(short)), worlds.count(read(long)), long["units"] - short["units"]
        ),
    )
    (out / "profile.txt").write_text(text + "\n")
    print(text)
    say(f"also in {out}/profile.txt")
