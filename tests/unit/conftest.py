"""Fixtures of the unit tests."""

import gc
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.descriptors import open_descriptors
from tests.unit.family_bench import Bench
from tests.unit.net_bench import NetBench


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose name leaves room for a socket's within 104 bytes."""
    with TemporaryDirectory(prefix="xbbd") as name:
        yield Path(name)


@pytest.fixture
def bench(short_path: Path) -> Iterator[Bench]:
    """A block backend that leaves no descriptor behind."""
    gc.collect()  # what an earlier test has forgotten to close must not close meanwhile
    before = open_descriptors()
    bench = Bench(short_path)
    yield bench
    bench.close()
    assert open_descriptors() == before


@pytest.fixture
def card(short_path: Path) -> Iterator[NetBench]:
    """A card's backend that leaves no descriptor behind."""
    gc.collect()
    before = open_descriptors()
    bench = NetBench(short_path)
    yield bench
    bench.close()
    assert open_descriptors() == before
