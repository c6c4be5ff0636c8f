"""Documents against the program: they must not drift apart."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from xbbd_bsd.config import Config, parse
from xbbd_bsd.sim.__main__ import _parser
from xbbd_bsd.xenbus.states import draw

ROOT = Path(__file__).parent.parent


def test_the_sample_configuration_has_every_key_with_its_default() -> None:
    text = (ROOT / "etc" / "xbbd.conf.sample").read_text()
    assert parse(text, "sample") == Config()
    for section in fields(Config):
        for key in fields(getattr(Config(), section.name)):
            assert re.search(rf"^#?{key.name} = ", text, re.M), key.name


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
