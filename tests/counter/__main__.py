"""xbbd with counters besides disks: python -m tests.counter, with the options of xbbd.

The two values that it changes are what a family of the product adds to a line of
families.py and of config.py.
"""

import sys
from unittest.mock import patch

from tests.counter.family import COUNTER
from xbbd_bsd.config import KINDS
from xbbd_bsd.daemon import main
from xbbd_bsd.families import ENTRIES

if __name__ == "__main__":
    with (
        patch("xbbd_bsd.families.ENTRIES", (*ENTRIES, COUNTER)),
        patch("xbbd_bsd.conftext.KINDS", (*KINDS, "counter")),
    ):
        sys.exit(main())
