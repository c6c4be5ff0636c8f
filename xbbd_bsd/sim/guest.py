"""A guest process: one domain with one disk, told what to do line by line.

    python -m xbbd_bsd.sim guest DIR DOMID VDEV [options]

Reads commands from standard input and answers each with one JSON object a line:

    help                   the commands
    copy FILE              the whole disk into FILE; its SHA-256
    exercise KEY=VALUE...  random I/O against a model, on all queues at once (fields
                           of native.Workload; verify=0 leaves the model out,
                           model=FILE keeps it in a file, else it is read first);
                           what was done, and latency by percentile
    close                  give the disk back, stay alive
    open                   connect to it again
    lie                    publish requests that no ring can hold
    size                   the size of the disk, in sectors, once that has changed
    release                the last user is gone, of a guest with --refuse

How such a process lives is in guestlife.py.  When the backend closes, the guest lets go
too.  With --hold it does not react; with --refuse it does as Linux from 2.6.36 to 5.14
with a mounted disk: it says that the disk is in use, is Closing, goes on with I/O, and
closes after `release` (or at once, if it was not asked to close by then).
"""

import argparse
import asyncio
import hashlib
import time

from xbbd_bsd.native import Abi, Op
from xbbd_bsd.sim.blkfront import Blkfront
from xbbd_bsd.sim.exercise import Exercise
from xbbd_bsd.sim.guestlife import GuestLife, live, say

CHUNK_SECTORS = 4096  # of a copy
REPORT_SECONDS = 0.5
COMMANDS = {
    "help": "the commands",
    "copy": "copy FILE: the whole disk into a file",
    "exercise": "exercise KEY=VALUE...: random I/O, e.g. seconds=10 depth=32 verify=0",
    "close": "give the disk back, stay alive",
    "open": "connect to it again",
    "lie": "publish requests that no ring can hold",
    "size": "the size of the disk, in sectors, once that has changed",
    "release": "the last user is gone, of a guest with --refuse",
}


def copy_out(blkfront: Blkfront, path: str) -> dict[str, object]:
    """The whole disk into a file."""
    digest = hashlib.sha256()
    begun = time.monotonic()
    sectors = blkfront.disk.sectors
    with open(path, "wb") as file:
        for at in range(0, sectors, CHUNK_SECTORS):
            count = min(CHUNK_SECTORS, sectors - at)
            data = bytearray(count * 512)
            blkfront.front.transfer(Op.READ, at, count, data)
            digest.update(data)
            file.write(data)
    seconds = time.monotonic() - begun
    return {"bytes": sectors * 512, "seconds": seconds, "sha256": digest.hexdigest()}


class Guest(GuestLife):
    """The process: domain, driver of one disk, and what it can be told."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options, COMMANDS, options.hold, options.refuse)
        self._blkfront = Blkfront(
            self._domain,
            options.vdev,
            store=self._store,
            loop=self._loop,
            abi=Abi[options.abi.upper()],
            ring_order=options.ring_order,
            depth=options.depth,
            queues=options.queues,
            max_segments=options.max_segments,
            persistent=options.persistent,
            patience=options.patience,
        )
        self._exercise: Exercise | None = None
        self._resized = asyncio.Event()
        self._blkfront.on_resized = self._resized.set

    @property
    def _driver(self) -> Blkfront:
        return self._blkfront

    def _facts(self) -> dict[str, object]:
        disk = self._blkfront.disk
        return {
            "sectors": disk.sectors,
            "sector_size": disk.sector_size,
            "info": disk.info,
            "ring_pages": self._blkfront.ring_pages,
            "rings": len(self._blkfront.fronts),
            "depth": self._blkfront.depth,
            "max_segments": self._blkfront.max_segments,
            "discard": disk.discard,
        }

    def _stop_work(self) -> None:
        if self._exercise is not None:
            self._exercise.stop()

    async def _command(self, name: str, words: list[str]) -> None:
        if (name == "copy" and len(words) != 1) or (words and name not in ("copy", "exercise")):
            raise ValueError(f"these words do not follow {name}: {COMMANDS[name]}")
        if name == "copy":
            say("copied", **await asyncio.to_thread(copy_out, self._blkfront, words[0]))
        elif name == "exercise":
            await self._do_exercise(words)
        elif name == "lie":
            self._blkfront.front.ring.cast("I")[0] += 0x10000
            self._blkfront.front.notify()
            say("lied")
        elif name == "release":
            self._release()
        elif name == "size":
            await self._resized.wait()
            self._resized.clear()
            say("resized", sectors=self._blkfront.disk.sectors)
        else:
            raise ValueError("the guest has its disk already")

    async def _do_exercise(self, words: list[str]) -> None:
        exercise = self._exercise = await asyncio.to_thread(Exercise, self._blkfront, words)
        say("begun")
        task = asyncio.create_task(asyncio.to_thread(exercise.run))
        try:
            while not (await asyncio.wait({task}, timeout=REPORT_SECONDS))[0]:
                say("progress", **exercise.figures())
            await task
        finally:
            self._exercise = None
        say(
            "exercised",
            **exercise.figures(),
            latency_us=exercise.latency(),
            model_sha256=exercise.model_sha256(),
        )


def main(options: argparse.Namespace) -> int:
    """The command `guest`; its exit status."""
    return live("guest", lambda: Guest(options))
