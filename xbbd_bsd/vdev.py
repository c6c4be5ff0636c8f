"""Names and numbers of virtual disks (xen-vbd-interface(7)): "xvda" is 51712.

Names are those that libxl takes (libxl__device_disk_dev_number), but that a number
with a leading zero is decimal, as XenStore's are.  Pure.  Any thread.
"""

import re
from dataclasses import dataclass
from errno import EINVAL
from typing import Final

from xbbd_bsd.errors import OperatorError

_LARGEST: Final = 0xFFFFFFFF  # of a number in XenStore
_EXTENDED: Final = 1 << 28


@dataclass(frozen=True, slots=True)
class _Scheme:
    """Some disks of one sort of name and their partitions, in one range of numbers.

    `first`: the disk with number `base`.  `shift`: bits of a partition.
    """

    prefix: str
    base: int
    first: int
    disks: int
    shift: int

    def number(self, disk: int, partition: int) -> int | None:
        """None for what is not in this range."""
        index = disk - self.first
        if not 0 <= index < self.disks or partition >> self.shift:
            return None
        return self.base + (index << self.shift) + partition

    def parts(self, number: int) -> tuple[int, int] | None:
        """Disk and partition, as in `number`."""
        index, partition = divmod(number - self.base, 1 << self.shift)
        return (self.first + index, partition) if 0 <= index < self.disks else None


# The first that has a disk and a partition has their number.
_SCHEMES: Final = (
    _Scheme("xvd", 202 << 8, first=0, disks=16, shift=4),
    _Scheme("xvd", _EXTENDED, first=0, disks=1 << 20, shift=8),
    _Scheme("sd", 8 << 8, first=0, disks=16, shift=4),
    _Scheme("hd", 3 << 8, first=0, disks=2, shift=6),
    _Scheme("hd", 22 << 8, first=2, disks=2, shift=6),
)


def vdev_number(name: str) -> int:
    """The number of a virtual disk; OperatorError.

    By name ("xvda", "xvdb3", "sda1", "hdc"), by disk and partition ("d0p1": xvda1),
    or by number, decimal or with 0x.
    """
    if match := re.fullmatch("(xvd|sd|hd)([a-z]{1,5})([1-9][0-9]{0,2})?", name):
        number = _number(match[1], _index(match[2]), int(match[3] or 0))
    elif match := re.fullmatch("d([0-9]{1,7})p([0-9]{1,3})", name):
        number = _number("xvd", int(match[1]), int(match[2]))
    elif re.fullmatch("[0-9]{1,16}", name):
        number = int(name)
    elif re.fullmatch("0x[0-9a-fA-F]{1,16}", name):
        number = int(name, 16)
    else:
        number = None
    if number is None or number > _LARGEST:
        raise OperatorError(
            f"{name}: no virtual disk, write xvda to xvdbgqcv,"
            " hda to hdd, sda to sdp, any of these with a partition, or a number",
            EINVAL,
        )
    return number


def vdev_name(number: int) -> str:
    """The name of a virtual disk as guests show it; the number itself if it has none.

    What `vdev_number` makes that very number of.
    """
    for scheme in _SCHEMES:
        parts = scheme.parts(number)
        if parts is not None and _number(scheme.prefix, *parts) == number:
            disk, partition = parts
            return f"{scheme.prefix}{_letters(disk)}{partition or ''}"
    return str(number)


def _number(prefix: str, disk: int, partition: int) -> int | None:
    for scheme in _SCHEMES:
        if scheme.prefix == prefix and (number := scheme.number(disk, partition)) is not None:
            return number
    return None


def _index(letters: str) -> int:
    """a to z, aa and on: 0, 1, ..."""
    index = 0
    for letter in letters:
        index = index * 26 + ord(letter) - ord("a") + 1
    return index - 1


def _letters(index: int) -> str:
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("a") + letter) + letters
    return letters
