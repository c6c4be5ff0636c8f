"""The nodes of a backend device: changed all at once, or not at all.

The toolstack writes there too, and may take them away at any time.  Control thread.
"""

from xbbd_bsd.xenbus.family import Changes
from xbbd_bsd.xenstore.client import Store, Transaction


class Overtaken(Exception):
    """The toolstack was quicker: our nodes are gone, and must not come back, or it has
    written our state, and must be heard.  What we were about to say is out of date.
    """


def change(store: Store, directory: str, nodes: Changes, seen: bytes | None) -> None:
    """Change nodes below a directory, or those of a whole path; StoreError, Overtaken.

    `seen`: our state, as it was when we decided to.
    """

    def path(name: str) -> str:
        return name if "/" in name else f"{directory}/{name}"

    def body(transaction: Transaction) -> None:
        if transaction.get(f"{directory}/frontend") is None:
            raise Overtaken
        if "state" in nodes and transaction.get(f"{directory}/state") != seen:
            raise Overtaken
        for name, value in nodes.items():
            if value is None:
                transaction.remove(path(name))
            else:
                transaction.write(path(name), value)

    store.transaction(body)
