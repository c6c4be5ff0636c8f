"""Why a guest does not connect, by the word of its own driver.

Drivers leave it in the guest's part of XenStore before they close (xenbus_dev_fatal of
Linux and of FreeBSD).  The guest may write there what it likes: it is taken as text of
some length, and decides nothing.  Control thread.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from xbbd_bsd.errors import printable
from xbbd_bsd.xenbus.states import Facts, State
from xbbd_bsd.xenstore.client import Store, StoreError

LENGTH: Final = 200  # characters, at most

_BEFORE: Final = (State.INITIALISING, State.INIT_WAIT, State.INITIALISED)
_LEAVING: Final = (State.CLOSING, State.CLOSED)
_WANTED: Final = (State.INITIALISING, State.INIT_WAIT, State.CONNECTED)  # ours


def complaint_node(frontend: str) -> str:
    """Where the driver of a frontend, by its directory /local/domain/N/..., leaves it."""
    domain = "/".join(frontend.split("/")[:4])
    return f"{domain}/error{frontend.removeprefix(domain)}/error"


class Complaint:
    """Looks for it each time that one guest leaves without having been connected."""

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        """`say` takes what the guest says, fit for a line of the log."""
        self._store = store
        self._say = say
        self._expected: bool | None = None  # that it connects; None: not looked yet

    def look(self, facts: Facts, frontend: str) -> None:
        """After the states were read.  Raises nothing, also where the store does."""
        if self._expected is None:
            self._expected = facts.ours in (State.INITIALISING, State.INIT_WAIT)
        if facts.guest in _BEFORE:
            self._expected = True
        elif facts.guest is State.CONNECTED and facts.ours is State.CONNECTED:
            self._expected = False
        elif facts.guest in _LEAVING and self._expected:
            self._expected = False
            if facts.ours in _WANTED and frontend:
                self._read(frontend)

    def _read(self, frontend: str) -> None:
        with suppress(StoreError):  # one that is lost says so itself
            words = self._store.get(complaint_node(frontend))
            if words:
                self._say(printable(words, LENGTH))
