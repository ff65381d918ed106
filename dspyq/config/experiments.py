"""An experiment over a program's variants, ``[programs.<program>.experiment]``."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from dspyq.config.models import Name, Table, Usd
from dspyq.config.variants import ImportPath
from dspyq.core.address import check_variable

#: Metrics of a computed answer beside its scores, and those of a call.
ANSWER_METRICS = ("cost", "time", "slow", "tokens")
CALL_METRICS = ("failed", "fallback", "waited", "slow_wait", "paid", "hit")
#: Metrics that become worse as they rise; all others become worse as they fall.
HIGHER_IS_WORSE = frozenset(
    {f"answer.{name}" for name in ANSWER_METRICS} | {f"call.{name}" for name in CALL_METRICS if name != "hit"}
)
#: Metrics that count what took longer than ``seconds`` of their guard.
_BY_THRESHOLD = ("answer.slow", "call.slow_wait")
#: One counter of an answer's array for each score, beside five of the answers themselves, of 64 bits each.
MOST_SCORES = 8
MOST_ARMS = 8
_PERCENT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*%\s*$")


class StatedDifference(NamedTuple):
    """A difference between two arms.

    Attributes:
        value: In the metric's unit; a share of the control's value where it is relative: 0.03 is 3 %.
        is_relative: Whether it is a share.
    """

    value: float
    is_relative: bool


def parse_difference(stated: Any) -> StatedDifference:
    """Return a difference as the file states it: a number, or a text such as ``"3 %"``.

    Raises:
        ValueError: If it is neither, or not above 0.
    """
    if isinstance(stated, str):
        found = _PERCENT.match(stated)
        if not found:
            raise ValueError(f'state a number, or a share as in "3 %", not {stated!r}')
        difference = StatedDifference(float(found[1]) / 100, is_relative=True)
    elif isinstance(stated, bool) or not isinstance(stated, int | float):
        raise ValueError('state a number, or a share as in "3 %"')  # noqa: TRY004 - pydantic makes a fault of a ValueError
    else:
        difference = StatedDifference(float(stated), is_relative=False)
    if not 0 < difference.value < float("inf"):
        raise ValueError(f"must be above 0, not {stated}")
    return difference


class _Range(Table):
    """The range of a number that is summed.

    Attributes:
        low: Its least value.
        high: Its greatest value.
    """

    low: Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
    high: Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]

    @model_validator(mode="after")
    def _is_a_range(self) -> _Range:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, not {self.low:g} and {self.high:g}")
        return self


class ScoreRange(_Range):
    """A score of computed answers, ``[programs.<program>.experiment.scores.<name>]``.

    Attributes:
        scorer: ``package.module:function``, one of the program's ``scorers``.
        share: The part of all questions whose answers are scored: all by default. A hash of the question decides, so
            that it is the same in every arm.
    """

    scorer: ImportPath
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class FeedbackRange(_Range):
    """A judgement that callers give, ``[programs.<program>.experiment.feedback.<name>]``.

    Attributes:
        window_days: How long after its answer a judgement counts; days are compared once it is over.
        replace: Whether a later judgement of the same answer replaces an earlier one; else the first one stays.
    """

    window_days: Annotated[int, Field(ge=1, le=90)] = 3
    replace: bool = False


class GuardMetric(Table):
    """A metric that a challenger must not worsen, ``[[programs.<program>.experiment.guards]]``.

    Attributes:
        metric: The metric.
        margin: The most by which it may be worse: a number, or a share as in ``"10 %"``.
        seconds: The threshold of ``answer.slow`` and ``call.slow_wait``.
    """

    metric: str
    margin: float | str
    seconds: PositiveFloat | None = None

    @field_validator("margin")
    @classmethod
    def _is_a_difference(cls, margin: float | str) -> float | str:
        parse_difference(margin)
        return margin

    @model_validator(mode="after")
    def _has_its_threshold(self) -> GuardMetric:
        if (self.metric in _BY_THRESHOLD) != (self.seconds is not None):
            raise ValueError(f"seconds belongs to {' and '.join(_BY_THRESHOLD)}, and to nothing else")
        margin = parse_difference(self.margin)
        if margin.is_relative and margin.value >= 1 and self.metric not in HIGHER_IS_WORSE:
            raise ValueError(f"margin: {self.metric} cannot fall by {self.margin}; state less than 100 %")
        return self


class RampStep(Table):
    """A step of the ramp.

    Attributes:
        coverage: The part of all units that the experiment has from then on.
        hours: How long, until the next step; left out at the last.
    """

    coverage: Annotated[float, Field(gt=0, le=1)]
    hours: PositiveFloat | None = None


class Judge(Table):
    """The model that score functions call, ``[programs.<program>.experiment.judge]``.

    Attributes:
        model: One of ``[models]``.
        daily_usd: The most that its calls may cost in a day; they have an account of their own.
    """

    model: Name
    daily_usd: Usd


class ShadowRuns(Table):
    """Challengers that answer some of the control's questions unseen, ``[programs.<program>.experiment.shadow]``.

    Attributes:
        variants: The challengers.
        share: The part of the questions that the control computes for enrolled units.
        daily_usd: The most that their answers may cost in a day; they have an account of their own.
        pair_scorers: ``package.module:function`` of each function that compares both answers, by a name for what it
            finds. It takes the inputs and two dicts of outputs in random order, and returns a number from -1 to 1:
            above 0 where the first is better.
    """

    variants: Annotated[tuple[str, ...], Field(min_length=1)]
    share: Annotated[float, Field(gt=0, le=1)]
    daily_usd: Usd
    pair_scorers: Annotated[dict[Name, ImportPath], Field(max_length=MOST_SCORES, default_factory=dict)]


class Experiment(Table):
    """A comparison of a program's variants on live traffic, ``[programs.<program>.experiment]``.

    Attributes:
        name: Its name. A new name is a new experiment: units are assigned anew, and counts begin at nothing.
        arms: The variants that are compared, in equal parts for its life; the first is the control.
        draws: How many answers a question may have in each arm.
        unit: What keeps its arm: ``required``, the ``unit`` of a call (calls without one get the control and are not
            counted), or ``inputs``, the question.
        primary: The metric that decides.
        minimum_effect: The least difference of it that matters: a number, or a share as in ``"3 %"``.
        alpha: The probability of a false verdict.
        planned_calls: The number of calls it is planned for; computed from ``minimum_effect`` where left out.
        at_least_days: No win is found earlier.
        ramp: The steps by which coverage grows.
        on_breach: What follows when a guard is breached: ``rollback`` kills the challenger, and ends the experiment if
            it was the last one; ``pause`` stops counting, ``tell`` reports it.
        pause_after_seconds: It is paused once the circuit breaker of an arm's model has been open for so long: an arm
            whose calls are refused is no arm.
        on_win: What follows a win: ``tell`` reports it, ``promote`` serves the winner and ends it.
        scores: Scores of computed answers, by name.
        feedback: Judgements of callers, by name.
        guards: Metrics that must not become worse.
        judge: The model that score functions call.
        shadow: Challengers that answer unseen.
        keep_rows: How many rows with their contents are kept for ``dspyq experiment export``; none by default.
        secret_env: The environment variable that holds the secret which signs feedback tokens; the fleet has one of its
            own where this is left out.
    """

    name: Name
    arms: Annotated[tuple[str, ...], Field(min_length=2, max_length=MOST_ARMS)]
    draws: Annotated[int, Field(ge=1, le=64)] = 1
    unit: Literal["required", "inputs"] = "required"
    primary: str
    minimum_effect: float | str
    alpha: Annotated[float, Field(gt=0, le=0.2)] = 0.05
    planned_calls: PositiveInt | None = None
    at_least_days: Annotated[float, Field(ge=0)] = 7
    ramp: Annotated[tuple[RampStep, ...], Field(min_length=1)] = (RampStep(coverage=1.0),)
    on_breach: Literal["rollback", "pause", "tell"] = "rollback"
    pause_after_seconds: PositiveFloat = 300
    on_win: Literal["tell", "promote"] = "tell"
    scores: Annotated[dict[Name, ScoreRange], Field(max_length=MOST_SCORES, default_factory=dict)]
    feedback: Annotated[dict[Name, FeedbackRange], Field(default_factory=dict)]
    guards: tuple[GuardMetric, ...] = ()
    judge: Judge | None = None
    shadow: ShadowRuns | None = None
    keep_rows: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    secret_env: str | None = None

    @field_validator("minimum_effect")
    @classmethod
    def _is_a_difference(cls, effect: float | str) -> float | str:
        parse_difference(effect)
        return effect

    @field_validator("secret_env")
    @classmethod
    def _is_a_variable(cls, variable: str | None) -> str | None:
        return variable if variable is None else check_variable(variable)

    @field_validator("scores")
    @classmethod
    def _are_no_built_in_metrics(cls, scores: dict[str, ScoreRange]) -> dict[str, ScoreRange]:
        if taken := [name for name in scores if name in ANSWER_METRICS]:
            raise ValueError(f"{taken[0]} is the name of a metric that every experiment has; choose another")
        return scores

    @field_validator("arms")
    @classmethod
    def _are_different(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(arms)) != len(arms):
            raise ValueError("an arm is named twice")
        return arms

    @field_validator("ramp")
    @classmethod
    def _rises(cls, ramp: tuple[RampStep, ...]) -> tuple[RampStep, ...]:
        shares = [step.coverage for step in ramp]
        if shares != sorted(shares):
            raise ValueError("each step's coverage must be that of the step before, or more")
        if any(step.hours is None for step in ramp[:-1]):
            raise ValueError("state the hours of each step but the last")
        return ramp

    @model_validator(mode="after")
    def _measures_what_it_names(self) -> Experiment:
        self.check_metric("primary", self.primary)
        if self.primary in _BY_THRESHOLD and self.primary not in self.thresholds:
            raise ValueError(f"primary: {self.primary} needs a guard that states its seconds")
        for number, guard in enumerate(self.guards):
            self.check_metric(f"guards.{number}.metric", guard.metric)
        guarded = [guard.metric for guard in self.guards]
        if len(set(guarded)) != len(guarded):
            raise ValueError("guards: a metric has one guard")
        self._checks_shadow()
        return self

    def _checks_shadow(self) -> None:
        if self.shadow is None:
            return
        if strange := [name for name in self.shadow.variants if name not in self.arms[1:]]:
            raise ValueError(f"shadow.variants: {strange[0]} is no challenger; they are {', '.join(self.arms[1:])}")
        if not self.scores:
            raise ValueError("shadow: its answers are compared by their scores; state experiment.scores")
        if taken := [name for name in self.shadow.pair_scorers if name in self.scores or name in ANSWER_METRICS]:
            raise ValueError(f"shadow.pair_scorers: {taken[0]} is the name of a score or a metric; choose another")

    def check_metric(self, where: str, metric: str) -> None:
        """Check that the experiment measures a metric.

        Raises:
            ValueError: If not; it names the metrics there are.
        """
        if metric not in self.metrics:
            raise ValueError(f"{where}: there is no metric {metric!r}; there are {', '.join(self.metrics)}")

    @functools.cached_property
    def metrics(self) -> tuple[str, ...]:
        """The names of all that is measured."""
        return (
            *(f"answer.{name}" for name in (*self.scores, *ANSWER_METRICS)),
            *(f"delivered.{name}" for name in self.scores),
            *(f"call.{name}" for name in CALL_METRICS),
            *(f"feedback.{name}" for name in self.feedback),
            *(f"response.{name}" for name in self.feedback),
        )

    @functools.cached_property
    def thresholds(self) -> dict[str, float]:
        """The seconds of each metric that counts what took longer."""
        return {guard.metric: guard.seconds for guard in self.guards if guard.seconds is not None}

    @property
    def control(self) -> str:
        """The arm that the others are compared with."""
        return self.arms[0]
