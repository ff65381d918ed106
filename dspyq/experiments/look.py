"""A look: all that is known about an experiment at one time, as it is stored for status, metrics and reports."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from dspyq.experiments.verdict import ExperimentVerdict

#: Digits of stored numbers: what a screen or a plot can show.
_DIGITS = 7
#: Numbers beyond it, such as times, are kept as they are.
_EXACT_FROM = 1e8
#: More than any look of ours has.
_MOST_BYTES = 1 << 20


class UnreadableLook(ValueError):
    """It is not in the form that this version writes."""


@dataclass(frozen=True)
class GuardFinding:
    """Findings of the looks about a guard.

    Attributes:
        margin: The harm that is put up with; a share of the control's mean where it is relative.
        is_relative: Whether it is a share.
        log_evidence: The largest ln of the e-value so far against "no worse than the margin".
        log_limit: It is breached from this on.
        is_breached: Whether it is.
        is_sound: Whether any harm beyond the margin is ruled out, which a win needs.
    """

    margin: float
    is_relative: bool
    log_evidence: float
    log_limit: float
    is_breached: bool
    is_sound: bool


@dataclass(frozen=True)
class MetricFinding:
    """Findings of the looks about one metric of one challenger.

    Attributes:
        control: The control's mean, in the metric's unit; None without a row.
        challenger: The challenger's mean.
        scale: ``difference``: effects are challenger - control; ``logarithm``: ln(challenger / control).
        value: The effect of this look; None where it cannot be estimated.
        low: The lower end of its interval, at any time: the highest so far; None before the first look that counts.
        high: The upper end, the lowest so far.
        log_evidence: The largest -ln p so far against "no effect".
        effective_clusters: The number of equal clusters that the effect rests on.
        control_rows: The control's rows.
        challenger_rows: The challenger's rows.
        higher_is_worse: The direction of harm.
        too_early: The reason why this look does not count; None where it does.
        is_primary: Whether the metric decides.
        guard: Findings of its guard; None where it has none.
    """

    control: float | None
    challenger: float | None
    scale: str
    value: float | None
    low: float | None
    high: float | None
    log_evidence: float
    effective_clusters: float
    control_rows: int
    challenger_rows: int
    higher_is_worse: bool
    too_early: str | None = None
    is_primary: bool = False
    guard: GuardFinding | None = None


@dataclass(frozen=True)
class ChallengerFindings:
    """Findings of the looks about one challenger.

    Attributes:
        outcome: The verdict, as in ``dspyq.experiments.verdict.Outcome``.
        because: What it rests on, in one line.
        p_value: The always-valid p-value of the primary metric, adjusted for the number of challengers.
        minimum_effect: The least effect of the primary metric that matters, on its scale.
        information: The planned information 1 / V of the primary metric; None until it is frozen.
        information_now: The information of this look; 0 before there is any.
        metrics: By name; those of old looks are the primary metric, its other estimand, and the guards alone.
    """

    outcome: str
    because: str
    p_value: float
    minimum_effect: float
    information: float | None
    information_now: float
    metrics: dict[str, MetricFinding]

    @property
    def verdict(self) -> ExperimentVerdict:
        """The verdict."""
        return ExperimentVerdict(self.outcome, self.because)  # type: ignore[arg-type]  # as stored

    @property
    def breached(self) -> list[str]:
        """The metrics whose guards are breached."""
        return [name for name, each in self.metrics.items() if each.guard is not None and each.guard.is_breached]


@dataclass(frozen=True)
class Look:
    """One look at an experiment.

    Attributes:
        number: Its number, from 1.
        at: Its time, in seconds since 1970, by Redis's clock.
        version: The version of the experiment's state.
        status: Its status.
        coverage: The part of all units that is enrolled.
        days: Days since the start.
        ratio_log_evidence: The largest ln of the e-value so far against the sample ratio.
        units: Units by arm, each counted once.
        calls: Calls by arm.
        answers: Computed answers by arm.
        dropped: Calls by arm that were not counted, because too many waited for one run.
        challengers: By name.
        has_lost_counts: Whether an arm had fewer counts than at an earlier look, at this look or before.
        unscored: Scores that computed answers of an arm do not have, by arm, and by ``<score> <reason>``; the score is
            ``*`` where an answer has none.
    """

    number: int
    at: float
    version: int
    status: str
    coverage: float
    days: float
    ratio_log_evidence: float
    units: dict[str, int]
    calls: dict[str, int]
    answers: dict[str, int]
    dropped: dict[str, int]
    challengers: dict[str, ChallengerFindings]
    has_lost_counts: bool = False
    unscored: dict[str, dict[str, int]] = field(default_factory=dict)

    def dump(self) -> bytes:
        """Return it as JSON; numbers have seven digits, and what is infinite is null."""
        return orjson.dumps(_rounded(dataclasses.asdict(self)))

    def dump_point(self) -> bytes:
        """Return it compressed, with the metrics alone that decide: looks over time are kept so."""
        challengers = {
            name: dataclasses.replace(each, metrics=_deciding(each.metrics)) for name, each in self.challengers.items()
        }
        return zlib.compress(dataclasses.replace(self, challengers=challengers).dump())

    @classmethod
    def read(cls, stored: bytes) -> Self:
        """Read a look of either form; fields of a newer version are ignored.

        Raises:
            UnreadableLook: If a field is missing, or is not of its type.
        """
        try:
            stated = orjson.loads(stored if stored.startswith(b"{") else _decompressed(stored))
            challengers = {name: _challenger(each) for name, each in stated.pop("challengers").items()}
            look = cls(**_known(cls, stated), challengers=challengers)
            float(look.at), int(look.number), dict(look.units)
        except (ValueError, TypeError, KeyError, AttributeError, zlib.error) as error:
            raise UnreadableLook(f"a look at an experiment cannot be read: {type(error).__name__}") from None
        return look


def _decompressed(stored: bytes) -> bytes:
    return zlib.decompressobj().decompress(stored, _MOST_BYTES)


def _deciding(metrics: Mapping[str, MetricFinding]) -> dict[str, MetricFinding]:
    primary = next((name for name, each in metrics.items() if each.is_primary), "")
    name = primary.partition(".")[2]
    both = (f"answer.{name}", f"delivered.{name}") if primary.startswith(("answer.", "delivered.")) else ()
    return {name: each for name, each in metrics.items() if each.is_primary or each.guard or name in both}


def _challenger(stated: dict[str, Any]) -> ChallengerFindings:
    metrics = {name: _metric(each) for name, each in stated.pop("metrics").items()}
    return ChallengerFindings(**_known(ChallengerFindings, stated), metrics=metrics)


def _metric(stated: dict[str, Any]) -> MetricFinding:
    guard = stated.pop("guard", None)
    found = _known(MetricFinding, stated)
    return MetricFinding(**found, guard=GuardFinding(**_known(GuardFinding, guard)) if guard else None)


def _known(kind: Any, stated: Mapping[str, Any]) -> dict[str, Any]:
    return {name: stated[name] for name in kind.__dataclass_fields__ if name in stated}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return float(f"{value:.{_DIGITS}g}") if abs(value) < _EXACT_FROM else value
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value
