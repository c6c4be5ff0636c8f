"""What the whole suite says before it begins."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

with suppress(ModuleNotFoundError):  # in a dom0, where no test has properties
    from hypothesis import HealthCheck, settings

    # How long an example takes says how busy the machine is, and nothing else.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


def pytest_configure() -> None:
    """A shell that starts us in the background has SIGINT ignored, for our children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Where tests/real stands: it is for the dom0 of a real Xen."""
    here = os.path.exists("/dev/xen/gntdev")
    return "real Xen: here" if here else "real Xen: not here, tests/real left out (make test-xen)"
