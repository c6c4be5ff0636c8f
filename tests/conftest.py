"""What the whole suite says before it begins."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

with suppress(ModuleNotFoundError):  # in a dom0, where no test has properties
    from hypothesis import HealthCheck, settings

    # How long an example takes says how busy the machine is, and nothing else.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


# Files that take longest, begun first: with two at once the last one ends alone otherwise.
LONGEST = (
    "native/test_variants.py",
    "sim/test_soak.py",
    "unit/test_walks.py",
    "freebsd/test_kernel.py",
    "c/test_native.py",
    "test_sessions.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A stable order: the longest files, then the others."""
    here = Path(__file__).parent
    rank = {here / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_configure() -> None:
    """A shell that starts us in the background has SIGINT ignored, for our children too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> str:
    """Where tests/real stands: it is for the dom0 of a real Xen."""
    here = os.path.exists("/dev/xen/gntdev")
    return "real Xen: here" if here else "real Xen: not here, tests/real left out (make test-xen)"
