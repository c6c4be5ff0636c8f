"""Messages are for people: no errno in brackets, no spelling of Python's.

Read off the source: wherever an error of the system is caught its text is taken in a
way that leaves out the number (in_words, strerror); and no message shows a repr.
"""

import ast
import builtins
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_layers import MODULES
from xbbd_bsd.errors import HostError, in_words
from xbbd_bsd.xenstore.client import StoreError

# Errors whose text Python makes of a number; StoreError has a text of its own.
OF_THE_SYSTEM = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, OSError)
}


def caught(handler: ast.ExceptHandler) -> set[str]:
    """The names of what a handler catches."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {kind.id for kind in kinds if isinstance(kind, ast.Name)}


def shows(node: ast.AST, name: str) -> Iterator[int]:
    """The lines at which a variable is made text as it is."""
    for inner in ast.walk(node):
        value: ast.expr | None = None
        if isinstance(inner, ast.FormattedValue):
            value = inner.value
        elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name):
            value = inner.args[0] if inner.func.id in ("str", "repr") and inner.args else None
        if isinstance(value, ast.Name) and value.id == name:
            yield value.lineno


@pytest.mark.parametrize("name", MODULES)
def test_no_error_of_the_system_is_shown_as_python_has_it(name: str) -> None:
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ExceptHandler) and node.name and caught(node) & OF_THE_SYSTEM:
            found = [line for part in node.body for line in shows(part, node.name)]
            assert found == [], f"{name}: use in_words or strerror"


@pytest.mark.parametrize("name", MODULES)
def test_no_message_has_a_repr(name: str) -> None:
    lines = [
        node.lineno
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
    ]
    assert lines == [], name


def test_the_rule_can_refuse() -> None:
    tree = ast.parse("try: f()\nexcept (OSError, ValueError) as e:\n  g(f'{e}', str(e))")
    (handler,) = (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))
    assert caught(handler) & OF_THE_SYSTEM
    assert list(shows(handler.body[0], "e")) == [3, 3]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EISDIR, "Is a directory"), "Is a directory"),
        (OSError(errno.ENOENT, "No such file", "/a\x1b"), "/a\\x1b: No such file"),
        (OSError(errno.ENOENT, "No such file", b"/a\xff"), "/a\\xff: No such file"),
        (OSError("whatever"), "whatever"),
        (TimeoutError(), "TimeoutError"),
        (HostError("the disk is gone", errno.ENXIO), "the disk is gone"),
        (StoreError(errno.EACCES, "read /x: Permission denied"), "read /x: Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "it is no text in UTF-8"),
    ],
)
def test_in_words(error: BaseException, words: str) -> None:
    assert in_words(error) == words
    assert "[Errno" not in in_words(error)


def test_an_error_of_the_store_is_its_message() -> None:
    assert str(StoreError(errno.EACCES, "write /x: Permission denied")) == (
        "write /x: Permission denied"
    )


def test_a_directory_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as raised:
        os.open(tmp_path, os.O_WRONLY)
    assert in_words(raised.value) == f"{tmp_path}: Is a directory"
