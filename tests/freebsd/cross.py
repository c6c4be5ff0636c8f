"""Compiles and links the data plane for FreeBSD, wherever we are: part of ``make lint``.

For each target all C files as FreeBSD builds them become one library in which
nothing may be undefined, and with what cffi generates one module in which only
Python's own symbols are.  For the newest, the tests in C are compiled too, and what
they share is linked.  Headers of the compiler (the wheel ziglang) are of the newest
FreeBSD whatever the target; the linker knows what each version's libc has.  Python's
headers are this computer's: they prove types and names, not a module for some
FreeBSD's Python.

What Python hard-codes of FreeBSD's headers is compared with them too.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.c.test_native import CFLAGS as TEST_CFLAGS
from tests.c.test_native import files, is_program
from xbbd_bsd.host import freebsd
from xbbd_bsd.native.build import CFLAGS, ffibuilder, sources

ROOT = Path(__file__).parents[2]
TARGETS = tuple(
    f"{machine}-freebsd.{version}-none"
    for machine in ("x86_64", "aarch64")
    for version in ("14.0", "15.0")
)
# The compiler would link its sanitizer's runtime otherwise.
PLAIN = "-fno-sanitize=undefined"
FLAGS = (*CFLAGS, "-Werror", PLAIN, "-fPIC", "-shared")


class CrossError(Exception):
    """What the compiler, the linker or the symbol table has to say."""


def run(command: list[str]) -> str:
    """The command's output; CrossError with all it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode != 0:
        raise CrossError(done.stderr + done.stdout)
    return done.stdout


def hard_coded() -> str:
    """A C file that compiles if Python's numbers are those of FreeBSD's headers."""
    numbers = {
        name: value
        for name, value in vars(freebsd).items()
        if name.startswith("DIOC") and isinstance(value, int)
    }
    assert len(numbers) >= 4, "host/freebsd.py has other names now"
    lines = [f'_Static_assert({name} == {value}, "{name}");' for name, value in numbers.items()]
    lines.append(f'_Static_assert(_PC_DEALLOC_PRESENT == {freebsd.PC_DEALLOC_PRESENT}, "_PC");')
    attribute = freebsd._ATTRIBUTE.size
    lines.append(f"_Static_assert(sizeof(struct diocgattr_arg) == {attribute}")
    lines.append('    && offsetof(struct diocgattr_arg, value) == 72, "diocgattr_arg");')
    return "\n".join(
        ["#include <sys/disk.h>", "#include <stddef.h>", "#include <unistd.h>", *lines, ""]
    )


def undefined(library: Path) -> list[str]:
    """What a module lacks that neither FreeBSD's libc (with a version) nor Python has."""
    table = run(["readelf", "-W", "--dyn-syms", str(library)])
    names = re.findall(r"\bUND +(\S+)", table)
    assert any("@FBSD" in name for name in names), f"no libc in {names}"
    return [name for name in names if "@" not in name and not re.match("_?Py", name)]


def check(target: str, directory: Path) -> None:
    """CrossError if the data plane is nothing for that target."""
    module, constants = directory / "_xbb.c", directory / "hard_coded.c"
    with contextlib.redirect_stdout(io.StringIO()):  # it says what it generates
        ffibuilder.emit_c_code(str(module))
    constants.write_text(hard_coded())
    cc = [sys.executable, "-m", "ziglang", "cc", "-target", target, *FLAGS, "-Ixbbd_bsd/native"]
    cc.append(f"-I{sysconfig.get_paths()['include']}")
    files = sources("freebsd")
    library = directory / "library.so"
    run([*cc, "-Wl,-z,defs", "-o", str(library), *files, str(constants), "-lpthread"])
    run([*cc, "-o", str(library), *files, str(module), "-lpthread"])
    lacking = undefined(library)
    if lacking:
        raise CrossError(f"undefined: {' '.join(lacking)}\n")


def check_tests(target: str, directory: Path) -> None:
    """CrossError if the programs of tests/c are nothing for that target.

    Its linker cannot wrap, so that what is wrapped is still undefined then.
    """
    cc = [sys.executable, "-m", "ziglang", "cc", "-target", target, *TEST_CFLAGS, PLAIN, "-fPIC"]
    cc += ["-O0", "-Ixbbd_bsd/native", "-Itests/c"]
    paths = [*map(Path, sources("freebsd")), *files(ROOT / "tests/c", "freebsd")]
    objects = {path: directory / f"{number}.o" for number, path in enumerate(paths)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda made: run([*cc, "-c", "-o", *map(str, made[::-1])]), objects.items()))
    shared = [str(made) for path, made in objects.items() if not is_program(path)]
    library = directory / "library.so"
    run([*cc, "-shared", "-o", str(library), *shared, "-lpthread"])
    lacking = [name for name in undefined(library) if not name.startswith("__real_")]
    if lacking:
        raise CrossError(f"undefined: {' '.join(lacking)}\n")


def main() -> int:
    """The command; its exit status."""
    if sys.platform.startswith("freebsd"):
        return 0  # where the build itself is the check
    if importlib.util.find_spec("ziglang") is None:
        print("cross: the wheel ziglang is missing (pip install .[lint])", file=sys.stderr)
        return 1
    for target in TARGETS:
        try:
            with tempfile.TemporaryDirectory() as directory:
                check(target, Path(directory))
        except CrossError as error:
            print(f"cross: {target}:\n{error}", file=sys.stderr)
            return 1
        print(f"cross: {target}: compiles and links")
    try:
        with tempfile.TemporaryDirectory() as directory:
            check_tests(TARGETS[1], Path(directory))
    except CrossError as error:
        print(f"cross: tests/c for {TARGETS[1]}:\n{error}", file=sys.stderr)
        return 1
    print(f"cross: {TARGETS[1]}: so do the tests in C")
    return 0


if __name__ == "__main__":
    sys.exit(main())
