"""The registry of backend kinds: which directory of XenStore is served by what.

A new kind is one line here.  Control thread.
"""

import asyncio
from collections.abc import Mapping

from xbbd_bsd.block.family import BlockFamily, device_path, tap_params
from xbbd_bsd.config import DiskConfig
from xbbd_bsd.host import Host

# Kind -> the node that names the disk, and how to read it.
_BLOCK = {
    "vbd": ("physical-device-path", device_path),
    "vbd3": ("params", tap_params),
}


def block_families(
    host: Host, config: DiskConfig, state_dir: str, loop: asyncio.AbstractEventLoop
) -> Mapping[str, BlockFamily]:
    """Every kind of block backend, by the name of its directory."""
    return {
        kind: BlockFamily(node, name, host=host, config=config, state_dir=state_dir, loop=loop)
        for kind, (node, name) in _BLOCK.items()
    }
