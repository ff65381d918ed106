"""The pytest plugin: the fixture ``dspyq_answers``. It loads nothing until a test uses it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspyq.testing import Asked


@pytest.fixture
def dspyq_answers() -> Iterator[Callable[..., list[Asked]]]:
    """Answer predictions to the end of the test.

    ``asked = dspyq_answers({"answer": "42"})`` yields the calls from then on.

    The arguments are those of ``dspyq.testing.answers``; a later call replaces the answers of an earlier one.
    """
    with ExitStack() as blocks:

        def answer(*arguments: Any, **options: Any) -> list[Asked]:
            from dspyq.testing import answers  # noqa: PLC0415 - a run without predictions stays quick

            return blocks.enter_context(answers(*arguments, **options))

        yield answer
