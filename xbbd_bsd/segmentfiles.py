"""Files of state segments in the daemon's directory, whatever family's: names, errors, removal.

What is in one is not known here.  Control thread.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xbbd_bsd.errors import HostError


def segment_path(directory: str, driver: str, unit: int) -> str:
    """The file of a device's segment."""
    return os.path.join(directory, f"{driver}.{unit}")


@contextmanager
def about_segment(text: str) -> Iterator[None]:
    """What fails here is said to have failed at that; HostError."""
    try:
        yield
    except OSError as error:
        raise HostError(f"{text}: {error.strerror}", error.errno or 0) from None


def remove_file(path: str) -> None:
    """Remove what nobody needs any more, if it is there."""
    with suppress(OSError):
        os.unlink(path)
