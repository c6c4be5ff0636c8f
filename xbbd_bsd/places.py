"""Directories and files that nobody else may replace: the state directory, the pid file.

What is in them is not known here.  One thread, before the daemon serves.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xbbd_bsd.errors import OperatorError


def make_directory(path: str) -> None:
    """Have a state directory that nobody else can put files into; OperatorError.

    Its parents are whoever made them's business: none is made, since a wrong path
    would leave directories all over.
    """
    with suppress(FileExistsError), _blaming_operator(f"state_dir {path}"):
        os.mkdir(path, 0o711)
    _check_directory(f"state_dir {path}", path, os.O_NOFOLLOW)


def _check_directory(what: str, path: str, flags: int = 0) -> None:
    """Refuse a directory in which somebody else could put a file or link in place of ours.

    `flags`: O_NOFOLLOW refuses one that is itself a link.
    """
    with _blaming_operator(what):
        directory = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)
    try:
        status = os.fstat(directory)
    finally:
        os.close(directory)
    if status.st_uid not in (0, os.geteuid()):
        raise OperatorError(f"{what}: belongs to user {status.st_uid}, who could replace our files")
    if status.st_mode & 0o022:
        raise OperatorError(
            f"{what}: others may write there (mode {stat.S_IMODE(status.st_mode):04o}), and could"
            " replace our files; chmod go-w it"
        )


@contextmanager
def _blaming_operator(what: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise OperatorError(f"{what}: {error.strerror}", error.errno or 0) from None


@contextmanager
def locked(path: str) -> Iterator[int]:
    """The pid file, locked as pidfile(3) does; OperatorError if another daemon has it."""
    lock = _lock(path)
    try:
        yield lock
    finally:
        with suppress(OSError):
            os.unlink(path)
        os.close(lock)


def _lock(path: str) -> int:
    _check_directory(f"pidfile {path}: its directory", os.path.dirname(path))
    # Without blocking, should it be a FIFO; it is refused below.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        with _blaming_operator(f"pidfile {path}"):
            lock = os.open(path, flags, 0o600)
        status = os.fstat(lock)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(lock)
            raise OperatorError(f"pidfile {path}: is no regular file of its own")
        os.fchmod(lock, 0o600)  # whoever can read it can lock it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.lstat(path)):
                return lock
        except BlockingIOError:
            pid = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise OperatorError(f"already running, pid {pid} ({path})") from None
        except FileNotFoundError:
            pass  # its last owner has just removed it: what we locked is nobody's
        os.close(lock)
