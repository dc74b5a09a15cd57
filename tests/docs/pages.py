"""The pages of the documentation, and what stands in them: fenced blocks and links. No test stands here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.sources import DOCS, ROOT

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)
_LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `note` is what follows the language on its first line."""

    page: Path
    language: str
    note: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.strip().splitlines()[0][:40] if self.text.strip() else ''}"


def pages() -> list[Path]:
    return [
        *sorted(ROOT.glob("*.md")),
        *sorted(DOCS.rglob("*.md")),
        *sorted((ROOT / "examples").glob("*/README.md")),
    ]


def blocks(page: Path, language: str = "") -> list[Block]:
    found = []
    for head, text in _FENCE.findall(page.read_text("utf-8")):
        kind, _, note = head.strip().partition(" ")
        if language in ("", kind):
            found.append(Block(page, kind, note, text))
    return found


def links(page: Path) -> Iterator[str]:
    yield from _LINK.findall(_FENCE.sub("", page.read_text("utf-8")))


def anchors(page: Path) -> set[str]:
    """Headings as GitHub turns them into anchors."""
    heads = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower().replace("`", "")).replace(" ", "-") for head in heads}


def commands(page: Path) -> list[str]:
    """The lines behind `$ ` of the page's console blocks; a line that ends in a backslash goes on."""
    text = "".join(block.text for block in blocks(page, "console")).replace("\\\n> ", "").replace("\\\n", "")
    return re.findall(r"^\$ (.+)$", text, re.M)
