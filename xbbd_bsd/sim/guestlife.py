"""The life of a guest process with one device, told what to do line by line.

What any guest does, whatever its device: it waits until it is offered one, connects,
obeys commands from standard input, and answers each with one JSON object a line.
Commands wait until there is a device, and for each other; `help`, and what is no
command, are answered at once.  When the backend closes, the guest lets go too, unless it
was told to hold on or to refuse.  End of input or SIGTERM closes the device and ends the
guest; SIGKILL is a crash.  The main thread runs the loop; each command has a thread of
its own.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from xbbd_bsd.errors import HostError, XbbdError, in_words
from xbbd_bsd.sim.frontend import Frontend
from xbbd_bsd.sim.hypervisor import Domain, layout
from xbbd_bsd.xenstore.client import Store, StoreError, StoreLost

FOR_EVER = 1e9  # seconds


def say(event: str, **values: object) -> None:
    """One line of JSON for whoever runs us."""
    print(json.dumps({"event": event, **values}), flush=True)


def refuse(command: str, text: str, errno: int = 0) -> None:
    """Say that a command was not done, and why."""
    say("failed", command=command, errno=errno, text=text)


class GuestLife(ABC):
    """The process: domain, way to the store, and the commands on standard input."""

    def __init__(
        self,
        options: argparse.Namespace,
        commands: Mapping[str, str],
        hold: bool = False,
        refuses: bool = False,
    ) -> None:
        """`commands`: what there is to be told, with a word on each.

        `hold`: it does not react when the backend closes; `refuses`: it says no then.
        """
        self._commands_known = commands
        self._loop = asyncio.new_event_loop()
        self._domain = Domain(layout(options.directory), options.domid)
        self._store = Store(self._domain.store_path, loop=self._loop)
        self._store.connect()
        self._hold = hold
        self._refuse = refuses
        self._in_use = False
        self._connected = False
        self._input = asyncio.StreamReader(loop=self._loop)
        self._commands = asyncio.Queue[list[str]]()  # at the end of input an empty one
        self._let_go = asyncio.Event()

    @property
    @abstractmethod
    def _driver(self) -> Frontend:
        """The driver of its device."""

    @abstractmethod
    def _facts(self) -> dict[str, object]:
        """What is said of the device once it is connected."""

    @abstractmethod
    async def _command(self, name: str, words: list[str]) -> None:
        """Do what one says, and answer; ValueError, OSError, XbbdError."""

    def _stop_work(self) -> None:  # noqa: B027  not all have any
        """Have a command that takes long end soon."""

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
        """Take commands from standard input; answer what needs no device, now."""
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
                say("help", commands=self._commands_known)
            elif name not in self._commands_known:
                what = f"{name}: no such command" if name else "no command"
                refuse(name, f"{what}; commands are {', '.join(self._commands_known)}")
            else:
                self._commands.put_nowait(words)
        self._commands.put_nowait([])

    def _live(self) -> None:
        """Connect, obey, let go, until the end of input."""
        while True:
            self._connect()
            self._connected = True
            self._loop.run_until_complete(self._obey())
            self._driver.close()
            self._connected = False
            say("closed")
            while (words := self._loop.run_until_complete(self._commands.get())) != ["open"]:
                if not words:
                    return
                if words == ["release"]:
                    say("released")
                else:
                    noun = self._driver.noun
                    refuse(words[0], f"the guest has given its {noun} back; open it first")

    def end(self) -> None:
        """Let go of everything."""
        self._driver.withdraw()
        self._store.close()
        self._domain.close()
        self._loop.close()

    def _terminate(self, transport: asyncio.ReadTransport) -> None:
        """SIGTERM: as the end of input, or the end where no input is awaited."""
        if not self._connected:
            raise SystemExit(0)
        transport.close()
        self._stop_work()

    def _connect(self) -> None:
        self._let_go.clear()
        self._in_use = self._refuse
        self._driver.on_closing = self._backend_closing
        while True:
            try:
                self._driver.wait_offer(FOR_EVER)
                self._driver.connect()
                break
            except StoreLost:
                raise
            except (HostError, StoreError) as error:  # refused, or taken back meanwhile
                say("refused", text=in_words(error))
                self._driver.abandon()
        say("connected", **self._facts())

    def _backend_closing(self) -> None:
        say("backend closing")
        if self._in_use and not self._driver.backend_gone:
            if not self._driver.refusing:
                self._driver.refuse()
                say("refused to close")
        elif not self._hold:
            self._let_go.set()
            self._stop_work()

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
            if words == ["close"] or (words == ["release"] and self._driver.refusing):
                return
            try:
                await self._command(words[0], words[1:])
            except MemoryError:
                refuse(words[0], "not enough memory: fewer sectors, or verify=0")
            except OverflowError:
                refuse(words[0], "a number is too large")
            except (OSError, ValueError, XbbdError) as error:
                refuse(words[0], in_words(error), getattr(error, "errno", 0) or 0)

    def _release(self) -> None:
        self._in_use = False
        say("released")


def live(command: str, make: Callable[[], GuestLife]) -> int:
    """A guest from birth to death; the exit status of its process."""
    try:
        guest = make()
    except (XbbdError, OSError) as error:
        print(f"{command}: {in_words(error)}", file=sys.stderr)
        return 1
    try:
        guest.run()
    except (XbbdError, OSError, ValueError) as error:  # ValueError: of standard input
        print(f"{command}: {in_words(error)}", file=sys.stderr)
        return 1
    finally:
        guest.end()
    return 0
