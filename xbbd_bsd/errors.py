"""What can go wrong, sorted by who can do something about it.

Pure: this module must not know what failed, only whose turn it is.  Any thread
may raise these.  A message says what failed, on what, and where it helps what
to do; it ends up in logs and in XenStore, so it is one line of plain text.
"""

from collections.abc import Iterable
from errno import EAGAIN, EBUSY, EINTR, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC
from typing import Final

_TEXT_LIMIT: Final = 64
_PASSING: Final = (EAGAIN, EBUSY, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC)


class XbbdError(Exception):
    """Base of all errors that we raise on purpose.

    `errno` is the number of the platform that goes with the message, 0 where
    there is none.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno

    @property
    def passes(self) -> bool:
        """Whether the same may go well a little later: a shortage, or somebody else's turn."""
        return self.errno in _PASSING

    @property
    def lines(self) -> tuple[str, ...]:
        """The message as it is best shown: a line for each thing that is wrong."""
        return (str(self),)


class GuestError(XbbdError):
    """The guest broke a rule of the protocol; only its own device suffers."""

    @property
    def passes(self) -> bool:
        return False


class OperatorError(XbbdError):
    """The configuration or the toolstack asks for what cannot be had."""


class Refused(OperatorError):
    """Several things that are wrong, all at once; the message has them one after the other."""

    def __init__(self, faults: Iterable[str]) -> None:
        self._faults = tuple(faults)
        super().__init__("; ".join(self._faults), EINVAL)

    @property
    def lines(self) -> tuple[str, ...]:
        return self._faults


class HostError(XbbdError):
    """The host (kernel, disk, hypervisor, store) failed us."""


def in_words(error: BaseException) -> str:
    """What an error says, without the number and the quotes that Python puts around it.

    An error of the system names its file, if it has one.
    """
    if isinstance(error, UnicodeError):
        return "it is no text in UTF-8"
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    named = error.filename
    if isinstance(named, bytes):
        named = named.decode("utf-8", "surrogateescape")
    return f"{shown(named)}: {error.strerror}" if isinstance(named, str) else error.strerror


def reason(error: OSError) -> str:
    """The same of an error of the system, for a message that names the file itself."""
    return error.strerror or str(error) or type(error).__name__


def shown(name: str) -> str:
    """A file's name, as of os.fsdecode, fit for one line of a log or of XenStore.

    What cannot be printed, and backslashes, become escapes of their octets, so
    that each name has a text of its own.
    """
    return "".join(c if c.isprintable() and c != "\\" else _escaped(c) for c in name)


def one_line(text: str) -> str:
    """Any text with what a terminal might obey as escapes; backslashes stay."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    try:
        octets = character.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no octet
        octets = character.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{octet:02x}" for octet in octets)


def printable(raw: bytes, limit: int = _TEXT_LIMIT) -> str:
    """Bytes that somebody else wrote, fit for one line of a log.

    Octets outside printable ASCII, quotes and backslashes become escapes; what
    is longer than `limit` characters is cut and ends with "...".
    """
    text = "".join(
        chr(octet) if 0x20 <= octet < 0x7F and octet not in b"'\\" else f"\\x{octet:02x}"
        for octet in raw[: limit + 1]
    )
    return text if len(text) <= limit else text[:limit] + "..."
