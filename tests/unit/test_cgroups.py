"""Control groups of guests' processes, below a directory that a test has for all groups.

What the kernel does there is played: which files a group has, who may be in one, and
which cannot be taken away.
"""

import os
import shutil
from errno import EBUSY, EINVAL, ENOENT, ESRCH
from pathlib import Path

import pytest

from xbbd_bsd.errors import HostError, OperatorError
from xbbd_bsd.host import cgroups
from xbbd_bsd.host.cgroups import Cgroups, mounted_at

UNIT = "/system.slice/xbbd.service"
PARENT, SERVER, GUEST, STRANGER = 11, 12, 13, 14
DAEMON = b"python\0-m\0xbbd_bsd.daemon\0"
COMMANDS = {
    PARENT: DAEMON,
    os.getpid(): DAEMON,
    SERVER: b"xbbd: guests\0\0\0",
    GUEST: b"xbbd: guest web\0\0",
    STRANGER: b"-bash\0",
}


class Kernel:
    """Groups below a directory, and who is in them."""

    def __init__(self, directory: Path, *, controllers: str = "cpu memory") -> None:
        self.mount = directory / "cgroup"
        self.proc = directory / "proc"
        self.mount.mkdir()
        (self.mount / "cgroup.controllers").write_text(controllers)
        for name in ("cgroup.procs", "cgroup.subtree_control"):
            (self.mount / name).touch()
        self.where: dict[int, Path] = {}
        self.moves = 0
        self.comes: list[int] = []  # who is started in our group while others are moved

    def group(self, name: str, *, subtree: str = "cpu memory") -> Path:
        """A group with all above it, which hand on some controllers."""
        path = self.mount
        for part in name.strip("/").split("/"):
            (path / "cgroup.subtree_control").write_text(subtree)
            path /= part
            self.make(path)
        return path

    def enter(self, pid: int, group: Path) -> None:
        self.where[pid] = group
        (self.proc / str(pid)).mkdir(parents=True, exist_ok=True)
        text = f"4:cpu:/elsewhere\n0::/{group.relative_to(self.mount)}\n".replace("/.\n", "/\n")
        (self.proc / str(pid) / "cgroup").write_text(text)
        (self.proc / str(pid) / "cmdline").write_bytes(COMMANDS.get(pid, b""))
        for path in {*self.where.values(), *self.mount.rglob("*")}:
            if path.is_dir():
                inside = (str(pid) for pid, there in self.where.items() if there == path)
                (path / "cgroup.procs").write_text("\n".join(inside))

    def leave(self, pid: int) -> None:
        group = self.where.pop(pid)
        text = (group / "cgroup.procs").read_text().split()
        (group / "cgroup.procs").write_text("\n".join(word for word in text if word != str(pid)))

    def make(self, group: Path) -> None:
        if group.exists():
            return
        handed = (group.parent / "cgroup.subtree_control").read_text().replace("+", "")
        group.mkdir()
        (group / "cgroup.controllers").write_text(handed)
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.type"):
            (group / name).touch()
        if "cpu" in handed:
            (group / "cpu.max").write_text("max 100000")

    def remove(self, group: Path) -> None:
        if group in self.where.values() or any(path.is_dir() for path in group.iterdir()):
            raise OSError(EBUSY, "Device or resource busy")
        shutil.rmtree(group)

    def put(self, file: Path, text: str) -> None:
        assert file.exists(), file
        if file.name == "cgroup.subtree_control":
            inner = (file.parent / "cgroup.type").exists()
            if inner and file.parent in self.where.values():
                raise OSError(EBUSY, "Device or resource busy", str(file))
            if text.strip("+") not in (file.parent / "cgroup.controllers").read_text():
                raise OSError(ENOENT, "No such file or directory", str(file))
        if file.name == "cgroup.procs":
            if int(text) not in self.where:
                raise OSError(ESRCH, "No such process")
            if "cpu" in (file.parent / "cgroup.subtree_control").read_text():
                raise OSError(EBUSY, "Device or resource busy", str(file))
            home = self.where[int(text)]
            self.enter(int(text), file.parent)
            self.moves += 1
            if self.comes:
                self.enter(self.comes.pop(), home)
            return
        file.write_text(text.strip("+"))


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(tmp_path)
    for name in ("make", "remove", "put"):
        monkeypatch.setattr(cgroups, f"_{name}", getattr(made, name))
    return made


def ours(kernel: Kernel) -> Cgroups:
    return Cgroups(str(kernel.mount), str(kernel.proc))


@pytest.fixture
def unit(kernel: Kernel) -> Path:
    """That of a service which has just been started, by a process that waits for it."""
    path = kernel.group(UNIT)
    for pid in (PARENT, os.getpid()):
        kernel.enter(pid, path)
    kernel.enter(STRANGER, kernel.group("/user.slice"))
    return path


def groups_in(path: Path) -> set[str]:
    return {found.name for found in path.iterdir() if found.is_dir()}


def test_each_guest_has_a_group_with_its_limit(kernel: Kernel, unit: Path) -> None:
    groups = ours(kernel)
    groups.check(os.getpid())
    assert kernel.moves == 0, "it only looks"
    groups.prepare(50)
    assert kernel.where == {
        PARENT: unit / "xbbd-daemon",
        os.getpid(): unit / "xbbd-daemon",
        STRANGER: kernel.mount / "user.slice",
    }
    assert (unit / "cgroup.subtree_control").read_text() == "cpu"
    seven, eight = groups.place(7, 150), groups.place(8, 1)
    assert seven is not None
    assert eight is not None
    assert (unit / "guest.7" / "cpu.max").read_text() == "150000 100000"
    assert (unit / "guest.8" / "cpu.max").read_text() == "1000 100000"
    os.write(seven.fileno(), b"0")
    assert (unit / "guest.7" / "cgroup.procs").read_text() == "0"
    seven.close()
    eight.close()
    kernel.enter(70, unit / "guest.7")
    kernel.enter(80, unit / "guest.8")
    kernel.leave(70)
    seven.remove()
    assert groups_in(unit) == {"xbbd-daemon", "guest.8"}
    eight.remove()
    assert groups_in(unit) == {"xbbd-daemon", "guest.8"}, "somebody is there all the same"
    kernel.leave(80)
    again = groups.place(7, 60)
    assert again is not None
    again.close()
    assert groups_in(unit) == {"xbbd-daemon", "guest.7"}, "and is taken away later"
    assert (unit / "guest.7" / "cpu.max").read_text() == "60000 100000"


def test_without_a_limit_nothing_is_done(kernel: Kernel, unit: Path) -> None:
    groups = ours(kernel)
    groups.prepare(0)
    assert groups.place(7, 0) is None
    assert kernel.moves == 0
    assert groups_in(unit) == set()
    Cgroups(None).prepare(0)
    assert Cgroups(None).place(7, 0) is None


def test_a_limit_that_comes_later(kernel: Kernel, unit: Path) -> None:
    """By then there are others of ours: the server, and processes without a limit."""
    groups = ours(kernel)
    groups.prepare(0)
    kernel.leave(PARENT)
    for pid in (SERVER, GUEST):
        kernel.enter(pid, unit)
    place = groups.place(7, 50)
    assert place is not None
    place.close()
    assert {kernel.where[pid] for pid in (SERVER, GUEST, os.getpid())} == {unit / "xbbd-daemon"}
    assert groups_in(unit) == {"xbbd-daemon", "guest.7"}


def test_others_are_started_where_we_were(kernel: Kernel, unit: Path) -> None:
    kernel.comes = [21, 22]
    ours(kernel).prepare(50)
    assert {kernel.where[pid] for pid in (PARENT, os.getpid(), 21, 22)} == {unit / "xbbd-daemon"}
    assert (unit / "cgroup.subtree_control").read_text() == "cpu"


def test_they_do_not_stop(kernel: Kernel, unit: Path) -> None:
    kernel.comes = list(range(100, 200))
    with pytest.raises(HostError, match=r"^no limit of processor time: .*subtree_control: Device"):
        ours(kernel).prepare(50)
    assert kernel.moves < 50


def test_one_that_has_just_ended_is_not_moved(
    kernel: Kernel, unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(file: Path, text: str) -> None:
        if text == str(PARENT) and PARENT in kernel.where:
            kernel.leave(PARENT)
        kernel.put(file, text)

    monkeypatch.setattr(cgroups, "_put", put)
    ours(kernel).prepare(50)
    assert kernel.where[os.getpid()] == unit / "xbbd-daemon"


def test_in_the_root_nobody_is_moved(kernel: Kernel) -> None:
    for pid in (1, os.getpid()):
        kernel.enter(pid, kernel.mount)
    groups = ours(kernel)
    groups.prepare(50)
    place = groups.place(7, 50)
    assert place is not None
    place.close()
    assert kernel.moves == 0
    assert groups_in(kernel.mount) == {"xbbd"}
    assert groups_in(kernel.mount / "xbbd") == {"guest.7"}
    assert (kernel.mount / "xbbd" / "guest.7" / "cpu.max").read_text() == "50000 100000"
    place.remove()
    (kernel.mount / "guest.1").mkdir()
    kernel.make(kernel.mount / "xbbd" / "guest.9")
    ours(kernel).prepare(0)
    assert groups_in(kernel.mount / "xbbd") == set()
    assert groups_in(kernel.mount) == {"xbbd", "guest.1"}


def test_a_container_has_a_root_of_its_own(kernel: Kernel) -> None:
    (kernel.mount / "cgroup.type").touch()
    for pid in (1, os.getpid()):
        kernel.enter(pid, kernel.mount)
    place = ours(kernel).place(7, 50)
    assert place is not None
    place.close()
    assert kernel.where[1] == kernel.where[os.getpid()] == kernel.mount / "xbbd-daemon"
    assert groups_in(kernel.mount) == {"xbbd-daemon", "guest.7"}


def test_the_next_daemon_takes_away_what_is_left(kernel: Kernel, unit: Path) -> None:
    first = ours(kernel)
    first.prepare(50)
    for domid in (7, 8):
        place = first.place(domid, 50)
        assert place is not None
        place.close()
    kernel.enter(80, unit / "guest.8")
    for name in ("guest.x", "mine", "guest.7.1"):
        kernel.make(unit / name)
    left = {"xbbd-daemon", "guest.8", "guest.x", "mine", "guest.7.1"}
    for percent in (0, 50):
        kernel.make(unit / "guest.7")
        ours(kernel).prepare(percent)
        assert groups_in(unit) == left


def test_what_is_no_group_of_ours_stays(kernel: Kernel, unit: Path) -> None:
    kernel.make(unit / "guest.7")
    ours(kernel).prepare(0)
    assert groups_in(unit) == {"guest.7"}


def test_a_place_that_is_not_taken_yet_is_not_swept(kernel: Kernel, unit: Path) -> None:
    groups = ours(kernel)
    for domid in (7, 8):
        place = groups.place(domid, 50)
        assert place is not None
        place.close()
    assert groups_in(unit) == {"xbbd-daemon", "guest.7", "guest.8"}


# What is refused.


def test_no_groups_at_all() -> None:
    for pid in (None, os.getpid()):
        with pytest.raises(OperatorError, match=r"^no control groups of version 2"):
            Cgroups(None).check(pid)
    with pytest.raises(OperatorError, match="no control groups of version 2"):
        Cgroups(None).prepare(50)
    with pytest.raises(HostError, match=r"^no limit of processor time: no control groups"):
        Cgroups(None).place(7, 50)


def test_no_controller(kernel: Kernel) -> None:
    kernel.enter(os.getpid(), kernel.group(UNIT, subtree="memory"))
    groups = ours(kernel)
    groups.check(None)
    said = f"^control group {UNIT} has no controller cpu; systemd gives it by Delegate=cpu$"
    for attempt in (groups.check, lambda _: groups.prepare(50)):
        with pytest.raises(OperatorError, match=said):
            attempt(os.getpid())
    with pytest.raises(HostError, match="has no controller cpu"):
        groups.place(7, 50)
    assert kernel.moves == 0
    (kernel.mount / "cgroup.controllers").write_text("memory")
    with pytest.raises(OperatorError, match=r"^control groups of version 2 have no"):
        groups.check(None)


def test_a_running_daemon_is_looked_at_from_elsewhere(kernel: Kernel, unit: Path) -> None:
    """xbbd -t is not where the daemon is."""
    kernel.enter(os.getpid(), kernel.group("/user.slice/session", subtree="memory"))
    groups = ours(kernel)
    groups.check(PARENT)
    kernel.enter(SERVER, kernel.mount / "user.slice/session")
    with pytest.raises(OperatorError, match=r"/user\.slice/session has no controller"):
        groups.check(SERVER)
    with pytest.raises(OperatorError, match=r"^process 99: no control group: No such file"):
        groups.check(99)


@pytest.mark.parametrize("text", ["", "1:name=systemd:/x\n", "0::/../x\n", "0::/x (deleted)\n"])
def test_a_group_that_is_not_seen(kernel: Kernel, unit: Path, text: str) -> None:
    (kernel.proc / str(os.getpid()) / "cgroup").write_text(text)
    with pytest.raises(OperatorError, match=r"is in no control group that is seen here$"):
        ours(kernel).check(os.getpid())
    ours(kernel).prepare(0)


def test_a_group_in_which_others_are(kernel: Kernel, unit: Path) -> None:
    """As the shell of somebody who starts it by hand, and who would be moved."""
    kernel.enter(STRANGER, unit)
    said = rf"^control group {UNIT} is not for xbbd alone: process {STRANGER} \(-bash\) is in it$"
    groups = ours(kernel)
    for attempt in (groups.check, lambda _: groups.prepare(50)):
        with pytest.raises(OperatorError, match=said):
            attempt(os.getpid())
    with pytest.raises(OperatorError, match=said):
        groups.check(PARENT)
    with pytest.raises(HostError, match="not for xbbd alone"):
        groups.place(7, 50)
    groups.check(None)
    assert kernel.moves == 0
    shutil.rmtree(kernel.proc / str(STRANGER))
    groups.check(os.getpid())


def test_a_group_that_is_not_ours_to_change(
    kernel: Kernel, unit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OperatorError, match=f"^control group {UNIT} may not be changed by us$"):
        ours(kernel).prepare(50)
    ours(kernel).check(PARENT)


def test_what_fails_is_said(kernel: Kernel, unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = ours(kernel)
    groups.prepare(50)

    def put(file: Path, text: str) -> None:
        raise OSError(EINVAL, "Invalid argument", str(file))

    monkeypatch.setattr(cgroups, "_put", put)
    with pytest.raises(HostError, match=r"guest\.7/cpu\.max: Invalid argument$") as failed:
        groups.place(7, 50)
    assert failed.value.errno == EINVAL


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    cgroups._put(tmp_path / "x", "50")
    assert (tmp_path / "x").read_text() == "50"
    for path, words in (("/dev/full", "No space left"), (str(tmp_path / "y"), "No such file")):
        with pytest.raises(OSError, match=words) as failed:
            cgroups._put(Path(path), "x")
        assert failed.value.filename == path


# Where they are.


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("", None),
        ("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n", None),
        ("32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n", None),
        ("41 31 0:38 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"),
        (
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
            "40 31 0:38 /a/b /mnt rw - cgroup2 cgroup2 rw\n"
            "41 31 0:38 / /sys/fs/c\\040g rw - cgroup2 cgroup2 rw\n",
            "/sys/fs/c g",
        ),
    ],
)
def test_where_groups_are(tmp_path: Path, text: str, mount: str | None) -> None:
    (tmp_path / "mountinfo").write_text(text)
    assert mounted_at(str(tmp_path / "mountinfo")) == mount
    assert mounted_at(str(tmp_path / "none")) is None
