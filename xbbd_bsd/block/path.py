"""Whether a path still leads to the disk that was opened by it.

What is open stays what it was when its file is removed, renamed or replaced; only
the next one to open the path notices, unless somebody looks.  What becomes of
the guest is not known here.  A look may wait for ever, so a thread does it.
"""

import errno
import os
from enum import Enum
from typing import Final

from xbbd_bsd.block.disk import key_of

_NOTHING_THERE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class PathState(Enum):
    """What became of a disk's path; the values are those of the leaf path_state."""

    NAMED = ""  # it leads to the disk
    GONE = "gone"  # nothing has that name: deleted, or renamed
    ANOTHER = "another"  # another file or device has it
    TRUNCATED = "truncated"  # it leads to the disk, of which a part is missing


def state_of(path: str, fd: int) -> PathState | None:
    """NAMED, GONE or ANOTHER, of what is open as `fd`; None if that cannot be told just now.

    OSError if what is open says nothing of itself.
    """
    opened = key_of(os.fstat(fd))
    try:
        found = key_of(os.stat(path))
    except OSError as error:
        return PathState.GONE if error.errno in _NOTHING_THERE else None
    return PathState.NAMED if found == opened else PathState.ANOTHER
