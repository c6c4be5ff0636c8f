"""Names and numbers of virtual disks, and the nodes of an offer."""

from __future__ import annotations

import pytest

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.toolstack import DiskOffer
from xbbd_bsd.vdev import vdev_name, vdev_number

# xen-vbd-interface(7)
NAMES = [
    ("xvda", 51712),
    ("xvda1", 51713),
    ("xvdb", 51728),
    ("xvdp15", 51967),
    ("xvdq", 0x10001000),
    ("xvdz", 0x10001900),
    ("xvdaa", 0x10001A00),
    ("xvda16", 0x10000010),
    ("xvdq255", 0x100010FF),
]


@pytest.mark.parametrize(("name", "number"), NAMES)
def test_names_of_virtual_disks(name: str, number: int) -> None:
    assert vdev_number(name) == vdev_number(str(number)) == vdev_number(hex(number)) == number
    assert vdev_name(number) == name


@pytest.mark.parametrize("name", ["", "xvd", "sda", "xvda256", "xvd1", "-1", "xvdaaa", "0x", "12a"])
def test_what_is_no_virtual_disk(name: str) -> None:
    with pytest.raises(OperatorError, match="no virtual disk"):
        vdev_number(name)


def test_a_number_without_a_name() -> None:
    assert vdev_name(768) == "768"


def test_the_nodes_of_a_tap_disk_are_those_of_libxl() -> None:
    disk = DiskOffer(7, 51728, "/tank/a", mode="r", kind="vbd3", cdrom=True)
    assert disk.backend == "/local/domain/0/backend/vbd3/7/51728"
    nodes = disk.backend_nodes()
    assert nodes["params"] == "aio:/tank/a"
    assert nodes["script"] == "block-tap"
    assert (nodes["dev"], nodes["mode"], nodes["device-type"]) == ("xvdb", "r", "cdrom")
    assert (nodes["removable"], nodes["online"], nodes["state"]) == ("1", "1", "1")
    assert disk.frontend_nodes()["backend"] == disk.backend


@pytest.mark.parametrize("name", ["051712", "0xca00", "51712", "00051712"])
def test_numbers_of_disks_may_have_leading_zeros(name: str) -> None:
    assert vdev_number(name) == 51712
