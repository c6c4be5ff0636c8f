"""The daemon of another tree, built once: what a daemon of this one follows, or precedes.

    XBBD_TEST_EARLIER=DIRECTORY python -m tests.sim.earlier -d ...

is that tree's daemon.  The tree is this one with another layout of the table and of all
that is beside it, or only built otherwise, or an earlier commit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIRECTORY = "XBBD_TEST_EARLIER"
# In the middle of what is served, of what rings are opened with, and of the table.
_OTHERWISE = {
    "block/contract.h": (
        ("#define XBB_TABLE_VERSION\t5", "#define XBB_TABLE_VERSION\t77"),
        ("\tuint32_t\tbounce;", "\tuint32_t\tmore[3];\n\tuint32_t\tbounce;"),
        ("struct xbb_req {\n", "struct xbb_req {\n\tuint64_t\tmore[2];\n"),
        ("struct xbb_counters {\n", "struct xbb_counters {\n\tuint64_t\tmore_of_them;\n"),
    ),
    "net/contract.h": (
        ("#define XBB_NET_TABLE_VERSION\t1", "#define XBB_NET_TABLE_VERSION\t77"),
        ("\tuint32_t\taccepts;", "\tuint32_t\tmore[2];\n\tuint32_t\taccepts;"),
        ("struct xbb_net_counters {\n", "struct xbb_net_counters {\n\tuint64_t\tmore_of_them;\n"),
    ),
    "block/blkif.c": (("sizeof(struct xbb_req) == 144", "sizeof(struct xbb_req) == 160"),),
}


def of_another_version(directory: Path) -> Path:
    """This tree, but that its segments are laid out otherwise."""
    lay_out_otherwise(directory)
    return _built(directory)


def of_another_build(directory: Path) -> Path:
    """This tree, whose segments are laid out as ours, but of other C files."""
    _copy(directory)
    with (directory / "xbbd_bsd/native/net/queue.c").open("a") as file:
        file.write("\n/* Of another build. */\n")
    return _built(directory)


def _copy(directory: Path) -> None:
    shutil.copytree(
        ROOT / "xbbd_bsd",
        directory / "xbbd_bsd",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, directory)


def lay_out_otherwise(directory: Path) -> None:
    """The same, not built yet."""
    _copy(directory)
    for name, changes in _OTHERWISE.items():
        file = directory / "xbbd_bsd/native" / name
        text = file.read_text()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        file.write_text(text)


def of_commit(directory: Path, commit: str) -> Path:
    """The tree as it was."""
    archive = directory / "tree.tar"
    subprocess.run(["git", "-C", ROOT, "archive", "-o", archive, commit], check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    archive.unlink()
    return _built(directory)


def _built(directory: Path) -> Path:
    subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory


if __name__ == "__main__":
    directory = os.environ.pop(DIRECTORY)
    os.chdir(directory)  # where "-m" looks first
    os.execv(sys.executable, [sys.executable, "-m", "xbbd_bsd.daemon", *sys.argv[1:]])
