"""What comments and documents name exists: files, functions, manual pages, dependencies.

Names of files of other projects are listed here, so that a name of ours that has gone
is told from one of theirs.  Reads the files that git knows.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from xbbd_bsd import daemon, xbbctl, xbbstat

ROOT = Path(__file__).parent.parent
NATIVE = ROOT / "xbbd_bsd" / "native"

# Of FreeBSD, Linux, Xen and other systems, by the last part of their path.
FOREIGN = {
    # Xen's public headers and libraries
    *("blkif.h", "event_channel.h", "evtchn.h", "gntalloc.h", "gntdev.h", "grant_table.h"),
    *("libxl_create.c", "libxl_device.c", "libxl_disk.c", "libxl_freebsd.c"),
    *("libxl_internal.h", "libxl_linux.c", "libxl_nic.c", "protocols.h", "ring.h", "xen.h"),
    *("vif-common.sh", "xenbus.h", "xenstored_core.c", "xs_wire.h"),
    # FreeBSD
    *("blkback.c", "dead_vnops.c", "devicestat.h", "evtchn_dev.c", "geom_dev.c"),
    "netback.c",
    *(
        "kern_environment.c",
        "kern_proc.c",
        "uipc_syscalls.c",
        "netback.c",
        "subr_bus.c",
        "subr_devstat.c",
        "sysctl.c",
        "vm_fault.c",
    ),
    *("procstat_threads.c", "uipc_usrreq.c", "xenbusb.c", "xenbusb_back.c"),
    # Frontends of several systems
    *("blkfront.c", "frontend.c", "pvblock.c", "xbd_xenbus.c", "xbf.c"),
    *("BlockFront.c", "src/xenvbd/ring.c", "xen-blkfront.c", "xendisk.c"),
    # Linux
    *("asm-generic/fcntl.h", "cdrom.h", "fs.h", "loop.h", "magic.h", "sched.h", "xenbus.c"),
    # QEMU
    *("block-common.h", "file-posix.c", "xen-bus.c"),
    # C libraries and compilers
    *("Python.h", "sdt.h", "socket.h", "stdatomic.h", "stddef.h", "ucred.h", "un.h", "unistd.h"),
}
MADE = {"_xbb.c", "job.sh"}  # by the build; by the lab, for its dom0
# They make files of any name to work on.
INVENTORS = {
    *("tests/c/test_native.py", "tests/freebsd/cross.py", "tests/test_statements.py"),
    "tests/unit/test_mutants.py",
}

FILE = re.compile(
    r"(?<![\w./*{}<$-])((?:[\w.-]+/)*\w[\w-]*\.(?:c|h|py|md|sh|toml|tsv))\b(?![\w/(.])"
)


def tracked() -> list[Path]:
    """The text files of the project."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no clone of the repository")
    paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def words_of(path: Path) -> str:
    """A file without what its preprocessor reads, which the compiler checks."""
    text = path.read_text()
    if path.suffix in (".c", ".h"):
        text = re.sub(r"^#\s*include .*$", "", text, flags=re.M)
    return re.sub(r"https?://\S+", "", text)


def named_files(path: Path) -> Iterator[str]:
    for match in FILE.finditer(words_of(path)):
        yield match[1].removeprefix("./")


def test_files_that_are_named_exist() -> None:
    files = {str(path.relative_to(ROOT)) for path in tracked()}
    ends = {"/".join(file.split("/")[-n:]) for file in files for n in range(1, 9)}
    missing = {
        (str(path.relative_to(ROOT)), name)
        for path in tracked()
        for name in named_files(path)
        if name not in ends and not {name, name.rpartition("/")[2]} & (FOREIGN | MADE)
    }
    assert {(file, name) for file, name in missing if file not in INVENTORS} == set()


def test_a_file_that_is_not_there_would_be_found(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text('#include "gone.h"\n/* Batches; see transfer.c, and (native/old.c). */\n')
    assert list(named_files(source)) == ["transfer.c", "native/old.c"]


def test_no_foreign_name_is_one_of_ours() -> None:
    ours = [path for path in tracked() if "shim" not in path.parts]  # stands for foreign ones
    assert {path.name for path in ours} & FOREIGN == set()


HEADERS = [
    "guest/guest.h",
    "hv/hv.h",
    "core/core.h",
    "core/persist.h",
    "block/batch.h",
    "block/slots.h",
    "block/block.h",
    "block/verdict.h",
    "net/interface.h",
]


@pytest.mark.parametrize("header", HEADERS)
def test_functions_are_declared_under_the_file_that_has_them(header: str) -> None:
    text = (NATIVE / header).read_text()
    pieces = re.split(r"^/\*\s+(?:\* )?(\w+\.c)\b", text, flags=re.M)
    for file, declared in zip(pieces[1::2], pieces[2::2], strict=True):
        source = (NATIVE / header).parent / file
        for name in re.findall(r"^\w[\w ]*[\t *]+(xbb_\w+)\([^;{]*\);", declared, re.M):
            assert re.search(rf"^{name}\(", source.read_text(), re.M), (file, name)
    assert len(re.findall(r"^\w[\w ]*[\t *]+xbb_\w+\([^;{]*\);", text, re.M)) >= 1


def test_functions_that_documents_name_exist() -> None:
    """`function()`, in the file before it if there is one on its line."""
    everything = "\n".join(
        path.read_text() for path in tracked() if path.suffix in (".c", ".h", ".py", ".sh", "")
    )
    for document in ROOT.glob("*.md"):
        for line in document.read_text().splitlines():
            for part in re.split(r";|\|", line):
                file = re.search(r"`((?:\w+/)+\w+\.\w+)`", part)
                for name in re.findall(r"`(?:\w+\.)*(\w+)\(\)`", part):
                    assert re.search(rf"\b{name}\(", everything), (document.name, name)
                    if file is not None:
                        base = ROOT if file[1].startswith("tests/") else ROOT / "xbbd_bsd"
                        text = (base / file[1]).read_text()
                        assert re.search(rf"\b{name}\(", text), (file[1], name)


def test_pages_that_are_named_exist() -> None:
    """xbbd.conf(5) and so on, in comments, messages and documents."""
    pages = {(path.stem, path.suffix[1:]) for path in (ROOT / "man").glob("*.[0-9]")}
    for path in tracked():
        text = path.read_text()
        for name, number in re.findall(r"\b(xbb[a-z]+(?:[.-][a-z]+)?)\((\d)\)", text):
            assert (name, number) in pages, f"{path.relative_to(ROOT)}: {name}({number})"


def quoted_commands() -> Iterator[tuple[str, str]]:
    """xbbctl, xbbd and xbbstat with words, inside a sentence: document, and what is quoted.

    Not of what has been, in CHANGELOG.
    """
    documents = [ROOT / "README.md", ROOT / "HACKING.md", *(ROOT / "man").glob("*.[0-9]")]
    for path in documents:
        pattern = r"`(xbb\w+ [^`]+)`" if path.suffix == ".md" else r"^\.Ql (xbb\w+ .*)$"
        for text in re.findall(pattern, path.read_text(), re.M):
            yield path.name, text.replace("\n", " ")
        for verb in re.findall(r"^\.Xr xbbctl 8\n\.Cm (\S+)", path.read_text(), re.M):
            yield path.name, f"xbbctl {verb}"


def test_commands_that_sentences_quote_are_understood() -> None:
    """Verbs, names and options; operands may be left out where a verb is only named."""
    seen = 0
    for document, text in quoted_commands():
        command, *words = re.split(r"[ ;]+", re.sub(r"[,.:)]* ?[,.:)]*$", "", text))
        options = {word.partition("=")[0] for word in words if re.match(r"-[a-zA-Z-]", word)}
        parser = {"xbbctl": xbbctl._parser, "xbbd": daemon._parser, "xbbstat": xbbstat._parser}
        known = parser[command]()._option_string_actions.keys()
        if command == "xbbctl":
            first = xbbctl._first_word(words)
            if first in xbbctl.VERBS:
                known = xbbctl.verb_parsers()[first]._option_string_actions.keys()
            else:
                assert not first or re.match(r"(?:dev\.(?:xbbd|xnb)|hw\.xbbd)\b", first), (
                    document,
                    text,
                )
        letters = {f"-{letter}" for word in options if word[:2] != "--" for letter in word[1:]}
        assert {word for word in options if word[:2] == "--"} | letters <= known, (document, text)
        seen += 1
    assert seen > 20


def test_hacking_has_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "HACKING.md").read_text().partition("\n## Dependencies\n")[2]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", text.partition("\n## ")[0], re.M)
    named = {word for row in rows for word in re.findall(r"[\w-]+", row.replace("_", "-"))}
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    for requirement in wanted:
        name = re.match(r"[\w-]+", requirement)
        assert name is not None
        if name[0] != "xbbd":
            assert name[0].replace("_", "-") in named, requirement


def test_the_makefile_and_the_readme_agree_on_times() -> None:
    """How long make test takes: said in two places, once."""
    said = {
        re.search(rf"make test\b.*?({time})", (ROOT / name).read_text(), re.S)
        for name, time in (("Makefile", r"\d+ minutes"), ("README.md", r"\d+ minutes"))
    }
    assert None not in said
    assert len({match[1] for match in said if match is not None}) == 1
