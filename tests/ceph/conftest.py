"""A cluster that runs, one for all tests here, which skip where there is none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ceph.cluster import Cluster, running_cluster

MEMORY = "/dev/shm"


def in_memory() -> str | None:
    """Where files are in memory, and can be what an OSD wants; None: the usual place."""
    try:
        with tempfile.NamedTemporaryFile(dir=MEMORY) as file:
            os.close(os.open(file.name, os.O_RDWR | os.O_DIRECT))
    except OSError:
        return None
    return MEMORY


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with (
        tempfile.TemporaryDirectory(prefix="t-", dir=in_memory()) as directory,
        running_cluster(Path(directory)) as running,
    ):
        yield running
