"""HTML pages of reports: one file without scripts and requests, light or dark as the reader's system."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files

from dspyq.cli.report.texts import escape

#: Policy: a report fetches, runs and sends nothing, whatever texts it shows.
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    'base-uri \'none\'; form-action \'none\'"><meta name="referrer" content="no-referrer">'
)


def document(title: str, content: str, style: str = "") -> str:
    """Return a page.

    Args:
        title: Its title, as a text.
        content: What its body holds, as HTML.
        style: CSS beside that of all reports.
    """
    shared = (files("dspyq.cli.report") / "style.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{_POLICY}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>\n'
        f"<style>\n{shared}{style}</style></head>\n<body><main>\n{content}</main></body></html>\n"
    )


def section(title: str, content: str) -> str:
    """Return a part of a page under a title; nothing where it holds nothing."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>\n" if content else ""


def table(columns: Sequence[str], lines: Iterable[Sequence[str]], *, are_texts: bool = False) -> str:
    """Return a table of texts, which scrolls where it is too wide."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in line)}</tr>" for line in lines)
    kind = ' class="texts"' if are_texts else ""
    return f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
