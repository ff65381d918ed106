"""Privacy of a job's content: logs, events and Flower show none of it unless ``logging.include_content`` is set."""

from __future__ import annotations

import re

from dspyq.config.settings import get_settings
from dspyq.errors import PredictionFailed, TransientPredictionFailure

#: The text shown in place of content.
HIDDEN = "..."

#: A retry's text and its ``repr()`` end with the exception that caused it.
_RETRY = r"(?:Retry (?:in|at) .*?: |Retry\(Retry\(\.\.\.\), )?"
_TYPE = re.compile(rf"{_RETRY}(\w+)\(")
#: The messages of these start with the type of what the program raised.
_WRAPPERS = "|".join(error.__name__ for error in (PredictionFailed, TransientPredictionFailure))
_WRAPPED_TYPE = re.compile(rf"{_RETRY}({_WRAPPERS})\(['\"](\w+): ")


def hides_content() -> bool:
    """Return True if inputs, answers and exception texts are hidden."""
    return not get_settings().logging.include_content


def exception_type(representation: str) -> str:
    """Return the type of an exception without its text.

    Args:
        representation: Its ``repr()``. For Celery's ``Retry``, its text works too; the type is then that of its cause.
    """
    if wrapped := _WRAPPED_TYPE.match(representation):
        return f"{wrapped[1]}: {wrapped[2]}"
    plain = _TYPE.match(representation)
    return plain[1] if plain else HIDDEN
