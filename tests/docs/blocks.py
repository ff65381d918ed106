"""Fenced blocks of the README and the docs, each with the directive in the comment before it.

``<!-- test: run -->`` has a Python block executed, answered by ``dspyq.testing``; ``<!-- test: skip REASON -->``
exempts a block from every test. ``<!-- file: NAME -->`` names the reader's file that a block is, or is added to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>[\w-]*)[^\n]*$")
_FILE = re.compile(r"<!-- file: (\S+) -->")
_DIRECTIVE = re.compile(r"<!-- test: (\w+) ?(.*?) *-->")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    line: int
    language: str
    text: str
    directive: str
    reason: str
    file: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> Iterator[Block]:
    for page in pages():
        yield from _blocks_of(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8").splitlines())


def _blocks_of(page: str, lines: list[str]) -> Iterator[Block]:
    index = 0
    while index < len(lines):
        opening = _FENCE.match(lines[index])
        if opening is None:
            index += 1
            continue
        end = next(
            (at for at in range(index + 1, len(lines)) if lines[at].strip() == opening["fence"]),
            None,
        )
        assert end is not None, f"{page}:{index + 1}: the block is not closed"
        before = next((line for line in reversed(lines[:index]) if line.strip()), "")
        directive, file = _DIRECTIVE.search(before), _FILE.search(before)
        text = "\n".join(line.removeprefix(opening["indent"]) for line in lines[index + 1 : end]) + "\n"
        yield Block(
            page,
            index + 1,
            opening["language"],
            text,
            *(directive.groups() if directive else ("", "")),
            file[1] if file else "",
        )
        index = end + 1
