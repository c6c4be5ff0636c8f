"""Acts as a guest domain towards a xenstored that runs under noxen.so.

Creates the shared XenStore page of domain DOMID, has xenstored introduce it, and offers a Unix
socket whose (one) client then talks to xenstored *as that domain*: with that domain's permissions,
quotas and relative paths. It knows the ring of `xs_wire.h` and nothing of any operation but the
two it needs itself. A thread of its own moves the bytes.

    guest.py RUNDIR DOMID [SOCKET]          (default RUNDIR/DOMID.socket)
    XENSTORED_PATH=RUNDIR/5.socket xenstore-ls -p

From a test: ``with Guest(rundir, 5) as guest: ... guest.socket ...``; leaving the block destroys
the domain (its nodes go away, @releaseDomain fires).
"""

import contextlib
import mmap
import os
import selectors
import signal
import socket
import struct
import sys
import threading

HEADER = struct.Struct("=IIII")  # type, req_id, tx_id, length
INTRODUCE, ERROR, RESET_WATCHES = 8, 16, 21
RING, REQUESTS, REPLIES = 1024, 0, 1024  # two rings of bytes in the page, then their indices
REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD = 512, 513, 514, 515  # as u32 slots of the page
VIRQ = 0x10000  # the "port" that tells the daemon to look for domains that came or went
RESET_ID = 0xFFFFFFFF
REQUEST_AHEAD = 65536  # bytes taken from the client before the ring took the earlier ones


def introduce(rundir: str, domid: int) -> None:
    """Has the daemon in `rundir` connect to the ring of a domain; raises OSError if it won't."""
    body = f"{domid}\0001\0001\0".encode()
    with socket.socket(socket.AF_UNIX) as dom0, dom0.makefile("rb") as stream:
        dom0.connect(os.path.join(rundir, "socket"))
        dom0.sendall(HEADER.pack(INTRODUCE, 0, 0, len(body)) + body)
        kind, _, _, size = HEADER.unpack(stream.read(HEADER.size))
        answer = stream.read(size)
    if kind == ERROR:
        raise OSError(f"xenstored does not introduce domain {domid}: {answer!r}")


class Guest:
    """One domain and the socket that speaks for it, for as long as the `with` block lasts."""

    def __init__(self, rundir: str, domid: int, path: str | None = None) -> None:
        self.rundir, self.domid = rundir, domid
        self.socket = path or self._file("socket")
        self._pending = b""  # of the client, not yet a whole request
        self._requests = b""  # whole ones that wait for room in the ring
        self._replies = b""  # from the ring, not yet a whole packet
        self._resetting = False  # the last client's watches are still being removed
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _file(self, what: str) -> str:
        return os.path.join(self.rundir, f"{self.domid}.{what}")

    def __enter__(self) -> "Guest":
        for path in (self._file("event"), self._file("shutdown"), self.socket):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with open(self._file("ring"), "w+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._page = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._index = memoryview(self._page).cast("I")
        self._event = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._event.bind(self._file("event"))
        self._event.setblocking(False)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.socket)
        self._listener.listen(1)
        self._wake_r, self._wake_w = socket.socketpair()
        introduce(self.rundir, self.domid)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._wake_w.send(b"x")
        self._thread.join()
        for path in (self._file("ring"), self._file("event"), self._file("shutdown"), self.socket):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._kick(VIRQ)
        for end in (self._event, self._listener, self._wake_r, self._wake_w, self._client):
            if end:
                end.close()
        self._index.release()
        self._page.close()

    def shutdown(self) -> None:
        """Reports the domain as shut down (it is still there; @releaseDomain fires)."""
        with open(self._file("shutdown"), "w"):
            pass
        self._kick(VIRQ)

    def _kick(self, port: int) -> None:
        gone = contextlib.suppress(OSError)  # the daemon may be
        with gone, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(struct.pack("=I", port), os.path.join(self.rundir, "evtchn"))

    # The pump: whole requests to the ring, the ring's packets to the client.

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for end in (self._listener, self._event, self._wake_r):
                selector.register(end, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._wake_r in ready:
                    return
                if self._event in ready:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            self._event.recv(1)
                if self._client in ready:
                    self._read_client(selector)
                elif self._listener in ready and not self._resetting:
                    self._client = self._listener.accept()[0]
                    selector.unregister(self._listener)
                    selector.register(self._client, selectors.EVENT_READ)
                while len(self._pending) >= HEADER.size:
                    size = HEADER.size + HEADER.unpack_from(self._pending)[3]
                    if len(self._pending) < size:
                        break
                    self._requests += self._pending[:size]
                    self._pending = self._pending[size:]
                self._exchange()

    def _read_client(self, selector: selectors.BaseSelector) -> None:
        assert self._client
        try:
            data = self._client.recv(REQUEST_AHEAD)
        except OSError:
            data = b""
        if data:
            self._pending += data
            return
        selector.unregister(self._client)
        self._client.close()
        self._client, self._pending, self._resetting = None, b"", True
        self._requests += HEADER.pack(RESET_WATCHES, RESET_ID, 0, 1) + b"\0"
        selector.register(self._listener, selectors.EVENT_READ)

    def _exchange(self) -> None:
        index, moved = self._index, False
        while self._requests and (room := RING - (index[REQ_PROD] - index[REQ_CONS]) % 2**32):
            at = index[REQ_PROD] % RING
            count = min(room, RING - at, len(self._requests))
            self._page[REQUESTS + at : REQUESTS + at + count] = self._requests[:count]
            self._requests = self._requests[count:]
            index[REQ_PROD] = (index[REQ_PROD] + count) % 2**32
            moved = True
        while used := (index[RSP_PROD] - index[RSP_CONS]) % 2**32:
            at = index[RSP_CONS] % RING
            count = min(used, RING - at)
            self._replies += self._page[REPLIES + at : REPLIES + at + count]
            index[RSP_CONS] = (index[RSP_CONS] + count) % 2**32
            moved = True
        if moved:
            self._kick(self.domid + 1)
        while len(self._replies) >= HEADER.size:
            kind, req_id, _, size = HEADER.unpack_from(self._replies)
            size += HEADER.size
            if len(self._replies) < size:
                break
            packet, self._replies = self._replies[:size], self._replies[size:]
            if self._resetting:  # left over from the last client
                self._resetting = (kind, req_id) != (RESET_WATCHES, RESET_ID)
            elif self._client:
                with contextlib.suppress(OSError):
                    self._client.sendall(packet)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with Guest(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]) as guest:
        print(guest.socket, flush=True)
        signal.sigwait(stop)
