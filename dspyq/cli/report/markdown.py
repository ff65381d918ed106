"""Markdown of reports: tables of escaped texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from dspyq.core.visible import visible_line

#: Characters with a meaning in Markdown.
_MARKUP = re.compile(r"[\\|`\[<>&]")
_ESCAPED = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table; the first column is of names, the others of figures."""
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    return "\n".join(f"| {' | '.join(map(cell, line))} |" for line in (columns, rule, *lines))


def cell(text: str) -> str:
    """Return a text escaped: without HTML, links, images or the end of a cell."""
    return _MARKUP.sub(lambda found: _ESCAPED.get(found[0], f"\\{found[0]}"), visible_line(text.replace("\n", " ")))
