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

Commands wait until there is a disk, and for each other; `help`, and what is no
command, are answered at once.  When the backend closes, the guest lets go too.  With
--hold it does not react; with --refuse it does as Linux from 2.6.36 to 5.14 with a
mounted disk: it says that the disk is in use, is Closing, goes on with I/O, and
closes after `release` (or at once, if it was not asked to close by then).  End of
input or SIGTERM closes the disk and ends the guest; SIGKILL is a crash.
The main thread runs the loop; each command has a thread of its own.
"""

import argparse
import asyncio
import contextlib
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
FOR_EVER = 1e9  # seconds


def say(event: str, **values: object) -> None:
    """One line of JSON for whoever runs us."""
    print(json.dumps({"event": event, **values}), flush=True)


def refuse(command: str, text: str, errno: int = 0) -> None:
    """Say that a command was not done, and why."""
    say("failed", command=command, errno=errno, text=text)


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
            patience=options.patience,
        )
        self._hold = options.hold
        self._refuse = options.refuse
        self._in_use = False
        self._connected = False
        self._exercise: Exercise | None = None
        self._input = asyncio.StreamReader(loop=self._loop)
        self._commands = asyncio.Queue[list[str]]()  # at the end of input an empty one
        self._let_go = asyncio.Event()
        self._resized = asyncio.Event()
        self._blkfront.on_resized = self._resized.set

    def run(self) -> None:
        """From birth to the end of input; ValueError if nobody can wait for that."""
        try:  # asyncio asks later, and nobody gets the answer: of /dev/null for one
            self._loop.add_reader(sys.stdin, int)
            self._loop.remove_reader(sys.stdin)
        except OSError:
            raise ValueError("standard input must be a pipe or a terminal") from None
        transport, _ = self._loop.run_until_complete(
            self._loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(self._input, loop=self._loop), sys.stdin
            )
        )
        self._loop.add_signal_handler(signal.SIGTERM, self._terminate, transport)
        say("alive")
        reader = self._loop.create_task(self._read())
        try:
            self._live()
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                self._loop.run_until_complete(reader)

    async def _read(self) -> None:
        """Take commands from standard input; answer what needs no disk, now."""
        while True:
            try:
                line = await self._input.readline()
            except ValueError:
                refuse("", "the line is too long")
                continue
            if not line:
                break
            words = line.decode("utf-8", "replace").split()
            name = words[0] if words else ""
            if name == "help":
                say("help", commands=COMMANDS)
            elif name not in COMMANDS:
                what = f"{name}: no such command" if name else "no command"
                refuse(name, f"{what}; commands are {', '.join(COMMANDS)}")
            else:
                self._commands.put_nowait(words)
        self._commands.put_nowait([])

    def _live(self) -> None:
        """Connect, obey, let go, until the end of input."""
        while True:
            self._connect()
            self._connected = True
            self._loop.run_until_complete(self._obey())
            self._blkfront.close()
            self._connected = False
            say("closed")
            while (words := self._loop.run_until_complete(self._commands.get())) != ["open"]:
                if not words:
                    return
                if words == ["release"]:
                    say("released")
                else:
                    refuse(words[0], "the guest has given its disk back; open it first")

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

    async def _next(self) -> list[str]:
        """The next command; nothing at the end of input or when the backend closes."""
        words = asyncio.ensure_future(self._commands.get())
        let_go = asyncio.ensure_future(self._let_go.wait())
        await asyncio.wait({words, let_go}, return_when=asyncio.FIRST_COMPLETED)
        let_go.cancel()
        if words.done():
            if not words.result():
                self._commands.put_nowait([])  # the end is seen once more, after closing
            return words.result()
        words.cancel()
        return []

    async def _obey(self) -> None:
        while words := await self._next():
            if words == ["close"] or (words == ["release"] and self._blkfront.refusing):
                return
            try:
                await self._command(words[0], words[1:])
            except MemoryError:
                refuse(words[0], "not enough memory: fewer sectors, or verify=0")
            except OverflowError:
                refuse(words[0], "a number is too large")
            except (OSError, ValueError, XbbdError) as error:
                refuse(words[0], in_words(error), getattr(error, "errno", 0) or 0)

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
            self._in_use = False
            say("released")
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
    try:
        guest = Guest(options)
    except (XbbdError, OSError) as error:
        print(f"guest: {in_words(error)}", file=sys.stderr)
        return 1
    try:
        guest.run()
    except (XbbdError, OSError, ValueError) as error:  # ValueError: of standard input
        print(f"guest: {in_words(error)}", file=sys.stderr)
        return 1
    finally:
        guest.end()
    return 0
