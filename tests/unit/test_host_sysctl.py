"""sysctl(3) by freebsd-sysctl, which is played, and what it says that cannot be."""

import sys

import pytest

from tests.unit.test_host_freebsd import Kernel, kernel
from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import sysctl
from xbbd_bsd.host.freebsd import PLATFORM

__all__ = ["kernel"]  # a fixture


def test_numbers_and_texts(kernel: Kernel) -> None:
    assert sysctl.text("kern.vm_guest") == "xen"
    assert sysctl.number("kern.maxphys") == 1 << 20
    assert sysctl.number("hw.ncpu") == 4
    assert PLATFORM.processors() == {0, 1, 2, 3}
    kernel["hw.ncpu"] = ("INT", 8)
    assert sysctl.number("hw.ncpu") == 8  # nothing is kept


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (None, "the kernel has no such name"),
        (("STRING", "4"), "it is STRING"),
        (("NODE", 0), "it is NODE"),
        (("INT", 0), "no number"),
        (("INT", [4, 4]), "no number"),
    ],
)
def test_a_number_that_is_none(
    kernel: Kernel, entry: tuple[str, object] | None, reason: str
) -> None:
    """The package returns something in each of these cases."""
    if entry is not None:
        kernel["hw.x"] = entry
    with pytest.raises(HostError, match=f"^sysctl hw.x: {reason}$"):
        sysctl.number("hw.x")


@pytest.mark.parametrize("entry", [None, ("INT", 4), ("STRING", "")])
def test_a_text_that_is_none(kernel: Kernel, entry: tuple[str, object] | None) -> None:
    if entry is not None:
        kernel["kern.x"] = entry
    with pytest.raises(HostError, match=r"^sysctl kern.x: "):
        sysctl.text("kern.x")


def test_leaves(kernel: Kernel) -> None:
    assert sysctl.leaves("dev.xbbd") == []
    kernel["dev.xbbd"] = ("NODE", 0)
    kernel["dev.xbbd.3.mode"] = ("STRING", "w")
    assert sysctl.leaves("dev.xbbd") == ["dev.xbbd.3.mode"]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "freebsd_sysctl", None)
    for ask in (sysctl.text, sysctl.number, sysctl.leaves):
        with pytest.raises(OperatorError, match=r"^the Python package freebsd-sysctl is missing$"):
            ask("kern.vm_guest")


# What the ports tree can build with: its setuptools is old.
