"""FreeBSD's files over the played kernel, compiled once for all tests here."""

from __future__ import annotations

import pytest

from tests.freebsd.fake import SANITIZE, Extension, extension


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Extension:
    return extension(tmp_path_factory.mktemp("freebsd"), [])


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Extension:
    return extension(tmp_path_factory.mktemp("freebsd-sanitized"), SANITIZE)
