"""What a medium's name means: a path, or a store that is reached otherwise.

A name is what the toolstack has in its node, which the guest can read: a path, a URI, or
``store:NAME``, which is a section of the configuration.  Pure: it opens nothing.  Any
thread.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL, ENAMETOOLONG, ENOENT
from typing import Final

from xbbd_bsd.errors import OperatorError, shown
from xbbd_bsd.storesections import StoreConfig, Stores
from xbbd_bsd.storeuri import SECTION, Address, is_store, parse_uri

_MOST_NAME: Final = 1000  # bytes: whoever takes the disk over finds it in its segment
_DEFAULT: Final = StoreConfig("")


@dataclass(frozen=True, slots=True)
class Store:
    """A store by its name; `config` has its keys, and where it is, which is for nobody's eyes."""

    name: str
    address: Address
    config: StoreConfig

    @property
    def shown(self) -> str:
        """Fit for a log, and for the guest: no address but what its name has."""
        return shown(self.name)


def key_of(kind: str, text: str) -> tuple[str, int, int]:
    """What a disk of a kind is told apart by, as a text says it: Key in disk.py."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    half = 1 << 63
    return kind, int.from_bytes(digest[:8]) % half, int.from_bytes(digest[8:16]) % half


StoreNamed = Callable[[bytes], Store | None]
"""What a name stands for that is no path; OperatorError."""


def store_named(name: bytes, stores: Stores) -> Store | None:
    """The store of that name, None of a path; OperatorError."""
    if not is_store(name):
        return None
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise OperatorError("the store's name must be UTF-8", EINVAL) from None
    if len(name) > _MOST_NAME:
        raise OperatorError("the store's name is too long; name it in [store.NAME]", ENAMETOOLONG)
    if not text.startswith(SECTION):
        try:
            return Store(text, parse_uri(text), _DEFAULT)
        except OperatorError as error:  # it may have a password, and is not repeated
            raise OperatorError(f"the store's URI {error}", EINVAL) from None
    section = text.removeprefix(SECTION)
    config = stores.get(section)
    if config is None:
        raise OperatorError(f"{shown(text)}: there is no section [store.{shown(section)}]", ENOENT)
    return Store(text, parse_uri(config.uri), config)
