"""Names and numbers of virtual disks: each name that libxl takes, and back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xbbd_bsd.errors import OperatorError
from xbbd_bsd.sim.__main__ import _parser
from xbbd_bsd.vdev import vdev_name, vdev_number

# xen-vbd-interface(7)
NAMES = [
    ("xvda", 202 << 8),
    ("xvda1", 202 << 8 | 1),
    ("xvdb", 202 << 8 | 1 << 4),
    ("xvdp15", 202 << 8 | 15 << 4 | 15),
    ("xvdq", 1 << 28 | 16 << 8),
    ("xvdz", 1 << 28 | 25 << 8),
    ("xvdaa", 1 << 28 | 26 << 8),
    ("xvdzz", 1 << 28 | 701 << 8),
    ("xvdaaa", 1 << 28 | 702 << 8),
    ("xvdabc", 1 << 28 | 730 << 8),
    ("xvda16", 1 << 28 | 16),
    ("xvdq255", 1 << 28 | 16 << 8 | 255),
    ("xvdbgqcv", 1 << 28 | 0xFFFFF << 8),
    ("sda", 8 << 8),
    ("sda1", 8 << 8 | 1),
    ("sdp15", 8 << 8 | 15 << 4 | 15),
    ("hda", 3 << 8),
    ("hda63", 3 << 8 | 63),
    ("hdb", 3 << 8 | 1 << 6),
    ("hdc", 22 << 8),
    ("hdd1", 22 << 8 | 1 << 6 | 1),
]


@pytest.mark.parametrize(("name", "number"), NAMES)
def test_names_of_virtual_disks(name: str, number: int) -> None:
    assert vdev_number(name) == vdev_number(str(number)) == vdev_number(hex(number)) == number
    assert vdev_name(number) == name


@pytest.mark.parametrize(
    ("name", "number"),
    [("d0p0", 51712), ("d0p1", 51713), ("d15p15", 51967), ("d16p0", 1 << 28 | 16 << 8),
     ("d1048575p255", 1 << 28 | 0xFFFFF << 8 | 255)],
)  # fmt: skip
def test_disks_by_index(name: str, number: int) -> None:
    assert vdev_number(name) == number


@pytest.mark.parametrize(
    "name",
    ["", "xvd", "xvda256", "xvd1", "xvda01", "xvda0", "xvdbgqcw", "xvdaaaaaa", "XVDA", "xvd\u0430",
     "sdq", "sda16", "sd", "hde", "hda64", "hd", "vda", "sr0", "d0", "d0p256", "d1048576p0", "dp",
     "-1", "0x", "12a", "4294967296", "0x100000000", "\u0661", " xvda", "xvda\n"],
)  # fmt: skip
def test_what_is_no_virtual_disk(name: str) -> None:
    with pytest.raises(OperatorError, match="no virtual disk"):
        vdev_number(name)


@pytest.mark.parametrize(
    "number", [0, 1, 767, 1 << 28, 1 << 28 | 15 << 8 | 15, 2 << 28, 0xFFFFFFFF]
)
def test_numbers_without_a_name(number: int) -> None:
    """The extended form of what has a short one is another disk, not that one."""
    assert vdev_name(number) == str(number)


@pytest.mark.parametrize("name", ["051712", "0xca00", "0xCA00", "51712", "00051712"])
def test_numbers_of_disks_may_have_leading_zeros(name: str) -> None:
    assert vdev_number(name) == 51712


@given(
    st.integers(0, 0xFFFFFFFF)
    | st.integers(0, 0xFFFF)
    | st.integers(0, 0xFFFFFFF).map((1 << 28).__or__)
)
@example(1 << 28)
@example(1 << 28 | 730 << 8)
@example(22 << 8)
def test_what_is_shown_is_taken(number: int) -> None:
    assert vdev_number(vdev_name(number)) == number


@given(st.from_regex("(xvd[a-z]{1,5}|sd[a-p]|hd[a-d])([1-9][0-9]{0,2})?", fullmatch=True))
def test_a_name_is_its_numbers_own(name: str) -> None:
    try:
        number = vdev_number(name)
    except OperatorError:
        return
    assert vdev_name(number) == name


@pytest.mark.parametrize(("name", "number"), [("hda", 768), ("sda", 2048), ("51712", 51712)])
def test_the_simulated_guest_knows_these_names_too(name: str, number: int) -> None:
    assert _parser().parse_args(["guest", "/m", "1", name]).vdev == number


def test_a_name_that_is_none_is_told_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["guest", "/m", "1", "vda"])
    said = " ".join(capsys.readouterr().err.split())
    assert "vda: no virtual disk, write xvda to xvdbgqcv, hda to hdd, sda to sdp," in said
