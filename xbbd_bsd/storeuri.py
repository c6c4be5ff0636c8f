"""URIs of stores that are no paths: which there are, and what each says.

Those of NBD are as its project has them, and an image in a cluster of Ceph is named as
rbd(8) does it.  A URI stands where guests can read it, or in the configuration, so that no
key and no password is part of one.  Pure: nobody is connected to.  Any thread.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EINVAL
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from xbbd_bsd.errors import OperatorError

NBD_PORT: Final = 10809
_MOST_EXPORT: Final = 255  # bytes; NBD itself has 4096
_MOST_SOCKET: Final = 103  # bytes of a socket's path, on FreeBSD; Linux has 107
_MOST_PART: Final = 255  # bytes of a pool's name, or of an image's
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]{1,253}")


@dataclass(frozen=True, slots=True)
class NbdAddress:
    """A disk of a server that speaks NBD: `socket` is a path, or "" and it is `host` and `port`."""

    export: str
    tls: bool
    socket: str = ""
    host: str = ""
    port: int = NBD_PORT

    @property
    def text(self) -> str:
        """The same for all spellings of one address, and another for another."""
        port = str(self.port) if self.host else ""
        return "\0".join((self.socket, self.host.lower(), port, self.export))

    @property
    def denied(self) -> str:
        """What it takes that no process of a guest has, "" if that can reach it."""
        if not self.tls:
            return ""
        return "TLS wants keys, which no guest's process has: reach the server by a proxy"


@dataclass(frozen=True, slots=True)
class RbdAddress:
    """An image in a cluster of Ceph, or one of its snapshots; "": the namespace has no name."""

    pool: str
    image: str
    space: str = ""
    snapshot: str = ""

    @property
    def denied(self) -> str:
        """What it takes that no process of a guest has."""
        return "librbd connects as it likes, which no guest's process may: serve the image by NBD"


Address = NbdAddress | RbdAddress
"""Whatever a URI may lead to."""


def _nbd(uri: SplitResult) -> NbdAddress:
    tls, unix = uri.scheme.startswith("nbds"), uri.scheme.endswith("+unix")
    query = parse_qsl(uri.query, keep_blank_values=True, strict_parsing=bool(uri.query))
    allowed = ("socket",) if unix else ()
    if [key for key, _ in query if key not in allowed] or len(query) > 1:
        raise OperatorError("may have ?socket=PATH with +unix, and nothing else there")
    export = unquote(uri.path.removeprefix("/"), errors="strict")
    if len(export.encode()) > _MOST_EXPORT or not export.isprintable():
        raise OperatorError(f"must name an export by at most {_MOST_EXPORT} bytes of text")
    if not unix:
        host, port = uri.hostname or "", uri.port or NBD_PORT
        if not _HOST.fullmatch(host):
            raise OperatorError("must name a server, as nbd://server/EXPORT")
        return NbdAddress(export, tls, host=unquote(host), port=port)
    path = dict(query).get("socket", "")
    if uri.netloc or not path.startswith("/") or "\0" in path:
        raise OperatorError("must be like nbd+unix:///EXPORT?socket=/PATH")
    if len(path.encode()) > _MOST_SOCKET:
        raise OperatorError(f"its socket's path is longer than {_MOST_SOCKET} bytes")
    return NbdAddress(export, tls, socket=path)


def _rbd(uri: SplitResult) -> RbdAddress:
    if uri.netloc or uri.query or ":" in uri.path:
        raise OperatorError(
            "must be like rbd:POOL/IMAGE, without options: these belong to [store.NAME]"
        )
    path, at, snapshot = uri.path.partition("@")
    parts = [unquote(part, errors="strict") for part in (*path.split("/"), snapshot)]
    if len(parts) not in (3, 4) or not all((*parts[:-1], parts[-1] or not at)):
        raise OperatorError("must be like rbd:POOL/IMAGE, POOL/NAMESPACE/IMAGE, and @SNAPSHOT")
    for part in parts:
        if len(part.encode()) > _MOST_PART or not part.isprintable() or set(part) & set("/@"):
            raise OperatorError(f"must have names of at most {_MOST_PART} bytes of text, no / or @")
    return RbdAddress(parts[0], parts[-2], parts[1] if len(parts) == 4 else "", parts[-1])


SCHEMES: Final[Mapping[str, Callable[[SplitResult], Address]]] = {
    "nbd": _nbd,
    "nbds": _nbd,
    "nbd+unix": _nbd,
    "nbds+unix": _nbd,
    "rbd": _rbd,
}


SECTION: Final = "store:"  # before a section's name


def is_store(name: bytes | str) -> bool:
    """Whether a medium's name is no path: a URI of ours, or store:NAME, a section."""
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    return text.startswith(SECTION) or scheme_of(text) != ""


def scheme_of(name: str) -> str:
    """The scheme of a URI of ours, "" if it is none."""
    scheme, colon, _ = name.partition(":")
    return scheme.lower() if colon and scheme.lower() in SCHEMES else ""


def tells_too_much(name: str) -> bool:
    """Whether a medium's name may have a password where it ought to have none."""
    scheme = scheme_of(name)
    return ":" in name[len(scheme) + 1 :] if scheme == "rbd" else "@" in name


def parse_uri(text: str) -> Address:
    """Where a URI leads to; OperatorError, which does not repeat it: it may have a password."""
    known = ", ".join(f"{scheme}:" for scheme in SCHEMES)
    if not scheme_of(text):
        raise OperatorError(f"must begin with one of {known}", EINVAL)
    if not text.isprintable():  # urlsplit drops some of these, and it would be another disk's
        raise OperatorError("must be printable text", EINVAL)
    try:
        uri = urlsplit(text)
        if "@" in uri.netloc:
            raise OperatorError("must have no user and no password: keys belong to [store.NAME]")
        if uri.fragment:
            raise OperatorError("must have no # in it: write %23")
        return SCHEMES[uri.scheme](uri)
    except OperatorError as error:
        raise OperatorError(str(error), EINVAL) from None
    except ValueError:  # a port that is none, an escape that is none
        raise OperatorError("is no URI: a port or an escape in it is none", EINVAL) from None
