"""Names that the tests of runners share."""

from __future__ import annotations

from collections.abc import Callable

from dspyq.guards.call_records import ProgramAnswer
from dspyq.programs.runner import Runner
from tests.support.endpoint import Endpoint

Build = Callable[..., Runner]
BuildAll = Callable[..., dict[tuple[str, str], Runner]]
QUESTION = {"question": "hi"}
TYPES = "tests.programs.sample_types"


def own(name: str) -> dict[str, str]:
    """The settings of a program of one's own."""
    return {"class": f"tests.programs.sample_programs:{name}"}


def tokens(answer: ProgramAnswer) -> tuple[int, int, int]:
    return len(answer.calls), answer.prompt_tokens, answer.completion_tokens


def billed(endpoint: Endpoint) -> tuple[int, int, int]:
    counts = endpoint.counts()
    return counts.calls, counts.prompt_tokens, counts.completion_tokens
