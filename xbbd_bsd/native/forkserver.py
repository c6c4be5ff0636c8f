"""The server that the processes of guests are forked from: a program of its own.

The daemon starts it as ``python -I -S forkserver.py NATIVE BACKEND``, with its end of a
socket pair as descriptor 3 (processes.py).  A guest's process is a child that has the C
module in memory already, so that it begins at once, wants no path, and shares with its
siblings what it does not write to.  So this file imports what is built in and the C
module, nothing else; it makes no thread, maps no grant and knows no store.  When the
daemon goes it goes too; the guests' processes stay.  One thread.
"""

from __future__ import annotations

import _signal
import _socket
import gc
import posix
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHANNEL = 3  # of the daemon; of a guest's process, the socket that it listens on
OWN_GRANTS = 4  # of a guest's process, if it has a grant device of its own
BACKLOG = 64  # packets.py
SCM_RIGHTS = _socket.SCM_RIGHTS
FAILED = 71  # EX_OSERR: of a process that could not begin


def load(native: str, backend: str) -> Any:
    """The C module, from that directory, and what it wants from the other one."""
    sys.path[:] = [backend]
    __import__("_cffi_backend")
    sys.path[:] = [native]
    module = __import__("_xbb")
    sys.path.clear()
    return module


def own_up(listener: int) -> None:
    """Be who listens there, as the kernel tells whoever connects: that was the daemon."""
    channel = _socket.socket(fileno=listener)
    channel.listen(BACKLOG)
    channel.detach()


def be_guest(xbb: Any, request: Any, listener: int, begun: int, place: int | None) -> int:
    """Of a child: be a guest's process until it ends; the status to leave with.

    `begun` is closed as soon as a connection leads to this process.
    """
    _signal.set_wakeup_fd(-1)
    if place is not None:
        posix.write(place, b"0")  # or it does not begin: it would have no limit
    posix.setsid()
    own_up(listener)
    posix.close(begun)
    if listener != CHANNEL:
        posix.dup2(listener, CHANNEL)
    params, keep = request.params, OWN_GRANTS
    params.listen_fd, params.grant_fd, params.placed = CHANNEL, -1, place is not None
    path = xbb.ffi.string(request.grant_path)
    if path:
        posix.dup2(posix.open(path, posix.O_RDWR | posix.O_CLOEXEC), OWN_GRANTS)
        params.grant_fd = OWN_GRANTS
        keep = OWN_GRANTS + 1
    if b"XBBD_GUEST_OUTPUT" not in posix.environ:  # of somebody who looks for a fault
        # Whoever waits for the end of the daemon's output shall not wait for ours.
        for standard in (1, 2):
            posix.dup2(0, standard)
    xbb.lib.xbb_close_from(keep)
    xbb.lib.xbb_process_title(b"xbbd: guest " + xbb.ffi.string(request.name))
    error = xbb.ffi.new("struct xbb_error *")
    if xbb.lib.xbb_guest_main(xbb.ffi.addressof(request, "params"), error) == 0:
        return 0
    words = xbb.ffi.string(error.operation).decode()
    posix.write(2, f"xbbd: guest: {words}: {posix.strerror(error.errnum)}\n".encode())
    return FAILED


class Server:
    """What it has: the daemon's channel, and children that live."""

    def __init__(self, xbb: Any, channel: _socket.socket) -> None:
        self._xbb = xbb
        self._channel = channel
        self._children: set[int] = set()
        self._request = xbb.ffi.typeof("struct xbb_server_request")
        self._woken, wakes = posix.pipe2(posix.O_NONBLOCK | posix.O_CLOEXEC)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)

    def run(self) -> None:
        """Until the daemon has gone."""
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._woken in ready:
                posix.read(self._woken, 256)
                self._reap()
            if self._channel.fileno() in ready and not self._serve():
                return

    def _report(self, **fields: int) -> None:
        report = self._xbb.ffi.new("struct xbb_server_report *", fields)
        self._channel.send(self._xbb.ffi.buffer(report)[:], _socket.MSG_EOR)  # packets.py

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = posix.waitpid(-1, posix.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._children.discard(pid)
            self._report(type=self._xbb.lib.XBB_SERVER_ENDED, pid=pid, status=status)

    def _serve(self) -> bool:
        """A request of the daemon's; False if it has gone."""
        size = self._xbb.ffi.sizeof(self._request)
        data, control, _, _ = self._channel.recvmsg(size, _socket.CMSG_SPACE(4 * 4))
        fds = [
            int.from_bytes(rights[at : at + 4], sys.byteorder)
            for _, kind, rights in control
            if kind == SCM_RIGHTS
            for at in range(0, len(rights), 4)
        ]
        if not data:
            return False
        if len(data) == size:
            request = self._xbb.ffi.new("struct xbb_server_request *")
            self._xbb.ffi.memmove(request, data, size)
            if request.type == self._xbb.lib.XBB_SERVER_KILL:
                self._kill(request.pid)
            elif len(fds) in (1, 2):
                self._start(request, *fds)
        for fd in fds:
            posix.close(fd)
        return True

    def _kill(self, pid: int) -> None:
        """One that was not reaped yet, so that its number is still its own."""
        if pid in self._children:
            posix.kill(pid, _signal.SIGKILL)

    def _fork(self, request: Any, listener: int, place: int | None) -> int:
        """A child, once connections lead to it; OSError."""
        waits, begun = posix.pipe2(posix.O_CLOEXEC)
        try:
            try:
                pid = posix.fork()
                if pid == 0:
                    status = FAILED
                    try:
                        status = be_guest(self._xbb, request, listener, begun, place)
                    finally:
                        posix._exit(status)
            finally:
                posix.close(begun)
            posix.read(waits, 1)
        finally:
            posix.close(waits)
        return pid

    def _start(self, request: Any, listener: int, place: int | None = None) -> None:
        pid = errnum = 0
        try:
            pid = self._fork(request, listener, place)
            self._children.add(pid)
        except OSError as error:
            errnum = error.errno or 0
        self._report(
            type=self._xbb.lib.XBB_SERVER_STARTED, serial=request.serial, pid=pid, errnum=errnum
        )


def main(native: str, backend: str) -> None:
    """The program."""
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)
    xbb = load(native, backend)
    xbb.lib.xbb_nbd_load()  # as long as files can be opened; without it there is no such disk
    posix.chdir("/")
    channel = _socket.socket(fileno=CHANNEL)
    xbb.lib.xbb_close_from(CHANNEL + 1)
    server = Server(xbb, channel)
    xbb.lib.xbb_process_title(b"xbbd: guests")
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        server.run()
    except OSError:  # the daemon went in the middle of something
        return


if __name__ == "__main__":
    main(*sys.argv[1:])
