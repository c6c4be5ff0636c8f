"""What each host says of interfaces of cards, and whether it can have them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.host import Links, linux
from xbbd_bsd.host.freebsd import PLATFORM as FREEBSD
from xbbd_bsd.host.linux import PLATFORM as LINUX
from xbbd_bsd.host.linux import LinuxXen
from xbbd_bsd.sim.hypervisor import SimHost


def test_the_kernels_own_backend_of_cards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two backends at one ring: refused as long as it is loaded; disks are the operator's."""
    host = LinuxXen()
    monkeypatch.setattr(linux, "NETBACK", str(tmp_path / "vif"))
    monkeypatch.setattr(linux, "TUN", str(tmp_path))
    host.check_kinds(("vbd", "vif"))
    (tmp_path / "vif").mkdir()
    host.check_kinds(("vbd", "vbd3"))
    with pytest.raises(OperatorError, match="would take kind vif: run rmmod xen-netback") as raised:
        host.check_kinds(("vbd", "vif"))
    assert raised.value.errno == errno.EBUSY


def test_cards_want_taps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(linux, "NETBACK", str(tmp_path / "vif"))
    monkeypatch.setattr(linux, "TUN", str(tmp_path / "tun"))
    LinuxXen().check_kinds(("vbd",))
    with pytest.raises(OperatorError, match=r"^cards want .*/tun: run modprobe tun$"):
        LinuxXen().check_kinds(("vif",))


def test_interfaces_are_called_as_xens_scripts_have_them() -> None:
    assert LinuxXen().links == Links("vif", multi=True, offload="full", told=True)


def test_interfaces_of_a_simulated_machine_are_real(tmp_path: Path) -> None:
    assert SimHost(str(tmp_path), LINUX).links == LINUX.links
    assert SimHost(str(tmp_path), FREEBSD).links == FREEBSD.links
