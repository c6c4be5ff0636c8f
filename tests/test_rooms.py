"""The rooms of the data plane: who may include and call whom, and that nobody goes in circles.

Read off the sources, those of both operating systems; and libraries of some rooms are
linked without the others.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.circles import circle
from xbbd_bsd.native.build import CFLAGS, ROOMS, sources

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "xbbd_bsd" / "native"

# Each room, and those that it may know: never one above it, never a neighbour.
MAY_KNOW = {
    "hv": {"hv"},
    "core": {"hv", "core"},
    "block": {"hv", "core", "block"},
    "net": {"hv", "core", "net"},
    "front": {"hv", "core", "block", "net", "front"},
    "guest": {"hv", "core", "block", "net", "guest"},
}
CONTRACT = {"internal.h", "xbb.h"}
# What reckons and does nothing else.  It may have bytes moved, and ask how large a ring is.
PURE = (
    "block/blkif.c",
    "block/coalesce.c",
    "net/headers.c",
    "net/netif.c",
    "net/offload.c",
    "net/selftest.c",
    "net/sums.c",
)
HARMLESS = {
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "__assert_fail",
    "__stack_chk_fail",
    "xbb_ring_slots",
}
PLATFORMS = ("linux", "freebsd")

Files = Mapping[str, str]
"""Texts by their names, "ROOM/FILE"."""


def room_of(name: str) -> str:
    return name.partition("/")[0]


def product(platform: str) -> dict[str, str]:
    """The C files of a platform and all headers, without comments and literals."""
    paths = [ROOT / name for name in sources(platform)]
    paths += [
        path for path in NATIVE.glob("*/*.h") if platform in path.name or "_" not in path.name
    ]
    return {str(path.relative_to(NATIVE)): bare(path.read_text()) for path in paths}


def bare(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def includes(text: str) -> list[str]:
    return re.findall(r'^#include "([^"]+)"', text, re.M)


def unquoted(text: str) -> str:
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', text)


def defined(files: Files) -> dict[str, str]:
    """Which file has a function or an object that others can name."""
    found: dict[str, str] = {}
    for name, text in files.items():
        functions = re.findall(r"^(?!static|\s)[\w *]+\n(\w+)\([^;{]*\)\n\{", text, re.M)
        objects = re.findall(r"^(?!static|extern)\w[\w ]*[ *](\w+) = ", text, re.M)
        for symbol in (*functions, *objects):
            if name.endswith(".c"):
                assert symbol not in found, f"{symbol} is in {found[symbol]} and {name}"
                found[symbol] = name
    return found


def calls(files: Files) -> Iterator[tuple[str, str, str]]:
    """Caller, callee, and what is called, or named otherwise."""
    where = defined(files)
    for name, text in files.items():
        if name.endswith(".c"):
            words = set(re.findall(r"(?<!struct )(?<!\.)(?<!->)\b\w+\b", unquoted(text)))
            for symbol in words & where.keys():
                if where[symbol] != name:
                    yield name, where[symbol], symbol


def included(files: Files) -> Iterator[tuple[str, str]]:
    for name, text in files.items():
        for header in includes(text):
            if header not in CONTRACT:
                yield name, header


def upwards(files: Files) -> list[str]:
    """Whatever goes to a room that the one it is in must not know."""
    pairs = [(a, b, f"includes {b}") for a, b in included(files)]
    pairs += [(a, b, f"uses {symbol} of {b}") for a, b, symbol in calls(files)]
    return [f"{a} {what}" for a, b, what in pairs if room_of(b) not in MAY_KNOW[room_of(a)]]


def circles(files: Files) -> list[str]:
    """A circle of calls, and one of headers; nothing if there is none."""
    edges: dict[str, set[str]] = {}
    for caller, callee, _ in calls(files):
        edges.setdefault(caller, set()).add(callee)
    headers: dict[str, set[str]] = {}
    for name, header in included(files):
        headers.setdefault(name, set()).add(header)
    return circle(edges) or circle(headers)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_room_knows_one_above_it(platform: str) -> None:
    files = product(platform)
    assert len(defined(files)) > 150
    assert upwards(files) == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_nothing_goes_in_circles(platform: str) -> None:
    assert circles(product(platform)) == []


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("core/ring.c", '#include "block/block.h"', "core/ring.c includes block/block.h"),
        ("hv/hv.h", '#include "core/core.h"', "hv/hv.h includes core/core.h"),
        ("block/data.c", '#include "front/front.h"', "block/data.c includes front/front.h"),
        (
            "core/kick.c",
            "int xbb_now = xbb_layout(1);",
            "core/kick.c uses xbb_layout of block/blkif.c",
        ),
        ("hv/sim.c", "int x = xbb_kick(0);", "hv/sim.c uses xbb_kick of core/kick.c"),
    ],
)
def test_what_goes_upwards_is_found(file: str, line: str, said: str) -> None:
    files = product("linux")
    files[file] += f"\n{line}\n"
    assert said in upwards(files)


@pytest.mark.parametrize(
    ("file", "line", "members"),
    [
        ("core/kick.c", "\tint x = xbb_conn_stop(0);", {"core/kick.c", "core/conn.c"}),
        ("block/answer.c", "\tint x = xbb_queue_gather(0);", {"block/answer.c", "block/intake.c"}),
        ("core/persist.h", '#include "core/core.h"', {"core/persist.h", "core/core.h"}),
    ],
)
def test_a_circle_is_found(file: str, line: str, members: set[str]) -> None:
    files = product("linux")
    files[file] += f"\n{line}\n"
    assert members <= set(circles(files))


def test_rooms_are_directories() -> None:
    assert MAY_KNOW.keys() == ROOMS.keys()
    on_disk = {path.relative_to(ROOT) for path in NATIVE.rglob("*.c") if path.name != "_xbb.c"}
    listed = {Path(name) for platform in PLATFORMS for name in sources(platform)}
    assert on_disk == listed


def test_a_platform_is_known_in_files_of_its_name() -> None:
    """And which hypervisors there are, in hv.c and hvfront.c."""
    for name, text in product("freebsd").items():
        assert ("hv/freebsd_xen.h" in includes(text)) == (name == "hv/freebsd.c")
        if name not in ("hv/hv.c", "front/hvfront.c", "hv/hv.h", "front/hvfront.h"):
            assert not re.search(r"\bXBB_HV_(SIM|XEN)\b", text), name


def test_lines_have_80_columns() -> None:
    for path in (*NATIVE.glob("*.h"), *NATIVE.glob("*/*.[ch]")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert len(line.expandtabs(8)) <= 80, f"{path}:{number}"


def test_a_debugger_can_tell_statics_apart() -> None:
    """No two files have a static function of the same name, nor one that says nothing."""
    seen: dict[str, str] = {}
    for name, text in product("linux").items():
        for static in re.findall(r"^static [\w *]+\n(\w+)\(", text, re.M):
            assert "_" in static or len(static) > 7, f"{name}: {static}"
            assert static not in seen, f"{static} is in {seen[static]} and {name}"
            seen[static] = name


@pytest.mark.slow
def test_pure_files_ask_the_system_for_nothing(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    together = tmp_path / "pure.o"
    files = [NATIVE / name for name in PURE]
    flags = [*CFLAGS, "-O0", f"-I{NATIVE}", "-nostdlib", "-r"]
    subprocess.run([compiler, *flags, "-o", together, *files], check=True)
    lacking = subprocess.run(
        ["nm", "-u", "-P", together], capture_output=True, text=True, check=True
    ).stdout
    names = {line.split()[0] for line in lacking.splitlines()} - {"_GLOBAL_OFFSET_TABLE_"}
    assert "memcpy" in names
    assert names - HARMLESS == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "rooms",
    [("hv", "core"), ("hv", "core", "block"), ("hv", "core", "block", "net", "guest")],
    ids="-".join,
)
def test_a_library_of_some_rooms_lacks_nothing(rooms: tuple[str, ...], tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path / "library.so"
    files = [str(ROOT / name) for name in sources(rooms=rooms)]
    flags = [*CFLAGS, "-O0", "-Werror", f"-I{NATIVE}", "-fPIC", "-shared", "-Wl,-z,defs"]
    done = subprocess.run(
        [compiler, *flags, "-o", library, *files, "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    symbols = subprocess.run(["nm", library], capture_output=True, text=True, check=True).stdout
    assert "xbb_conn_open" in symbols
    assert ("xbb_queue_open" in symbols) == ("block" in rooms)
    assert "xbb_front_open" not in symbols
