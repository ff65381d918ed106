"""Scores of a batch's answers, by the program's scorers in the process that runs the batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import orjson

from dspyq.config.codec import decode_inputs, decode_outputs
from dspyq.config.programs import Program
from dspyq.config.settings import get_settings
from dspyq.core.events import Event
from dspyq.errors import BatchRefused, ConfigurationError
from dspyq.prediction.hooks import import_hook
from dspyq.prediction.prediction import is_prediction
from dspyq.prediction.request import Request
from dspyq.store.clients import money_client

if TYPE_CHECKING:
    from dspyq.programs.judges import Judges

logger = logging.getLogger("dspyq.batch")


class Scorers:
    """The scorers of a program; they run one after the other, between the rows.

    Args:
        program: The program.

    Raises:
        BatchRefused: If it has none, or one does not import here.
    """

    def __init__(self, program: Program) -> None:
        self._judges = _judges_of(program)
        setting = f"programs.{program.name}.scorers"
        if not program.scorers:
            raise BatchRefused(f"--score: {setting} names no function; name some, or leave --score out")
        try:
            self._scorers = {path: import_hook(path, setting) for path in program.scorers}
        except ConfigurationError as error:
            raise BatchRefused(f"--score: {error}; run the batch where it does, or leave --score out") from None
        self._failed: set[tuple[str, str]] = set()

    def scored(self, request: Request, meta: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a stored result with the scores of its answer in the metadata; null for a scorer that failed.

        A fallback is not its variant's answer and has no scores.
        """
        result = meta["result"]
        if meta["status"] != "SUCCESS" or not is_prediction(result) or result["metadata"].get("fallback"):
            return meta
        scores = {path: self._score(path, request, result["outputs"]) for path in self._scorers}
        return {**meta, "result": {**result, "metadata": {**result["metadata"], "scores": scores}}}

    def _score(self, path: str, request: Request, outputs: Mapping[str, Any]) -> float | None:
        def run() -> float:
            inputs = decode_inputs(request.program, orjson.loads(request.canonical_inputs))
            return float(self._scorers[path](inputs, decode_outputs(request.program, dict(outputs))))

        try:
            names = request.program.name, request.variant.name
            score = run() if self._judges is None else self._judges.wait_for(*names, run)
            if not math.isfinite(score):
                raise ValueError("a score is a finite number")  # noqa: TRY301 - counted as any other failure
        except Exception as error:  # noqa: BLE001 - a user's function may raise anything
            failure = path, type(error).__name__
            if failure not in self._failed:  # without its text, which may quote the answer
                self._failed.add(failure)
                logger.warning(Event("score_failed", program=request.program.name, scorer=path, error=failure[1]))
            return None
        return score


def _judges_of(program: Program) -> Judges | None:
    """Return the model that a program's scorers call, with its guards; None where it has none, or DSPy is not here.

    Raises:
        BatchRefused: If the model's table has a fault.
    """
    if program.experiment is None or program.experiment.judge is None or find_spec("dspy") is None:
        return None
    from dspyq.guards.model import Guards  # noqa: PLC0415 - a process without a judge does without DSPy
    from dspyq.programs.judges import Judges  # noqa: PLC0415 - as above

    settings, queues = get_settings(), {variant.queue for variant in program.variants.values()}
    try:
        return Judges(settings, queues, Guards(settings, money_client()))
    except ConfigurationError as error:
        raise BatchRefused(f"--score: {error}") from None
