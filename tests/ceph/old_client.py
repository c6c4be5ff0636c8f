"""A client that writes to an image until it is refused: what is stopped in test_ceph.py.

`python -m tests.ceph.old_client DIRECTORY CONF IMAGE`.  Says what the cluster calls it, and
in the end why its ring stopped.
"""

from __future__ import annotations

import random
import sys
from contextlib import suppress
from pathlib import Path

from tests.native.images import POOL, Image
from tests.native.ring import ring
from tests.waiting import eventually
from xbbd_bsd.native import Op, QueueState, RbdImage

SIZE = 4 << 20


def main() -> None:
    directory, conf, name = sys.argv[1:]
    image = Image(RbdImage(POOL, name, conf=conf), Path(directory) / "disk")
    with ring(Path(directory), size=SIZE, image=image) as r:
        print(image.holder, flush=True)
        with suppress(OSError):
            while True:
                sector = random.randrange(SIZE // 4096) * 8
                r.front.transfer(Op.WRITE, sector, 8, bytearray(b"o" * 4096))
        eventually(lambda: r.queue.status().state is QueueState.DRAINED, "it has drained")
        print(r.queue.status().reason.name, flush=True)


if __name__ == "__main__":
    main()
