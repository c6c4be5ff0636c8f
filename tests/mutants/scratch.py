"""A copy of the tree in which one mutant after the other is built and tried.

The working tree is only read.  Of a C file only its own object is made again: the
others, those of the test programs and those of cffi, stay as they were.  Belongs to one
thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from importlib.util import cache_from_source
from pathlib import Path

from tests.c.test_native import AMOUNTS, LINKING, files
from tests.mutants.mutant import Mutant
from tests.mutants.targets import Stage, Target
from xbbd_bsd.native.build import sources

ROOT = Path(__file__).parents[2]
NATIVE = "xbbd_bsd/native"
EXTENSION = f"{NATIVE}/_xbb.abi3.so"
# No -g: that a mutant compiles to the same is seen by its object.
CFLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O1", "-fPIC", "-w", "-UNDEBUG", "-DXBB_CRASH_POINTS")
DEATHS = ("crash", "check")  # of tests/c: what the product calls where it may die
IGNORED = (".git", ".venv", "__pycache__", ".hypothesis", ".*_cache", "build", "*.egg-info")

LEAST = 15.0  # seconds that any stage gets
FACTOR = 6  # as long as the unmutated takes, times


class Verdict(Enum):
    """What has come of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    EXPLAINED = "explained"
    UNBUILT = "does not compile"
    SAME = "compiles to the same"


class TargetError(Exception):
    """The tests fail, or cannot run, without any mutant."""


class Scratch:
    """The copy, and one target of it at a time."""

    def __init__(self, directory: Path, limits: dict[Stage, float]) -> None:
        """`limits`: what stages may take, as far as any copy has measured it."""
        self.root = directory / "tree"
        self._out = directory / "out"
        self._temporary = directory / "t"
        for path in (self._out, self._temporary):
            path.mkdir()
        shutil.copytree(ROOT, self.root, ignore=shutil.ignore_patterns(*IGNORED), symlinks=True)
        self._objects: dict[str, Path] = {}
        self._tried: set[str] = set()  # targets' files
        self._cc = shutil.which(os.environ.get("CC", "cc")) or "cc"
        self._limits = limits

    # Commands.

    def _run(self, command: Sequence[str | Path], limit: float | None = None) -> int:
        """The status of a command; its group is killed when it takes too long.

        Too long is a status too, other than 0.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "TMPDIR": str(self._temporary),
        }
        child = subprocess.Popen(
            [str(word) for word in command],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return child.wait(limit)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            with suppress(ProcessLookupError):  # whatever the tests have left, too
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    # C.

    def _compile(self, source: Path, to: Path, *flags: str) -> int:
        return self._run(
            [self._cc, *CFLAGS, *flags, f"-I{NATIVE}", "-Itests/c", "-c", "-o", to, source]
        )

    def _compile_all(self) -> None:
        """Every object, once."""
        if self._objects:
            return
        generated = self.root / NATIVE / "_xbb.c"
        make = f"from {NATIVE.replace('/', '.')}.build import ffibuilder as f; f.emit_c_code"
        if self._run([sys.executable, "-c", f"{make}({str(generated)!r})"]) != 0:
            raise TargetError("cffi does not make its file")
        include = f"-I{sysconfig.get_path('include')}"
        paths = [generated, *map(Path, sources()), *files(self.root / "tests/c")]
        for path in paths:
            to = self._out / f"{_name(path)}.o"
            if self._compile(path, to, include) != 0:
                raise TargetError(f"{path} does not compile")
            self._objects[_name(path)] = to

    def _product(self) -> list[Path]:
        return [self._objects[_name(Path(source))] for source in sources()]

    def programs(self, target: Target) -> list[str]:
        """The C programs of a target, by the names of their files."""
        found = []
        for pattern in target.programs:
            for prefix in ("test_", ""):
                paths = (self.root / "tests/c").glob(f"{prefix}{pattern}.c")
                names = sorted(
                    path.stem for path in paths if path.stem.startswith(("test_", "fuzz_"))
                )
                if names:
                    found += names
                    break
            else:
                raise ValueError(f"{target.file}: no program is called {pattern}")
        return found

    def _link_program(self, program: str) -> Path:
        own = {path.stem for path in files(self.root / "tests/c")}
        shared = [
            self._objects[f"c-{name}"] for name in own if not name.startswith(("test_", "fuzz_"))
        ]
        to = self._out / program
        linked = self._run(
            [self._cc, *LINKING, "-o", to, self._objects[f"c-{program}"], *shared, *self._product(),
             "-lpthread"]
        )  # fmt: skip
        if linked != 0:
            raise TargetError(f"{program} cannot be linked")
        return to

    def _link_extension(self) -> None:
        (self.root / EXTENSION).unlink(missing_ok=True)
        linked = self._run(
            [self._cc, "-shared", "-o", EXTENSION, self._objects["native-_xbb"], *self._product(),
             *(self._objects[f"c-{name}"] for name in DEATHS), "-lpthread"]
        )  # fmt: skip
        if linked != 0:
            raise TargetError("the extension cannot be linked")

    # Stages.

    def _stages(self, target: Target) -> list[Stage]:
        """Programs first, then files of tests."""
        programs: list[Stage] = [(name,) for name in self.programs(target)]
        return [*programs, *(tuple(target.arguments(self.root, stage)) for stage in target.stages)]

    def _build(self, stage: Stage, target: Target) -> list[str]:
        """The command of a stage, which fails if it notices; for it as the objects are now."""
        if "/" not in stage[0]:
            (program,) = stage
            amounts = AMOUNTS.get(program.removeprefix("test_"), [])
            return [
                str(self._link_program(program)),
                *map(str, amounts),
                *(["1"] if amounts else []),
            ]
        if target.is_c:
            self._link_extension()
        return [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
            "-p", "tests.mutants.hasty", *stage,
        ]  # fmt: skip

    def _limit(self, target: Target, stage: Stage) -> float:
        """Seconds that a stage may take: by how long it takes without any mutant.

        TargetError: it fails.
        """
        if stage not in self._limits:
            command = self._build(stage, target)
            begun = time.monotonic()
            if self._run(command) != 0:
                raise TargetError(f"{target.file}: this fails without any mutant: {stage}")
            self._limits[stage] = LEAST + FACTOR * (time.monotonic() - begun)
        return self._limits[stage]

    def check(self, target: Target) -> None:
        """That whatever was run for a target passes still; TargetError.

        Or all that was killed since may have been killed by something else.  What only other
        copies have tried is theirs.
        """
        if target.file not in self._tried:
            return
        for stage in self._stages(target):
            if stage in self._limits and self._run(self._build(stage, target)) != 0:
                raise TargetError(
                    f"{target.file}: in the end this fails without any mutant: {stage}"
                )

    def judge(self, target: Target, mutant: Mutant) -> Verdict:
        """Build the mutant and try it; afterwards all is as it was."""
        self._tried.add(target.file)
        if target.is_c:
            self._compile_all()
        path = self.root / mutant.file
        source = path.read_text()
        changed = mutant.apply(source)
        mutated = self._out / "mutated.o"
        if target.is_c:
            # By the name of the right one: assertions hold it.
            with _content(path, changed):
                if self._compile(path.relative_to(self.root), mutated) != 0:
                    return Verdict.UNBUILT
            if mutated.read_bytes() == self._objects[_name(path)].read_bytes():
                return Verdict.SAME
        for stage in self._stages(target):
            limit = self._limit(target, stage)
            with self._mutated(target, path, changed, mutated):
                if self._run(self._build(stage, target), limit) != 0:
                    return Verdict.KILLED
        return Verdict.SURVIVED

    @contextmanager
    def _mutated(self, target: Target, path: Path, changed: str, mutated: Path) -> Iterator[None]:
        """The tree, or its objects, with a mutant."""
        if not target.is_c:
            with _content(path, changed):
                yield
            return
        right = self._objects[_name(path)]
        self._objects[_name(path)] = mutated
        try:
            yield
        finally:
            self._objects[_name(path)] = right


def _name(path: Path) -> str:
    """Of its object: several directories have a file of one name."""
    return f"{path.parent.name}-{path.stem}"


@contextmanager
def _content(path: Path, text: str) -> Iterator[None]:
    """A file with another text, of which nothing is left anywhere."""
    compiled = Path(cache_from_source(str(path)))
    before = path.read_text()
    path.write_text(text)
    # Python knows a file by its size and the second in which it was written.
    compiled.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.write_text(before)
        compiled.unlink(missing_ok=True)
