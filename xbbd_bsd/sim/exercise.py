"""The exercise of a guest: random I/O on all rings of its disk, against one model.

Each ring has a thread and a slice of the range of its own, so that what each
reads and writes is known; slices meet where they like, in the middle of a page
or a large sector.  The model is a copy of the range, in memory or in a file that
outlives the guest; there a byte a sector follows, not 0 where nobody knows.
"""

import hashlib
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from typing import Any, Final

from xbbd_bsd.native import Front, Op, Progress, Workload
from xbbd_bsd.sim.blkfront import Blkfront
from xbbd_bsd.stats import percentile

PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
_NUMBERS: dict[str, Callable[[str], Any]] = {
    field.name: float if field.name == "seconds" else int
    for field in fields(Workload)
    if field.name not in ("model", "unknown")
}
_KEYS = (*_NUMBERS, "verify", "model")
_SUMS = (
    "cpu_ns", "reads", "writes", "flushes", "barriers", "discards", "sectors_read",
    "sectors_written", "errors", "mismatches", "still_mapped", "bad_responses",
)  # fmt: skip


class Exercise:
    """One run, prepared; `run` does it, and the others may be called meanwhile."""

    def __init__(self, blkfront: Blkfront, words: list[str]) -> None:
        """KEY=VALUE `words` say what to do; the model is read from the disk, if need be.

        ValueError for words that make no sense, OSError.
        """
        given: dict[str, str] = {}
        for word in words:
            name, _, value = word.partition("=")
            if name not in _KEYS or "=" not in word:
                raise ValueError(f"{word}: must be KEY=VALUE with one of {', '.join(_KEYS)}")
            given[name] = value
        verify = given.pop("verify", "1") != "0"
        path = given.pop("model", None)
        numbers = {name: _number(name, value) for name, value in given.items()}
        first = numbers.setdefault("first_sector", 0)
        sectors = numbers.setdefault("sectors", blkfront.disk.sectors - first)
        numbers.setdefault("seed", 1)
        numbers.setdefault("depth", 32)
        self._model: memoryview | None = None
        self._unknown: memoryview | None = None
        if path is not None:
            mapped = _mapped(path, sectors * 513)
            self._model, self._unknown = mapped[: sectors * 512], mapped[sectors * 512 :]
        elif verify:
            self._model = memoryview(bytearray(sectors * 512))
            blkfront.front.transfer(Op.READ, first, sectors, self._model)
        self._parts = [
            (front, self._part(numbers, ring, len(blkfront.fronts)), Progress())
            for ring, front in enumerate(blkfront.fronts)
        ]

    def _part(self, numbers: dict[str, Any], ring: int, rings: int) -> Workload:
        align = numbers.get("align_sectors", 1)
        sectors = numbers["sectors"]
        begin, end = (sectors * n // rings // align * align for n in (ring, ring + 1))
        if ring + 1 == rings:
            end = sectors
        operations = numbers.get("operations", 0)
        return Workload(
            **{
                **numbers,
                "seed": numbers["seed"] + ring,
                "first_sector": numbers["first_sector"] + begin,
                "sectors": end - begin,
                "operations": -(-operations // rings),
            },
            model=None if self._model is None else self._model[begin * 512 : end * 512],
            unknown=None if self._unknown is None else self._unknown[begin:end],
        )

    def run(self) -> None:
        """Do it; OSError as Front.exercise, of the first ring that has one."""

        def one(part: tuple[Front, Workload, Progress]) -> None:
            front, load, progress = part
            front.exercise(load, progress)

        with ThreadPoolExecutor(len(self._parts)) as pool:
            for _ in pool.map(one, self._parts):
                pass

    def stop(self) -> None:
        """End it early."""
        for _, _, progress in self._parts:
            progress.stop()

    def figures(self) -> dict[str, object]:
        """Everything that was counted, of all rings together."""
        found = [progress for _, _, progress in self._parts]
        wrong = [progress.first_mismatch for progress in found if progress.mismatches]
        return {
            "elapsed_ns": max(progress.elapsed_ns for progress in found),
            "first_mismatch": wrong[0] if wrong else 0,
            **{name: sum(getattr(progress, name) for progress in found) for name in _SUMS},
        }

    def latency(self) -> dict[str, float]:
        """By percentile, microseconds that so many of the operations took at most."""
        counts = (progress.latency for _, _, progress in self._parts)
        histogram = [sum(bucket) for bucket in zip(*counts, strict=True)]
        return {name: percentile(histogram, p) / 1000 for name, p in PERCENTILES.items()}

    def model_sha256(self) -> str | None:
        """The hash of what the range should hold."""
        return None if self._model is None else hashlib.sha256(self._model).hexdigest()


def _number(name: str, text: str) -> Any:
    """The value of a key; ValueError."""
    with suppress(ValueError):
        value = _NUMBERS[name](text)
        if 0 <= value < 1 << 63:
            return value
    raise ValueError(f"{name}={text}: must be a number, 0 or more")


def _mapped(path: str, size: int) -> memoryview:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return memoryview(mmap.mmap(fd, size))
    finally:
        os.close(fd)
