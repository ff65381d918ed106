"""Escaping of control characters, which terminals execute and texts of models, users or files may contain."""

from __future__ import annotations

import json
import re

#: C0 except tab and line feed, DEL, C1, and characters that reverse the direction of text or end a line invisibly.
_OBEYED = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROLS = re.compile(f"[{_OBEYED}]")
_CONTROLS_OF_A_LINE = re.compile(f"[\t\n{_OBEYED}]")
_COLOURS = re.compile(r"(\x1b\[[\d;]*m)")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_FIRST_OF_FOUR_DIGITS = 0x100


def visible(text: str) -> str:
    r"""Return a text whose control characters are shown as ``\x1b``; lines and tabs stay."""
    return text if text.isprintable() else _CONTROLS.sub(_shown, text)


def visible_line(text: str) -> str:
    r"""Return a text as one line, as ``visible``; lines and tabs are shown too."""
    return text if text.isprintable() else _CONTROLS_OF_A_LINE.sub(_shown, text)


def visible_but_for_colours(text: str) -> str:
    """Return another program's output as one line in which colours are the only effective control sequences."""
    return "".join(part if number % 2 else visible_line(part) for number, part in enumerate(_COLOURS.split(text)))


def escape_in_json(document: str) -> str:
    """Return the same JSON with those control characters escaped that JSON allows."""
    return document if document.isprintable() else _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def escape_non_ascii(document: str) -> str:
    """Return the same JSON in ASCII alone."""
    escaped = escape_in_json(document)
    return _BEYOND_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], escaped)


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in "\t\n\r":
        return repr(found[0])[1:-1]
    return f"\\x{code:02x}" if code < _FIRST_OF_FOUR_DIGITS else f"\\u{code:04x}"
