"""Names and numbers of virtual disks (xen-vbd-interface(7)): "xvda" is 51712.

Pure.  Any thread.
"""

import re
from errno import EINVAL
from typing import Final

from xbbd_bsd.errors import OperatorError

# Major 202 with 16 partitions
# for the first 16, then an extended form with 256.
_XVD: Final = 202 << 8
_EXTENDED: Final = 1 << 28


def vdev_number(name: str) -> int:
    """The number of a virtual disk by name ("xvda", "xvdb3") or number; OperatorError."""
    match = re.fullmatch(r"xvd([a-z]{1,2})(\d{0,3})", name)
    if match is not None:
        disk = 0
        for letter in match[1]:
            disk = disk * 26 + ord(letter) - ord("a") + 1
        disk, partition = disk - 1, int(match[2] or 0)
        if disk < 16 and partition < 16:
            return _XVD | disk << 4 | partition
        if partition < 256:
            return _EXTENDED | disk << 8 | partition
    elif re.fullmatch(r"\d{1,9}", name):
        return int(name)
    elif re.fullmatch(r"0x[0-9a-f]{1,8}", name):
        return int(name, 16)
    raise OperatorError(f"{name}: no virtual disk, write xvda or a number", EINVAL)


def vdev_name(number: int) -> str:
    """The name of a virtual disk as guests show it; the number itself if it has none."""
    if number >> 8 == 202:
        disk, partition = number >> 4 & 15, number & 15
    elif number >> 28 == 1:
        disk, partition = number >> 8 & 0xFFFFF, number & 255
    else:
        return str(number)
    letters = ""
    disk += 1
    while disk:
        disk, letter = divmod(disk - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return f"xvd{letters}{partition or ''}"
