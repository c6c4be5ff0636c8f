"""Mutants that may live, and why: what explained.toml says."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutant import Mutant

FILE = Path(__file__).with_name("explained.toml")


@dataclass(frozen=True)
class Explained:
    """One entry: the line before and after, without the space around it, and why.

    `above`: what the lines before it end with, where a line alone does not say which it is.
    """

    file: str
    line: str
    becomes: str
    why: str
    above: str = ""

    def is_about(self, mutant: Mutant) -> bool:
        """Whether it is this mutant that is explained."""
        return (self.file, self.line, self.becomes) == (
            mutant.file,
            mutant.before.strip(),
            mutant.after.strip(),
        ) and mutant.above.endswith(self.above)


def explained(path: Path = FILE) -> list[Explained]:
    """All entries."""
    entries = tomllib.loads(path.read_text()).get("mutant", [])
    return [Explained(**entry) for entry in entries]


def outdated(entries: Iterable[Explained], mutants: Iterable[Mutant]) -> list[Explained]:
    """The entries that are about no mutant: their line is another one by now."""
    made = list(mutants)
    return [entry for entry in entries if not any(map(entry.is_about, made))]
