"""The XenStore wire protocol: packets, their arguments, paths and errors as values.

Pure: this module must not know who sends or receives, nor what an operation does. Any thread may
use it; a Parser belongs to one connection. Source of the layouts and names: Xen's `xs_wire.h`
and `docs/misc/xenstore.txt`.
"""

import enum
import errno
import re
import struct
from dataclasses import dataclass
from typing import Final

HEADER: Final = struct.Struct("=IIII")  # type, request id, transaction id, length; native order
PAYLOAD_MAX: Final = 4096  # bytes, in both directions; the peer of a longer packet hangs up
ABSOLUTE_PATH_MAX: Final = 3072  # characters
RELATIVE_PATH_MAX: Final = 2048  # characters

_PATH = re.compile(rb"/|/?[A-Za-z0-9\-_@]+(?:/[A-Za-z0-9\-_@]+)*")


class Op(enum.IntEnum):
    """The type field of a packet (`enum xsd_sockmsg_type`)."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21  # 20 was RESTRICT, which no server has any more
    DIRECTORY_PART = 22


class Error(enum.Enum):
    """The errors that the protocol can carry: the member's name is sent, its value is the errno
    of this platform.
    """

    EINVAL = errno.EINVAL
    EACCES = errno.EACCES
    EEXIST = errno.EEXIST
    EISDIR = errno.EISDIR
    EPERM = errno.EPERM
    ENOENT = errno.ENOENT
    ENOMEM = errno.ENOMEM
    ENOSPC = errno.ENOSPC
    EIO = errno.EIO
    ENOTEMPTY = errno.ENOTEMPTY
    ENOSYS = errno.ENOSYS
    EROFS = errno.EROFS
    EBUSY = errno.EBUSY
    EAGAIN = errno.EAGAIN
    EISCONN = errno.EISCONN
    E2BIG = errno.E2BIG

    @property
    def payload(self) -> bytes:
        """The payload of an ERROR packet that carries this error."""
        return join(self.name.encode())

    @classmethod
    def from_payload(cls, payload: bytes) -> "Error":
        """The error that an ERROR packet carries; EINVAL for names that the protocol lacks."""
        name = payload.rstrip(b"\0").decode("ascii", "replace")
        return cls.__members__.get(name, cls.EINVAL)


@dataclass(frozen=True, slots=True)
class Packet:
    """One message. `type` is an Op where it is one, but a peer may send any number; the three
    numbers are unsigned and 32 bits wide. `tx_id` 0 means outside of any transaction.
    """

    type: int
    req_id: int = 0
    tx_id: int = 0
    payload: bytes = b""

    def __post_init__(self) -> None:
        if len(self.payload) > PAYLOAD_MAX:
            raise ValueError(f"a payload of {len(self.payload)} bytes, at most {PAYLOAD_MAX} fit")

    def __len__(self) -> int:
        """Bytes on the wire."""
        return HEADER.size + len(self.payload)

    def encode(self) -> bytes:
        """The packet's bytes; raises struct.error when a number is outside of 32 bits."""
        return HEADER.pack(self.type, self.req_id, self.tx_id, len(self.payload)) + self.payload

    def answer(self, payload: bytes) -> "Packet":
        """The reply to this request."""
        return Packet(self.type, self.req_id, self.tx_id, payload)

    def refusal(self, error: Error) -> "Packet":
        """The ERROR reply to this request."""
        return Packet(Op.ERROR, self.req_id, self.tx_id, error.payload)


class Parser:
    """Cuts a stream of bytes into packets.

    After a header that promises more than PAYLOAD_MAX bytes the stream cannot be trusted: `broken`
    is True from then on, further bytes are ignored, and the owner hangs up.
    """

    def __init__(self) -> None:
        self.broken = False
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that `data` completes, oldest first."""
        packets: list[Packet] = []
        if self.broken:
            return packets
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            op, req_id, tx_id, size = HEADER.unpack_from(self._buffer, start)
            if size > PAYLOAD_MAX:
                self.broken = True
                self._buffer.clear()
                return packets
            end = start + HEADER.size + size
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[start + HEADER.size : end])
            packets.append(Packet(op, req_id, tx_id, payload))
            start = end
        del self._buffer[:start]
        return packets


def join(*arguments: bytes) -> bytes:
    """Arguments as the protocol wants them, each with a NUL at its end.

    Raises ValueError when an argument holds a NUL, since it would arrive as two.
    """
    if any(b"\0" in argument for argument in arguments):
        raise ValueError("a NUL inside of an argument")
    return b"".join(argument + b"\0" for argument in arguments)


def split(payload: bytes, most: int) -> tuple[list[bytes], bytes]:
    """The first `most` arguments of a payload or fewer, and the bytes after them.

    What has no NUL at its end is no argument: it is the rest, as the value of a WRITE is.
    """
    *arguments, rest = payload.split(b"\0", most)
    return arguments, rest


def decode_path(raw: bytes) -> str:
    """A path as it came, absolute or relative to its sender's domain; the names of special
    watches (`@releaseDomain`) pass as relative ones.

    Raises ValueError for other characters than `A-Za-z0-9-/_@`, an empty path, an empty part or
    more characters than ABSOLUTE_PATH_MAX or RELATIVE_PATH_MAX.
    """
    most = ABSOLUTE_PATH_MAX if raw.startswith(b"/") else RELATIVE_PATH_MAX
    if len(raw) > most:
        raise ValueError(f"a path of {len(raw)} characters, at most {most} are allowed")
    if not _PATH.fullmatch(raw):
        raise ValueError("not a valid path")
    return raw.decode("ascii")
