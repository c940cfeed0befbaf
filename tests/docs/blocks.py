"""Code blocks of the documentation, by what stands behind their three backticks."""

import re
from pathlib import Path
from typing import NamedTuple

from tests.support.gateway import ROOT

_BLOCK = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    language: str
    use: str
    text: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(language, use or "", body) for language, use, body in _BLOCK.findall(text)]


def block(page: str, use: str) -> Block:
    return next(found for found in blocks(page) if found.use == use)


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
