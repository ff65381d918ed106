"""Minutes until a guard finds a challenger that fails more often: 10 calls a second, 20 % of them enrolled.

So each arm has a call a second, of 1,000 users whose failure rates differ (correlation 0.02). The package's own guard
looks at the sums of 1,024 buckets every half minute, for two hours.
"""

from __future__ import annotations

import random
import statistics

from dspyq.experiments.guards import GuardRule, GuardTrack, advance_guard
from dspyq.experiments.placement import BUCKETS
from dspyq.experiments.sums import ArmSums, ClusterSums, RowSums

BASE, MARGIN, USERS = 0.004, 0.01, 1000
_CORRELATION = 0.02
_LOOK_SECONDS, _HOURS = 30, 2
_RARE_LOOK_SECONDS, _LONG_HOURS = 120, 8


class _Arm:
    """One arm's users, calls and sums."""

    def __init__(self, rate: float, draw: random.Random) -> None:
        weight = 1 / _CORRELATION - 1
        self.draw = draw
        self.rates = [draw.betavariate(rate * weight, (1 - rate) * weight) for _ in range(USERS)]
        self.buckets = [draw.randrange(BUCKETS) for _ in range(USERS)]
        self.use = [draw.lognormvariate(0, 1) for _ in range(USERS)]
        self.sums = [[0.0] * BUCKETS for _ in range(4)]
        self.rows = self.failed = 0

    def call(self, times: int) -> None:
        for user in self.draw.choices(range(USERS), self.use, k=times):
            failed = self.draw.random() < self.rates[user]
            for index, bucket in ((0, self.buckets[user]), (2, self.draw.randrange(BUCKETS))):
                self.sums[index][bucket] += failed
                self.sums[index + 1][bucket] += 1
            self.rows += 1
            self.failed += failed

    def read(self) -> ArmSums:
        units, unit_rows, questions, question_rows = map(tuple, self.sums)
        return ArmSums(
            ClusterSums(questions, question_rows),
            ClusterSums(units, unit_rows),
            RowSums(self.rows, self.failed, self.failed),
        )


def proven_harmless(control_rate: float, more: float, experiments: int, seed: int) -> float:
    """Return the share of experiments in which any harm beyond the margin was ruled out, in eight hours."""
    draw, rule = random.Random(seed), GuardRule(MARGIN, is_yes_or_no=True)  # noqa: S311 - a simulation
    found = 0
    for _ in range(experiments):
        control, challenger, track = _Arm(control_rate, draw), _Arm(control_rate + more, draw), GuardTrack()
        for _ in range(_LONG_HOURS * 3600 // _RARE_LOOK_SECONDS):
            control.call(_RARE_LOOK_SECONDS)
            challenger.call(_RARE_LOOK_SECONDS)
            track = advance_guard(rule, track, control.read(), challenger.read())
            if track.is_sound(rule):
                found += 1
                break
    return found / experiments


def breaches(more: float, experiments: int, seed: int, *, look_seconds: int = _LOOK_SECONDS) -> tuple[float, float]:
    """Return the share of experiments in which the guard was breached, and the median minutes until then."""
    draw, rule = random.Random(seed), GuardRule(MARGIN, is_yes_or_no=True)  # noqa: S311 - a simulation
    minutes: list[float] = []
    for _ in range(experiments):
        control, challenger, track = _Arm(BASE, draw), _Arm(BASE + more, draw), GuardTrack()
        for look in range(_HOURS * 3600 // look_seconds):
            control.call(look_seconds)
            challenger.call(look_seconds)
            track = advance_guard(rule, track, control.read(), challenger.read())
            if track.is_breached(rule):
                minutes.append((look + 1) * look_seconds / 60)
                break
    return len(minutes) / experiments, statistics.median(minutes) if minutes else float("inf")
