"""The servers that the conformance suite runs against, and two clients of dom0."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.store.connection import Connection
from tests.store.servers import KINDS, StoreUnderTest


@pytest.fixture(params=["embedded", pytest.param("xenstored", marks=pytest.mark.xenstored)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    server = KINDS[request.param](tmp_path)
    with ExitStack() as stack:
        stack.callback(server.stop)
        yield StoreUnderTest(server, stack)


@pytest.fixture
def dom0(store: StoreUnderTest) -> Connection:
    return store.dom0()


@pytest.fixture
def other(store: StoreUnderTest) -> Connection:
    """A second client of dom0."""
    return store.dom0()
