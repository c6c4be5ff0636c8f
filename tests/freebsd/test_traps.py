"""Each trap of FreeBSD has a test that fails when the code forgets it.

Shown by forgetting: a copy of one product file with one line changed must not
compile, or end test_rules.c or a test of the queue's suites, by a failed check
or by the played kernel's "panic:".  Likewise for host/freebsd.py and its tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.freebsd.fake import (
    LINK,
    NATIVE,
    Extension,
    call,
    changed,
    compile_all,
    compiler,
    copy_tree,
    key_of,
)
from xbbd_bsd.native import _xbb

HERE = Path(__file__).parent
HARNESS = HERE.parent / "c"
LIMIT = 180.0


@dataclass(frozen=True)
class Program:
    """test_rules.c with everything that it needs but what a test changes."""

    cc: list[str]
    objects: dict[str, Path]

    def run(self, directory: Path, change: Path | None = None) -> tuple[int, str]:
        """Status and words of the program, with one product file replaced."""
        objects = dict(self.objects)
        if change is not None:
            careless = [*self.cc, "-Wno-error"]
            (objects[key_of(change)],) = compile_all(careless, [change], directory)
        binary = directory / "rules"
        linked = call([*self.cc, *LINK, "-o", binary, *objects.values(), "-lpthread"])
        assert linked.returncode == 0, linked.stderr
        try:
            ran = subprocess.run(
                [binary],
                env={"TMPDIR": str(directory)},
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -1, "it does not end"
        return ran.returncode, ran.stdout + ran.stderr


def program_of(built: Extension, directory: Path) -> Program:
    cc = [*built.cc, f"-I{HARNESS}"]
    files = [
        HARNESS / "check.c",
        HERE / "test_rules.c",
        HERE / "test_questions.c",
        HERE / "test_links.c",
    ]
    objects = {name: made for name, made in built.objects.items() if not name.endswith("/_xbb.c")}
    made = compile_all(cc, files, directory)
    return Program(cc, objects | dict(zip(map(key_of, files), made, strict=True)))


@pytest.fixture(scope="module")
def program(plain: Extension, tmp_path_factory: pytest.TempPathFactory) -> Program:
    return program_of(plain, tmp_path_factory.mktemp("rules"))


@pytest.mark.slow
def test_the_rules_are_kept(tmp_path: Path, program: Program) -> None:
    assert program.run(tmp_path) == (0, "")


@pytest.mark.slow
def test_the_rules_are_kept_under_sanitizers(tmp_path: Path, sanitized: Extension) -> None:
    assert program_of(sanitized, tmp_path).run(tmp_path) == (0, "")


HV, DISK = "hv/freebsd.c", "block/disk_freebsd.c"
MUNMAP = """	if (munmap(map->base, (size_t)map->npages * XBB_PAGE_SIZE) != 0)
		return (-errno);
	map->base = NULL;
"""
FORGET = "	return (forget_map(hv, map));\n"

GUARDED = "static const struct xbb_hv_ops freebsd_ops = {\n"
GUARD = """static int
freebsd_guard(struct xbb_hv *hv, const struct xbb_map *map, uint32_t byte)
{
	uint64_t notify[2] = { map->token + byte, 3 | (uint64_t)hv->port << 32 };

	return (ioctl(hv->grant_fd, 0x80104500, notify) == 0 ? 0 : -errno);
}
"""

# What is forgotten: file, what is there, what would be instead, what is said then.
HOST_C, LINK_C = "core/host_freebsd.c", "net/link_freebsd.c"
FORGOTTEN = {
    "tap: it goes down when it is closed": (LINK_C, "(name, IFF_LINK0)", "(name, 0)", "is_up"),
    "tap: flags of which there are two halves": (
        LINK_C,
        "(uint16_t)ifr.ifr_flagshigh << 16",
        "(uint16_t)0 << 16",
        "IFF_PPROMISC",
    ),
    "tap: destroying waits for who has it open": (
        LINK_C,
        "	close(fd);\n	e = xbb_interface_ask",
        "	e = xbb_interface_ask",
        "waits until it is closed",
    ),
    "tap: and if that is somebody else": (
        LINK_C,
        """	if ((fd = open_existing(name)) < 0)
		return (xbb_fail(error, "remove tap", -fd));
	close(fd);
""",
        "	(void)fd;\n",
        "waits until it is closed",
    ),
    "tap: what it is not": (LINK_C, "if_nametoindex(name) != 0 ?", "false ?", "xbb_link_open"),
    "tap: another device of its name": (
        LINK_C,
        "ioctl(fd, TAPGIFNAME, &ifr) != 0 ||\n	    strncmp",
        "strncmp",
        "xbb_link_open",
    ),
    "tap: down, it takes nothing": ("net/wire.c", "(taken > 0)", "(taken >= 0)", "xbb_net_write"),
    "tap: a header of another size": (LINK_C, "size = XBB_NET_LINK_HEADER", "size = 16", "-22"),
    "tap: reading it would wait": (
        LINK_C,
        "open(path, O_RDWR | O_NONBLOCK",
        "open(path, O_RDWR",
        "would wait",
    ),
    "4: a value without its NUL": (
        HOST_C,
        "value, XBB_KERNEL_VALUE - 1)",
        "value, XBB_KERNEL_VALUE)",
        "strlen(value)",
    ),
    "4: a hint that is not set": (
        HOST_C,
        "XBB_KERNEL_VALUE - 1) < 0)\n\t\treturn (-errno);",
        "XBB_KERNEL_VALUE - 1) < 0)\n\t\treturn (0);",
        "xbb_kernel_environment",
    ),
    "process: the clock is set": (
        HOST_C,
        "process->began_ms = now_ms > age_ms ? now_ms - age_ms : 0",
        "process->began_ms = began_ms",
        "began_ms",
    ),
    "process: its age by the clock that nobody sets": (
        HOST_C,
        "milliseconds(CLOCK_REALTIME)",
        "milliseconds(CLOCK_MONOTONIC)",
        "age_ms",
    ),
    "process: pages": (HOST_C, " * (uint64_t)getpagesize() /\n\t    1024", "", "rss_kb"),
    "process: one that has ended": (HOST_C, "ki_stat == SZOMB", "ki_stat == 0", "xbb_process_look"),
    "process: whose socket": (HOST_C, "cr_version != XUCRED", "cr_version == XUCRED", "-22"),
    "1: an index is negative": (HV, "(off_t)map->token)", "(off_t)(uint32_t)map->token)", "-22"),
    "1: an index is used as it came": (
        HV,
        "map->token = call.index",
        "map->token = 0",
        "panic: UNMAP of 0",
    ),
    "1: all pages at once": (
        HV,
        "mmap(NULL, (size_t)map->npages * XBB_PAGE_SIZE",
        "mmap(NULL, XBB_PAGE_SIZE",
        "-22",
    ),
    "1: shared": (HV, "MAP_SHARED", "MAP_PRIVATE", "-13"),
    "1: what is only read is mapped so": (HV, "(writable ? PROT_WRITE : 0)", "PROT_WRITE", "-22"),
    "2: the record of a failed map": (
        HV,
        "error = -errno;\n\t\t(void)forget_map(hv, map);\n",
        "error = -errno;\n",
        "",
    ),
    "1: munmap, then UNMAP": (
        HV,
        MUNMAP + FORGET,
        "\tif (forget_map(hv, map) != 0)\n\t\treturn (-errno);\n" + MUNMAP + "\treturn (0);\n",
        "panic: UNMAP before munmap",
    ),
    "1: no munmap": (HV, MUNMAP + FORGET, FORGET, "panic: UNMAP before munmap"),
    "1: no UNMAP": (HV, MUNMAP + FORGET, MUNMAP + "\treturn (0);\n", "kernel_records"),
    "1: UNMAP by the same count": (
        HV,
        ".count = map->npages,\n\t};\n\n\treturn",
        ".count = 1,\n\t};\n\n\treturn",
        "panic: UNMAP of",
    ),
    "1: UNMAP by the same index": (
        HV,
        ".index = map->token, .count",
        ".index = map->token & 0xffffffff, .count",
        "panic: UNMAP of",
    ),
    "5: NOTIFY of a port that is not ours": (
        HV,
        "if (notify.port == 0)",
        "if (notify.port == 1)",
        "panic: NOTIFY of port 0",
    ),
    "5: UNBIND of a port that is not ours": (
        HV,
        "if (unbind.port != 0)",
        "if (unbind.port != 1)",
        "panic: UNBIND of port 0",
    ),
    "5: the port is in the struct": (HV, "hv->port = bind.port", "hv->port = 1", "readable"),
    "5: no UNBIND": (
        HV,
        "(void)ioctl(hv->event_fd, IOCTL_EVTCHN_UNBIND, &unbind)",
        "(void)0",
        "panic: port 35 is left",
    ),
    "5: two ports": (HV, "if (hv->port != 0)\n\t\terror = -EISCONN;\n\telse if", "if", "EISCONN"),
    "events: EFBIG": (HV, "errno == EFBIG", "errno == EOVERFLOW", "ops->take"),
    "events: RESET": (
        HV,
        "ioctl(hv->event_fd, IOCTL_EVTCHN_RESET) == 0 ? 1",
        "true ? 1",
        "ops->take",
    ),
    "events: written back": (
        HV,
        "write(hv->event_fd, &hv->port",
        "write(hv->event_fd, &hv->domid",
        "readable",
    ),
    "guard: of the first map": (
        HV,
        GUARDED,
        f"{GUARD}{GUARDED}\t.guard = freebsd_guard,\n",
        "ops->guard == NULL",
    ),
    "guard: of another map": (
        HV,
        "map->base = base;\n",
        "map->base = base;\n\tuint64_t notify[2] = { map->token, 1 };\n"
        "\tioctl(hv->grant_fd, 0x80104500, notify);\n",
        "panic: SET_UNMAP_NOTIFY",
    ),
    "7: a flush of the drive": (
        DISK,
        "if (disk_kind == XBB_DISK_DEVICE)\n\t\treturn (ask_device(fd, DIOCGFLUSH, NULL));\n",
        "",
        "panic: fdatasync",
    ),
    "discard: what is left": (DISK, "range = left", "range.r_len = 0", "all_bytes"),
    "discard: interrupted": (
        DISK,
        "&range, 0, &left) != 0 &&\n\t\t    errno != EINTR",
        "&range, 0, &left) != 0",
        "-4",
    ),
    "discard: a part of a page": (
        DISK,
        "if (first >= last)\n\t\treturn (write_zeros(fd, from, to));\n",
        "if (first >= last)\n\t\treturn (make_hole(fd, from, to));\n",
        "panic: fspacectl(2) of 0, 512",
    ),
    "discard: the last page of a file": (
        DISK,
        "last = to / page * page;",
        "last = (to == st.st_size ? to + page - 1 : to) / page * page;",
        "panic: fspacectl(2) of",
    ),
    "discard: nothing before the first page": (
        DISK,
        "error = write_zeros(fd, from, first);",
        "error = 0;",
        "all_bytes",
    ),
    "discard: nothing behind the last page": (
        DISK,
        "error != 0 ? error : write_zeros(fd, last, to)",
        "error",
        "all_bytes",
    ),
    "discard: zeros beyond the end": (
        DISK,
        "if (to > st.st_size)\n\t\tto = st.st_size;\n",
        "",
        "lseek",
    ),
    "discard: zeros instead of a hole": (
        DISK,
        "error = make_hole(fd, first, last)",
        "error = write_zeros(fd, first, last)",
        "SEEK_HOLE",
    ),
    "gone: as a dead vnode says it": (
        DISK,
        "(error == ENOTTY || error == EBADF)",
        "(error == ENOTTY)",
        "-9",
    ),
    "gone: as an unknown ioctl": (
        DISK,
        "(error == ENOTTY || error == EBADF)",
        "(error == EBADF)",
        "-25",
    ),
    "gone: not for want of a call": (
        DISK,
        "ioctl(fd, DIOCGMEDIASIZE, &size) != 0",
        "errno != 0",
        "ENOTTY",
    ),
    "discard: signals": (
        "core/thread.c",
        "sigfillset(&all)",
        "sigemptyset(&all)",
        "panic: signal 1 ",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FORGOTTEN)
def test_forgetting_it_is_noticed(tmp_path: Path, program: Program, what: str) -> None:
    name, old, new, said = FORGOTTEN[what]
    status, words = program.run(tmp_path, changed(tmp_path, name, old, new))
    assert status not in (0, -1), words
    assert said in words


# The same for what the control plane asks the kernel: host/freebsd.py against its tests.

HOST = "xbbd_bsd/host/freebsd.py"
ITS_TESTS = "tests/unit/test_host_freebsd.py"
STATUS = """    try:
        return os.fstat(fd)
    except OSError:
"""

# What is forgotten: what is there, what would be instead, the test that says so.
FORGOTTEN_IN_PYTHON = {
    "discard: where it writes zeros": (
        "writable and _makes_holes(fd)",
        "writable",
        "test_discarding_is_offered_where_it_makes_holes[0-False]",
    ),
    "discard: a name that the kernel does not know": (
        "except OSError:  # also a kernel",
        "except ValueError:  # also a kernel",
        "test_discarding_is_offered_where_it_makes_holes[-22-False]",
    ),
    "discard: of what is only read": (
        "os.O_ACCMODE != os.O_RDONLY",
        "os.O_ACCMODE != os.O_ACCMODE",
        "test_what_is_only_read_cannot_discard",
    ),
    "gone: fstat for what is known": (
        '        try:\n            return _ask(fd, DIOCGMEDIASIZE, "q")\n',
        '        _status(fd)\n        try:\n            return _ask(fd, DIOCGMEDIASIZE, "q")\n',
        "test_an_open_disk_is_not_asked_for_its_kind_again",
    ),
    "gone: fstat fails": (
        STATUS,
        STATUS.replace("OSError", "ValueError"),
        "test_a_disk_that_was_destroyed[disk_size-ENOTTY]",
    ),
    "gone: as a dead vnode says it": (
        "if error.errno == errno.EBADF:",
        "if error.errno == errno.EDOM:",
        "test_a_disk_that_was_destroyed[disk_size-EBADF]",
    ),
    "2: a read of an evtchn waits": (
        "_open(EVTCHN, os.O_RDWR | os.O_NONBLOCK))\n            except",
        "_open(EVTCHN, os.O_RDWR))\n            except",
        "test_a_dom0_where_all_is_well",
    ),
    "4: the kernel's backend is first": (
        'if not _is_set(kernel_environment(hint) or ""):',
        "if kernel_environment(hint) is None:",
        "test_the_kernel_would_take_vbd",
    ),
}


@pytest.fixture(scope="module")
def python_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of package and tests, with this computer's extension."""
    tree = tmp_path_factory.mktemp("python")
    copy_tree(tree)
    shutil.copy(_xbb.__file__, tree / "xbbd_bsd" / "native")
    return tree


@pytest.mark.slow
@pytest.mark.parametrize("what", FORGOTTEN_IN_PYTHON)
def test_forgetting_it_in_python_is_noticed(python_tree: Path, what: str) -> None:
    old, new, test = FORGOTTEN_IN_PYTHON[what]
    text = (HERE.parents[1] / HOST).read_text()
    assert text.count(old) == 1, f"{HOST} has {text.count(old)} of {old!r}"
    (python_tree / HOST).write_text(text.replace(old, new))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-pno:cacheprovider", ITS_TESTS],
        cwd=python_tree,
        env={**os.environ, "PYTHONPATH": str(python_tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert f"FAILED {ITS_TESTS}::{test}" in done.stdout


# Numbers and layouts of freebsd_xen.h.

HEADER = (NATIVE / "hv/freebsd_xen.h").read_text()
ASSERTS = HEADER.index("_Static_assert")


def mistakes() -> dict[str, str]:
    """Headers with one mistake each, by what it is."""
    found = {}
    for match in re.finditer(r"0x[0-9a-f]{8}", HEADER):
        wrong = f"{int(match[0], 16) ^ 1 << 16:#010x}"
        found[f"{match[0]} is {wrong}"] = HEADER[: match.start()] + wrong + HEADER[match.end() :]
    for match in re.finditer(r"\t(uint(?:32|64)_t)\t(\w+);", HEADER):
        other = "uint64_t" if match[1] == "uint32_t" else "uint32_t"
        line = f"{HEADER.count(chr(10), 0, match.start()) + 1}"
        found[f"line {line}: {match[2]} is {other}"] = (
            HEADER[: match.start(1)] + other + HEADER[match.end(1) :]
        )
        if match[2] != "pad":  # those that the compiler would put there itself
            found[f"line {line}: {match[2]} is missing"] = (
                HEADER[: match.start()] + HEADER[match.end() :]
            )
    for match in re.finditer(r"_(IOWR|IOW|IO)\('E', (\d)", HEADER):
        wrong = f"_{match[1]}('E', {int(match[2]) ^ 1}"
        found[f"{match[0]} is {wrong}"] = HEADER[: match.start()] + wrong + HEADER[match.end() :]
    return found


MISTAKES = mistakes()


def compiles(directory: Path, header: str) -> int:
    """The compiler's status for the product's file with this header."""
    (directory / "hv").mkdir()
    (directory / "hv/freebsd_xen.h").write_text(header)
    return call([*compiler(f"-I{directory}"), "-fsyntax-only", NATIVE / HV]).returncode


@pytest.mark.parametrize("what", MISTAKES)
def test_a_wrong_number_or_layout_does_not_compile(tmp_path: Path, what: str) -> None:
    assert compiles(tmp_path, MISTAKES[what]) != 0


def test_the_header_without_a_mistake_compiles(tmp_path: Path) -> None:
    assert len(MISTAKES) > 30
    assert compiles(tmp_path, HEADER) == 0


def test_nothing_of_the_data_plane_asks_kqueue() -> None:
    """4: neither device knows it; and only poll(2) is given their descriptors."""
    for path in NATIVE.glob("*/*.c"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        assert not re.search(r"kqueue|kevent|epoll", text), path.name
