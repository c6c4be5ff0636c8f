"""URIs of stores that are no paths: which there are, and what each says.

Those of NBD are as its project has them.  A URI stands where guests can read it, or
in the configuration, so that no key and no password is part of one.  Pure: nobody is
connected to.  Any thread.
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
_HOST: Final = re.compile(r"[A-Za-z0-9_.:%-]{1,253}")


@dataclass(frozen=True, slots=True)
class NbdAddress:
    """A disk of a server that speaks NBD: `socket` is a path, or "" and it is `host` and `port`."""

    export: str
    tls: bool
    socket: str = ""
    host: str = ""
    port: int = NBD_PORT


Address = NbdAddress
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


SCHEMES: Final[Mapping[str, Callable[[SplitResult], Address]]] = {
    "nbd": _nbd,
    "nbds": _nbd,
    "nbd+unix": _nbd,
    "nbds+unix": _nbd,
}


_SECTION: Final = "store:"  # before a section's name


def is_store(name: bytes | str) -> bool:
    """Whether a medium's name is no path: a URI of ours, or store:NAME, a section."""
    text = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    return text.startswith(_SECTION) or scheme_of(text) != ""


def scheme_of(name: str) -> str:
    """The scheme of a URI of ours, "" if it is none."""
    scheme, colon, _ = name.partition(":")
    return scheme.lower() if colon and scheme.lower() in SCHEMES else ""


def parse_uri(text: str) -> Address:
    """Where a URI leads to; OperatorError, which does not repeat it: it may have a password."""
    known = ", ".join(f"{scheme}:" for scheme in SCHEMES)
    if not scheme_of(text):
        raise OperatorError(f"must begin with one of {known}", EINVAL)
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
