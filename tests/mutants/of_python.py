"""Mutants of a Python file, by its syntax tree and the exact places of its tokens.  Pure.

Left alone: annotations, decorators, texts, and the statements at the top of a module or
class, though not what they are made of.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from tests.mutants.mutant import Lines, Mutant

Place = tuple[int, int]
Enums = Mapping[str, Sequence[str]]

COMPARISONS = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "is": ("is not",),
    "is not": ("is",),
    "in": ("not in",),
    "not in": ("in",),
}
ARITHMETIC = {
    "+": "-",
    "-": "+",
    "*": "//",
    "/": "*",
    "//": "*",
    "%": "*",
    "<<": ">>",
    ">>": "<<",
    "&": "|",
    "|": "&",
    "^": "&",
}
LOGIC = {"and": "or", "or": "and"}
DELETED = (ast.Expr, ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Raise, ast.Delete)
JUMPS = (ast.Continue, ast.Break)


def enums(sources: Iterable[str]) -> dict[str, list[str]]:
    """The members of all enumerations in some files, by the name of the class."""
    found = {}
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(base).rpartition(".")[2].endswith(("Enum", "Flag"))
                for base in node.bases
            ):
                found[node.name] = [
                    target.id
                    for part in node.body
                    if isinstance(part, ast.Assign)
                    for target in part.targets
                    if isinstance(target, ast.Name) and not target.id.startswith("_")
                ]
    return found


def names_a_type(node: ast.expr) -> bool:
    """Whether it looks like one: `int`, `Value`, `str | None`."""
    if isinstance(node, ast.BinOp):
        return names_a_type(node.left) and names_a_type(node.right)
    if isinstance(node, ast.Subscript):
        return names_a_type(node.value)
    if isinstance(node, ast.Constant):
        return node.value is None
    name = ast.unparse(node).rpartition(".")[2]
    return name in ("int", "str", "bytes", "bool", "float") or (
        name[:1].isupper() and not name.isupper()
    )


class _Finder(ast.NodeVisitor):
    def __init__(self, lines: Lines, tokens: Sequence[tokenize.TokenInfo], enums: Enums) -> None:
        self.lines = lines
        self.tokens = tokens
        self.enums = enums
        self.aliases: dict[str, str] = {}  # other names of classes
        self.inside = False  # a function

    # Places.

    def column(self, line: int, octets: int) -> int:
        return len(self.lines.lines[line - 1].encode()[:octets].decode())

    def start(self, node: ast.expr | ast.stmt) -> Place:
        return node.lineno, self.column(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt) -> Place:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return node.end_lineno, self.column(node.end_lineno, node.end_col_offset)

    def between(
        self, left: ast.expr, right: ast.expr, words: Iterable[str]
    ) -> Iterator[tokenize.TokenInfo]:
        """The tokens there that are such words; parentheses and comments are none."""
        start, end = self.end(left), self.start(right)
        for token in self.tokens:
            if start <= token.start and token.end <= end and token.string in words:
                yield token

    def replace(self, kind: str, start: Place, end: Place, text: str) -> None:
        if start[0] == end[0]:
            self.lines.replace(kind, start[0], start[1], end[1], text)

    def operator(
        self, kind: str, left: ast.expr, right: ast.expr, exchange: Mapping[str, Sequence[str]]
    ) -> None:
        words = {word for operator in exchange for word in operator.split()}
        found = list(self.between(left, right, words))
        text = " ".join(token.string for token in found)
        for other in exchange.get(text, ()):
            self.replace(kind, found[0].start, found[-1].end, other)

    # Expressions.

    def visit_Compare(self, node: ast.Compare) -> None:
        terms = [node.left, *node.comparators]
        for left, right in pairwise(terms):
            self.operator("comparison", left, right, COMPARISONS)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = isinstance(node.left, ast.Constant | ast.JoinedStr) and not isinstance(
            getattr(node.left, "value", None), int | float
        )
        if not text and not (isinstance(node.op, ast.BitOr) and names_a_type(node)):
            self.operator(
                "arithmetic", node.left, node.right, {k: (v,) for k, v in ARITHMETIC.items()}
            )
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in pairwise(node.values):
            self.operator("logic", left, right, {k: (v,) for k, v in LOGIC.items()})
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.USub):
            self.replace("unary", self.start(node), self.start(node.operand), "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.replace("truth", self.start(node), self.end(node), str(not value))
        elif isinstance(value, int | float):
            for other in (value + 1, value - 1) if value else (value + 1,):
                self.replace("number", self.start(node), self.end(node), str(other))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = ast.unparse(node.value).rpartition(".")[2]
        members = self.enums.get(self.aliases.get(name, name), ())
        if node.attr in members and len(members) > 1:
            other = members[(members.index(node.attr) + 1) % len(members)]
            line, end = self.end(node)
            self.lines.replace("member", line, end - len(node.attr), end, other)
        self.generic_visit(node)

    def condition(self, test: ast.expr) -> None:
        """Negate it, unless it has an operator that is exchanged anyway."""
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.Constant) and not (
            isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        ):
            start, end = self.start(test), self.end(test)
            if start[0] == end[0]:
                text = self.lines.lines[start[0] - 1][start[1] : end[1]]
                self.replace("condition", start, end, f"(not {text})")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.condition(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.condition(test)
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts, and the places of what is in them are wrong before Python 3.12."""

    # Statements.

    def visit_If(self, node: ast.If) -> None:
        self.condition(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.condition(node.test)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if isinstance(node.value, ast.Name):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            self.aliases.update(dict.fromkeys(names, node.value.id))
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.target)
        if node.value is not None:
            self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        value = node.value
        if value is None:
            self.replace("deletion", self.start(node), self.end(node), "pass")
        elif not (isinstance(value, ast.Constant) and value.value in (None, False)):
            start, end = self.start(node), self.end(node)
            if start[0] == end[0]:
                self.replace("return", start, end, "return None")
            else:
                line, column = start
                words = (line, column + len("return"))
                self.replace("return", start, words, "return None if True else")
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        was, self.inside = self.inside, False
        for part in node.body:
            self.visit(part)
        self.inside = was

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)
        was, self.inside = self.inside, True
        for part in node.body:
            self.visit(part)
        self.inside = was

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit(self, node: ast.AST) -> None:
        text = (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )
        declared = isinstance(node, ast.AnnAssign) and node.value is None
        if self.inside and isinstance(node, (*DELETED, *JUMPS)) and not text and not declared:
            start, end = self.start(node), self.end(node)
            if start[0] == end[0]:
                self.replace("deletion", start, end, "pass")
            else:
                self.replace("deletion", start, start, "if False: ")
        super().visit(node)


def mutants(file: str, source: str, enums: Enums) -> list[Mutant]:
    """All mutants of a file, each of which is Python still."""
    lines = Lines(file, source)
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    _Finder(lines, tokens, enums).visit(ast.parse(source))
    return lines.mutants()
