"""Waiting for a change in the store, with a limit, by running the loop meanwhile.

For commands and frontends, which have nothing else to do; the daemon never waits.
"""

import asyncio
from collections.abc import Callable

from xbbd_bsd.xenstore.client import Store


def wait_until(
    store: Store,
    loop: asyncio.AbstractEventLoop,
    path: str,
    holds: Callable[[], bool],
    limit: float,
) -> bool:
    """Run the loop until `holds`, asked after each change below `path`.

    False when `limit` seconds have passed.  `holds` may raise StoreError, which
    comes out here.
    """
    found: asyncio.Future[bool] = loop.create_future()

    def look(_: str) -> None:
        try:
            if not found.done() and holds():
                found.set_result(True)
        except OSError as error:
            found.set_exception(error)

    watch = store.watch(path, look)
    try:
        return loop.run_until_complete(asyncio.wait_for(found, limit))
    except TimeoutError:
        return False
    finally:
        watch.cancel()
