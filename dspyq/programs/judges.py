"""Score functions that call a model: guarded as a program is, and paid by an account of their own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from typing import TypeVar

import dspy
import redis

from dspyq.config.programs import Program
from dspyq.config.settings import Settings
from dspyq.errors import BreakerOpen, BudgetExceeded, ConfigurationError, DspyqError
from dspyq.guards.call_records import JobRun
from dspyq.guards.interruptions import ArmKilled, FailPrediction, Interruption, Refusal, RetryLater
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guards
from dspyq.programs.foreign_models import REFUSING_SETTING, refuse_foreign_models
from dspyq.programs.language_models import build_lm
from dspyq.programs.running_ledger import LEDGER_SETTING

#: The wait for a judge that is busy, where nothing can be scored later, and between two attempts.
_PATIENCE_SECONDS, _PAUSE_SECONDS = 10.0, 0.5

_Found = TypeVar("_Found")


class JudgeRefused(Exception):
    """The account of a judge does not let its call go, or its arm was killed: there will be no score."""


class JudgeBusy(Exception):
    """The judge's model cannot be called now: the score may come later."""


class Judges:
    """The judges of the programs that are served.

    Args:
        settings: The configuration.
        queues: The names of the queues that are served; all where left out.
        guards: The guards of their models; none where left out.

    Raises:
        ConfigurationError: With every fault of their models.
    """

    def __init__(self, settings: Settings, queues: Container[str] | None = None, guards: Guards | None = None) -> None:
        faults: list[str] = []
        self._lms: dict[str, dspy.LM] = {}
        self._breakers = guards.breakers if guards else {}
        self._models: dict[str, str] = {}
        #: Of the latest refusal of each program's judge, the seconds that it will still last.
        self._seconds_left: dict[str, Callable[[], float]] = {}
        for program, model in _judged(settings, queues):
            self._models[program.name] = model
            try:
                self._lms[program.name] = build_lm(settings.models[model], guards)
            except ConfigurationError as error:
                faults.extend(error.faults)
        if faults:
            raise ConfigurationError(dict.fromkeys(faults))
        if self._lms:
            refuse_foreign_models()

    def run(self, program: str, variant: str, task_id: str, score: Callable[[], _Found]) -> _Found:
        """Return what a function returns; a model that it calls by DSPy is the judge's, where its program has one.

        Args:
            program: The program's name.
            variant: The name of the variant that answered, as the books of its calls state it.
            task_id: The task that answered; empty where no experiment waits.
            score: The function.

        Raises:
            JudgeRefused: If its account, or its arm, does not let the call go.
            JudgeBusy: If its model cannot be called now.
        """
        lm = self._lms.get(program)
        if lm is None:
            return score()
        self._look_again(program)
        # With an id of its own: the journal of the task's calls is what the answer cost.
        job = JobRun(f"{task_id or uuid.uuid4().hex}/judge", "", program, variant, payer="judge")
        ledger = Ledger(job)
        context = {"lm": lm, "trace": [], "disable_history": True, LEDGER_SETTING: ledger, REFUSING_SETTING: ledger}
        try:
            with dspy.context(**context):
                found = score()
        except BaseException:
            if ledger.interruption is not None:
                raise self._ended(program, ledger.interruption) from None
            raise
        finally:
            ledger.close()
        if ledger.interruption is not None:  # the function swallowed it
            raise self._ended(program, ledger.interruption)
        return found

    def wait_for(self, program: str, variant: str, score: Callable[[], _Found]) -> _Found:
        """Return what ``run`` does, for a score that no experiment waits for; a busy judge is waited for a moment.

        Raises:
            JudgeRefused: As of ``run``.
            JudgeBusy: If its model cannot be called for some seconds.
        """
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return self.run(program, variant, "", score)
            except JudgeBusy:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _look_again(self, program: str) -> None:
        """Look whether what refused the latest call lasts: the guards see its end by that."""
        seconds_left = self._seconds_left.get(program)
        with suppress(redis.RedisError):  # it refuses again
            if seconds_left is not None and seconds_left() <= 0:
                del self._seconds_left[program]

    def _ended(self, program: str, interruption: Interruption) -> Exception:
        """Return an interruption of a judge as an error."""
        error: DspyqError | None = getattr(interruption, "error", None)
        if isinstance(error, BudgetExceeded) or isinstance(interruption, ArmKilled):
            return JudgeRefused(str(error))
        if isinstance(interruption, FailPrediction):
            return interruption.error
        if isinstance(interruption, Refusal):
            breaker = self._breakers.get(self._models[program])
            of_breaker = breaker.seconds_until_callable if breaker and isinstance(error, BreakerOpen) else None
            if seconds_left := interruption.seconds_left or of_breaker:
                self._seconds_left[program] = seconds_left
        if isinstance(interruption, Refusal | RetryLater):
            return JudgeBusy(str(error or interruption))
        raise interruption


def _judged(settings: Settings, queues: Container[str] | None) -> Iterator[tuple[Program, str]]:
    """Yield each program that has a judge and is served, with the name of the judge's model."""
    for program in settings.programs.values():
        is_served = queues is None or any(variant.queue in queues for variant in program.variants.values())
        if is_served and program.experiment and program.experiment.judge:
            yield program, program.experiment.judge.model
