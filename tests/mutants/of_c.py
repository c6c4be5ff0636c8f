"""Mutants of a C file in style(9), by its tokens.  Pure.

Comments, texts and preprocessor lines are blanked first, and every token keeps its
place.  The style says what a token is: a binary operator has white space on both
sides, a pointer's asterisk has not.  Left alone: assertions, #define, declarations other
than what they begin with, and the order of memory accesses, which no test on this
machine can tell.  Some mutants do not compile, and some compile to the same; whoever
builds them finds out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tests.mutants.mutant import Lines, Mutant

COMPARISONS = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
}
BINARY = {
    "+": "-",
    "-": "+",
    "*": "/",
    "/": "*",
    "%": "*",
    "<<": ">>",
    ">>": "<<",
    "&": "|",
    "|": "&",
    "^": "&",
    "&&": "||",
    "||": "&&",
    "+=": "-=",
    "-=": "+=",
    "*=": "/=",
    "/=": "*=",
    "|=": "&=",
    "&=": "|=",
}
_NOT_MUTATED = ("assert", "_Static_assert", "xbb_may_die")
STEPS = {"++": "--", "--": "++"}
TRUTH = {"true": "false", "false": "true"}
CONTROL = ("if", "for", "while", "switch")
NO_DELETION = (*CONTROL, "do", "else", "case", "default", "return", "assert", "_Static_assert")
TYPES = re.compile(
    r"static|const|struct|enum|union|unsigned|signed|int|long|char|void|bool|double|\w+_t"
)
NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)")

BLANK = re.compile(
    r"""
    (?P<comment> /\* .*? \*/ | //[^\n]* )
    | " (?: \\. | [^"\\\n] )* "
    | ' (?: \\. | [^'\\\n] )+ '
    | ^[ \t]*\# (?: \\\n | [^\n] )*
    """,
    re.X | re.S | re.M,
)
TOKEN = re.compile(
    r"[A-Za-z_]\w*|0[xX][0-9a-fA-F]+[uUlL]*|\d[\w.]*"
    r"|->|\+\+|--|<<=|>>=|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|\S"
)


@dataclass(frozen=True)
class Token:
    """A word of the source and where it begins: line from 1, column from 0."""

    text: str
    line: int
    column: int

    @property
    def end(self) -> int:
        """The column behind it."""
        return self.column + len(self.text)


def blanked(source: str) -> str:
    """The same with white space for what is no code; a text keeps its quotation marks."""

    def blank(match: re.Match[str]) -> str:
        text = match.group()
        if text[0] in "\"'":
            return text[0] + "_" * (len(text) - 2) + text[0]
        return re.sub(r"[^\n]", " ", text)

    return BLANK.sub(blank, source)


def tokens_of(source: str) -> list[Token]:
    """The words of a blanked source."""
    return [
        Token(match.group(), number, match.start())
        for number, line in enumerate(source.split("\n"), 1)
        for match in TOKEN.finditer(line)
    ]


def enums(headers: Iterable[str]) -> dict[str, str]:
    """For each enumerator of some headers the next one of the same enumeration."""
    following: dict[str, str] = {}
    for header in headers:
        for body in re.findall(r"\benum\s+\w+\s*\{([^}]*)\}", blanked(header)):
            members = re.findall(r"(\w+)(?:\s*=[^,]*)?\s*(?:,|$)", body.strip())
            if len(members) > 1:
                following.update(zip(members, [*members[1:], members[0]], strict=True))
    return following


class _Finder:
    def __init__(self, lines: Lines, source: str, following: Mapping[str, str]) -> None:
        self.lines = lines
        self.source = source.split("\n")
        self.tokens = tokens_of(source)
        self.following = following
        self.closing = self._pairs()
        self.function = self._functions()
        self.excluded = self._excluded()

    def _pairs(self) -> dict[int, int]:
        """Where each bracket is closed, and each closing one opened."""
        found, stack = {}, []
        for i, token in enumerate(self.tokens):
            if token.text in "([{":
                stack.append(i)
            elif token.text in ")]}":
                opened = stack.pop()
                found[opened], found[i] = i, opened
        return found

    def _functions(self) -> list[bool]:
        """Whether each token lies in a function's body."""
        inside = [False] * len(self.tokens)
        i = 0
        while i < len(self.tokens):
            if self.tokens[i].text == "{":
                if i > 0 and self.tokens[i - 1].text == ")":
                    inside[i + 1 : self.closing[i]] = [True] * (self.closing[i] - i - 1)
                i = self.closing[i]
            i += 1
        return inside

    def _excluded(self) -> set[int]:
        """The tokens of assertions, and of where nothing happens but when tests end a process."""
        found: set[int] = set()
        for i, token in enumerate(self.tokens[:-1]):
            if token.text in _NOT_MUTATED and self.tokens[i + 1].text == "(":
                found.update(range(i, self.closing[i + 1] + 1))
        return found

    def replace(self, kind: str, first: Token, last: Token, text: str) -> None:
        if first.line == last.line:
            self.lines.replace(kind, first.line, first.column, last.end, text)

    def spaced(self, token: Token) -> bool:
        """Whether there is white space, or the end of a line, on both sides."""
        line = self.source[token.line - 1]
        return line[: token.column][-1:].strip() == "" and line[token.end :][:1].strip() == ""

    def operand_before(self, i: int) -> bool:
        """Whether the token before can be the end of an operand."""
        text = self.tokens[i - 1].text
        return text in (")", "]") or (re.match(r"\w", text) is not None and text != "return")

    def operator(self, i: int) -> None:
        token = self.tokens[i]
        if token.text in STEPS:
            self.replace("step", token, token, STEPS[token.text])
        elif token.text == "!" or (token.text == "-" and not self.operand_before(i)):
            self.replace("unary", token, token, "")
        elif self.spaced(token) and self.operand_before(i):
            for other in COMPARISONS.get(token.text, ()):
                self.replace("comparison", token, token, other)
            if token.text in BINARY:
                logic = token.text in ("&&", "||")
                kind = "logic" if logic else "arithmetic"
                self.replace(kind, token, token, BINARY[token.text])

    def word(self, i: int) -> None:
        token = self.tokens[i]
        if token.text in TRUTH:
            self.replace("truth", token, token, TRUTH[token.text])
        elif token.text in self.following and self.function[i]:
            self.replace("member", token, token, self.following[token.text])

    def number(self, i: int) -> None:
        token = self.tokens[i]
        match = NUMBER.fullmatch(token.text)
        if match is None or (self.tokens[i - 1].text == "[" and self.declares(i)):
            return
        value = int(match[1], 0)
        show = hex if match[1][:2] in ("0x", "0X") else str
        for other in (value + 1, value - 1) if value else (value + 1,):
            self.replace("number", token, token, show(other) + match[2])

    def declares(self, i: int) -> bool:
        """Whether the statement around a token is a declaration."""
        while i > 0 and self.tokens[i - 1].text not in (";", "{", "}"):
            i -= 1
        return TYPES.fullmatch(self.tokens[i].text) is not None

    def simple(self, first: int, last: int) -> bool:
        """Whether an expression has no comparison, no logic and no negation at its top."""
        i = first
        while i <= last:
            text = self.tokens[i].text
            if text in COMPARISONS or text in ("&&", "||", "?", "=") or text in TRUTH:
                return False
            i = self.closing[i] + 1 if text in "([{" else i + 1
        return self.tokens[first].text != "!" and NUMBER.match(self.tokens[first].text) is None

    def negated(self, kind: str, opened: int) -> None:
        """The expression in parentheses, negated."""
        first, last = opened + 1, self.closing[opened] - 1
        if first <= last and self.simple(first, last):
            begin, end = self.tokens[first], self.tokens[last]
            if begin.line == end.line:
                text = self.lines.lines[begin.line - 1][begin.column : end.end]
                self.replace(kind, begin, end, f"!({text})")

    def begins_statement(self, i: int) -> bool:
        before = self.tokens[i - 1].text
        if before in (";", "{", "}", "else", "do"):
            # Not of a for, nor of an initialiser.
            return before != ";" or not self.in_parentheses(i)
        if before == ")":
            return self.tokens[self.closing[i - 1] - 1].text in CONTROL
        if before == ":":
            start = i - 1
            while self.tokens[start].text not in (";", "{", "}"):
                start -= 1
            return self.tokens[start + 1].text in ("case", "default")
        return False

    def in_parentheses(self, i: int) -> bool:
        depth = 0
        for token in reversed(self.tokens[:i]):
            if token.text in ("{", "}"):
                return False
            depth += (token.text == "(") - (token.text == ")")
            if depth > 0:
                return True
        return False

    def statement(self, i: int) -> None:
        """One that begins here: deleted, or another value returned."""
        token = self.tokens[i]
        end = i
        while self.tokens[end].text != ";":
            end = self.closing[end] + 1 if self.tokens[end].text in "([{" else end + 1
            if end >= len(self.tokens):
                return
        if token.text == "return":
            if self.tokens[i + 1].text == "(":
                self.negated("return", i + 1)
            elif self.tokens[i + 1].text == ";":
                self.replace("deletion", token, self.tokens[end], ";")
            return
        word = token.text[0].isalpha() or token.text[0] in "_*(+-"
        if not word or token.text in NO_DELETION or TYPES.fullmatch(token.text):
            return
        if self.tokens[i + 1].text == "void" and end == i + 4:  # (void)unused;
            return
        if token.text == "continue" and self.tokens[i - 1].text == ")":
            return  # the whole body of a loop
        if token.line == self.tokens[end].line:
            self.replace("deletion", token, self.tokens[end], ";")
        else:
            self.lines.replace("deletion", token.line, token.column, token.column, "while (false) ")

    def find(self) -> None:
        for i, token in enumerate(self.tokens):
            if i == 0 or i in self.excluded:
                continue
            self.number(i)
            if not self.function[i]:
                continue
            self.operator(i)
            self.word(i)
            if token.text in ("if", "while") and self.tokens[i + 1].text == "(":
                self.negated("condition", i + 1)
            if self.begins_statement(i):
                self.statement(i)


def mutants(file: str, source: str, following: Mapping[str, str]) -> list[Mutant]:
    """All mutants of a file; `following` as from `enums()`."""
    lines = Lines(file, source)
    _Finder(lines, blanked(source), following).find()
    return lines.mutants()
