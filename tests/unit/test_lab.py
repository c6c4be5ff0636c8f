"""The lab's arithmetic: C library versions, packed kernels, a guest's configuration."""

from __future__ import annotations

import json
import lzma
import struct
from pathlib import Path

import pytest

from tests.lab import bench, netbench
from tests.lab.domu import DomU
from tests.lab.figures import RECORDS
from tests.lab.images import Images, LabError, inner_kernel, libc_version
from tests.lab.machine import NO_RESULT, TIMED_OUT, Boot, _command, _results
from tests.lab.payload import newest_glibc


@pytest.mark.parametrize(
    ("library", "newest"),
    [
        (b"", (0, 0)),
        (b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0", (2, 34)),
        (b"GLIBC_2.9\0GLIBC_2.10\0GLIBC_PRIVATE\0", (2, 10)),
        (b"GLIBCXX_3.4.30\0GLIBC_2.17\0", (2, 17)),
    ],
)
def test_newest_glibc_that_is_asked_for(library: bytes, newest: tuple[int, int]) -> None:
    assert newest_glibc(library) == newest


def tree_with_libc(root: Path, text: bytes) -> Path:
    place = root / "usr/lib/x86_64-linux-gnu"
    place.mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    (place / "libc.so.6").write_bytes(text)
    return root


def test_version_of_dom0s_libc(tmp_path: Path) -> None:
    text = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u9) stable release version 2.36.\n\0"
    assert libc_version(tree_with_libc(tmp_path, text)) == (2, 36)


def test_a_libc_without_a_version(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"libc\.so\.6"):
        libc_version(tree_with_libc(tmp_path, b"GLIBC_2.36"))


def packed(payload: bytes, setup_sectors: int = 3) -> bytes:
    """A bzImage as far as it matters here."""
    image = bytearray((setup_sectors + 1) * 512)
    image[0x1F1] = setup_sectors
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + bytes(16) + payload + b"after"


def test_kernel_inside_an_image() -> None:
    kernel = b"\x7fELF" + bytes(1000)
    assert inner_kernel(packed(lzma.compress(kernel, lzma.FORMAT_XZ))) == kernel


@pytest.mark.parametrize("payload", [b"\x1f\x8b rest", lzma.compress(b"no kernel", lzma.FORMAT_XZ)])
def test_an_image_that_is_packed_otherwise(payload: bytes) -> None:
    image = packed(payload)
    assert inner_kernel(image) == image


def test_parameters_of_a_guests_disk_driver() -> None:
    guest = DomU("g", blkfront={"max_ring_page_order": 2, "feature_persistent": 0})
    extra = next(line for line in guest.config.splitlines() if line.startswith("extra"))
    words = extra.partition('"')[2].rstrip('"').split()
    assert words[-2:] == ["xen_blkfront.max_ring_page_order=2", "xen_blkfront.feature_persistent=0"]


def test_configuration_of_a_guest() -> None:
    disk = "vdev=xvda,access=rw,backendtype=phy,target=/dev/loop0"
    lines = DomU("g", [disk], memory=300, on_reboot="restart").config.splitlines()
    assert 'name = "g"' in lines
    assert "memory = 300" in lines
    assert 'on_reboot = "restart"' in lines
    assert f'disk = ["{disk}"]' in lines


def test_a_copy_of_a_guest_is_the_same_machine_by_another_name() -> None:
    guest = DomU("g", memory=300)
    twin = guest.copy("h")
    assert guest.config.count("uuid = ") == 1
    assert twin.config == guest.config.replace('name = "g"', 'name = "h"')
    assert (twin.name, twin.domid) == ("h", None)
    assert twin.log != guest.log
    assert DomU("g", memory=300).config != guest.config


def words(tmp_path: Path, boot: Boot) -> list[str]:
    path = tmp_path / "a,b"
    return _command(Images(path, path, path, path, path), tmp_path, path, boot)


def test_the_processor_is_the_one_that_is_known_to_work(tmp_path: Path) -> None:
    command = words(tmp_path, Boot())
    assert command[command.index("-cpu") + 1] == "max,-smap,-smep,-xsave"
    assert "spec-ctrl=no,eager-fpu=yes" in command[command.index("-append") + 1]
    assert "-icount" not in command


def test_virtual_time_wants_one_thread_and_copies_by_the_word(tmp_path: Path) -> None:
    command = words(tmp_path, Boot(icount=2))
    assert command[command.index("-icount") + 1] == "shift=2,sleep=off"
    assert "thread=single" in command[command.index("-accel") + 1]
    assert command[command.index("-cpu") + 1] == "max,-smap,-smep,-xsave,-erms"


def test_a_guest_reads_its_clock_as_it_is_told() -> None:
    assert 'tsc_mode = "native"' in DomU("g", tsc="native").config.splitlines()
    assert "tsc_mode" not in DomU("g").config


def test_commas_in_paths_are_doubled(tmp_path: Path) -> None:
    drives = [word for word in words(tmp_path, Boot()) if word.startswith("if=none,id=root")]
    assert drives[0].count("/a,,b") == 1


def test_no_result_without_an_archive(tmp_path: Path) -> None:
    (tmp_path / "results.img").write_bytes(bytes(1 << 20))
    assert _results(tmp_path / "results.img", tmp_path / "out") == NO_RESULT
    assert TIMED_OUT != NO_RESULT


def test_the_record_has_medians_of_every_row() -> None:
    """MB/s for large requests, IOPS for small ones, a dash for who was left out."""
    runs = [
        {
            "store": "ram",
            "row": row,
            "backend": backend,
            "iops": iops,
            "mbps": iops / 10,
            "cpu_us": 7 * iops,
        }
        for row in ("4k random read, depth 1", "128k read, depth 8")
        for backend in ("xbbd", "a variant")
        for iops in (3.0, 100.0, 5.0)
    ]
    assert RECORDS["bench"].lines(json.dumps(runs), "abc") == [
        "abc\tram\t4k random read, depth 1\t5.0\t-\t-\t35.0\t-\t-",
        "abc\tram\t128k read, depth 8\t0.5\t-\t-\t35.0\t-\t-",
    ]


def test_the_record_of_cards() -> None:
    runs = [
        {"backend": backend, "row": netbench.PING, "figure": figure, "cpu_us": figure / 10}
        for backend, figure in (("xnb", 40.0), ("netback", 20.0), ("xnb", 44.0))
    ]
    assert RECORDS["bench-net"].lines(json.dumps(runs), "abc") == [
        f"abc\t{netbench.PING}\t42.0\t20.0\t4.2\t2.0"
    ]


def test_the_table_shows_every_backend_and_its_ratio() -> None:
    row = "4k random read, depth 32"
    shown = bench.table(
        [
            bench.Measurement("ram", backend, row, 0, iops, 1.0, 2.0, 3.0, 4.0)
            for backend, iops in (
                *(("xbbd", 80.0), ("blkback", 100.0), ("qdisk", 40.0)),
                ("never looks", 90.0),
            )
        ]
    )
    head, *lines = shown.splitlines()[1:]
    assert row in head
    assert [line.split()[-2:] for line in lines] == [
        *(["0.80", "2.00"], ["1.00", "2.50"], ["0.40", "1.00"]),
        ["0.90", "2.25"],
    ]


def test_variants_are_settings_of_disks() -> None:
    assert bench.variants(["a:poll_max_us = 0", 'b:transport = "copy"; trim = false']) == {
        "a": "[disk]\npoll_max_us = 0\n",
        "b": '[disk]\ntransport = "copy"\ntrim = false\n',
    }


def shown_of_cards(xnb: float, netback: float, row: str) -> str:
    return netbench.table(
        [
            netbench.Measurement(name, row, 0, figure, 1.0)
            for name, figure in (("xnb", xnb), ("netback", netback))
        ]
    ).splitlines()[-1]


def test_a_figure_of_cards_that_is_not_good_enough_says_so() -> None:
    """More is better, but of pings less is."""
    stream = next(iter(netbench.STREAMS))
    assert shown_of_cards(70.0, 100.0, stream).endswith("0.70")
    assert "bar: 0.7" in shown_of_cards(69.0, 100.0, stream)
    assert shown_of_cards(150.0, 100.0, netbench.PING).endswith("1.50")
    assert "bar: 1.5" in shown_of_cards(151.0, 100.0, netbench.PING)


def test_times_of_pings() -> None:
    text = "64 bytes from 192.0.2.2: icmp_seq=1 ttl=64 time=0.412 ms\nrtt min/avg = 1/2 ms\n"
    assert netbench.ping_times(text) == [412.0]
