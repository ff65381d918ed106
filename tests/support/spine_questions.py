"""Questions chosen by their spine: where a question goes follows from the servers' ports, which differ from run to run.

So any few questions may miss a spine. The process must be configured over several Redis servers.
"""

from __future__ import annotations

import itertools
from typing import Any

from dspyq.prediction.request import build_request
from dspyq.store.spines import process_spines


def spine_of(question: str, **options: Any) -> int:
    """Return the number of a question's spine; the options are those of ``build_request``."""
    spines = process_spines()
    assert spines is not None
    return spines.of(build_request({"question": question}, **options).input_hash).number


def question_of(number: int, text: str, **options: Any) -> str:
    """Return a question like this text that a spine has."""
    candidates = (f"{text} ({each})" for each in itertools.count())
    return next(each for each in candidates if spine_of(each, **options) == number)


def some_of_each(text: str, count: int, **options: Any) -> list[str]:
    """Return so many questions like this text, of the spines in turn."""
    spines = process_spines()
    assert spines is not None
    numbers = (each % len(spines.all) for each in range(count))
    return [question_of(number, f"{text} {place}", **options) for place, number in enumerate(numbers)]


def one_of_each(text: str, **options: Any) -> list[str]:
    """Return a question of each spine, in their order."""
    spines = process_spines()
    assert spines is not None
    return some_of_each(text, len(spines.all), **options)
