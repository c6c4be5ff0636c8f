"""The registry of backend kinds: which directory of XenStore is served by what.

A new kind is one line here.  Control thread.
"""

import asyncio
from collections.abc import Mapping

from xbbd_bsd.block.family import BlockFamily, tap_params
from xbbd_bsd.block.limits import Accounts
from xbbd_bsd.block.marks import Marks
from xbbd_bsd.block.sharing import Sharing
from xbbd_bsd.config import Config
from xbbd_bsd.errands import Run
from xbbd_bsd.host import Host


def block_families(
    host: Host,
    config: Config,
    state_dir: str,
    loop: asyncio.AbstractEventLoop,
    run: Run,
    marks: Marks,
    limits: Accounts,
) -> Mapping[str, BlockFamily]:
    """Every kind of block backend, by the name of its directory.

    `run` does what may have to wait.
    """
    media = {"vbd": host.media, "vbd3": {"params": tap_params}}
    sharing = Sharing()
    return {
        kind: BlockFamily(
            named_by,
            host=host,
            config=config,
            state_dir=state_dir,
            loop=loop,
            run=run,
            sharing=sharing,
            marks=marks,
            limits=limits,
        )
        for kind, named_by in media.items()
    }
