"""The archive writer of the lab, against bytes written out and a reader of its own."""

from __future__ import annotations

import io
import stat
from pathlib import Path

from tests.lab.cpio import CHARACTER, Cpio

TRAILER = b"TRAILER!!!"


def header(inode: int, mode: int, size: int, name_size: int, device: tuple[int, int]) -> bytes:
    """The 110 bytes before a name, as the format's description has them."""
    return (
        b"070701"
        + b"%08X%08X" % (inode, mode)
        + b"00000000" * 2  # uid, gid
        + b"00000001"  # links
        + b"00000000"  # mtime
        + b"%08X" % size
        + b"00000000" * 2  # the device that the file is on
        + b"%08X%08X%08X" % (*device, name_size)
        + b"00000000"  # checksum: none in this kind
    )


def entries(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Name, mode and content of each entry up to the trailer."""
    found: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        at += (110 + name_size + 3) // 4 * 4
        content = archive[at : at + size]
        at += (size + 3) // 4 * 4
        if name[:-1] == TRAILER:
            assert archive[at:].strip(b"\0") == b""
            return found
        found.append((name[:-1].decode(), mode, content))


def test_literal_bytes() -> None:
    out = io.BytesIO()
    archive = Cpio(out)
    archive.add("null", CHARACTER, device=(1, 3))
    archive.text("a", "hello")
    archive.close()
    written = out.getvalue()
    expected = header(1, 0o020600, 0, 5, (1, 3)) + b"null\0" + b"\0"
    expected += header(2, 0o100644, 5, 2, (0, 0)) + b"a\0" + b"hello\0\0\0"
    expected += header(3, 0, 0, 11, (0, 0)) + TRAILER + b"\0" + b"\0\0\0"
    assert written.rstrip(b"\0") == expected.rstrip(b"\0")
    assert len(written) == 512


def test_parents_links_and_permissions(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o640)
    out = io.BytesIO()
    archive = Cpio(out)
    archive.file("/usr/bin/program", program)
    archive.file("/usr/bin/other", program, 0o755)
    archive.link("bin", "usr/bin")
    archive.close()
    assert entries(out.getvalue()) == [
        ("usr", stat.S_IFDIR | 0o755, b""),
        ("usr/bin", stat.S_IFDIR | 0o755, b""),
        ("usr/bin/program", stat.S_IFREG | 0o640, b"\x7fELF"),
        ("usr/bin/other", stat.S_IFREG | 0o755, b"\x7fELF"),
        ("bin", stat.S_IFLNK | 0o777, b"usr/bin"),
    ]


def test_a_name_goes_in_once() -> None:
    out = io.BytesIO()
    archive = Cpio(out)
    archive.text("/etc/name", "first")
    archive.text("etc/name", "second")
    assert "/etc/name" in archive
    assert "etc" in archive
    assert "etc/other" not in archive
    archive.close()
    assert [content for _, _, content in entries(out.getvalue())] == [b"", b"first"]
