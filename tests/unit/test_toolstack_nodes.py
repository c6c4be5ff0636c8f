"""The nodes of an offer, whole: those that libxl 4.19 writes for the same disk."""

import pytest

from xbbd_bsd.toolstack import DiskOffer
from xbbd_bsd.xenbus.states import State


def test_a_disk_of_backendtype_phy() -> None:
    disk = DiskOffer(7, 51712, "/dev/zvol/tank/a")
    assert disk.frontend == "/local/domain/7/device/vbd/51712"
    assert disk.backend == "/local/domain/0/backend/vbd/7/51712"
    assert disk.backend_nodes() == {
        "frontend": b"/local/domain/7/device/vbd/51712",
        "params": b"/dev/zvol/tank/a",
        "script": b"block",
        "frontend-id": b"7",
        "online": b"1",
        "removable": b"0",
        "bootable": b"1",
        "dev": b"xvda",
        "type": b"phy",
        "mode": b"w",
        "device-type": b"disk",
        "discard-enable": b"1",
        "specification": b"xen",
        "state": b"1",
    }
    assert disk.frontend_nodes() == {
        "backend": b"/local/domain/0/backend/vbd/7/51712",
        "backend-id": b"0",
        "state": b"1",
        "virtual-device": b"51712",
        "device-type": b"disk",
        "trusted": b"1",
    }


def test_a_disc_of_backendtype_tap() -> None:
    disk = DiskOffer(7, 51728, "/tank/a", mode="r", kind="vbd3", cdrom=True, discard=False)
    assert disk.backend_nodes() == {
        "frontend": b"/local/domain/7/device/vbd/51728",
        "params": b"aio:/tank/a",
        "script": b"block-tap",
        "frontend-id": b"7",
        "online": b"1",
        "removable": b"1",
        "bootable": b"1",
        "dev": b"xvdb",
        "type": b"vbd3",
        "mode": b"r",
        "device-type": b"cdrom",
        "discard-enable": b"0",
        "specification": b"xen",
        "state": State.INITIALISING.node,
    }
    assert disk.frontend_nodes()["device-type"] == b"cdrom"
    assert disk.frontend_nodes()["backend"] == b"/local/domain/0/backend/vbd3/7/51728"


@pytest.mark.parametrize("kind", ["vbd", "vbd3"])
def test_both_ends_name_each_other(kind: str) -> None:
    disk = DiskOffer(3, 768, "/a", kind=kind)
    assert disk.backend_nodes()["frontend"] == disk.frontend.encode()
    assert disk.frontend_nodes()["backend"] == disk.backend.encode()
