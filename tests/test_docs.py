"""Documents against the program: they must not drift apart."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from tests.lab.figures import RECORD
from xbbd_bsd.config import RANGES, SECTIONS, Config, DaemonConfig, Override
from xbbd_bsd.conftext import parse
from xbbd_bsd.host.choice import run_directory
from xbbd_bsd.sim.__main__ import _parser
from xbbd_bsd.xbbctl import VERBS
from xbbd_bsd.xenbus.states import draw

ROOT = Path(__file__).parent.parent


SAMPLE = (ROOT / "etc" / "xbbd.conf.sample").read_text()


def test_the_sample_configuration_changes_nothing() -> None:
    assert parse(SAMPLE, "sample") == Config()
    assert re.search(r"^\w+ =", SAMPLE, re.M) is None


def test_the_sample_configuration_has_every_key_with_its_default() -> None:
    """Or, where it has none, with an example."""
    bare = re.sub(r"^#(?=\w+ = |\[\[)", "", SAMPLE, flags=re.M)
    state_dir = run_directory(None)
    shown = DaemonConfig(
        state_dir=state_dir,
        pidfile=f"{state_dir}/xbbd.pid",
        group="operator",
        metrics="127.0.0.1:9531",
    )
    example = Override("/dev/zvol/*", "web1", "xvda", (("flush_interval", 8),))
    assert parse(bare, "sample") == Config(shown, overrides=(example,))
    document = tomllib.loads(bare)
    for name, section in SECTIONS.items():
        assert set(document[name]) == {key.name for key in fields(section)}


def test_the_sample_configuration_explains_every_key() -> None:
    """With a comment above it, and the values that are allowed."""
    explained = dict(re.findall(r"((?:^# .*\n)+)#(\w+) = ", SAMPLE, re.M))
    comments = {key: comment.replace("\n#", "") for comment, key in explained.items()}
    for section in SECTIONS.values():
        for key in fields(section):
            assert len(comments[key.name]) > 20, key.name
    for name, (low, high) in RANGES.items():
        if name == "max_indirect_segments":
            low = 11
        assert f"{low} to {high}" in comments[name], name


def test_the_log_that_is_rotated_is_the_one_that_is_written() -> None:
    """The script gives xbbd's words to syslogd under a name, which has a file for it."""
    rotated = (ROOT / "etc/newsyslog.conf.d/xbbd.conf").read_text().splitlines()[-1].split()
    assert rotated == ["/var/log/xbbd.log", "640", "7", "1000", "*", "JC"]
    lines = (ROOT / "etc/syslog.d/xbbd.conf").read_text().splitlines()
    assert [line.split() for line in lines[-3:]] == [["!xbbd"], ["*.*", rotated[0]], ["!*"]]
    script = (ROOT / "rc.d/xbbd").read_text()
    assert re.search(r" -T \$name ", script)
    assert 'name="xbbd"' in script


def test_hacking_shows_the_table_of_joint_states() -> None:
    assert draw() in (ROOT / "HACKING.md").read_text(), "paste xenbus.states.draw() into HACKING.md"


def test_every_file_that_hacking_names_exists() -> None:
    text = (ROOT / "HACKING.md").read_text()
    for name in re.findall(
        r"`((?:native|xenbus|block|sim|host|xenstore|tests)/[\w/]+\.\w+)`", text
    ):
        base = ROOT if name.startswith("tests/") else ROOT / "xbbd_bsd"
        assert (base / name.rstrip("/")).exists(), name


def test_commands_that_the_readme_names_exist() -> None:
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)`|^    make (\w+)", text, re.M):
        assert re.search(rf"^{''.join(target)}:", makefile, re.M), target
    help_text = _parser().format_help()
    for command in re.findall(r"xbbd_bsd\.sim (\w+)", text):
        assert command in help_text, command


def test_what_the_readme_says_to_xbbctl_it_understands() -> None:
    text = (ROOT / "README.md").read_text()
    typed = "\n".join(re.findall(r"^    \S.*", text, re.M))
    said = re.findall(r"\bxbbctl (?:--host sim:\S+ )?(\S+)", typed)
    assert {"list", "attach", "detach", "log", "resize"} <= set(said)
    for word in said:
        assert word in VERBS or re.match(r"-[adWT]|(dev|hw)\.xbbd\b", word), word


def test_disks_that_documents_give_to_xl_have_keys_of_xl() -> None:
    """xl-disk-configuration(5); target comes last, since it takes all that follows."""
    texts = [path.read_text() for path in (ROOT / "README.md", ROOT / "man" / "xbbd.8")]
    disks = re.findall(r"(?:^ *|['\"])([\w=,-]+,target=[^'\"\n]*)", "\n".join(texts), re.M)
    assert len(disks) >= 3
    known = {"format", "vdev", "access", "backendtype", "script", "target"}
    for disk in disks:
        keys = [part.strip().partition("=")[0] for part in disk.split(",")]
        assert set(keys) <= known, disk
        assert keys[-1] == "target"


def test_the_readme_is_a_first_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 170


def test_figures_of_the_readme_are_the_last_of_the_record() -> None:
    """Of disks in RAM, where only the backends differ; and of the commit that it names."""
    text = (ROOT / "README.md").read_text()
    shown = re.findall(r"^\| (\d+k [^|]*) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    record = [line.split("\t") for line in RECORD.read_text().splitlines()]
    last = [line[0] for line in record if line[1] == "ram"][-1]
    assert shown == [tuple(line[2:6]) for line in record if line[:2] == [last, "ram"]]
    assert f"commit {last})" in text.replace("\n", " ")
    ratios = [float(xbbd) / float(blkback) for _, xbbd, blkback, _ in shown]
    least, most = (round(100 * (1 - ratio)) for ratio in (max(ratios), min(ratios)))
    assert f"costs {least} to {most} percent" in text
