"""The suites of a queue once more: with sanitizers, a disk that is slow, and grant copy.

For a sanitizer the extension is built in a copy of the tree, and the interpreter
preloads the sanitizer's runtime; a report ends the run there with a status of
its own.  A slow disk brings the workers in: ordering, barriers and the way back
to the ring thread are theirs then.  Disks are in memory where the system has a
place for that: what a real file system does is seen by the suites themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = tuple(
    f"tests/native/test_{name}.py"
    for name in ("queue", "queue_lifetime", "features", "features_blocks", "events")
)
# In processes of their own; with sanitizers these are not confined.
GUESTS = tuple(
    f"tests/native/test_guest_{name}.py"
    for name in ("process", "messages", "service", "outdated", "rings")
)
# No disk makes a difference to a card, nor transport to its other end.
CARDS = tuple(f"tests/native/test_{name}.py" for name in ("netfront", "net", "guest_cards"))
# What is done about errors, limits, servers, and several rings: once with each sanitizer.
MORE = tuple(
    f"tests/native/test_{name}.py" for name in ("hold", "rates", "faults", "stores", "rbd", "rings")
)
STATUS = 66
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None

# -fsanitize=, the runtime to preload, and what makes a report end the run.
SANITIZERS = {
    "none": ("", {}),
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


def compiler() -> str:
    """The C compiler; skips without one."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        pytest.skip("no C compiler")
    return found


def runtime(library: str) -> str:
    """The compiler's own copy of a runtime library; skips where it has none."""
    found = subprocess.run(
        [compiler(), f"-print-file-name={library}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not os.path.isabs(found):
        pytest.skip(f"the compiler has no {library} to preload")
    return found


def slow_disk(directory: Path) -> str:
    """The library that makes every disk slow, compiled."""
    library = directory / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    subprocess.run([compiler(), "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return str(library)


def build(tree: Path, sanitizer: str) -> None:
    """A copy of what the tests need, with the extension instrumented."""
    for name in ("xbbd_bsd", "tests"):
        # Compiled modules too, but none that somebody is just writing.
        ignored = shutil.ignore_patterns("*.so", "_xbb.c", "*.pyc.*")
        shutil.copytree(ROOT / name, tree / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    flags = f"-fsanitize={sanitizer} -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g1"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env={**os.environ, "CFLAGS": flags, "LDFLAGS": f"-fsanitize={sanitizer}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Tests that choose the transport themselves take the one that is named; "best" leaves them
# both, so that none runs twice in the same circumstances.  A slow disk shows no more without
# sanitizers than with them.  How a guest's ABI has slots is the ring thread's alone, whatever
# the disk, so that all ABIs have their turn where that is quick, and not to be seen by threads.
VARIANTS = [
    ("none", "quick", "copy"),
    ("address,undefined", "quick", "best"),
    ("address,undefined", "quick", "guests"),
    ("thread", "quick", "guests"),
    ("address,undefined", "quick", "more"),
    ("thread", "quick", "more"),
    ("address,undefined", "slow", "map"),
    ("address,undefined", "slow", "copy"),
    ("thread", "quick", "best"),
    ("thread", "slow", "map"),
    ("thread", "slow", "copy"),
]
# What others show too, as far as is known.
LESS = [("none", "quick", "copy"), ("address,undefined", "slow", "copy"), ("thread", "slow", "map")]
OTHERS = ("guests", "more")  # suites, by the best transport there is
Variant = tuple[str, str, str]
Done = subprocess.CompletedProcess[str]


def suites_of(variant: Variant) -> tuple[str, ...]:
    """What is worth running.

    A quick disk leaves nearly all to the ring's thread: then features show a thread
    sanitizer no more than a slow one does.
    """
    if variant[2] == "guests":
        return (*GUESTS, *CARDS)
    if variant[2] == "more":
        return MORE
    if variant == ("thread", "quick", "best"):
        return tuple(suite for suite in SUITE if "features" not in suite)
    return SUITE


def run_suites(tree: Path, tests: Iterable[str], environment: dict[str, str], limit: float) -> Done:
    """Tests of a tree, whatever comes of them, with their files in memory; `limit` is in seconds.

    A test's files go with it when it has passed, lest all are there at once.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="v-") as directory:
        return subprocess.run(
            [
                sys.executable, "-m", "pytest", "-qs", "-pno:cacheprovider",
                "-otmp_path_retention_policy=failed", f"--basetemp={directory}/t", *tests,
            ],
            cwd=tree,
            env={**os.environ, **environment, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )  # fmt: skip


def run(directory: Path, tree: Path, variant: Variant) -> Done:
    """The suites of one variant, whatever comes of them."""
    sanitizer, disk, transport = variant
    library, environment = SANITIZERS[sanitizer]
    preload = [runtime(library)] if library else []
    if disk == "slow":
        preload.append(slow_disk(directory))
    return run_suites(
        tree,
        suites_of(variant),
        {
            **environment,
            "LD_PRELOAD": " ".join(preload),
            "XBBD_TEST_DISK": disk,
            "XBBD_TEST_SANITIZED": "yes" if library else "no",
            "XBBD_TEST_ABIS": "one" if disk == "slow" or sanitizer == "thread" else "all",
            "XBBD_GUEST_OUTPUT": "yes",  # what they have to say of guests' processes, too
            "XBBD_TEST_TRANSPORT": "best" if transport in OTHERS else transport,
        },
        1200.0,
    )


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Variant, Future[Done]]]:
    """All that were selected, two at a time: a slow disk leaves a processor time."""
    chosen: list[Variant] = [
        item.callspec.params["variant"]  # type: ignore[misc]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == Path(__file__)
    ]
    trees = {"none": ROOT}
    for sanitizer in {sanitizer for sanitizer, _, _ in chosen} - trees.keys():
        runtime(SANITIZERS[sanitizer][0])
        trees[sanitizer] = tmp_path_factory.mktemp("tree")
        build(trees[sanitizer], sanitizer)
    with ThreadPoolExecutor(2) as pool:
        yield {
            variant: pool.submit(run, tmp_path_factory.mktemp("run"), trees[variant[0]], variant)
            for variant in chosen
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=pytest.mark.more if v in LESS else ()) for v in VARIANTS],
    ids="-".join,
)
def test_queue_suite(runs: dict[Variant, Future[Done]], variant: Variant) -> None:
    done = runs[variant].result()
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert " passed" in done.stdout
