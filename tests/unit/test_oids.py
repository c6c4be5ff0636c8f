"""The names there are: each declared once, the kernel's as the kernel has them."""

import pytest

from xbbd_bsd.block.oids import DRIVER
from xbbd_bsd.oids import DAEMON, Type, declared, leaf_of, split

DRIVERS = {DRIVER.name: DRIVER}


def test_every_leaf_is_declared_once() -> None:
    names = [name for name, _ in declared(DRIVER)]
    assert len(set(names)) == len(names)
    for name, leaf in declared(DRIVER):
        assert leaf_of(name.replace(".N.", ".0.").replace(".M.", ".1."), DRIVERS) is leaf
        assert leaf.description == leaf.description.strip() != ""
        assert "\n" not in leaf.description
    assert leaf_of("dev.xbbd.0", DRIVERS) is None
    assert leaf_of("dev.xbbd.x.inflight", DRIVERS) is None
    assert sum(map(len, DRIVER.groups.values())) + len(DRIVER.ring) + len(DAEMON) == len(names)


def test_names_of_devices() -> None:
    assert split("dev.xbbd.3.ring.0.inflight") == ("xbbd", 3, "ring.0.inflight")
    assert split("dev.xbbd.0") == ("xbbd", 0, "")
    assert DRIVER.split("dev.xbbd.3.abi") == (3, "abi")
    assert DRIVER.split("dev.other.3.abi") is None
    for name in ("dev.xbbd", "dev.xbbd.", "dev.xbbd.-1", "dev.xbbd.00", "hw.xbbd.0", ""):
        assert split(name) is None


# Type and access as sysctl -t and -W show them for the in-kernel driver.
KERNEL = {
    **dict.fromkeys(("disable_flush", "flush_interval", "no_coalesce_reqs"), (Type.INT, True)),
    **dict.fromkeys(
        ("reqs_received", "reqs_completed", "reqs_queued_for_completion",
         "reqs_completed_with_error", "forced_dispatch", "normal_dispatch", "total_dispatch",
         "kva_shortages", "request_shortages"), (Type.U64, True)),
    **dict.fromkeys(
        ("max_requests", "max_request_segments", "max_request_size", "ring_pages"),
        (Type.UINT, False)),
    "xenbus_peer_domid": (Type.INT, False),
    **dict.fromkeys(
        ("xenstore_path", "xenstore_peer_path", "xenbus_connection_state", "xenbus_dev_type",
         "%desc", "%driver", "%location", "%parent"), (Type.STRING, False)),
}  # fmt: skip


@pytest.mark.parametrize("name", KERNEL)
def test_the_kernels_leaves_keep_type_and_access(name: str) -> None:
    leaf = leaf_of(f"dev.xbbd.0.{name}", DRIVERS)
    assert leaf is not None
    assert (leaf.type, leaf.writable) == KERNEL[name]


@pytest.mark.parametrize(
    "name",
    ["oo_req", "rd_req", "wr_req", "f_req", "ds_req", "rd_sect", "wr_sect", "physical_device",
     "mode"],
)  # fmt: skip
def test_the_leaves_of_linux_are_there(name: str) -> None:
    assert leaf_of(f"dev.xbbd.0.{name}", DRIVERS) is not None
