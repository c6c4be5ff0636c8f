"""xbbd: a user-space Xen block backend for FreeBSD.

The daemon watches XenStore for block devices of guests and serves each from a
file or a disk device.  Everything here is the control plane; the data path is
in C, below `xbbd_bsd.native`.  This file holds the version and nothing else.
"""

__version__ = "0.1.0"
