"""Fixtures of the unit tests."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's within 104 bytes."""
    with TemporaryDirectory(prefix="xbbd") as name:
        yield Path(name)
