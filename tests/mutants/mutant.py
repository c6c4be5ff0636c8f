"""A mutant: a file of the product with one line changed.  Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Mutant:
    """A line of a file before and after.

    `file` is relative to the root of the tree, `line` counts from 1, `column` from 0; lines
    come without their end.  `above`: the three lines before, in one, with single spaces.
    """

    file: str
    line: int
    column: int
    kind: str
    before: str
    after: str
    above: str = ""

    def apply(self, source: str) -> str:
        """The whole file with this line changed."""
        lines = source.split("\n")
        assert lines[self.line - 1] == self.before, f"{self.file} is another one"
        lines[self.line - 1] = self.after
        return "\n".join(lines)

    def diff(self) -> str:
        """What an operator of the tests reads: where, and both lines."""
        before, after = (" ".join(text.split()) for text in (self.before, self.after))
        return f"{self.file}:{self.line}: {self.kind}\n  - {before}\n  + {after}"


class Lines:
    """The lines of a file, and the mutants that were made of them so far."""

    def __init__(self, file: str, source: str) -> None:
        self.file = file
        self.lines = source.split("\n")
        self.made: dict[tuple[int, str], Mutant] = {}

    def replace(self, kind: str, line: int, start: int, end: int, text: str) -> None:
        """A mutant with `text` for the columns from `start` to before `end`; once only."""
        before = self.lines[line - 1]
        after = before[:start] + text + before[end:]
        if after != before:
            above = " ".join(" ".join(self.lines[max(line - 4, 0) : line - 1]).split())
            mutant = Mutant(self.file, line, start, kind, before, after.rstrip(), above)
            self.made.setdefault((line, mutant.after), mutant)

    def mutants(self) -> list[Mutant]:
        """All of them, from top to bottom."""
        return sorted(self.made.values())
