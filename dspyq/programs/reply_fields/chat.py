"""Replies in the notation of DSPy's ``ChatAdapter``: sections under ``[[ ## field ## ]]``."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial

from dspyq.programs.reply_fields.splitter import Emit, StrippedText

_HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")
#: The start of a header, to the end of the text.
_START_OF_HEADER = re.compile(r"(?:\[(?:\[(?: (?:#(?:#(?: (?:\w+(?: (?:#(?:#(?: (?:\]\]?)?)?)?)?)?)?)?)?)?)?)?)?\Z")
#: A line is held back while it may be a header; a longer one is none.
_LONGEST_HEADER = 256


class ChatFields:
    """Splits a reply as ``ChatAdapter.parse`` does, quirks included; the first section of a field counts.

    Args:
        wanted: The fields to emit.
        emit: Takes the name of a field and the next piece of its text.
    """

    def __init__(self, wanted: Collection[str], emit: Emit) -> None:
        self._left = set(wanted)
        self._emit = emit
        self._value: StrippedText | None = None
        self._line: str | None = ""  # the line so far while it may be a header; None once it is none
        self._is_on_header_line = False
        self._ends_in_return = False

    def feed(self, text: str) -> None:
        """Take the next piece of the reply."""
        if not text:
            return
        if self._ends_in_return and text[0] == "\n":  # \r\n ends one line
            text = text[1:]
        for part in text.splitlines(keepends=True):
            (content,) = part.splitlines()
            self._add(content)
            if len(content) < len(part):
                self._end_line()
        self._ends_in_return = text.endswith("\r")

    def end(self) -> None:
        """Take note that the reply is whole."""
        self._release_line()

    def _add(self, content: str) -> None:
        """Take a piece of a line."""
        if self._line is None:
            self._put(content)
            return
        self._line += content
        stripped = self._line.lstrip()
        if header := _HEADER.match(stripped):
            # As DSPy has it: it looks for the header in the stripped line, and cuts the line itself there.
            self._begin(header[1], self._line[header.end() :])
        elif len(self._line) > _LONGEST_HEADER or not _START_OF_HEADER.match(stripped):
            self._release_line()

    def _begin(self, field: str, rest: str) -> None:
        self._value = StrippedText(partial(self._emit, field)) if field in self._left else None
        self._left.discard(field)
        self._line = None
        self._is_on_header_line = True
        self._put(rest)

    def _end_line(self) -> None:
        self._release_line()
        self._line = ""
        if self._value is None:
            return
        if self._is_on_header_line:
            self._value.strip()
            self._is_on_header_line = False
        self._value.add("\n")

    def _release_line(self) -> None:
        line, self._line = self._line, None
        if line:
            self._put(line)

    def _put(self, text: str) -> None:
        if self._value is not None:
            self._value.add(text)
