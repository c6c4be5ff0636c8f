"""A guest process: one domain with one disk, told what to do line by line.

    python -m xbbd_bsd.sim guest DIR DOMID VDEV [options]

Reads commands from standard input and answers each with one JSON object a line:

    copy FILE              the whole disk into FILE; its SHA-256
    exercise KEY=VALUE...  random I/O against a model, on all queues at once (fields
                           of native.Workload; verify=0 leaves the model out,
                           model=FILE keeps it in a file, else it is read first)
    close                  give the disk back, stay alive
    open                   connect to it again
    lie                    publish requests that no ring can hold
    size                   the size of the disk, in sectors, once that has changed
    release                the last user is gone, of a guest with --refuse

When the backend closes, the guest lets go too.  With --hold it does not react; with
--refuse it does as Linux from 2.6.36 to 5.14 with a mounted disk: it says that
the disk is in use, is Closing, goes on with I/O, and closes after `release` (or
at once, if it was not asked to close by then).  End of input or SIGTERM closes
the disk and ends the guest; SIGKILL is a crash.
The main thread runs the loop; each command has a thread of its own.
"""

import argparse
import asyncio
import hashlib
import json
import signal
import sys
import time

from xbbd_bsd.errors import HostError, XbbdError, in_words
from xbbd_bsd.native import Abi, Op
from xbbd_bsd.sim.blkfront import Blkfront
from xbbd_bsd.sim.exercise import Exercise
from xbbd_bsd.sim.hypervisor import Domain, layout
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost

CHUNK_SECTORS = 4096  # of a copy
REPORT_SECONDS = 0.5
FOR_EVER = 1e9  # seconds


def say(event: str, **values: object) -> None:
    """One line of JSON for whoever runs us."""
    print(json.dumps({"event": event, **values}), flush=True)


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


class Guest:
    """The process: domain, driver, and the commands on standard input."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._loop = asyncio.new_event_loop()
        self._domain = Domain(layout(options.directory), options.domid)
        self._store = Store(self._domain.store_path, loop=self._loop)
        self._store.connect()
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
        )
        self._hold = options.hold
        self._refuse = options.refuse
        self._in_use = False
        self._connected = False
        self._exercise: Exercise | None = None
        self._input = asyncio.StreamReader(loop=self._loop)
        self._let_go = asyncio.Event()
        self._resized = asyncio.Event()
        self._blkfront.on_resized = self._resized.set

    def run(self) -> None:
        """From birth to the end of input."""
        transport, _ = self._loop.run_until_complete(
            self._loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(self._input, loop=self._loop), sys.stdin
            )
        )
        self._loop.add_signal_handler(signal.SIGTERM, self._terminate, transport)
        say("alive")
        while True:
            self._connect()
            self._connected = True
            self._loop.run_until_complete(self._obey())
            self._blkfront.close()
            self._connected = False
            say("closed")
            while (line := self._loop.run_until_complete(self._input.readline())) != b"open\n":
                if not line:
                    return

    def end(self) -> None:
        """Let go of everything."""
        self._blkfront.withdraw()
        self._store.close()
        self._domain.close()
        self._loop.close()

    def _terminate(self, transport: asyncio.ReadTransport) -> None:
        """SIGTERM: as the end of input, or the end where no input is awaited."""
        if not self._connected:
            raise SystemExit(0)
        transport.close()
        if self._exercise is not None:
            self._exercise.stop()

    def _connect(self) -> None:
        self._let_go.clear()
        self._in_use = self._refuse
        self._blkfront.on_closing = self._backend_closing
        while True:
            try:
                self._blkfront.wait_offer(FOR_EVER)
                self._blkfront.connect()
                break
            except StoreLost:
                raise
            except (HostError, StoreError) as error:  # refused, or taken back meanwhile
                say("refused", text=in_words(error))
                self._blkfront.abandon()
        disk = self._blkfront.disk
        say(
            "connected",
            sectors=disk.sectors,
            sector_size=disk.sector_size,
            info=disk.info,
            ring_pages=self._blkfront.ring_pages,
            rings=len(self._blkfront.fronts),
            depth=self._blkfront.depth,
            max_segments=self._blkfront.max_segments,
            discard=disk.discard,
        )

    def _backend_closing(self) -> None:
        say("backend closing")
        if self._in_use and not self._blkfront.backend_gone:
            if not self._blkfront.refusing:
                self._blkfront.refuse()
                say("refused to close")
        elif not self._hold:
            self._let_go.set()
            if self._exercise is not None:
                self._exercise.stop()

    async def _next_line(self) -> bytes:
        """The next command; nothing at the end of input or when the backend closes."""
        line = asyncio.ensure_future(self._input.readline())
        let_go = asyncio.ensure_future(self._let_go.wait())
        await asyncio.wait({line, let_go}, return_when=asyncio.FIRST_COMPLETED)
        let_go.cancel()
        if line.done():
            return line.result()
        line.cancel()
        return b""

    async def _obey(self) -> None:
        while line := await self._next_line():
            words = line.decode().split()
            if words == ["close"] or (words == ["release"] and self._blkfront.refusing):
                return
            try:
                await self._command(words[0], words[1:])
            except (OSError, KeyError, ValueError, XbbdError) as error:
                number = getattr(error, "errno", 0)
                say("failed", command=words[0], errno=number, text=in_words(error))

    async def _command(self, name: str, words: list[str]) -> None:
        if name == "copy":
            say("copied", **await asyncio.to_thread(copy_out, self._blkfront, words[0]))
        elif name == "exercise":
            await self._do_exercise(words)
        elif name == "lie":
            self._blkfront.front.ring.cast("I")[0] += 0x10000
            self._blkfront.front.notify()
            say("lied")
        elif name == "release":
            self._in_use = False
            say("released")
        elif name == "size":
            await self._resized.wait()
            self._resized.clear()
            say("resized", sectors=self._blkfront.disk.sectors)
        else:
            raise ValueError(f"no such command: {name}")

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
            latency=exercise.latency(),
            model_sha256=exercise.model_sha256(),
        )


def main(options: argparse.Namespace) -> int:
    """The command `guest`; its exit status."""
    try:
        guest = Guest(options)
    except (XbbdError, OSError) as error:
        print(f"guest: {in_words(error)}", file=sys.stderr)
        return 1
    try:
        guest.run()
    except (XbbdError, OSError, ValueError) as error:  # ValueError: standard input is no pipe
        print(f"guest: {in_words(error)}", file=sys.stderr)
        return 1
    finally:
        guest.end()
    return 0
