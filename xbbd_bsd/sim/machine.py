"""The machine's own process: keeps a store running, and decides on life and death.

    python -m xbbd_bsd.sim machine DIR

Prints "ready" when guests and daemon may come.  The store is a process of its
own (DIR/store.pid), started again if it dies, empty then.  A domain lives as
long as its connection to DIR/machine; then its nodes go, @releaseDomain fires,
and its memory is removed: whoever still has it mapped keeps the pages, as under
Xen.  One thread, one asyncio loop.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Iterator

from xbbd_bsd.errors import OperatorError, XbbdError, in_words
from xbbd_bsd.sim.hypervisor import LARGEST_DOMID, Layout, layout, make_domain
from xbbd_bsd.xenstore.client import Store, StoreError
from xbbd_bsd.xenstore.wire import Op

START_SECONDS = 10.0  # for the store to answer
RESTART_SECONDS = 0.1  # between a store's death and the next one


class Machine:
    """The living domains and the store that is told of them."""

    def __init__(self, machine: Layout) -> None:
        self._layout = machine
        self._loop = asyncio.get_running_loop()
        self._domains: set[int] = set()
        self._guests: set[asyncio.Task[None]] = set()
        self._store = Store(
            machine.store_socket(0), loop=self._loop, on_connected=self._introduce_all
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then every domain dies, and the store ends."""
        for directory in (self._layout.store, self._layout.run, self._layout.domains):
            os.makedirs(directory, 0o700, exist_ok=True)
        keeper = asyncio.create_task(self._keep_store())
        await self._connect()
        server = await asyncio.start_unix_server(self._guest, self._layout.lifelines)
        print("ready", flush=True)
        await stop.wait()
        server.close()
        for task in self._guests:
            task.cancel()
        await asyncio.gather(*self._guests, return_exceptions=True)
        self._store.close()
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        with contextlib.suppress(FileNotFoundError):  # newer Pythons do it themselves
            os.unlink(self._layout.lifelines)

    async def _keep_store(self) -> None:
        """Run the store, again and again."""
        while True:
            store = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "xbbd_bsd.sim.xenstore", self._layout.store
            )
            with open(self._layout.store_pid, "w") as file:
                file.write(f"{store.pid}\n")
            try:
                await store.wait()
            except asyncio.CancelledError:
                with contextlib.suppress(ProcessLookupError):
                    store.terminate()
                await store.wait()
                raise
            await asyncio.sleep(RESTART_SECONDS)

    async def _connect(self) -> None:
        """Wait for the store's socket; it is there a moment after its process."""
        end = self._loop.time() + START_SECONDS
        while True:
            try:
                self._store.connect()
                return
            except StoreError:
                if self._loop.time() > end:
                    raise
                await asyncio.sleep(0.01)

    async def _guest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One lifeline, from the domain's number to end of file."""
        task = asyncio.current_task()
        assert task is not None
        self._guests.add(task)
        try:
            line = (await reader.readline()).strip()
            refusal = self._refusal(line)
            if refusal is None:
                domid = int(line)
                try:
                    self._born(domid)
                    writer.write(b"ok\n")
                    await reader.read()
                finally:
                    self._dead(domid)
            else:
                writer.write(f"{refusal}\n".encode())
        except (XbbdError, OSError) as error:
            writer.write(f"{in_words(error)}\n".encode())
        except asyncio.CancelledError:
            pass  # the machine stops; asyncio's streams take a cancelled task for a failure
        finally:
            self._guests.discard(task)
            writer.close()

    def _refusal(self, line: bytes) -> str | None:
        if not line.isdigit() or not 0 < int(line) <= LARGEST_DOMID:
            return "not a domain number"
        return "is alive already" if int(line) in self._domains else None

    def _born(self, domid: int) -> None:
        make_domain(self._layout, domid)
        self._domains.add(domid)
        self._introduce(domid)

    def _introduce(self, domid: int) -> None:
        """As the toolstack does: tell the store, make the guest's home."""
        home = f"/local/domain/{domid}"
        self._store.raw(Op.INTRODUCE, b"%d" % domid, b"1", b"1")
        self._store.write(home, b"")
        self._store.set_permissions(home, ["n0", f"r{domid}"])
        self._store.write(f"{home}/domid", b"%d" % domid)
        # The guest's own, as libxl makes it (libxl_create.c, libxl__domain_make).
        self._store.write(f"{home}/error", b"")
        self._store.set_permissions(f"{home}/error", [f"n{domid}"])

    def _introduce_all(self) -> None:
        """The store has come back and knows nobody."""
        for domid in sorted(self._domains):
            self._introduce(domid)

    def _dead(self, domid: int) -> None:
        self._domains.discard(domid)
        shutil.rmtree(self._layout.domain(domid), ignore_errors=True)
        with contextlib.suppress(StoreError):  # a store that is gone knows nobody
            self._store.raw(Op.RELEASE, b"%d" % domid)
            self._store.remove(f"/local/domain/{domid}")


@contextlib.contextmanager
def alone(directory: str) -> Iterator[None]:
    """Keep other machines off the directory, made if need be; OperatorError if there is one.

    By a lock on the directory itself, which goes with this process however it ends.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(f"{directory}: another machine runs there") from None
        yield
    finally:
        os.close(lock)


def main(directory: str) -> int:
    """The command `machine`; its exit status."""

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Machine(layout(directory)).run(stop)

    try:
        with alone(layout(directory).directory):
            asyncio.run(run())
    except (XbbdError, OSError) as error:
        print(f"machine: {in_words(error)}", file=sys.stderr)
        return 1
    return 0
