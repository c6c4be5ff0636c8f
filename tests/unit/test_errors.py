"""Errors by blame, and other people's bytes in our messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbbd_bsd.errors import GuestError, HostError, OperatorError, XbbdError, plain, printable


@pytest.mark.parametrize("kind", [GuestError, OperatorError, HostError])
def test_carries_message_and_errno(kind: type[XbbdError]) -> None:
    error = kind("the disk is gone", 6)
    assert isinstance(error, XbbdError)
    assert (str(error), error.errno) == ("the disk is gone", 6)
    assert kind("no number").errno == 0


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
    ("text", "shown"),
    [
        ("/tank/ä 日本.img", "/tank/ä 日本.img"),
        ("\x1b[2J\x9b2J\r\n\x00\x7f", "\\x1b[2J\\x9b2J\\r\\n\\x00\\x7f"),
        ("abc\u202egmi.\udcff\u2028", "abc\\u202egmi.\\udcff\\u2028"),
    ],
)
def test_plain(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text())
def test_plain_is_printable_and_changes_nothing_that_is(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)
    if text.isprintable():
        assert plain(text) == text
