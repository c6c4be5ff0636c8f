"""Which medium the toolstack names: the best of several nodes, and its path.

Pure, any thread.
"""

from collections.abc import Callable, Mapping

from xbbd_bsd.block.disk import disk_path
from xbbd_bsd.errors import OperatorError

Nodes = Callable[[str], bytes | None]
Media = Mapping[str, Callable[[bytes], bytes]]
"""Nodes that may name it, the best first, and what their values name."""


def named_medium(media: Media, backend: Nodes) -> tuple[str, bytes] | None:
    """The best node that names a medium, with its value."""
    for node in media:
        if (value := backend(node)) is not None:
            return node, value
    return None


def named_path(media: Media, backend: Nodes) -> str:
    """The path of the medium before it is opened: the toolstack's word, maybe a script's."""
    named = named_medium(media, backend)
    try:
        if named is not None:
            return disk_path(media[named[0]](named[1]))
        return disk_path(backend("params") or b"")
    except OperatorError:
        return ""
