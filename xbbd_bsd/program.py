"""How a program of ours begins and ends: options, standard streams, errors, exit status.

What the program does is not known here.  Output that is still in a buffer when
`main` returns is written by the interpreter, which has no words and status 120
for a reader that is gone; so it is written here.  The main thread.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TextIO

from xbbd_bsd.errors import XbbdError, in_words, one_line


class Parser(argparse.ArgumentParser):
    """Options and verbs: what is wrong with them is told on one line that can be printed."""

    def error(self, message: str) -> NoReturn:
        """Say so, and end with status 2."""
        super().error(one_line(message))


def run(name: str, body: Callable[[], int]) -> int:
    """Run the body of a program; its exit status.

    Errors by blame become a line on standard error for each thing that is wrong, those
    of the system one, and status 1.  A reader of our output that is gone ends the
    program quietly, with the status that a shell gives to SIGPIPE.  Nothing is left in
    a buffer, also where `body` raises SystemExit.
    """
    _have_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # paths may have octets that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return body() or _flushed(sys.stdout)
        except SystemExit:
            _flushed(sys.stdout)
            raise
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except (XbbdError, OSError) as error:
        lines = error.lines if isinstance(error, XbbdError) else (in_words(error),)
        with suppress(OSError):
            for line in lines:
                print(f"{name}: {one_line(line)}", file=sys.stderr)
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            _abandon(stream)


def _flushed(stream: TextIO | None) -> int:
    if stream is not None:
        stream.flush()
    return 0


def _abandon(stream: TextIO | None) -> None:
    """Write what is left, or else have it go nowhere: the interpreter will try once more."""
    try:
        _flushed(stream)
    except OSError:
        assert stream is not None
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, stream.fileno())
        os.close(null)


def _have_standard_descriptors() -> None:
    """Whoever started us may have closed some; a disk must never become standard error."""
    for standard in range(3):
        try:
            os.fstat(standard)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number, which is this one
