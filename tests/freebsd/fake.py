"""Builds FreeBSD's C files on Linux, over the kernel that is played here (kernel.h).

The product's files are compiled as they are, or from a copy that a test has
changed; headers that Linux lacks come from shim/.  System calls of all of them
are wrapped when they are linked.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xbbd_bsd.native.build import CFLAGS, COMMON, ffibuilder, platform_sources

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "xbbd_bsd" / "native"
KERNEL = sorted(name for name in HERE.glob("*.c") if not name.name.startswith("test_"))
PRODUCT = [NATIVE / name for name in (*COMMON, *platform_sources("freebsd"))]
WRAPPED = ("ioctl", "mmap", "munmap", "read", "write", "poll", "preadv", "pwritev", "fdatasync")
LINK = [f"-Wl,--wrap={name}" for name in WRAPPED]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def compiler(*flags: str, native: Path = NATIVE) -> list[str]:
    """The C compiler with the product's flags; skips where there is none, or no Linux."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None or os.uname().sysname != "Linux":
        pytest.skip("needs a C compiler on Linux")
    includes = [f"-I{native}", f"-I{HERE / 'shim'}", f"-I{HERE}"]
    return [found, *CFLAGS, "-Werror", "-O1", "-U_FORTIFY_SOURCE", "-fPIC", *flags, *includes]


def call(command: Iterable[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run it, whatever comes of it."""
    return subprocess.run(list(command), capture_output=True, text=True, check=False)


def compile_all(cc: list[str], files: Iterable[Path], directory: Path) -> list[Path]:
    """Objects of files, several at once; no compiler may complain."""
    pairs = [(file, directory / f"{file.parent.name}-{file.stem}.o") for file in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(lambda pair: call([*cc, "-c", "-o", pair[1], pair[0]]), pairs):
            assert done.returncode == 0, done.stderr
    return [made for _, made in pairs]


def build_extension(tree: Path, flags: list[str]) -> None:
    """A copy of package and tests whose extension is FreeBSD's over the played kernel."""
    root = HERE.parents[1]
    for name in ("xbbd_bsd", "tests"):
        shutil.copytree(
            root / name, tree / name, ignore=shutil.ignore_patterns("*.so", "_xbb.c", "__pycache__")
        )
    shutil.copy(root / "pyproject.toml", tree)
    module = tree / "_xbb.c"
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it generates
        ffibuilder.emit_c_code(str(module))
    cc = [*compiler(*flags), f"-I{sysconfig.get_paths()['include']}"]
    objects = compile_all(cc, [*PRODUCT, *KERNEL, module], tree)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    library = tree / "xbbd_bsd" / "native" / f"_xbb{suffix}"
    done = call([*cc, "-shared", *LINK, "-o", library, *objects, "-lpthread"])
    assert done.returncode == 0, done.stderr
