"""The simulated XenStore as a server on Unix sockets, which speaks the real wire protocol.

    python -m xbbd_bsd.sim.xenstore DIRECTORY

DIRECTORY/socket is dom0's. Each introduced domain has DIRECTORY/DOMID.socket, whose clients speak
as that domain. It moves bytes and knows no operation: that is storecore's. Everything runs on the
thread of the asyncio loop that started it. Where it is unfaithful: a real guest has one connection,
a ring in its memory, and a domain exists before it is introduced; here introducing makes it.
"""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from xbbd_bsd import program
from xbbd_bsd.sim.storecore import Connection, StoreCore
from xbbd_bsd.sim.storetree import DOMID_FIRST_RESERVED
from xbbd_bsd.xenstore.wire import Packet, Parser

READ_SIZE: Final = 16384  # bytes taken from a client before the others have their turn
OUTBOX_MAX: Final = 4 << 20  # bytes; who lets so much wait, nearly all of it events, is dropped
SOCKET_PATH_MAX: Final = 103  # bytes; FreeBSD's sun_path holds 104, the last one being a NUL


class _Client:
    """One connected socket. It reads only when nothing that it has read is left to carry out."""

    def __init__(self, server: "StoreServer", sock: socket.socket, connection: Connection) -> None:
        self.connection = connection
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._socket = sock
        self._parser = Parser()
        self._requests: deque[Packet] = deque()
        self._unsent = b""
        self._writing = False
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()

    def deliver(self) -> None:
        """Sends what can be sent now of what others have caused."""
        if self._flush():
            self._watch_socket()

    def _flush(self) -> bool:
        """False: the client had to be dropped."""
        outbox = self.connection.outbox
        try:
            while True:
                while self._unsent:
                    self._unsent = self._unsent[self._socket.send(self._unsent) :]
                if (packet := outbox.take()) is None:
                    break
                self._unsent = packet.encode()
        except BlockingIOError:
            pass
        except OSError:
            self._server.drop(self)
            return False
        if outbox.size > OUTBOX_MAX:
            self._server.drop(self)
            return False
        return True

    def _watch_socket(self) -> None:
        writing = bool(self._unsent or self._requests)
        if writing and not self._writing:
            self._loop.remove_reader(self._socket)
            self._loop.add_writer(self._socket, self._advance)
        elif self._writing and not writing:
            self._loop.remove_writer(self._socket)
            self._loop.add_reader(self._socket, self._readable)
        self._writing = writing

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._server.drop(self)
            return
        self._requests.extend(self._parser.feed(data))
        self._advance()

    def _advance(self) -> None:
        """Carries out what has been asked, as long as the client takes the replies."""
        while self._flush():
            if self._requests and not self._unsent:
                self._server.request(self.connection, self._requests.popleft())
            elif self._parser.broken and not self._requests:
                self._server.drop(self)
                return
            else:
                self._watch_socket()
                return


class StoreServer:
    """A store and its sockets, of mode 0600. Not restartable: a new one starts empty, as the
    real one does.
    """

    def __init__(self) -> None:
        self._core = StoreCore()
        self._directory = Path()
        self._listeners: dict[int, socket.socket] = {}
        self._clients: dict[Connection, _Client] = {}

    async def start(self, directory: str | os.PathLike[str]) -> None:
        """Listens in `directory`, which is made if need be. What a killed server left there is
        replaced; raises OSError(EADDRINUSE) if one is running, ENAMETOOLONG if the sockets' paths
        would be too long.
        """
        self._directory = Path(directory)
        longest = os.fsencode(self._path(DOMID_FIRST_RESERVED))
        if len(longest) > SOCKET_PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), os.fsdecode(longest))
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(os.fspath(self._path(0))) == 0:
                raise OSError(errno.EADDRINUSE, "a XenStore is running", str(self._path(0)))
        for stale in self._directory.glob("*.socket"):
            stale.unlink()
        self._match_domains()

    async def stop(self) -> None:
        """Hangs up on everybody and removes the sockets. Idempotent."""
        for client in list(self._clients.values()):
            self.drop(client)
        for domid in list(self._listeners):
            self._unlisten(domid)

    def request(self, connection: Connection, packet: Packet) -> None:
        """Carries out a request of a client, who delivers to itself."""
        self._core.request(connection, packet)
        if self._core.domains.keys() != self._listeners.keys():
            self._match_domains()
        self._core.ready.discard(connection)
        while self._core.ready:
            client = self._clients[self._core.ready.pop()]
            if client.connection.ended:
                self.drop(client)
            else:
                client.deliver()

    def drop(self, client: _Client) -> None:
        self._core.disconnect(client.connection)
        del self._clients[client.connection]
        client.close()

    def _match_domains(self) -> None:
        for domid in self._core.domains.keys() - self._listeners.keys():
            self._listen(domid)
        for domid in self._listeners.keys() - self._core.domains.keys():
            self._unlisten(domid)

    def _path(self, domid: int) -> Path:
        return self._directory / (f"{domid}.socket" if domid else "socket")

    def _listen(self, domid: int) -> None:
        path = self._path(domid)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.fspath(path))
        path.chmod(0o600)  # before listen(): nobody can have connected yet
        listener.listen(128)
        listener.setblocking(False)
        asyncio.get_running_loop().add_reader(listener, self._accept, domid)
        self._listeners[domid] = listener

    def _unlisten(self, domid: int) -> None:
        listener = self._listeners.pop(domid)
        asyncio.get_running_loop().remove_reader(listener)
        listener.close()
        self._path(domid).unlink(missing_ok=True)

    def _accept(self, domid: int) -> None:
        with suppress(OSError):  # the client has left already, or there are no descriptors
            sock, _ = self._listeners[domid].accept()
            connection = self._core.connect(domid)
            self._clients[connection] = _Client(self, sock, connection)


async def _serve(directory: str) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = StoreServer()
    await server.start(directory)
    await ended.wait()
    await server.stop()


def main(arguments: list[str]) -> int:
    """Runs a server until SIGTERM or SIGINT."""
    return program.run("xenstore", lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m xbbd_bsd.sim.xenstore DIRECTORY", file=sys.stderr)
        return 2
    asyncio.run(_serve(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
