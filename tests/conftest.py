"""What the whole suite says before it begins."""

from __future__ import annotations

import os


def pytest_report_header() -> str:
    """Where tests/real stands: it is for the dom0 of a real Xen."""
    here = os.path.exists("/dev/xen/gntdev")
    return "real Xen: here" if here else "real Xen: not here, tests/real left out (make test-xen)"
