"""Compiles and runs the C tests of the data plane, plain and under sanitizers.

Each ``test_*.c`` and ``fuzz_*.c`` is a program; the other C files here go into
all of them, as do the product's own, which are compiled once a variant.  A
program that fails says where and leaves with a status other than 0, and so does
one that a sanitizer has something to say about.

XBBD_TEST_SCALE multiplies how much they do, XBBD_TEST_SEED changes what.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.native.wires import need_frames
from xbbd_bsd.native.build import sources

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NATIVE = ROOT / "xbbd_bsd" / "native"


def files(directory: Path, system: str = sys.platform) -> list[Path]:
    """The C files there, but for those that are of another system alone."""
    other = "linux" if system.startswith("freebsd") else "freebsd"
    return sorted(path for path in directory.glob("*.c") if not path.stem.endswith(f"_{other}"))


def is_program(path: Path) -> bool:
    """Whether a C file is one, and does not go into all of them."""
    return path.stem.startswith(("test_", "fuzz_"))


PROGRAMS = [path for path in files(HERE) if is_program(path)]
SHARED = [ROOT / name for name in sources()] + [p for p in files(HERE) if not is_program(p)]

CFLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g1", "-O1"]
CFLAGS += ["-DXBB_CRASH_POINTS"]  # crash.c
VARIANTS = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
SANITIZER_OPTIONS = {
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": f"halt_on_error=1 suppressions={HERE / 'thread.supp'}",
}

WRAPPED = ("xbb_hv_lookup", "xbb_host_waited", "xbb_thread_start")  # hypervisor.c
LINKING = [f"-Wl,--wrap={name}" for name in WRAPPED]

SCALE = int(os.environ.get("XBBD_TEST_SCALE", "1"))
SEED = os.environ.get("XBBD_TEST_SEED", "1")
LIMIT = 300.0 * SCALE  # seconds a program may take

# One thread has them: a sanitizer of threads finds no more than the others.
ALONE = {"blkif", "coalesce", "fuzz_netif", "fuzz_offload", "netif", "offload", "sums", "validate"}

# Of those that take long.
LESS = {("fuzz_netif", "plain"), ("takeover", "plain"), ("takeover", "thread")}

# How much each program does that lets itself be told; the seed comes last.
AMOUNTS = {
    "coalesce": [300],
    "flipping": [60],
    "fuzz_netif": [10_000_000],  # slots; a second or two
    "fuzz_offload": [30000],
    "fuzz_ring": [8000],
    "hostile": [100000],
    "io": [1000],
    "net": [60],
    "net_flipping": [60],
    "net_noise": [40000],
    "net_takeover": [30],
    "order": [40],
    "rate": [200],
    "recover": [60],
    "takeover": [6],
}

# A fence, since gcc's thread sanitizer warns about those of the product.
PROBE = """
#include <stdatomic.h>
int main(void) { atomic_thread_fence(memory_order_seq_cst); return 0; }
"""


@dataclass(frozen=True)
class Variant:
    """A way to compile: compiler and flags, what to run programs under, common objects."""

    cc: list[str]
    launcher: list[str]
    objects: list[Path]
    directory: Path


def call(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def probe(cc: list[str], directory: Path) -> tuple[list[str], list[str]]:
    """Flags and launcher with which a program of this variant works; skips without any.

    The thread sanitizer needs addresses that a kernel which randomises much may give away.
    """
    source = directory / "probe.c"
    source.write_text(PROBE)
    program = directory / "probe"
    for flags in ([], ["-Wno-tsan"]):
        built = call([*cc, *flags, "-o", program, source])
        if built.returncode == 0:
            break
    else:
        pytest.skip(f"the compiler cannot: {built.stderr.strip()[-300:]}")
    for launcher in ([], ["setarch", platform.machine(), "-R"]):
        if launcher and shutil.which(launcher[0]) is None:
            continue
        ran = call([*launcher, program])
        if ran.returncode == 0:
            return flags, launcher
    pytest.skip(f"what it compiles does not run: {ran.stderr.strip()[-300:]}")


def compile_objects(cc: list[str], directory: Path) -> list[Path]:
    """The common files, several at once."""
    objects = [directory / f"{source.parent.name}-{source.stem}.o" for source in SHARED]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(
            lambda pair: call([*cc, "-c", "-o", pair[1], pair[0]]),
            zip(SHARED, objects, strict=True),
        )
        for result in done:
            assert result.returncode == 0, result.stderr
    return objects


@pytest.fixture(scope="session")
def variant_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Variant]:
    """Variants by name, made when first asked for."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")

    @cache
    def make(name: str) -> Variant:
        directory = tmp_path_factory.mktemp(f"c-{name}")
        cc = [compiler, *CFLAGS, *VARIANTS[name]]
        flags, launcher = probe(cc, directory)
        cc += [*flags, f"-I{NATIVE}", f"-I{HERE}"]
        return Variant(cc, launcher, compile_objects(cc, directory), directory)

    return make


def name_of(program: Path) -> str:
    return program.stem.removeprefix("test_")


def shows_no_more(variant: str, name: str) -> bool:
    """Than another variant does, as far as is known."""
    return (variant == "thread" and name in ALONE) or (name, variant) in LESS


@pytest.mark.parametrize(
    ("variant_name", "program"),
    [
        pytest.param(
            variant,
            program,
            id=f"{name_of(program)}-{variant}",
            marks=pytest.mark.more if shows_no_more(variant, name_of(program)) else (),
        )
        for variant in VARIANTS
        for program in PROGRAMS
    ],
)
def test_program(
    variant_of: Callable[[str], Variant], variant_name: str, program: Path, tmp_path: Path
) -> None:
    if '"card.h"' in program.read_text():
        need_frames()
    variant = variant_of(variant_name)
    binary = variant.directory / program.stem
    linked = call([*variant.cc, *LINKING, "-o", binary, program, *variant.objects, "-lpthread"])
    assert linked.returncode == 0, linked.stderr
    amounts = [str(n * SCALE) for n in AMOUNTS.get(name_of(program), [])]
    arguments = [*amounts, SEED] if amounts else []
    ran = subprocess.run(
        [*variant.launcher, binary, *arguments],
        env={**SANITIZER_OPTIONS, **os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr[-6000:]}"
    assert list(tmp_path.iterdir()) == []
