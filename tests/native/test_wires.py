"""Whether a pair of sockets may stand for an interface."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.native import wires


def test_frames_of_a_stream_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wires.stay_apart(socket.SOCK_STREAM)
    monkeypatch.setattr(wires, "stay_apart", lambda: False)
    with pytest.raises(pytest.skip.Exception, match="run together"):
        wires.wire()


@pytest.mark.skipif(sys.platform != "linux", reason="FreeBSD 15 wants them ended")
def test_packets_stay_apart() -> None:
    assert wires.stay_apart()
