"""The manual pages as tests read them: their source, mdoc(7).  Holds no test."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAN = ROOT / "man"
PAGES = sorted(path for path in MAN.iterdir() if path.suffix in (".4", ".5", ".7", ".8"))


def source(name: str) -> str:
    return (MAN / name).read_text()


def plain(text: str) -> str:
    """A line of mdoc without its escapes."""
    return text.replace(r"\(dq", '"').replace(r"\&", "").replace(r"\e", "\\").strip()


def flags(text: str) -> set[str]:
    """The options that .It Fl names in some text, as they are typed."""
    found: set[str] = set()
    for head in re.findall(r"^\.It (?:Fl .*)$", text, re.M):
        for option in re.split(r" , (?:Fl )?", head.removeprefix(".It Fl ")):
            found.add(f"-{option.split()[0]}")
    return found
