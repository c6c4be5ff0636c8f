"""Puts together what dom0 gets of the working tree: the package as a wheel has it, the
tests, and what both need that dom0's Debian has not got.

Run on the host, by the interpreter of .venv.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.images import LabError
from tests.sim.earlier import lay_out_otherwise

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ("pyxs",)  # pure Python, not in Debian in the version that is pinned
EARLIER = "earlier"  # the tree of another version, beside ours
COPIED = ("tests", "etc", "pyproject.toml")

TEST_JOB = """\
exec python3 -u -m pytest -c pyproject.toml --rootdir /job -p no:cacheprovider \\
    -o addopts="-ra --strict-markers --durations=10" -o testpaths=tests/real \\
    --junit-xml="$RESULTS/tests.xml" {words}
"""
BENCH_JOB = "exec python3 -u -m tests.lab.bench {words}\n"
PROFILE_JOB = "exec python3 -u -m tests.lab.marks {words}\n"
NET_BENCH_JOB = "exec python3 -u -m tests.lab.netbench {words}\n"


def newest_glibc(library: bytes) -> tuple[int, int]:
    """The newest version of the C library that a shared object asks for."""
    found = re.findall(rb"GLIBC_(\d+)\.(\d+)", library)
    return max(((int(major), int(minor)) for major, minor in found), default=(0, 0))


def _as_it_is(source: Path) -> None:
    """A copy of the working tree, as far as it is built."""
    shutil.copytree(
        ROOT / "xbbd_bsd",
        source / "xbbd_bsd",
        ignore=shutil.ignore_patterns("*.so", "_xbb.c", "__pycache__"),
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)


def _unpack_wheel(folder: Path, copy: Callable[[Path], None]) -> None:
    """What is installed of a tree, which `copy` puts into a directory; LabError."""
    with tempfile.TemporaryDirectory(prefix="lab-") as name:
        source = Path(name) / "source"
        source.mkdir()
        copy(source)
        with zipfile.ZipFile(_wheel(Path(name), source)) as wheel:
            wheel.extractall(folder)


def _wheel(directory: Path, source: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps",
         "--no-build-isolation", "-w", str(directory), str(source)],
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        raise LabError(f"the wheel cannot be built:\n{done.stdout}{done.stderr}")
    return next(directory.glob("*.whl"))


@contextmanager
def job(script: str, words: Sequence[str], libc: tuple[int, int]) -> Iterator[Path]:
    """A job's folder, which goes when the block ends.

    `script` is one of those above, `libc` the version of dom0's C library:
    LabError if our extension needs a newer one.
    """
    with tempfile.TemporaryDirectory(prefix="lab-") as name:
        folder = Path(name) / "job"
        folder.mkdir()
        _unpack_wheel(folder, _as_it_is)
        if script == TEST_JOB:
            _unpack_wheel(folder / EARLIER, lay_out_otherwise)
        for extension in folder.glob("xbbd_bsd/native/*.so"):
            wanted = newest_glibc(extension.read_bytes())
            if wanted > libc:
                raise LabError(
                    "the extension that was built here needs glibc {}.{}, dom0 has {}.{}: set"
                    " XENLAB_SUITE to a newer Debian, or build on an older one".format(
                        *wanted, *libc
                    )
                )
        for package in CARRIED:
            spec = importlib.util.find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            shutil.copytree(Path(spec.origin).parent, folder / package)
        for name in COPIED:
            path = ROOT / name
            if path.is_dir():
                shutil.copytree(
                    path, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so")
                )
            else:
                shutil.copy(path, folder)
        (folder / "job.sh").write_text(script.format(words=shlex.join(words)))
        yield folder
