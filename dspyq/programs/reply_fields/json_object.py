"""Replies in the notation of DSPy's ``JSONAdapter``: an object with a key for each field."""

from __future__ import annotations

import re
from collections.abc import Collection

from dspyq.programs.reply_fields.splitter import Emit

_PLAIN = re.compile(r'[^"\\]+')
_STRUCTURE = re.compile(r'[{}\[\]",:]')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_UNIT, _PAIR = len(r"\u0000"), len(r"\u0000\u0000")
_HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB]")


class JsonFields:
    """Decodes the texts among the values of the reply's object; all other values are passed over.

    Args:
        wanted: The fields to emit.
        emit: Takes the name of a field and the next piece of its text.
    """

    def __init__(self, wanted: Collection[str], emit: Emit) -> None:
        self._left = set(wanted)
        self._emit = emit
        self._depth = 0
        self._is_over = False
        self._is_key_next = True
        self._is_in_text = False
        self._key = ""
        self._held = ""  # the start of an escape

    def feed(self, text: str) -> None:
        """Take the next piece of the reply."""
        text, self._held = self._held + text, ""
        at = 0
        while at < len(text) and not self._is_over:
            if self._is_in_text:
                at = self._read_text(text, at)
            elif self._depth:
                at = self._read_structure(text, at)
            else:
                at = self._look_for_object(text, at)

    def end(self) -> None:
        """Take note that the reply is whole."""
        self._is_over = True

    def _look_for_object(self, text: str, at: int) -> int:
        found = text.find("{", at)
        if found < 0:
            return len(text)
        self._depth = 1
        return found + 1

    def _read_structure(self, text: str, at: int) -> int:
        """Read to the next sign outside of texts; return the place behind it."""
        found = _STRUCTURE.search(text, at)
        if found is None:
            return len(text)
        match found[0]:
            case "{" | "[":
                self._depth += 1
            case "}" | "]":
                self._depth -= 1
                self._is_over = not self._depth
            case '"':
                self._is_in_text = True
                if self._is_of_object and self._is_key_next:
                    self._key = ""
            case ":" if self._is_of_object:
                self._is_key_next = False
            case "," if self._is_of_object:
                self._is_key_next = True
        return found.end()

    def _read_text(self, text: str, at: int) -> int:
        """Read a piece within a text, an escape or the text's end; return the place behind it."""
        if plain := _PLAIN.match(text, at):
            self._put(plain[0])
            return plain.end()
        if text[at] == '"':
            self._is_in_text = False
            if self._is_of_object and not self._is_key_next:
                self._left.discard(self._key)
            return at + 1
        size = _size_of_escape(text, at)
        if at + size > len(text):
            self._held = text[at:]
            return len(text)
        self._put(_unescape(text[at : at + size]))
        return at + size

    @property
    def _is_of_object(self) -> bool:
        """True for what is the object's own, not part of one of its values."""
        return self._depth == 1

    def _put(self, text: str) -> None:
        if not self._is_of_object:
            return
        if self._is_key_next:
            self._key += text
        elif self._key in self._left:
            self._emit(self._key, text)


def _size_of_escape(text: str, at: int) -> int:
    """Return the length of an escape, as far as it can be seen: more than there is where it is not whole."""
    if text[at + 1 : at + 2] != "u":
        return 2
    if not _HIGH_SURROGATE.match(text, at):
        return _UNIT
    rest = text[at + _UNIT : at + _UNIT + 2]
    return _PAIR if r"\u".startswith(rest) else _UNIT  # half a pair that stands alone


def _unescape(escape: str) -> str:
    if escape[1] != "u":
        return _ESCAPES.get(escape[1], escape[1])
    try:
        units = bytes.fromhex("".join(escape.split("\\u")))
    except ValueError:
        return ""
    return units.decode("utf-16-be", "replace")
