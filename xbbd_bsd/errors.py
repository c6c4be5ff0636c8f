"""What can go wrong, sorted by who can do something about it.

Pure: this module must not know what failed, only whose turn it is.  Any thread
may raise these.  A message says what failed, on what, and where it helps what
to do; it ends up in logs and in XenStore, so it is one line of plain text.
"""

_TEXT_LIMIT = 64


class XbbdError(Exception):
    """Base of all errors that we raise on purpose.

    `errno` is the number of the platform that goes with the message, 0 where
    there is none.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class GuestError(XbbdError):
    """The guest broke a rule of the protocol; only its own device suffers."""


class OperatorError(XbbdError):
    """The configuration or the toolstack asks for what cannot be had."""


class HostError(XbbdError):
    """The host (kernel, disk, hypervisor, store) failed us."""


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


def plain(text: str) -> str:
    """Text with words of somebody else in it, fit for a terminal and for one line of a log.

    What is not printable (controls, line ends, marks that turn the direction of
    writing, octets that were no UTF-8) becomes an escape as Python writes it;
    letters of any language stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
