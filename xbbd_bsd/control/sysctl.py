"""The tree by sysctl(8)'s manners: names, values, assignments, and what is printed of them.

Options, output and messages are those of sbin/sysctl/sysctl.c of FreeBSD; -j is
ours.  Runs in xbbctl's process.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from errno import ENOENT
from typing import Any

from xbbd_bsd.control.client import Connection
from xbbd_bsd.control.protocol import Request, Value, Verb
from xbbd_bsd.errors import OperatorError, in_words, one_line, reason

Description = tuple[str, bool, bool, str]
"""Type, whether writable, whether a tunable, description."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of sysctl(8) that mean something here."""
    add = parser.add_argument
    add("-a", dest="all", action="store_true", help="all names")
    add("-d", dest="describe", action="store_true", help="descriptions instead of values")
    add("-e", dest="equals", action="store_true", help="separate name and value by =")
    add("-f", dest="file", metavar="FILE", help="read name=value lines first")
    add("-h", dest="human", action="store_true", help="group digits by thousands")
    add("-i", dest="ignore", action="store_true", help="ignore unknown names")
    add("-j", dest="json", action="store_true", help="print JSON")
    add("-N", dest="names", action="store_true", help="names only")
    add("-n", dest="values", action="store_true", help="values only")
    add("-q", dest="quiet", action="store_true", help="do not complain of unknown names")
    add("-t", dest="type", action="store_true", help="types instead of values")
    add("-W", dest="writable", action="store_true", help="only what can be written")
    add("-T", dest="tunable", action="store_true", help="only what xbbd.conf sets")


class Sysctl:
    """One call of the command: prints as it goes, and counts what went wrong."""

    def __init__(self, connection: Connection, options: argparse.Namespace) -> None:
        self._connection = connection
        self._options = options
        self._found: dict[str, Any] = {}  # for JSON
        self._failed = False

    def run(self, words: list[str]) -> int:
        """Do it all; the exit status."""
        if self._options.all and not words:
            words = [""]
        elif self._options.file is not None:
            for number, line in self._lines(self._options.file):
                self._one(line, f" at line {number}")
        for word in words:
            self._one(word, "")
        if self._options.json:
            print(json.dumps(self._found, indent=2))
        return int(self._failed)

    def _lines(self, path: str) -> Iterator[tuple[int, str]]:
        try:
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except OSError as error:
            raise OperatorError(f"{path}: {reason(error)}", error.errno or 0) from None
        except UnicodeError as error:
            raise OperatorError(f"{path}: {in_words(error)}") from None
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if text:
                yield number, text

    def _one(self, word: str, where: str) -> None:
        name, assigned, value = _split(word)
        try:
            if assigned and (self._options.tunable or self._options.writable):
                raise OperatorError("Can't set variables when using -T or -W")
            if assigned and not self._options.describe:
                self._assign(name, value)
            else:
                self._show(name)
        except OperatorError as error:
            if error.errno == ENOENT and self._options.ignore:
                return
            self._failed = True
            if error.errno != ENOENT or not self._options.quiet:
                print(f"xbbctl: {one_line(str(error))}{where}", file=sys.stderr)

    def _assign(self, name: str, value: str) -> None:
        before = self._connection.whole(Request(Verb.SET, name, value))
        after = self._connection.whole(Request(Verb.GET, name))
        for leaf, new in after.items():
            if self._options.json:
                self._found[leaf] = new
            else:
                self._print(leaf, f"{self._text(before[leaf])} -> {self._text(new)}")

    def _show(self, name: str) -> None:
        options = self._options
        chosen = options.writable or options.tunable
        described: dict[str, Description] = {}
        if options.describe or options.type or chosen:
            described = self._connection.whole(Request(Verb.DESCRIBE, name))
        if options.describe or options.type:
            for leaf, description in described.items():
                if self._wanted(description):
                    self._print_description(leaf, description)
            return
        # What somebody has set by hand is marked where one asks for what can be set.
        configured = self._connection.whole(Request(Verb.CONFIGURED)) if options.writable else {}
        for values in self._connection.ask(Request(Verb.GET, name)):
            for leaf, value in values.items():
                # One that appeared since it was asked what there is shows the next time.
                if chosen and not (leaf in described and self._wanted(described[leaf])):
                    continue
                if options.json:
                    self._found[leaf] = value
                else:
                    self._print(leaf, self._text(value) + self._mark(value, configured.get(leaf)))

    def _mark(self, value: Value, configured: Value | None) -> str:
        """Says so if a value is not what xbbd.conf has; -f takes that for a comment."""
        if configured in (None, value) or self._options.values:
            return ""
        text = f"configured: {one_line(str(configured))}"
        return f" # {text}" if self._options.equals else f" ({text})"

    def _wanted(self, description: Description) -> bool:
        _, writable, tunable, _ = description
        options = self._options
        return (writable or not options.writable) and (tunable or not options.tunable)

    def _print_description(self, leaf: str, description: Description) -> None:
        kind, writable, tunable, text = description
        options = self._options
        if options.json:
            self._found[leaf] = {
                "type": kind,
                "writable": writable,
                "tunable": tunable,
                "description": text,
            }
            return
        parts = ([kind] if options.type else []) + ([text] if options.describe else [])
        self._print(leaf, self._separator.join(parts))

    @property
    def _separator(self) -> str:
        return "=" if self._options.equals else ": "

    def _print(self, leaf: str, text: str) -> None:
        options = self._options
        if options.names:
            print(leaf)
        elif options.values:
            print(text)
        else:
            print(f"{leaf}{self._separator}{text}")

    def _text(self, value: Value) -> str:
        """Fit for a terminal; JSON has a path as it is."""
        if isinstance(value, int):
            return f"{value:,}" if self._options.human else str(value)
        return one_line(str(value))


def _split(word: str) -> tuple[str, bool, str]:
    """Name, whether a value is assigned, and that without a pair of quotes around it."""
    match = re.search("[=:]", word)
    if match is None:
        return word.strip(), False, ""
    value = word[match.end() :].strip()
    if value[:1] in ("'", '"') and len(value) > 1 and value[-1] == value[0]:
        value = value[1:-1]
    return word[: match.start()].strip(), True, value
