"""The server that guests' processes are forked from, and one such process, for whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.descriptors import open_descriptors
from tests.native.guests import Server, Worker, server, worker


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    """One server for all tests, as the daemon has."""
    before = open_descriptors()
    with server() as made:
        yield made
    assert open_descriptors() == before


@pytest.fixture
def process(served: Server, tmp_path: Path) -> Iterator[Worker]:
    with worker(served, tmp_path / "guest") as made:
        yield made
