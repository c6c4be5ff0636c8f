"""A guest's process whose code is somebody else's: a program that a test starts.

``python -m tests.native.hostile HV CONFINED LISTENER ORDERS ANSWERS DIRECTORY GRANTS``: the
first thread is a guest's process as forkserver.py makes one, and a second one, which stands
for what an adversary got to run there, waits for a byte and then tries what it should not be able
to.  It answers with a line for each: what, and the errno that it got, 0 for none.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from xbbd_bsd.native._xbb import ffi, lib

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206  # which does not stop it
AT_EMPTY_PATH = 0x1000
# The same on all machines.
IO_URING_SETUP, PIDFD_OPEN, CLONE3, OPENAT2, PIDFD_GETFD = 425, 434, 435, 437, 438


def call(name: str, *arguments: object) -> None:
    """A function of libc's, OSError if it fails."""
    ctypes.set_errno(0)
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    with suppress(OSError):
        os.wait()


def attempts(directory: int, channel: socket.socket) -> dict[str, Callable[[], object]]:
    """What to try; `channel` was made before, and is connected to nothing."""
    parent = os.getppid()
    word, room = ctypes.create_string_buffer(64), ctypes.create_string_buffer(512)
    return {
        "open a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "open a device": lambda: os.open("/dev/null", os.O_RDWR),
        "open by a descriptor": lambda: os.open("disk", os.O_RDWR, dir_fd=directory),
        "open by openat2": lambda: call("syscall", OPENAT2, -100, b"/etc/passwd", word, 24),
        "open by a descriptor and a path": lambda: os.open(
            "/etc/passwd", os.O_RDONLY, dir_fd=directory
        ),
        "see a file": lambda: call("fstatat", directory, b"/etc/passwd", room, AT_EMPTY_PATH),
        "make a file in memory": lambda: os.memfd_create("x"),
        "read a directory": lambda: os.listdir("/proc"),
        "rename": lambda: os.rename("/nonexistent/a", "/nonexistent/b"),
        "remove": lambda: os.unlink("/nonexistent/a"),
        "change the root": lambda: os.chroot("/"),
        "make a socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "make a pair of sockets": socket.socketpair,
        "connect": lambda: channel.connect("/nonexistent"),
        "bind": lambda: channel.bind("\0xbbd-hostile"),
        "fork": fork,
        "clone3": lambda: call("syscall", CLONE3, word, 64),
        "see a process": lambda: os.kill(parent, 0),
        "signal a group": lambda: os.killpg(0, 0),
        "trace a process": lambda: call("ptrace", PTRACE_SEIZE, parent, 0, 0),
        "read a process": lambda: call("process_vm_readv", parent, word, 1, word, 1, 0),
        "hold a process": lambda: call("syscall", PIDFD_OPEN, parent, 0),
        "take a descriptor": lambda: call("syscall", PIDFD_GETFD, 0, 0, 0),
        "map memory to run": lambda: mmap.mmap(
            -1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        ),
        "ring for I/O": lambda: call("syscall", IO_URING_SETUP, 1, word),
        "leave a namespace": lambda: call("unshare", 0x20000000),
        "be somebody else": lambda: call("setuid", 0),
        "have more": lambda: call("setrlimit", 7, word),
        "run elsewhere": lambda: call("sched_setaffinity", 0, 128, b"\xff" * 128),
        "be looked at": lambda: call("prctl", 4, 1, 0, 0, 0),
        # The last one, where it works.
        "run a program": lambda: os.execv("/bin/true", ["true"]),
    }


def adversary(orders: int, answers: int, tries: dict[str, Callable[[], object]]) -> None:
    os.read(orders, 1)
    for what, attempt in tries.items():
        errnum = 0
        try:
            attempt()
        except OSError as error:
            errnum = error.errno or 0
        os.write(answers, f"{what}\t{errnum}\n".encode())
    os.close(answers)


def main(
    hv: int, confined: int, listener: int, orders: int, answers: int, directory: int, grants: int
) -> int:
    """`grants`: a grant device of its own, or -1."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    tries = attempts(directory, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    arguments = (orders, answers, tries)
    threading.Thread(target=adversary, args=arguments, daemon=True).start()
    params = ffi.new(
        "struct xbb_guest_params *",
        {
            "listen_fd": listener,
            "grant_fd": grants,
            "hv": hv,
            "daemon_uid": os.geteuid(),
            "uid": lib.XBB_GUEST_STAY,
            "confined": confined,
            "idle_seconds": 600,
        },
    )
    return int(lib.xbb_guest_main(params, ffi.new("struct xbb_error *")))


if __name__ == "__main__":
    status = main(*map(int, sys.argv[1:]))
    os._exit(-status)
