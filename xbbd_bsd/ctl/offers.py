"""An offer from its beginning to its end, of any device: what attach and detach have in common.

They speak to the store, as the toolstack does; guests are found there by name or number.
Runs in xbbctl's process.
"""

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EBUSY, EPERM
from typing import Final

from xbbd_bsd.errors import HostError, OperatorError, printable
from xbbd_bsd.host.choice import detect
from xbbd_bsd.toolstack import Offer, detach, give_up, in_use, no_domain, see_opened
from xbbd_bsd.xenstore.client import Store, StoreError

_DOM0: Final = "/local/domain/0/"


@contextmanager
def opened_store(host: str | None) -> Iterator[tuple[Store, asyncio.AbstractEventLoop]]:
    """The store of a host, and the loop that waits for it; OperatorError if we may not write."""
    loop = asyncio.new_event_loop()
    try:
        store = Store(detect(host).store_path, loop=loop)
        try:
            store.connect()
            yield store, loop
        except StoreError as error:
            if error.errno not in (EACCES, EPERM):
                raise
            raise OperatorError(f"XenStore: {error}: only root may attach and detach") from None
        finally:
            store.close()
    finally:
        loop.close()


def see_through(
    store: Store,
    loop: asyncio.AbstractEventLoop,
    what: Offer,
    token: bytes,
    limit: float,
    hotplug: Callable[[], None] | None = None,
) -> None:
    """Wait until the backend has opened what was offered; `hotplug` as of see_opened.

    HostError with the backend's reason if it does not, or what `hotplug` raised; no node is
    left then.
    """
    failed = False

    def try_hotplug() -> None:
        nonlocal failed
        assert hotplug is not None
        failed = True
        hotplug()
        failed = False

    try:
        see_opened(store, loop, what, limit, None if hotplug is None else try_hotplug)
    finally:  # interrupted too, nothing is left that nobody waits for
        reason = give_up(store, what, token, anyway=failed)
    if reason is not None:
        raise HostError(reason)


def take_back(
    store: Store,
    loop: asyncio.AbstractEventLoop,
    what: Offer,
    limit: float,
    advice: str,
    hotplug: Callable[[], None] | None = None,
    *,
    force: bool,
) -> None:
    """Ask guest and backend to let go, then remove the nodes; by force in any case.

    HostError if they did not in time, which says whether it stays; `advice`: what to do in
    the guest; `hotplug` as of toolstack's.
    """
    if detach(store, loop, what, limit, hotplug, force=force):
        return
    if force:
        raise HostError(f"the {what.noun} was not let go in time; its nodes are removed")
    if not in_use(store, what):
        raise HostError(f"{what.backend}: the backend does not answer; --force removes the nodes")
    who, name = guest_name(store, what.domid), what.name
    raise HostError(
        f"{who} holds {name}, and keeps it: {advice} there and try again (--force takes it away)",
        EBUSY,
    )


def directory(what: Offer) -> str:
    """The backend's, as the daemon has it."""
    return what.backend.removeprefix(_DOM0)


# Guests.


def guest_name(store: Store, domid: int) -> str:
    """What to call a guest in a message."""
    name = store.get(f"/local/domain/{domid}/name")
    return f"domain {domid}" + (f" ({printable(name)})" if name else "")


def find_domain(store: Store, name: str) -> int:
    """The number of a living guest by name or number; OperatorError if there is none."""
    domid = domain_number(name)
    if domid is not None:
        if store.get(f"/local/domain/{domid}") is not None:
            return domid
    else:
        for child in store.list("/local/domain"):
            if child.isdigit() and store.get(f"/local/domain/{child}/name") == os.fsencode(name):
                return int(child)
    raise no_domain(name)


def domain_number(name: str) -> int | None:
    """A domain's number that somebody has written; None if it is a name."""
    return int(name) if re.fullmatch("[0-9]{1,5}", name) else None


def domain_of(store: Store, domain: str, noun: str, device: str) -> int:
    """The number of a guest that may be gone, if it is written as one; OperatorError.

    `noun` and `device`: what is looked for, and how to name it without its guest.
    """
    domid = domain_number(domain)
    if domid is not None:
        return domid
    try:
        return find_domain(store, domain)
    except OperatorError as error:
        raise OperatorError(
            f"{error}; if its {noun} is still in xbbctl list, write xbbctl detach {device}"
        ) from None
