"""The yardstick of bench-net: a guest without a ring, whose cable goes straight to dom0.

    python -m xbbd_bsd.sim.relay PID NAME ADDRESS/BITS

Started in a network name space of its own, it makes eth0 there, and an interface of that
name in the name space of the process PID, and moves frames between both as they come
(native/front/relay.c) until its input ends.  It is told nothing else.
"""

import os
import sys

from xbbd_bsd.errors import HostError, in_words
from xbbd_bsd.native.front.netfront import ALL_OFFLOADS, direct_relay
from xbbd_bsd.sim.interface import make, open_queue
from xbbd_bsd.sim.namespace import run
from xbbd_bsd.sim.traffic import say


def main(pid: str, name: str, address: str) -> int:
    """Until the end of input; exit status."""
    try:
        make([address], 1500)
        fds = [open_queue(ALL_OFFLOADS), open_queue(ALL_OFFLOADS, name)]
        run(("ip", "link", "set", name, "netns", pid))
        say("alive")
        direct_relay(fds[0], fds[1], sys.stdin.fileno())
    except (HostError, OSError) as error:
        print(f"relay: {in_words(error)}", file=sys.stderr)
        return 1
    for fd in fds:
        os.close(fd)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
