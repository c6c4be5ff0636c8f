"""The tests beside this one once more, on a data plane built with sanitizers.

The extension is built in a copy of the tree, and the interpreter preloads the
sanitizer's runtime.  A report ends the run there with a status of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STATUS = 66

# -fsanitize=, the runtime to preload, and what makes a report end the run.
SANITIZERS = {
    "address,undefined": (
        "libasan.so",
        {
            # The interpreter itself leaks at its end, by design.
            "ASAN_OPTIONS": f"detect_leaks=0:exitcode={STATUS}",
            "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:exitcode={STATUS}",
        },
    ),
    "thread": ("libtsan.so", {"TSAN_OPTIONS": f"halt_on_error=1:exitcode={STATUS}"}),
}


def runtime(library: str) -> str:
    """The compiler's own copy of a runtime library; skips where it has none."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    found = subprocess.run(
        [compiler, f"-print-file-name={library}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip(f"the compiler has no {library} to preload")
    return found


def build(tree: Path, sanitizer: str) -> None:
    """A copy of what the tests need, with the extension instrumented."""
    for name in ("xbbd_bsd", "tests"):
        shutil.copytree(
            ROOT / name, tree / name, ignore=shutil.ignore_patterns("*.so", "_xbb.c", "__pycache__")
        )
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    flags = f"-fsanitize={sanitizer} -fno-sanitize-recover=all -fno-omit-frame-pointer -O1"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env={**os.environ, "CFLAGS": flags, "LDFLAGS": f"-fsanitize={sanitizer}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", list(SANITIZERS))
def test_data_plane_is_clean(tmp_path: Path, sanitizer: str) -> None:
    library, options = SANITIZERS[sanitizer]
    preload = runtime(library)
    build(tmp_path, sanitizer)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qs", "-pno:cacheprovider", "tests/native/test_queue.py"],
        cwd=tmp_path,
        env={**os.environ, **options, "LD_PRELOAD": preload, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert " passed" in done.stdout
