"""Directories and files that nobody else may replace: the state directory, the pid file.

What is in them is not known here.  One thread, before the daemon serves; `check_...`
also while it does, since they change nothing and wait for nobody.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xbbd_bsd.errors import OperatorError, reason


def make_directory(path: str) -> None:
    """Have a state directory that nobody else can put files into; OperatorError.

    Its parents are whoever made them's business: none is made, since a wrong path
    would leave directories all over.
    """
    with _told_of(f"state_dir {path}"):
        with suppress(FileExistsError):
            os.mkdir(path, 0o711)
        _check_directory(path, os.O_NOFOLLOW)


def check_directory(path: str) -> None:
    """That `make_directory` would go well; OperatorError that says why not."""
    with _blaming_operator():
        if not os.path.lexists(path):
            _check_room(path)
            return
        _check_directory(path, os.O_NOFOLLOW)
        _check_room(os.path.join(path, "xbbd"))


def check_pidfile(path: str) -> None:
    """That `locked` would go well if nobody else has the file; OperatorError."""
    directory = os.path.dirname(path)
    with _told_of("its directory"):
        _check_directory(directory)
    with _blaming_operator():
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            _check_room(path)
            return
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        _check_regular(status)
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def owner_of(path: str) -> str | None:
    """What a pid file says that somebody holds: a pid, "unknown"; None if nobody does, or may be.

    The lock is tried for a moment.
    """
    try:
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(lock)
    except OSError:
        return None
    finally:
        os.close(lock)
    return None


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


def already_running(pid: str, path: str) -> OperatorError:
    """That somebody has the pid file."""
    return OperatorError(f"already running, pid {pid} ({path})")


def _lock(path: str) -> int:
    with _told_of(f"pidfile {path}: its directory"):
        _check_directory(os.path.dirname(path))
    # Without blocking, should it be a FIFO; it is refused below.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        with _told_of(f"pidfile {path}"):
            lock = os.open(path, flags, 0o600)
            try:
                _check_regular(os.fstat(lock))
            except OperatorError:
                os.close(lock)
                raise
        os.fchmod(lock, 0o600)  # whoever can read it can lock it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.lstat(path)):
                return lock
        except BlockingIOError:
            pid = _pid_in(lock)
            os.close(lock)
            raise already_running(pid, path) from None
        except FileNotFoundError:
            pass  # its last owner has just removed it: what we locked is nobody's
        os.close(lock)


def _pid_in(lock: int) -> str:
    return os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise OperatorError("is no regular file of its own")


def _check_directory(path: str, flags: int = 0) -> None:
    """Refuse a directory in which somebody else could put a file or link in place of ours.

    `flags`: O_NOFOLLOW refuses one that is itself a link.  OSError, OperatorError.
    """
    directory = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)
    try:
        status = os.fstat(directory)
    finally:
        os.close(directory)
    if status.st_uid not in (0, os.geteuid()):
        raise OperatorError(f"belongs to user {status.st_uid}, who could replace our files")
    if status.st_mode & 0o022:
        raise OperatorError(
            f"others may write there (mode {stat.S_IMODE(status.st_mode):04o}), and could"
            " replace our files; chmod go-w it"
        )


def _check_room(path: str) -> None:
    """OSError unless we may make a file in the directory of a path."""
    directory = os.path.dirname(path.rstrip("/")) or "/"
    os.stat(os.path.join(directory, ""))
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
        number = errno.EROFS if read_only else errno.EACCES
        raise OSError(number, os.strerror(number))


@contextmanager
def _blaming_operator() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OperatorError(reason(error), error.errno or 0) from None


@contextmanager
def _told_of(what: str) -> Iterator[None]:
    """OperatorError and OSError with what it is about before them."""
    try:
        with _blaming_operator():
            yield
    except OperatorError as error:
        raise OperatorError(f"{what}: {error}", error.errno) from None
