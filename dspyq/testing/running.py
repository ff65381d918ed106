"""The real programs, run in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dspyq.config.codec import Encoded
from dspyq.errors import ConfigurationError, DspyqError
from dspyq.prediction.request import Request
from dspyq.testing.configuring import Configuration, with_configuration
from dspyq.testing.local_asker import Asked, LocalAsker, LocalOutcome

if TYPE_CHECKING:
    from dspyq.programs.in_process import Models


@contextmanager
def running_programs(lm: Models | None = None, *, configuration: Configuration | None = None) -> Iterator[list[Asked]]:
    """Answer every prediction of a block with the real program, in the caller's thread; yield the calls.

    There is no cache, breaker, rate limit, budget or deadline: each call runs the program on your model.

    Args:
        lm: Your model, as ``dspy.utils.DummyLM``: one for all, or by name in ``[models]``; where left out, the one of
            ``dspy.configure``.
        configuration: As of ``answers``.

    Raises:
        ConfigurationError: If DSPy is not installed.
    """
    try:
        from dspyq.programs.in_process import InProcessPrograms  # noqa: PLC0415 - the other ways of testing need no DSPy
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"running_programs needs DSPy, and {error.name} is missing: pip install 'dspyq[worker]'"
        ) from error
    programs = InProcessPrograms(lm)

    def answer(request: Request) -> LocalOutcome:
        try:
            answered = programs.run(request.program, request.variant, request.inputs)
        except ConfigurationError:
            raise
        except DspyqError as error:
            return LocalOutcome(error)
        return LocalOutcome(Encoded(answered.outputs, answered.exact))

    with with_configuration(configuration), LocalAsker(answer).installed() as asker:
        yield asker.asked
