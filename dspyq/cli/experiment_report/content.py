"""Content of an experiment's report, as plain values: what is stored of it, and nothing that is drawn yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dspyq.cli.report.histograms import percentiles
from dspyq.core.days import SECONDS_OF_DAY
from dspyq.experiments.administration import LoggedChange, StartedPlan
from dspyq.experiments.durations import DurationCounts
from dspyq.experiments.feedback_days import FeedbackDay
from dspyq.experiments.look import ChallengerFindings, Look, MetricFinding
from dspyq.experiments.state import ExperimentState
from dspyq.experiments.status import NextStep, StillNeeded


@dataclass(frozen=True)
class AccountSpent:
    """Spending of an account of the experiment.

    Attributes:
        name: The account.
        period: The day or month; empty where it is all that was ever spent.
        spent_usd: The amount.
        limit_usd: Its limit; None for none.
    """

    name: str
    period: str
    spent_usd: float
    limit_usd: float | None = None


@dataclass(frozen=True)
class ExperimentReport:
    """All that a report shows.

    Attributes:
        state: The experiment's state.
        plan: Its frozen plan.
        file: The plan of the configuration file, beside that: ``as planned`` and so on.
        at: The time of the report, in seconds since 1970.
        latest: The latest look, with every metric; None before the first unit.
        looked_at: The time of the last look that was kept, a worker's as a rule; None before the first.
        points: Looks over time, the oldest first, with the metrics that decide.
        log: Changes of the experiment, the oldest first.
        feedback: Judgements by name and day of exposure.
        durations: Times of computed answers, by arm.
        accounts: What accounts of the experiment have spent, beside the calls of its arms.
        versions: The versions of dspyq and DSPy.
        needed: The rest of the plan, by challenger.
        next_step: The next step of the ramp; None for none.
    """

    state: ExperimentState
    plan: StartedPlan
    file: str
    at: float
    latest: Look | None = None
    looked_at: float | None = None
    points: tuple[Look, ...] = ()
    log: tuple[LoggedChange, ...] = ()
    feedback: Mapping[str, tuple[FeedbackDay, ...]] = dataclasses.field(default_factory=dict)
    durations: Mapping[str, DurationCounts] = dataclasses.field(default_factory=dict)
    accounts: tuple[AccountSpent, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    needed: Mapping[str, StillNeeded] = dataclasses.field(default_factory=dict)
    next_step: NextStep | None = None

    @property
    def table(self) -> Mapping[str, Any]:
        """The frozen table of the configuration file."""
        return self.plan.table

    @property
    def looks(self) -> tuple[Look, ...]:
        """Looks over time, the latest at the end."""
        if self.latest is None:
            return self.points
        return (*(look for look in self.points if look.number < self.latest.number), self.latest)

    @property
    def challengers(self) -> tuple[str, ...]:
        """The arms but the control."""
        return self.state.arms[1:]

    @property
    def primary(self) -> str:
        """The metric that decides."""
        return str(self.table["primary"])

    @property
    def confidence(self) -> float:
        """The probability that an interval never leaves out the true effect."""
        return 1 - float(self.table["alpha"])

    @property
    def days(self) -> float:
        """Days from the start to the last look, or to now where there is none."""
        until = max((look.at for look in self.looks), default=self.at)
        return max(0.0, until - self.state.started_at) / SECONDS_OF_DAY

    def found(self, arm: str) -> ChallengerFindings | None:
        """Return what the latest look has found about a challenger."""
        return self.latest.challengers.get(arm) if self.latest else None

    def metric(self, arm: str, name: str) -> MetricFinding | None:
        """Return what the latest look has found about a metric of a challenger."""
        found = self.found(arm)
        return found.metrics.get(name) if found else None

    def mean_of(self, arm: str, name: str) -> float | None:
        """Return an arm's mean of a metric."""
        if arm == self.state.control:
            found = next((each for other in self.challengers if (each := self.metric(other, name))), None)
            return found.control if found else None
        own = self.metric(arm, name)
        return own.challenger if own else None

    def rows_of(self, arm: str, name: str) -> int:
        """Return the rows of a metric in an arm."""
        if arm == self.state.control:
            found = next((each for other in self.challengers if (each := self.metric(other, name))), None)
            return found.control_rows if found else 0
        own = self.metric(arm, name)
        return own.challenger_rows if own else 0

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "program": self.state.program,
            "experiment": self.state.name,
            "at": self.at,
            "file": self.file,
            "state": dataclasses.asdict(self.state),
            "plan": self.plan._asdict(),
            "latest": dataclasses.asdict(self.latest) if self.latest else None,
            "looks": [dataclasses.asdict(look) for look in self.points],
            "feedback": {name: [day._asdict() for day in days] for name, days in self.feedback.items()},
            "durations": {
                arm: {"answers": each.number} | {f"{name}_seconds": value for name, value in percentiles(each).items()}
                for arm, each in self.durations.items()
            },
            "accounts": [dataclasses.asdict(account) for account in self.accounts],
            "versions": dict(self.versions),
            "needed": {arm: dataclasses.asdict(each) for arm, each in self.needed.items()},
            "log": [entry._asdict() for entry in self.log],
        }
