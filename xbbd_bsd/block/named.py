"""Which medium the toolstack names: the best of several nodes, and its path.

Pure, any thread.
"""

import os
from collections.abc import Callable, Mapping
from errno import EINVAL
from typing import Final

from xbbd_bsd.block.disk import Disk, disk_path
from xbbd_bsd.errors import OperatorError, printable
from xbbd_bsd.stats import WORDS

Nodes = Callable[[str], bytes | None]
POLICY_NODES: Final[Mapping[str, str]] = {"on-error": "on_error", "on-full": "on_full"}
"""Nodes that say what is done about errors, and the keys of [disk] that they stand for."""

Media = Mapping[str, Callable[[bytes], bytes]]
"""Nodes that may name it, the best first, and what their values name."""


def named_medium(media: Media, backend: Nodes) -> tuple[str, bytes] | None:
    """The best node that names a medium, with its value."""
    for node in media:
        if (value := backend(node)) is not None:
            return node, value
    return None


def said_of(backend: Nodes) -> Mapping[str, str]:
    """What the toolstack wants to be done about errors of this disk: keys of [disk].

    OperatorError if a node says something else.
    """
    found: dict[str, str] = {}
    for node, key in POLICY_NODES.items():
        value = backend(node)
        word = (value or b"").decode("ascii", "replace")
        if value and word not in WORDS[key]:
            known = ", ".join(WORDS[key])
            text = f"node {node} is '{printable(value)}': must be one of {known}"
            raise OperatorError(text, EINVAL)
        if value:
            found[key] = word
    return found


def named_path(media: Media, backend: Nodes) -> str:
    """The path of the medium before it is opened: the toolstack's word, maybe a script's."""
    named = named_medium(media, backend)
    try:
        if named is not None:
            return disk_path(media[named[0]](named[1]))
        return disk_path(backend("params") or b"")
    except OperatorError:
        return ""


def named_anew(
    node: str, params: bytes, disk: Disk, old: str, path: str
) -> dict[str, bytes | None]:
    """Nodes that name another disk in the place of `old`, which `node` names; OperatorError.

    `params`: the node of that name, which is the toolstack's, and may say something else.
    """
    name, device = os.fsencode(path), disk.device.encode() or None
    if node == "physical-device" and device is None:
        raise OperatorError(f"{disk.path} is a file, and {node} names devices only", EINVAL)
    nodes: dict[str, bytes | None] = {}
    if params and params.removeprefix(b"aio:") == os.fsencode(old):
        nodes["params"] = params.removesuffix(os.fsencode(old)) + name
    if node == "physical-device-path":
        nodes[node] = name
    if node != "params":
        nodes["physical-device"] = device
    return nodes
