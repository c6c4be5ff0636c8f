"""Errors by blame, and other people's bytes in our messages."""

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.errors import (
    GuestError,
    HostError,
    OperatorError,
    Refused,
    XbbdError,
    one_line,
    printable,
    shown,
)


@pytest.mark.parametrize("kind", [GuestError, OperatorError, HostError])
def test_carries_message_and_errno(kind: type[XbbdError]) -> None:
    error = kind("the disk is gone", 6)
    assert isinstance(error, XbbdError)
    assert (str(error), error.errno) == ("the disk is gone", 6)
    assert kind("no number").errno == 0


def test_several_things_that_are_wrong() -> None:
    assert GuestError("one").lines == ("one",)
    error = Refused(["one", "two"])
    assert isinstance(error, OperatorError)
    assert (str(error), error.lines, error.passes) == ("one; two", ("one", "two"), False)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"x86_64-abi", "x86_64-abi"),
        (b"", ""),
        (b"a\nb", "a\\x0ab"),
        (b"it's \\", "it\\x27s \\x5c"),
        (b"\x1b[2J\xc3\xa9", "\\x1b[2J\\xc3\\xa9"),
        (b"a" * 65, "a" * 64 + "..."),
    ],
)
def test_printable(raw: bytes, text: str) -> None:
    assert printable(raw) == text


@given(st.binary(max_size=5000), st.integers(0, 100))
def test_printable_is_one_short_line_of_ascii(raw: bytes, limit: int) -> None:
    text = printable(raw, limit)
    assert all(" " <= character <= "~" for character in text)
    assert len(text) <= limit + 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"/tank/a b.img", "/tank/a b.img"),
        ("/tank/\u00e9".encode(), "/tank/\u00e9"),
        (b"/tank/\xe9", "/tank/\\xe9"),
        (b"/a\nb\x1b[2J", "/a\\x0ab\\x1b[2J"),
        (b"/a\\xe9", "/a\\x5cxe9"),
        ("/\u202e\u0085".encode(), "/\\xe2\\x80\\xae\\xc2\\x85"),
    ],
)
def test_a_name_is_shown(name: bytes, text: str) -> None:
    assert shown(os.fsdecode(name)) == text


def octets(text: str) -> bytes:
    """What a name is that is shown so."""
    raw = os.fsencode(text)
    return re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), raw)


@given(st.binary(max_size=200))
def test_each_name_has_a_text_of_its_own(name: bytes) -> None:
    text = shown(os.fsdecode(name))
    assert text.isprintable()
    assert octets(text) == name


@given(st.text(st.characters()))
def test_one_line_is_one_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert shown(text).isprintable()
    if text.isprintable():
        assert one_line(text) == text
