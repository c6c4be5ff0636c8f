"""Where xbbctl finds its daemon, and how its words name the daemon's devices.

What is asked there is not known here.  Runs in xbbctl's process.
"""

import argparse
import re
from errno import ENOENT

from xbbd_bsd.block.oids import DRIVER, RECORDS
from xbbd_bsd.control.client import LIMIT, Connection
from xbbd_bsd.control.protocol import Request, Verb
from xbbd_bsd.control.tree import NOTE_LENGTH
from xbbd_bsd.errors import OperatorError, one_line
from xbbd_bsd.host import control_path
from xbbd_bsd.host.choice import run_directory

_NOTE_SECONDS = 2.0  # that a daemon has to take a note


def connect(options: argparse.Namespace, limit: float = LIMIT) -> Connection:
    """To the daemon that the command line names; OperatorError."""
    return Connection(control_path(options.state_dir or run_directory(options.host)), limit)


def device_name(word: str) -> str:
    """dev.xbbd.N of any of its spellings: that, xbbdN, xbbN, xbbiN or N; OperatorError."""
    names = "|".join((DRIVER.name, *RECORDS))
    match = re.fullmatch(rf"(?:{re.escape(DRIVER.root)}\.|{names})?(\d{{1,9}})", word)
    if match is None:
        raise OperatorError(f"{word}: no disk of xbbd, write xbbdN as in xbbctl list")
    return DRIVER.node(int(match[1]))


def find_device(options: argparse.Namespace, word: str) -> str:
    """The same of a device of any driver, by its name or node; OperatorError.

    Only the daemon knows its drivers, so it is asked for what is no disk.
    """
    try:
        return device_name(word)
    except OperatorError:
        none = OperatorError(f"{word}: no device of xbbd, write xbbdN or xnbN as in xbbctl list")
        match = re.fullmatch(r"(?:dev\.([a-z]+)\.|([a-z]+))(\d{1,9})", word)
        if match is None:
            raise none from None
        node = f"dev.{match[1] or match[2]}.{int(match[3])}"
        with connect(options) as daemon:
            try:
                daemon.whole(Request(Verb.GET, f"{node}.%driver"))
            except OperatorError as error:
                if error.errno == ENOENT:
                    raise none from None
                raise
        return node


def short(node: str) -> str:
    """xbbdN of dev.xbbd.N."""
    return node.removeprefix("dev.").replace(".", "")


def note(options: argparse.Namespace, directory: str, words: str) -> str:
    """Have the daemon log what was done at the store; xbbdN of the disk that this is.

    "" if it does not know it, does not run or does not let us: that is no reason to fail.
    Of words that are too many, as with a long path, the middle is left out: a request
    has no room for them, and how it begins and ends says what was done.
    """
    words = one_line(words)
    if len(words) > NOTE_LENGTH:
        half = NOTE_LENGTH // 2 - 2
        words = f"{words[:half]}...{words[-half:]}"
    try:
        with connect(options, _NOTE_SECONDS) as daemon:
            device = daemon.whole(Request(Verb.NOTE, directory, words)).get("device")
    except OperatorError:
        return ""
    return short(device) if isinstance(device, str) and device else ""
