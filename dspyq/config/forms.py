"""Forms of texts in the configuration file, each with the words for one that does not fit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

_WORDS: dict[str, str] = {}


def form(pattern: str, words: str) -> str:
    """Return the pattern of a setting, and keep the words that ask for it.

    Args:
        pattern: A regular expression.
        words: What to write, with an example where that helps.
    """
    _WORDS[pattern] = words
    return pattern


def words_of(pattern: str) -> str:
    """Return the words for a text that does not fit a setting's pattern."""
    return _WORDS.get(pattern, f"it should match {pattern}")


DspyVersion = Annotated[str, Field(pattern=form(r"^\d+\.\d+[0-9A-Za-z.+]*$", "state a version, as 3.4.1"))]
StreamedField = Annotated[
    str,
    Field(pattern=form(r"^([^.\s]+\.)*[A-Za-z_]\w*$", "name an output, or one of a predictor, as predict.reasoning")),
]
