"""What the lab makes of blocks that were counted: whose they are, and what a unit costs."""

from __future__ import annotations

import re
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.lab import marks, profile
from tests.lab.images import LabError

KERNEL = profile.KERNEL.start
DOM0, GUEST = 0x7000_0000 - KERNEL, 0x9000_0000 - KERNEL
NAMES = f"{KERNEL:016x} T first\n{KERNEL + 0x100:016x} t second\n0000000000000000 A hidden\n"
MAPS = (
    "7f0000001000-7f0000003000 r-xp 00002000 fe:00 9  /job/xbbd_bsd/native/_xbb.abi3.so\n"
    "7f0000003000-7f0000004000 rw-p 00004000 fe:00 9  /job/xbbd_bsd/native/_xbb.abi3.so\n"
)


def counted(*lines: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=QQQQ", *line) for line in lines)


def worlds() -> profile.Worlds:
    return profile.Worlds(
        profile.Symbols(f"{profile.XEN.start:x} T do_iret\n"),
        profile.Symbols(NAMES),
        profile.Symbols("0000000000002010 t ring_main\nU other\n"),
        DOM0,
        profile.our_code(MAPS),
    )


@pytest.mark.parametrize(
    ("vaddr", "place", "whose"),
    [
        (KERNEL + 0x10, KERNEL + 0x10 + DOM0, ("dom0's kernel", "first")),
        (KERNEL + 0x110, KERNEL + 0x110 + GUEST, ("guest's kernel", "second")),
        (profile.XEN.start + 5, 0, ("Xen", "do_iret")),
        (0x7F0000001010, 0, ("xbbd", "ring_main")),
        (0x7F0000003010, 0, ("programs", "")),
        (profile.MODULES.start, 0, ("modules", "second")),
    ],
)
def test_whose_a_block_is(vaddr: int, place: int, whose: tuple[str, str]) -> None:
    assert worlds().count(counted((vaddr, place, 3, 4))) == {whose: 12}


def test_dom0s_kernel_is_the_one_that_was_busy_alone() -> None:
    data = counted((KERNEL, KERNEL + GUEST, 1, 10), (KERNEL, KERNEL + DOM0, 9, 10), (5, 5, 99, 9))
    assert profile.dom0_shift(data) == DOM0
    with pytest.raises(LabError):
        profile.dom0_shift(counted((5, 5, 1, 1)))


def test_what_a_unit_costs_is_what_more_of_them_took() -> None:
    short = Counter({("Xen", "a"): 100, ("Xen", "b"): 10})
    long = Counter({("Xen", "a"): 300, ("xbbd", "c"): 40})
    costs = profile.difference(short, long, 20)
    assert costs == {("Xen", "a"): 10.0, ("Xen", "b"): -0.5, ("xbbd", "c"): 2.0}
    lines = profile.table("a row", costs).splitlines()
    assert lines[0].startswith("a row: 12 instructions")
    assert lines[2].split() == ["10", "Xen"]
    assert lines[5].split() == ["10", "Xen", "a"]


def test_the_mark_is_the_one_that_the_plugin_knows() -> None:
    source = profile.SOURCE.read_text()
    first, last = (
        bytes(int(byte, 16) for byte in re.findall(r"0x(\w\w)\b", found))
        for found in re.findall(r"mark(?:_end)?\[\d\] = {(.*?)}", source)
    )
    assert (first, last) == (marks._NOP, marks._SEED)


def test_executing_a_mark_changes_nothing() -> None:
    marker = marks.Marker()
    assert [marker() for _ in range(3)] == [0, 1, 2]


def test_the_plugin_compiles_without_a_warning(tmp_path: Path) -> None:
    assert profile.plugin(tmp_path).exists()
    words = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    subprocess.run([*words, str(profile.SOURCE)], check=True)
