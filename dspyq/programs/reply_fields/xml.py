"""Replies in the notation of DSPy's ``XMLAdapter``: an element for each field."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from xml.parsers import expat

from dspyq.programs.reply_fields.splitter import Emit, StrippedText

#: What ``XMLAdapter.parse`` puts around a reply.
_ROOT = "dspy_root"
_DEPTH_OF_FIELDS = 2


class XmlFields:
    """Reads a reply with the parser that ``XMLAdapter.parse`` uses; the text of a field ends with its first child.

    Args:
        wanted: The fields to emit.
        emit: Takes the name of a field and the next piece of its text.
    """

    def __init__(self, wanted: Collection[str], emit: Emit) -> None:
        self._left = set(wanted)
        self._emit = emit
        self._value: StrippedText | None = None
        self._depth = 0
        self._is_broken = False
        self._parser = expat.ParserCreate()
        if hasattr(self._parser, "SetReparseDeferralEnabled"):  # else text may wait for more of it
            self._parser.SetReparseDeferralEnabled(False)  # noqa: FBT003 - as below
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self.feed(f"<{_ROOT}>")

    def feed(self, text: str) -> None:
        """Take the next piece of the reply."""
        if self._is_broken:
            return
        try:
            self._parser.Parse(text, False)  # noqa: FBT003 - the parser's signature
        except (expat.ExpatError, UnicodeEncodeError):  # half a surrogate pair
            self._is_broken = True

    def end(self) -> None:
        """Take note that the reply is whole."""
        self._is_broken = True

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        del attributes
        self._depth += 1
        self._value = None
        if self._depth == _DEPTH_OF_FIELDS and name in self._left:
            self._left.discard(name)
            self._value = StrippedText(partial(self._emit, name))

    def _end(self, name: str) -> None:
        del name
        self._depth -= 1
        self._value = None

    def _text(self, text: str) -> None:
        if self._value is not None:
            self._value.add(text)
