"""The file of the configuration: where it is, and that it can be read.

What its text means is not known here.  The main thread, or the control thread.
"""

import os
import stat
from typing import Final

from xbbd_bsd.conftext import Fault, Reading, examine
from xbbd_bsd.errors import OperatorError, Refused, reason

CONFIG_FILE: Final = "/usr/local/etc/xbbd.conf"
LARGEST: Final = 1 << 18  # bytes; the sample with all its comments has 6000


def read_file(path: str | None) -> Reading:
    """What a file says; None: the default one, or nothing if there is none.

    OperatorError if it cannot be read; what is wrong with its text is in the reading.
    """
    name = path or CONFIG_FILE
    try:
        with open(name, "rb", opener=_at_once) as file:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                raise OperatorError(f"{name}: a pipe, but it must be there to be read again")
            octets = file.read(LARGEST + 1)
        if len(octets) > LARGEST:
            raise OperatorError(f"{name}: larger than {LARGEST} bytes, no configuration is")
        return examine(octets.decode(), name)
    except FileNotFoundError:
        if path is None:
            return Reading()
        raise OperatorError(f"{name}: no such file") from None
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        fault = Fault(name, line, f"is no text in UTF-8 (octet 0x{octets[error.start]:02x})")
        raise Refused((str(fault),)) from None
    except OSError as error:
        raise OperatorError(f"{name}: {reason(error)}", error.errno or 0) from None


def _at_once(name: str, flags: int) -> int:
    """open(2) that waits for no writer of a pipe, nor for a terminal."""
    return os.open(name, flags | os.O_NONBLOCK | os.O_CLOEXEC)
