"""FreeBSD's files over the played kernel, compiled once for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.freebsd.fake import SANITIZE, Extension, extension


@pytest.fixture(scope="session")
def builds(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all workers of this run share, if it has several."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(scope="session")
def plain(builds: Path) -> Extension:
    return extension(builds / "freebsd", [])


@pytest.fixture(scope="session")
def sanitized(builds: Path) -> Extension:
    return extension(builds / "freebsd-sanitized", SANITIZE)
