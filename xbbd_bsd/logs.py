"""Where the journal's lines go: standard error or syslog(3); and what else wants to be logged.

Nothing gets there but through the journal: what libraries, asyncio, Python's warnings
and threads that end by an error have to say is caught, becomes one of its events, and is
limited in rate like those.  What an event means is not known here.  Any thread may
speak; the journal's is the control thread.
"""

import asyncio
import logging
import sys
import syslog
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

from xbbd_bsd.errors import one_line
from xbbd_bsd.events import Defect, Event, LibrarySays, Severity

_log = logging.getLogger("xbbd")


def sink(severity: Severity, line: str) -> None:
    """One line of the journal."""
    _log.log(severity, "%s", line)


def to_syslog() -> None:
    """Have lines go to syslog(3)."""
    _to(Syslog())


def to_standard_error() -> None:
    """Have lines go there; with their time if that is a terminal, where nobody else adds it."""
    handler = logging.StreamHandler()
    _to(handler)
    if sys.stderr is not None and sys.stderr.isatty():
        handler.setFormatter(
            Plain("%(asctime)s.%(msecs)03d xbbd: %(message)s", "%Y-%m-%d %H:%M:%S")
        )


def _to(handler: logging.Handler) -> None:
    handler.setFormatter(Plain("xbbd: %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.DEBUG)
    _log.propagate = False
    logging.raiseExceptions = False  # a disk for the log that is full is no news for the log


class Plain(logging.Formatter):
    """Keeps the lines of a traceback, and lets nothing else steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(one_line, super().format(record).split("\n")))


class Syslog(logging.Handler):
    """Gives records to syslog(3), which knows where the platform has its socket."""

    _PRIORITIES: Final[Mapping[int, int]] = {
        Severity.DEBUG: syslog.LOG_DEBUG,
        Severity.INFO: syslog.LOG_INFO,
        Severity.WARNING: syslog.LOG_WARNING,
        Severity.ERROR: syslog.LOG_ERR,
    }

    def __init__(self) -> None:
        super().__init__()
        syslog.openlog("xbbd", syslog.LOG_PID, syslog.LOG_DAEMON)

    def emit(self, record: logging.LogRecord) -> None:
        priority = self._PRIORITIES.get(record.levelno, syslog.LOG_ERR)
        syslog.syslog(priority, Plain().format(record).replace("\n", " | "))


@contextmanager
def caught(journal: Callable[[Event], None], loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Meanwhile give the journal what others want to have logged.

    To be begun on the control thread, whose loop `loop` is.
    """
    handler = _ToJournal(journal, loop)
    root = logging.getLogger()
    before = threading.excepthook, sys.unraisablehook
    root.addHandler(handler)
    logging.captureWarnings(True)
    threading.excepthook = lambda args: _ended_badly(
        f"thread {args.thread.name}" if args.thread is not None else "a thread",
        (args.exc_type, args.exc_value, args.exc_traceback),
    )
    sys.unraisablehook = lambda args: _ended_badly(
        args.err_msg or "a destructor", (args.exc_type, args.exc_value, args.exc_traceback)
    )
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before
        logging.captureWarnings(False)
        root.removeHandler(handler)


def _ended_badly(
    what: str,
    error: tuple[type[BaseException], BaseException | None, TracebackType | None],
) -> None:
    kind, value, trace = error
    info: Any = (kind, value if value is not None else kind(), trace)
    logging.getLogger(what).error("", exc_info=info)


class _ToJournal(logging.Handler):
    """Makes an event of what somebody logs."""

    def __init__(self, journal: Callable[[Event], None], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal
        self._loop = loop
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == _log.name:
            return  # the journal itself
        text = Plain().format(record).strip().replace("\n", " | ")
        event: Event = LibrarySays(record.name, text)
        if record.exc_info:
            event = Defect(record.name, text)
        if threading.get_ident() == self._thread:
            self._journal(event)
            return
        try:
            self._loop.call_soon_threadsafe(self._journal, event)
        except RuntimeError:  # the loop is closed: the program ends
            sink(event.severity, one_line(str(event)))
