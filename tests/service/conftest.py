"""Fixtures of the service: an installation that has not been started."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.installation import Service
from xbbd_bsd.sim.chain import Chain


@pytest.fixture(params=["sh", "dash"])
def shell(request: pytest.FixtureRequest) -> str:
    """A shell; FreeBSD's own sh(1) is a sibling of dash."""
    name = str(request.param)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    if name != "sh" and os.path.samefile(found, shutil.which("sh") or ""):
        pytest.skip(f"sh is {name} here")
    return found


@pytest.fixture(params=["13", "14"])
def like(request: pytest.FixtureRequest) -> str:
    """The FreeBSD whose daemon(8) it is."""
    return str(request.param)


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """A machine without a daemon, for one service after the other."""
    with Chain() as chain:
        yield chain


@pytest.fixture
def service(request: pytest.FixtureRequest, chain: Chain, tmp_path: Path) -> Iterator[Service]:
    """A service that has not been started."""
    values = {
        name: request.getfixturevalue(name) if name in request.fixturenames else default
        for name, default in (("shell", "sh"), ("like", "14"))
    }
    found = Service(tmp_path, chain, values["shell"], values["like"])
    try:
        yield found
    finally:
        found.clean()
