"""What holds only on FreeBSD's files: test_kernel.py runs this where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.native.ring import HV, ring
from xbbd_bsd.errors import HostError
from xbbd_bsd.native import HvKind, Op, Transport


def test_grants_are_mapped_where_they_cannot_be_copied(tmp_path: Path) -> None:
    """Nobody is served in silence by something else than what was asked for."""
    assert HV is HvKind.XEN
    (tmp_path / "best").mkdir()
    (tmp_path / "copy").mkdir()
    with ring(tmp_path / "best") as r:
        r.front.transfer(Op.READ, 0, 8, bytearray(4096))
        assert r.state.ring().transport is Transport.MAP
        assert r.counter("grants_copied_total") == 0
    with (
        pytest.raises(HostError, match="prepare to copy grants: Operation not supported"),
        ring(tmp_path / "copy", transport=Transport.COPY),
    ):
        pass
