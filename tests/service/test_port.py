"""The ports against the tree: what they build with, install and list.

There is no ports tree here.  A stand-in for bsd.port.mk has bmake read the
Makefiles; the wheel is built as a port builds it, with the setuptools of the
ports tree and nothing from the network (the network is for getting setuptools).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
XBBD = ROOT / "port" / "sysutils" / "xbbd"
PYXS = ROOT / "port" / "devel" / "py-pyxs"
LIBNBD = ROOT / "port" / "devel" / "libnbd"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = "setuptools==63.1.0"

# The handbook's order of blocks; one empty line between two.
BLOCKS = [
    ["PORTNAME", "DISTVERSION", "CATEGORIES", "MASTER_SITES", "PKGNAMEPREFIX"],
    ["MAINTAINER", "COMMENT", "WWW"],
    ["LICENSE", "LICENSE_FILE"],
    ["ONLY_FOR_ARCHS", "ONLY_FOR_ARCHS_REASON", "IGNORE_FreeBSD_13"],
    ["BUILD_DEPENDS", "LIB_DEPENDS", "RUN_DEPENDS"],
    ["USES", "USE_LDCONFIG", "USE_PYTHON", "USE_RC_SUBR"],
    ["GNU_CONFIGURE", "CONFIGURE_ARGS", "MAKE_ARGS"],
    ["PLIST_FILES"],
    ["NO_ARCH"],
]

# What bsd.port.mk would set, and a target that prints a variable.
STAND_IN = """
PREFIX=		/usr/local
PY_FLAVOR=	py311
PYTHON_PKGNAMEPREFIX=	py311-
PYTHONPREFIX_SITELIBDIR=	${PREFIX}/lib/python3.11/site-packages
REINPLACE_CMD=	sed -i.bak
STRIP_CMD=	:
LN=		ln
MKDIR=		mkdir -p
INSTALL_DATA=	install -m 0644
INSTALL_SCRIPT=	install -m 0555
INSTALL_MAN=	install -m 0444
show:
	@echo '${${NAME}}'
"""


def bmake(tmp_path: Path, port: Path, *arguments: str) -> str:
    """What bmake says to a port's Makefile."""
    if shutil.which("bmake") is None:
        pytest.skip("bmake is not installed")
    (tmp_path / "mk").mkdir(exist_ok=True)
    (tmp_path / "mk" / "bsd.port.mk").write_text(STAND_IN)
    (tmp_path / "mk" / "sys.mk").touch()
    command = ["bmake", "-m", str(tmp_path / "mk"), "-f", str(port / "Makefile"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def variable(tmp_path: Path, name: str) -> str:
    """The value of a variable of xbbd's port."""
    return bmake(tmp_path, XBBD, f"NAME={name}", "show").strip()


@pytest.mark.parametrize("port", [XBBD, PYXS, LIBNBD], ids=["xbbd", "py-pyxs", "libnbd"])
def test_the_order_of_blocks(port: Path) -> None:
    whole = (port / "Makefile").read_text()
    assert whole.endswith("\n.include <bsd.port.mk>\n")
    text = re.split("\npost-patch:|\n.include", whole)[0]
    found = []
    for block in text.split("\n\n"):
        names = re.findall(r"^(\w+)=", block, re.M)
        if names:
            found.append(names)
    all_found = {name for names in found for name in names}
    expected = [[name for name in block if name in all_found] for block in BLOCKS]
    assert found == [block for block in expected if block]
    for line in text.splitlines():
        assert re.fullmatch(r"(#.*|\t\t\S.*|\w+=\t+\S.*|)", line), line


def test_version_and_requirements_are_those_of_the_project(tmp_path: Path) -> None:
    project = PROJECT["project"]
    assert variable(tmp_path, "PORTNAME") == project["name"]
    assert variable(tmp_path, "DISTVERSION") == project["version"]
    run = variable(tmp_path, "RUN_DEPENDS")
    build = variable(tmp_path, "BUILD_DEPENDS")
    for requirement in project["dependencies"]:
        name, version = re.split(r"[=>]=", requirement.partition(";")[0])
        assert f"py311-{name}>={version}" in run
    for requirement in PROJECT["build-system"]["requires"]:
        assert f"py311-{requirement}:" in build
    for name in re.findall(r"devel/(py-pyxs)@", run):
        assert (PYXS.parent / name).is_dir()
    assert "pyxs-0.4.1.tar.gz" in (PYXS / "distinfo").read_text()


def test_what_is_installed_is_listed(tmp_path: Path) -> None:
    """The port's own target, run; Python's files are listed by autoplist."""
    stage = tmp_path / "stage"
    work = tmp_path / "work"
    shutil.copytree(ROOT / "etc", work / "etc")
    (work / "man").mkdir()
    for page in pages_listed():  # they are compared with the real ones elsewhere
        (work / "man" / page).touch()
        (stage / "usr/local/share/man" / f"man{page[-1]}").mkdir(parents=True, exist_ok=True)
    bmake(tmp_path, XBBD, f"STAGEDIR={stage}", f"WRKSRC={work}", "post-install")
    installed = {
        str(path.relative_to(stage / "usr/local")) for path in stage.rglob("*") if path.is_file()
    }
    assert {re.sub(r"^(share/man/.*)$", r"\1.gz", path) for path in installed} == {
        line.removeprefix("@sample ") for line in (XBBD / "pkg-plist").read_text().splitlines()
    }
    for script in ("xen/scripts/block-xbbd", "periodic/daily/490.status-xbbd"):
        assert os.access(stage / "usr/local/etc" / script, os.X_OK)


def test_another_prefix_reaches_every_file(tmp_path: Path) -> None:
    work = tmp_path / "work"
    periodic = "etc/periodic/daily/490.status-xbbd"
    for name in ("etc/block-xbbd", "etc/xbbd.conf.sample", "xbbd_bsd/conffile.py", periodic):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, work / name)
    bmake(tmp_path, XBBD, f"WRKSRC={work}", "PREFIX=/opt", "post-patch")
    assert (
        'CONFIG_FILE: Final = "/opt/etc/xbbd.conf"' in (work / "xbbd_bsd/conffile.py").read_text()
    )
    assert "/opt/etc/xbbd.conf" in (work / "etc/xbbd.conf.sample").read_text()
    assert "/opt/sbin:" in (work / "etc/block-xbbd").read_text()
    assert "xbbctl=/opt/bin/xbbctl\n" in (work / periodic).read_text()


def pages_listed() -> set[str]:
    """The manual pages that the package has."""
    plist = (XBBD / "pkg-plist").read_text()
    return set(re.findall(r"^share/man/man\d/(.*)\.gz$", plist, re.M))


def test_the_manual_pages_are_all_listed() -> None:
    assert pages_listed() == {path.name for path in (ROOT / "man").glob("*.[0-9]")}


def test_description_and_comment() -> None:
    for port in (XBBD, PYXS):
        assert max(map(len, (port / "pkg-descr").read_text().splitlines())) <= 80
        (comment,) = re.findall(r"^COMMENT=\t(.*)$", (port / "Makefile").read_text(), re.M)
        assert len(comment) <= 70
        assert not comment.endswith(".")


def pip(python: Path | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_the_wheel_is_built_with_what_the_ports_tree_has(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    if importlib.util.find_spec("ensurepip") is None:
        pytest.skip("this Python makes no environments with pip in them: it has no ensurepip")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    got = pip(python, "install", SETUPTOOLS, "wheel", "cffi>=1.15")
    if got.returncode != 0:
        pytest.skip(f"{SETUPTOOLS} is not to be had: {got.stderr.strip()[-200:]}")
    tree = tmp_path / "tree"
    ignore = shutil.ignore_patterns(".*", "*.so", "_xbb.c", "__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT, tree, ignore=ignore)
    built = pip(
        python, "wheel", "--no-build-isolation", "--no-deps", "--no-index",
        "-w", str(tmp_path / "dist"), str(tree),
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (tmp_path / "dist").glob("xbbd-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (scripts,) = (name for name in names if name.endswith("/entry_points.txt"))
        text = archive.read(scripts).decode()
    # The port strips this very file.
    assert "xbbd_bsd/native/_xbb.abi3.so" in names
    assert "xbbd_bsd/py.typed" in names
    assert "xbbd_bsd/native/xbb.h" in names
    ours = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "xbbd_bsd").rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    assert ours <= names
    assert not [name for name in names if name.startswith(("tests/", "build/"))]
    for script, function in PROJECT["project"]["scripts"].items():
        assert f"{script} = {function}\n" in f"{text}\n"
