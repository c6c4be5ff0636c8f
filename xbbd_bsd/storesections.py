"""Sections [store.NAME]: stores that disks are named by, so that guests read no address.

Pure: what is in one is judged, nobody is connected to.  Any thread.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.storeuri import parse_uri, scheme_of
from xbbd_bsd.tomltext import spelled

HEADING: Final = "[store.NAME]"
NAME: Final = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
LONGEST: Final = 3600  # seconds, of timeout
_MOST_TEXT: Final = 255  # bytes of a path, or of a user's name


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Section [store.NAME].

    uri: where it is (storeuri.py).  certificates: the directory with TLS certificates, or
    psk_file: the file with its keys, and user: whose of these, "" for what suits the URI.
    timeout: seconds that the server may take for a request, or to say what it has.  Of a
    cluster of Ceph: conf, its configuration, id, the client's name without "client.", and
    keyring, the file with its key; "": what librados takes then.
    """

    uri: str
    certificates: str = field(default="", repr=False)
    psk_file: str = field(default="", repr=False)
    user: str = field(default="", repr=False)
    timeout: int = 30
    conf: str = field(default="", repr=False)
    id: str = field(default="", repr=False)
    keyring: str = field(default="", repr=False)


Stores = Mapping[str, StoreConfig]
KEYS: Final[Mapping[str, str]] = {
    "uri": "where the store is: nbd://, nbds://, nbd+unix://, nbds+unix:// or rbd:",
    "certificates": "directory of TLS certificates, for nbds",
    "psk_file": "file of TLS keys that are shared with the server, for nbds",
    "user": "whose key or certificate it is",
    "timeout": "seconds that the server may take to answer",
    "conf": "configuration of a cluster of Ceph, for rbd",
    "id": "which client of the cluster it is, for rbd",
    "keyring": "file with that client's key, for rbd",
}
"""One line each."""

_OF_TLS: Final = ("certificates", "psk_file", "user")
_OF_CEPH: Final = ("conf", "id", "keyring")
_DEFAULTS: Final = {key.name: key.default for key in fields(StoreConfig)}


def read_stores(
    tables: object, blame: Callable[[tuple[str, ...], str], None]
) -> Iterator[tuple[str, StoreConfig]]:
    """Those that are good of a text's table "store"; `blame` is told of the others, and why."""
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        blame(("store",), f"store: must be sections: write {HEADING}")
        return
    for name, table in tables.items():
        faults = [*_faults(name, table)]
        for key, reason in faults:
            where = f"[store.{name}]" if NAME.fullmatch(name) else f"[store.{spelled(name)}]"
            blame(("store", name, *key), f"{where} {' '.join((*key, reason))}")
        if not faults:
            yield name, StoreConfig(**table)


def _faults(name: str, table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    if not NAME.fullmatch(name):
        yield (), "its name must be letters, digits, _ and -, at most 64"
    if "uri" not in table:
        yield (), "must have uri"
    for key, value in table.items():
        try:
            _check(key, value)
        except OperatorError as error:
            yield (key,), str(error)  # not the value: there are keys and passwords in some
    if not isinstance(uri := table.get("uri"), str) or not scheme_of(uri):
        return
    for keys, scheme, of in ((_OF_TLS, "nbds", "TLS"), (_OF_CEPH, "rbd", "Ceph")):
        given = [key for key in keys if key in table]
        if given and not scheme_of(uri).startswith(scheme):
            yield (given[0],), f"is of {of}: uri must begin with {scheme}"
    if "certificates" in table and "psk_file" in table:
        yield ("psk_file",), "cannot be together with certificates"


def _check(key: str, value: object) -> None:
    match key:
        case "uri":
            if not isinstance(value, str):
                raise OperatorError("must be text")
            parse_uri(value)
        case "certificates" | "psk_file" | "conf" | "keyring":
            if not _is_text(value) or not str(value).startswith("/"):
                raise OperatorError("must be an absolute path")
        case "user" | "id":
            if not _is_text(value):
                raise OperatorError("must be a name")
        case "timeout":
            if type(value) is not int or not 1 <= value <= LONGEST:
                raise OperatorError(f"must be a whole number, 1 to {LONGEST}")
        case _:
            raise OperatorError(f"unknown key; known are {', '.join(_DEFAULTS)}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value.encode()) <= _MOST_TEXT
