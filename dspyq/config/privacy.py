"""What of a job's content may be seen by those who only watch: nothing, unless ``logging.include_content`` is set."""

from __future__ import annotations

import re

from dspyq.config.settings import get_settings
from dspyq.errors import PredictionFailed, TransientPredictionFailure

#: What stands where content would.
HIDDEN = "..."

#: A retry's text and its ``repr()`` go on with the exception that caused it.
_RETRY = r"(?:Retry (?:in|at) .*?: |Retry\(Retry\(\.\.\.\), )?"
_TYPE = re.compile(rf"{_RETRY}(\w+)\(")
#: The messages of these start with the type of what the program raised.
_WRAPPERS = "|".join(error.__name__ for error in (PredictionFailed, TransientPredictionFailure))
_WRAPPED_TYPE = re.compile(rf"{_RETRY}({_WRAPPERS})\(['\"](\w+): ")


def hides_content() -> bool:
    """Whether inputs, answers and exception texts are hidden."""
    return not get_settings().logging.include_content


def exception_type(representation: str) -> str:
    """Return the type of an exception and nothing of its text.

    Args:
        representation: Its ``repr()``; of Celery's ``Retry`` also its text, and then the type of what caused it.
    """
    if wrapped := _WRAPPED_TYPE.match(representation):
        return f"{wrapped[1]}: {wrapped[2]}"
    plain = _TYPE.match(representation)
    return plain[1] if plain else HIDDEN
