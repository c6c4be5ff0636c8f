"""Builds FreeBSD's C files on Linux, over the kernel that is played here (kernel.h).

The product's files are compiled as they are, or from a copy that a test has
changed; headers that Linux lacks come from shim/.  System calls of all of them
are wrapped when they are linked.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from xbbd_bsd.native.build import CFLAGS, ffibuilder, sources

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "xbbd_bsd" / "native"
KERNEL = sorted(name for name in HERE.glob("*.c") if not name.name.startswith("test_"))
PRODUCT = [HERE.parents[1] / name for name in sources("freebsd")]
BUILD = ("-O1", "-g1", "-U_FORTIFY_SOURCE", "-fPIC")  # -g1: what a report names, and no more
WRAPPED = (
    "ioctl", "mmap", "munmap", "read", "write", "writev", "poll", "preadv", "pwritev", "pread",
    "pwrite", "flock", "fdatasync", "fsync", "open", "close", "fstat", "accept", "recvmsg",
    "sendmsg", "getsockopt", "clock_gettime", "if_nametoindex",
)  # fmt: skip
LINK = [f"-Wl,--wrap={name}" for name in WRAPPED]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def compiler(*flags: str, native: Path = NATIVE) -> list[str]:
    """The C compiler with the product's flags; skips where there is none, or no Linux."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None or os.uname().sysname != "Linux":
        pytest.skip("needs a C compiler on Linux")
    includes = [f"-I{native}", f"-I{HERE / 'shim'}", f"-I{HERE}"]
    return [found, *CFLAGS, "-Werror", *BUILD, *flags, *includes]


def call(command: Iterable[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run it, whatever comes of it."""
    return subprocess.run(list(command), capture_output=True, text=True, check=False)


def key_of(file: Path) -> str:
    """A file as objects are found: two rooms may have one of a name."""
    return f"{file.parent.name}/{file.name}"


def object_of(file: Path, directory: Path) -> Path:
    """What compile_all() makes of a file."""
    return directory / f"{file.parent.name}-{file.stem}.o"


def compile_all(cc: list[str], files: Iterable[Path], directory: Path) -> list[Path]:
    """Objects of files, several at once; no compiler may complain."""
    pairs = [(file, object_of(file, directory)) for file in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(lambda pair: call([*cc, "-c", "-o", pair[1], pair[0]]), pairs):
            assert done.returncode == 0, done.stderr
    return [made for _, made in pairs]


def copy_tree(tree: Path) -> None:
    """What tests need of the project, without an extension."""
    root = HERE.parents[1]
    for name in ("xbbd_bsd", "tests"):
        # Compiled modules too, but none that somebody is just writing.
        ignored = shutil.ignore_patterns("*.so", "_xbb.c", "*.pyc.*")
        shutil.copytree(root / name, tree / name, ignore=ignored)
    shutil.copy(root / "pyproject.toml", tree)


@dataclass(frozen=True)
class Extension:
    """The extension's objects: FreeBSD's files over the played kernel."""

    cc: list[str]
    objects: dict[str, Path]

    def link(self, tree: Path, change: Path | None = None) -> None:
        """Into a copy of package and tests; `change` replaces a file of the product."""
        copy_tree(tree)
        objects = dict(self.objects)
        if change is not None:
            (objects[key_of(change)],) = compile_all([*self.cc, "-Wno-error"], [change], tree)
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        library = tree / "xbbd_bsd" / "native" / f"_xbb{suffix}"
        done = call([*self.cc, "-shared", *LINK, "-o", library, *objects.values(), "-lpthread"])
        assert done.returncode == 0, done.stderr


def extension(directory: Path, flags: list[str]) -> Extension:
    """The extension, compiled once for however many trees, and processes that want it."""
    directory.mkdir(exist_ok=True)
    module = directory / "_xbb.c"
    cc = [*compiler(*flags), f"-I{sysconfig.get_paths()['include']}"]
    files = [*PRODUCT, *KERNEL, module]
    complete = directory / "complete"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            with contextlib.redirect_stdout(io.StringIO()):  # it says what it generates
                ffibuilder.emit_c_code(str(module))
            compile_all(cc, files, directory)
            complete.touch()
    return Extension(cc, {key_of(file): object_of(file, directory) for file in files})


def changed(directory: Path, name: str, old: str, new: str) -> Path:
    """A copy of a product file with one place changed."""
    text = (NATIVE / name).read_text()
    assert text.count(old) == 1, f"{name} has {text.count(old)} of {old!r}"
    path = directory / name
    path.parent.mkdir()
    path.write_text(text.replace(old, new))
    return path
