"""Canned and computed answers for tests of code that calls ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from dspyq.config.codec import encode_outputs
from dspyq.errors import DspyqError
from dspyq.prediction.request import Request
from dspyq.testing.configuring import Configuration, with_configuration
from dspyq.testing.local_asker import Asked, LocalAsker, LocalOutcome

Outputs: TypeAlias = Mapping[str, Any]
#: Outputs by name; an error for the prediction; either of them delayed; or a function of the inputs that returns one.
Answer: TypeAlias = "Outputs | Exception | Delayed | Callable[[dict[str, Any]], Outputs | Exception | Delayed]"


class NoAnswer(DspyqError):
    """A test requested a prediction without giving an answer for it."""


@dataclass(frozen=True)
class Delayed:
    """An answer that takes its time.

    The test does not sleep: until ``seconds`` have passed the job is not ready, and ``get(timeout=…)`` of fewer raises
    its timeout at once; a longer wait returns the answer at once.

    Attributes:
        answer: The outputs or the error.
        seconds: Duration of the job.
        sleeps: Whether waiting takes real time.
    """

    answer: Outputs | Exception
    seconds: float
    sleeps: bool = False


@contextmanager
def answers(
    answer: Answer | Sequence[Answer] | None = None,
    /,
    *,
    programs: Mapping[str, Answer | Sequence[Answer]] | None = None,
    configuration: Configuration | None = None,
) -> Iterator[list[Asked]]:
    """Answer every prediction of a block, in every form of the call; yield the calls.

    Inputs are checked and variants assigned as in production, by the same configuration file. Outputs are checked
    against the signature: outputs that a program could not have returned raise ``InvalidOutputs`` at the call.

    Args:
        answer: The answer; or several in a list, each for one call.
        programs: The answers of a program by its name, or of a variant by ``program.variant``; they go before
            ``answer``.
        configuration: Another configuration for the length of the block: a path, TOML text, or a dict of its tables;
            where left out, the file of ``DSPYQ_CONFIG``.

    Yields:
        The calls in their order, as they come.
    """
    answering = _Answering(answer, programs or {})
    with with_configuration(configuration), LocalAsker(answering).installed() as asker:
        yield asker.asked


class _Answering:
    """Finds the answer to each question."""

    def __init__(
        self, answer: Answer | Sequence[Answer] | None, programs: Mapping[str, Answer | Sequence[Answer]]
    ) -> None:
        given = dict(programs) if answer is None else {"": answer, **programs}
        self._sources = {name: _source(each) for name, each in given.items()}

    def __call__(self, request: Request) -> LocalOutcome:
        """Return the outcome for a question.

        Raises:
            NoAnswer: If the test gives none.
            InvalidOutputs: If outputs do not fit the program's signature.
        """
        for name in (request.queue, request.program.name, ""):
            if (source := self._sources.get(name)) is not None:
                return _outcome(request, source(request))
        raise NoAnswer(
            f"the test gives no answer for {request.queue}: pass answers({{…}}), or "
            f"answers(programs={{{request.program.name!r}: …}})"
        )


def _source(given: Answer | Sequence[Answer]) -> Callable[[Request], Answer]:
    """Return a function that returns the answer of each call: always the same, or one after another."""
    if not isinstance(given, Sequence):
        return lambda _: given
    number = len(given)
    left = iter(given)

    def take(request: Request) -> Answer:
        for answer in left:
            return answer
        raise NoAnswer(f"the test gives {number} answers, and {request.queue} was asked once more")

    return take


def _outcome(request: Request, answer: Answer) -> LocalOutcome:
    if callable(answer) and not isinstance(answer, (Mapping, Exception)):
        try:
            answer = answer(request.inputs)
        except Exception as error:  # noqa: BLE001 - any error of a program fails its prediction
            answer = error
    if isinstance(answer, Delayed):
        return _outcome(request, answer.answer)._replace(seconds=answer.seconds, sleeps=answer.sleeps)
    if isinstance(answer, Exception):
        return LocalOutcome(answer)
    if not isinstance(answer, Mapping):
        raise NoAnswer(
            f"an answer is a dict of outputs, an exception, a Delayed or a function of the inputs, not a "
            f"{type(answer).__name__}"
        )
    return LocalOutcome(encode_outputs(request.program, answer))
