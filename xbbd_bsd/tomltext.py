"""TOML as people write it: on which line a key stands, and how a value is spelled.

tomllib gives values and no lines, and stops at the first error.  So what it has
taken is gone through once more for the lines, by a scanner that knows strings,
brackets and keys and judges nothing; and a line that it does not take is left out,
so that the rest is judged too.  (tomlkit knows no lines of values either.)
Pure: which keys there should be is not known here.  Any thread.
"""

import re
import tomllib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import accumulate, count
from typing import Any, Final

Key = tuple[str | int, ...]
"""Where a value is: names of tables and of the key; of an array its index."""

MOST: Final = 100  # statements that are left out, before the rest is given up
WORK: Final = 1 << 20  # characters that are gone through for these: fewer of a large text
LONGEST: Final = 1 << 13  # characters of a line: of a key of thousands tomllib makes gigabytes
LENGTH: Final = 160  # characters of a value that is shown
DEEPEST: Final = 64  # names in a key whose line is known
_DEPTH: Final = 3  # of arrays in arrays that are shown

_SPACE: Final = re.compile(r"[ \t]*")
_GAP: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE: Final = re.compile(r"[^,\]}#\n]+")
_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TUPLE: Final = re.compile(r"\(((?:(?:'[^']*'|\"[^\"]*\")(?:, )?)+),?\)")
_PAIR: Final = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*=")
_UNQUOTED: Final = re.compile(r"\s*[A-Za-z0-9_.-]+\s*=\s*([A-Za-z/][^\s\"'#,\[\]{}=]*)\s*(?:#.*)?")
_ESCAPES: Final = {"\b": r"\b", "\t": r"\t", "\n": r"\n", "\f": r"\f", "\r": r"\r",
                   '"': r"\"", "\\": r"\\"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """What is no TOML: on which line, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Document:
    """The values of a text, the lines of its keys, and what was left out of both."""

    values: Mapping[str, Any]
    lines: Mapping[Key, int]
    faults: tuple[Fault, ...]


def read(text: str) -> Document:
    """What is in a text, as far as it is TOML.

    A statement that is none is left out; if it goes over several lines, or is a heading,
    so is what follows up to the next heading.  After so many of them that it would take
    long, nothing is read.
    """
    most = max(1, min(MOST, WORK // (len(text) + 1)))
    lines = text.replace("\r\n", "\n").split("\n")
    faults: list[Fault] = []
    for number, line in enumerate(lines):
        if len(line) > LONGEST:
            faults.append(Fault(number + 1, f"longer than {LONGEST} characters, not checked"))
            lines[number] = ""
    while True:
        whole = "\n".join(lines)
        try:
            values = tomllib.loads(whole)
        except (ValueError, RecursionError) as error:  # a number may be too long for Python
            if not _is_positioned(error) or len(faults) >= most:
                reason = f"is no TOML: {cut(str(error))}; the rest is not checked"
                return Document({}, {}, (*faults, Fault(0, reason)))
            at, reason = _told(str(error), lines)
            statement = lines[at - 1]
            first, end = _leave_out(lines, whole, at - 1)
            if end > first + 1:
                reason += f"; lines {first + 1} to {end} are not checked"
            key = _PAIR.match(statement)
            faults.append(Fault(at, f"{cut(key[1])}: {reason}" if key else reason))
        else:
            return Document(values, _lines(whole), tuple(faults))


def spelled(value: object) -> str:
    """A value as TOML has it, cut if it is long; None, which TOML has not, is "none"."""
    return cut(_spelled(value, _DEPTH))


def cut(text: str) -> str:
    """What somebody wrote, no longer than is fit to be shown."""
    return text if len(text) <= LENGTH else f"{text[: LENGTH - 3]}..."


def _spelled(value: object, depth: int) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value) if value.bit_length() <= 64 else f"{value:#x}"
        case float():
            return repr(value)
        case str():
            return _quoted(value)
        case datetime():
            return value.isoformat(" ")
        case date() | time():
            return value.isoformat()
        case list() | tuple() if depth:
            return "[" + ", ".join(_spelled(item, depth - 1) for item in value) + "]"
        case dict() if depth:
            pairs = (
                f"{name if _NAME.fullmatch(name) else _quoted(name)} = {_spelled(item, depth - 1)}"
                for name, item in value.items()
            )
            return "{" + ", ".join(pairs) + "}"
        case dict():
            return "{...}"
    return "[...]"


def _quoted(text: str) -> str:
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


# What is no TOML.


def _is_positioned(error: Exception) -> bool:
    return isinstance(error, tomllib.TOMLDecodeError) and _AT.search(str(error)) is not None


def _told(message: str, lines: list[str]) -> tuple[int, str]:
    """What tomllib says of a text: on which line, and why."""
    match = _AT.search(message)
    assert match is not None
    reason = cut(_TUPLE.sub(_dotted, message[: match.start()]))
    if match[1] is None:
        return len(lines), f"is no TOML: {reason} (at the end)"
    line = int(match[1])
    bare = _UNQUOTED.fullmatch(lines[line - 1])
    if bare is not None:
        word = bare[1].lower() if bare[1].lower() in ("true", "false") else spelled(bare[1])
        reason += f", did you mean {word}?"
    return line, f"is no TOML: {reason} (column {match[2]})"


def _dotted(match: re.Match[str]) -> str:
    """tomllib names a table by a tuple of Python's."""
    return "[" + ".".join(re.findall(r"'([^']*)'", match[1])) + "]"


def _leave_out(lines: list[str], text: str, bad: int) -> tuple[int, int]:
    """Have the statement gone in which a line is bad, and what cannot be judged without it.

    Its first line and the one after its last; lines are counted from 0 here.
    """
    scanner = _Scanner(text)
    scanner.statements()
    starts = [0, *(line for line in scanner.starts if line < bad), bad]
    first = bad
    if not _parses(lines[:bad]):
        # What is before a statement is TOML by itself, up to the bad one.
        after = bisect_left(starts, True, lo=1, key=lambda line: not _parses(lines[:line]))
        first = starts[after - 1]
    end = bad + 1
    if first < bad or lines[bad].lstrip().startswith("["):
        rest = _Scanner("\n".join(lines[end:]))  # what is in a string there is no heading
        rest.statements()
        begins = (end + line for line in rest.starts)
        end = next((n for n in begins if lines[n].lstrip().startswith("[")), len(lines))
    while end > bad + 1 and lines[end - 1].split("#")[0].strip() == "":
        end -= 1
    lines[first:end] = [""] * (end - first)
    return first, end


def _parses(lines: list[str]) -> bool:
    try:
        tomllib.loads("\n".join(lines))
    except (ValueError, RecursionError):
        return False
    return True


# The lines of keys.


def _lines(text: str) -> dict[Key, int]:
    """Of a text that tomllib has taken."""
    scanner = _Scanner(text)
    scanner.statements()
    return scanner.lines


def _unquoted(string: str) -> str:
    try:
        return str(tomllib.loads(f"key = {string}")["key"])
    except ValueError:
        return string


class _Scanner:
    """Goes through a text once; from where it is no TOML on, what is found means nothing."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Key, int] = {}
        self.starts: list[int] = []  # lines on which statements begin, from 0
        self._text = text
        self._at = 0
        self._at_of_key = 0
        self._ends = list(accumulate(len(line) + 1 for line in text.split("\n")))
        self._elements: dict[Key, int] = {}  # of arrays of tables, how many so far

    def statements(self) -> None:
        """Go through all of it."""
        with suppress(RecursionError):  # what is so deep has no name that anybody asks for
            self._statements()

    def _statements(self) -> None:
        table: Key = ()
        while True:
            self._skip(_GAP)
            if self._at >= len(self._text):
                return
            self.starts.append(self._line() - 1)
            if self._next("[["):
                table = self._element(self._key())
                self._next("]]")
            elif self._next("["):
                table = self._table(self._key(), ())
                self._next("]")
            else:
                self._pair(table)

    def _pair(self, table: Key) -> None:
        begin = self._at
        name = self._table(self._key(), table)
        self._next("=")
        self._value(name)
        self._at = max(self._at, begin + 1)  # whatever it was, there is an end

    def _value(self, name: Key) -> None:
        self._skip(_SPACE)
        if self._next("["):
            for index in self._items("]"):
                self._at_of_key = self._at
                self._note((*name, index))
                self._value((*name, index))
        elif self._next("{"):
            for _ in self._items("}"):
                self._pair(name)
        elif not self._skip(_STRING):
            self._skip(_BARE)

    def _items(self, end: str) -> Iterator[int]:
        """Numbers of items up to a bracket; whoever asks takes each of them off."""
        for index in count():
            self._skip(_GAP)
            begin = self._at
            if self._next(end):
                return
            yield index
            self._skip(_GAP)
            self._next(",")
            if self._at == begin:
                return

    def _element(self, path: tuple[str, ...]) -> Key:
        above = self._table(path[:-1], ()) if path[:-1] else ()
        array = (*above, path[-1]) if path else above
        self._note(array)
        index = self._elements.get(array, 0)
        self._elements[array] = index + 1
        self._note((*array, index))
        return (*array, index)

    def _table(self, path: tuple[str, ...], above: Key) -> Key:
        """A key in full, or as much as anybody asks for; of an array of tables the last one."""
        name = above
        for part in path[: max(DEEPEST - len(above), 0)]:
            name = (*name, part)
            self._note(name)
            if name in self._elements:
                name = (*name, self._elements[name] - 1)
        return name

    def _note(self, name: Key) -> None:
        if len(name) <= DEEPEST:
            line = bisect_right(self._ends, self._at_of_key) + 1
            self.lines.setdefault(name, line)

    def _line(self) -> int:
        return bisect_right(self._ends, self._at) + 1

    def _key(self) -> tuple[str, ...]:
        parts: list[str] = []
        self._skip(_SPACE)
        self._at_of_key = self._at
        while True:
            self._skip(_SPACE)
            begin = self._at
            if self._skip(_NAME):
                parts.append(self._text[begin : self._at])
            elif self._skip(_STRING):
                parts.append(_unquoted(self._text[begin : self._at]))
            self._skip(_SPACE)
            if not self._next("."):
                return tuple(parts)

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match is not None

    def _next(self, text: str) -> bool:
        found = self._text.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found
