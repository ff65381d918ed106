"""Experiments without an effect behind a cache: answers that many are served, users that differ, a bot.

2,000 users of lognormal use call 10,000 times, in two equal arms. A question's first call in an arm computes an answer,
which is good or not once and for all; later calls of that question are served it. Popular questions come from 3,000 by
Zipf; the rest are each user's own. A row of the answer metric is a computed answer, of the call metric a call that it
was served to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.many import ManySums, Tracks
from dspyq.experiments.placement import BUCKETS
from dspyq.experiments.planned import planned_information
from dspyq.experiments.sequential import SequentialRule

USERS, QUESTIONS, CALLS, LOOKS = 2000, 3000, 10_000, 50
_OWN = 5  # questions of a user's own
_BATCH = 20
_Z = 1.959964


@dataclass(frozen=True)
class Traffic:
    """A kind of traffic.

    Attributes:
        name: As the table shows it.
        zipf: The exponent of the questions' popularity.
        own: The share of calls with a question of the user's own.
        differ: Standard deviation of users' rates, on questions of their own, and of their taste.
        bot: The share of calls that one user makes, each with a question of its own.
        expiry: Calls after which answers are computed anew; 0 for never.
    """

    name: str
    zipf: float = 1.0
    own: float = 0.0
    differ: float = 0.0
    bot: float = 0.0
    expiry: int = 0


WORLDS = (
    Traffic("Zipf 1.0"),
    Traffic("Zipf 0.7", zipf=0.7),
    Traffic("Zipf 1.0, users differ, 40 % own questions", own=0.4, differ=0.15),
    Traffic("Zipf 0.7, users differ, 40 % own questions", zipf=0.7, own=0.4, differ=0.15),
    Traffic("Zipf 1.0, a bot of 10 %, users differ", own=0.4, differ=0.15, bot=0.1),
    Traffic("Zipf 0.7, a bot of 10 %, users differ", zipf=0.7, own=0.4, differ=0.15, bot=0.1),
    Traffic("Zipf 1.0, answers expire", expiry=500),
)


@dataclass
class Calls:
    """Calls of a batch of experiments, in their order: each array has one row for each experiment."""

    arm: NDArray
    unit: NDArray
    question: NDArray
    good: NDArray
    cost: NDArray
    seen: NDArray
    is_first: NDArray


def _calls(world: Traffic, draw: np.random.Generator, effect: float) -> Calls:
    shape = (_BATCH, CALLS)
    popularity = np.cumsum(np.arange(1, QUESTIONS + 1) ** -world.zipf)
    row = np.arange(_BATCH)[:, None]
    use = np.cumsum(draw.lognormal(0, 1, (_BATCH, USERS)), 1)
    use = use / use[:, -1:] * (1 - 1e-9) + row
    user = np.searchsorted(use.ravel(), ((draw.random(shape) + row) * (1 - 1e-12)).ravel(), side="right").reshape(shape)
    user = np.clip(user - row * USERS, 0, USERS - 1)
    question = np.minimum(np.searchsorted(popularity, draw.random(shape) * popularity[-1]), QUESTIONS - 1)
    is_own = draw.random(shape) < world.own
    question = np.where(is_own, QUESTIONS + user * _OWN + draw.integers(0, _OWN, shape), question)
    first_of_bot = QUESTIONS + USERS * _OWN
    is_bot = draw.random(shape) < world.bot
    user = np.where(is_bot, 0, user)
    question = np.where(is_bot, first_of_bot + np.arange(CALLS), question)
    kinds = first_of_bot + CALLS
    taste = draw.normal(0, 1, (_BATCH, USERS)) * world.differ
    # Popular questions are easier; those of one user are alike.
    base = np.full((_BATCH, kinds), 0.7)
    base[:, :QUESTIONS] += 0.15 * np.linspace(1, -1, QUESTIONS)
    base[:, QUESTIONS:first_of_bot] += np.repeat(taste, _OWN, axis=1)
    base[:, first_of_bot:] += taste[:, :1]
    base = np.clip(base + draw.normal(0, 0.15, base.shape), 0.02, 0.98)
    price = draw.normal(0, 0.5, (_BATCH, kinds))
    arm = draw.integers(0, 2, (_BATCH, USERS))[row, user]
    life = np.arange(CALLS) // world.expiry if world.expiry else np.zeros(CALLS, int)
    lives = int(life[-1]) + 1
    key = ((row * 2 + arm) * kinds + question) * lives + life
    keys, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    is_first = np.zeros(_BATCH * CALLS, bool)
    is_first[first] = True
    luck = draw.random(len(keys))[inverse.reshape(shape)]
    good = (luck < np.clip(base[row, question] + effect * arm, 0, 1)).astype(float)
    return Calls(
        arm,
        draw.integers(0, BUCKETS, (_BATCH, USERS))[row, user],
        draw.integers(0, BUCKETS, (_BATCH, kinds))[row, question],
        good,
        np.exp(price[row, question] + draw.normal(0, 0.3, len(keys))[inverse.reshape(shape)]),
        np.clip(0.9 * good + 0.05 + taste[row, user] * 0.67, 0, 1),
        is_first.reshape(shape),
    )


class _Run:
    """A batch's sums by answer and by call, look by look."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.answers = ManySums(_BATCH, is_yes_or_no=True)
        self.costs = ManySums(_BATCH, is_yes_or_no=False, scale="logarithm")
        self.served = ManySums(_BATCH, is_yes_or_no=False)
        self.number = np.broadcast_to(np.arange(_BATCH)[:, None], calls.arm.shape)

    def advance(self, start: int, end: int) -> None:
        """Add the calls from ``start`` to ``end``."""
        calls, part = self.calls, (slice(None), slice(start, end))
        rows = (self.number[part], calls.arm[part], calls.unit[part], calls.question[part])
        self.served.add(*(each.ravel() for each in rows), calls.seen[part].ravel())
        is_first = calls.is_first[part]
        answers = [each[is_first] for each in rows]
        self.answers.add(*answers, calls.good[part][is_first])
        self.costs.add(*answers, calls.cost[part][is_first])


def rules(world: Traffic, seed: int) -> list[SequentialRule]:
    """Return rules by answer, by call and of cost, whose plans are over at 60 % of the information of another run."""
    run = _Run(_calls(world, np.random.default_rng(seed), 0.0))
    run.advance(0, CALLS)
    frozen = []
    for sums in (run.answers, run.served, run.costs):
        information = 0.6 / float(np.median(sums.look().variance))
        frozen.append(SequentialRule((planned_information(1.0) / information) ** 0.5, information))
    return frozen


def findings(world: Traffic, experiments: int, seed: int, effect: float = 0.0) -> dict[str, float]:
    """Return the shares of experiments that found an effect, by metric and rule, and the effective clusters."""
    by_answer, by_call, of_cost = rules(world, seed + 1)
    draw = np.random.default_rng(seed)
    found: dict[str, int] = {}
    clusters: dict[str, list[float]] = {"answer G*": [], "call G*": []}

    def count(name: str, number: int) -> None:
        found[name] = found.get(name, 0) + int(number)

    for batch in range(experiments // _BATCH):
        run = _Run(_calls(world, draw, effect))
        tracks = Tracks(by_answer, _BATCH), Tracks(by_call, _BATCH), Tracks(by_answer, _BATCH), Tracks(of_cost, _BATCH)
        for index in range(LOOKS):
            run.advance(CALLS * index // LOOKS, CALLS * (index + 1) // LOOKS)
            answers, served, costs = run.answers.look(), run.served.look(), run.costs.look()
            if index == batch % LOOKS:
                run.answers.check(batch % _BATCH, answers)
                run.served.check(batch % _BATCH, served)
                run.costs.check(batch % _BATCH, costs)
            tracks[0].look(index, answers.value, answers.variance, answers.is_ripe)
            tracks[1].look(index, served.value, served.variance, served.is_ripe)
            tracks[2].look(index, answers.value, answers.by_question, answers.question_clusters >= 20)
            tracks[3].look(index, costs.value, costs.variance, costs.is_ripe)
        count("cost, joined, two ways", tracks[3].found)
        count("answer, joined, two ways", tracks[0].found)
        count("answer, ripe", answers.is_ripe.sum())
        count("call, ripe", served.is_ripe.sum())
        count("call, joined, two ways", tracks[1].found)
        count("answer, joined, by question alone", tracks[2].found)
        is_split = answers.value * served.value < 0
        count("answer, joined, estimands agree", (np.isfinite(tracks[0].found_at) & ~is_split).sum())
        count("answer, one look, two ways", (np.abs(answers.value) > _Z * np.sqrt(answers.variance)).sum())
        count("call, one look, two ways", (np.abs(served.value) > _Z * np.sqrt(served.variance)).sum())
        count("call, one look, by unit alone", (np.abs(served.value) > _Z * np.sqrt(served.by_unit)).sum())
        clusters["answer G*"] += answers.effective_clusters.tolist()
        clusters["call G*"] += served.effective_clusters.tolist()
    total = experiments // _BATCH * _BATCH
    shares = {name: number / total for name, number in found.items()}
    return shares | {name: float(np.median(each)) for name, each in clusters.items()}
