"""Scoring of answers and categories of questions, as programs declare them, in a thread.

No caller waits for a score. If answers arrive faster than scorers run, answers are skipped and counted; those of an
experiment with scores wait in Redis, where they survive this worker.
"""

from __future__ import annotations

import functools
import logging
import math
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import redis

from dspyq.config.codec import decode_inputs, decode_outputs
from dspyq.config.programs import Program
from dspyq.config.settings import Settings
from dspyq.config.variants import Variant
from dspyq.core.runtime import current
from dspyq.core.tolerated import survived, tolerate
from dspyq.errors import ConfigurationError
from dspyq.experiments.scores import NoScore
from dspyq.experiments.shadows import pair_scorers
from dspyq.guards import metrics
from dspyq.guards.model import Guards
from dspyq.prediction.hooks import import_hook
from dspyq.programs.judges import JudgeBusy, JudgeRefused, Judges
from dspyq.worker.monitoring.answered import Answered
from dspyq.worker.monitoring.experiment_scoring import ExperimentScoring, Sample
from dspyq.worker.monitoring.pairing import Pairing, PairScorer, pair_of

logger = logging.getLogger("dspyq.scoring")

Scorer = Callable[[dict[str, Any], dict[str, Any]], float]
Categorizer = Callable[[dict[str, Any]], str]

_MOST_WAITING = 1000
_LATEST_SCORES = 100
_MOST_CATEGORIES = 16
_OTHER = "other"
#: Pattern of a category: a name, not a user's text.
_CATEGORY = re.compile(r"[A-Za-z0-9_-]{1,32}")


class _Hooks(NamedTuple):
    """Scoring hooks that a program declares.

    Attributes:
        scorers: Its scorers, by their import path.
        categorize: Its function for the category of a question; None for the length of the inputs.
        pair_scorers: The functions that compare two answers, by their import path.
    """

    scorers: dict[str, Scorer]
    categorize: Categorizer | None
    pair_scorers: dict[str, PairScorer]


class Scoring:
    """Runs the hooks of all programs.

    Attributes:
        failures: Number of hooks that failed or returned an invalid value.
        dropped: Number of answers skipped because too many waited.
    """

    def __init__(self, settings: Settings, queues: Container[str], guards: Guards) -> None:
        """Import the hooks, and build the models that they call.

        Args:
            settings: The configuration.
            queues: The queues that are served.
            guards: The guards of the models that scorers call.

        Raises:
            ConfigurationError: With every hook that does not import, or every fault of those models.
        """
        self.failures = 0
        self.dropped = 0
        self._hooks = _import_hooks(settings, queues)
        self._judges = Judges(settings, queues, guards)
        self._experiments = ExperimentScoring(settings, queues)
        self._pairing = Pairing()
        self._waiting: queue.SimpleQueue[Answered] = queue.SimpleQueue()
        self._latest: dict[str, deque[float]] = {}
        self._categories: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=current().bind(self._run), name="dspyq-scoring", daemon=True)

    def start(self) -> None:
        """Start the thread, if a program has hooks."""
        if any(hooks.scorers or hooks.categorize for hooks in self._hooks.values()):
            self._thread.start()

    def take(self, answered: Answered) -> None:
        """Queue an answer for scoring, or skip it; any thread may call this, and it never blocks."""
        if self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put(answered._replace(since=time.monotonic()))
        elif not answered.task_id:  # else it waits in Redis too
            self.dropped += 1

    def _run(self) -> None:
        while True:
            with survived("experiment_scores"), suppress(queue.Empty):
                answered = self._waiting.get(timeout=self._experiments.seconds_to_look)
                with answered.runtime.active():
                    self.score(answered)
            with survived("experiment_scores"):
                for answered in self._experiments.take(_MOST_WAITING - self._waiting.qsize()):
                    self._waiting.put(answered)

    def score(self, answered: Answered) -> None:
        """Run a program's hooks on one answer; their failures are counted, not raised."""
        if answered.is_stale:
            return
        hooks = self._hooks[answered.program.name]
        if hooks.categorize is not None:
            with self._tolerated("categorize", answered.program):
                self._count_category(hooks.categorize(_typed_inputs(answered)))
        sample = self._experiments.sample(answered)
        found: dict[str, float | NoScore] = {}
        is_complete = True
        for path, scorer in hooks.scorers.items():
            if path in sample.left_out:
                continue
            try:
                found[path] = self._run_scorer(path, scorer, answered)
            except JudgeBusy:
                is_complete = False
        compared: dict[str, float | NoScore] = {}
        try:
            compared = self._compare(answered, sample)
        except JudgeBusy:
            is_complete = False
        except redis.RedisError as error:
            tolerate("experiment_scores", error)
            is_complete = False
        if answered.task_id:
            self._experiments.add(answered, sample, found, compared, is_complete=is_complete)
        elif not is_complete:
            self.dropped += 1

    def _run_scorer(self, path: str, scorer: Scorer, answered: Answered) -> float | NoScore:
        """Return an answer's score, or why there is none.

        Raises:
            JudgeBusy: If the model that it calls cannot be called now.
        """

        def run() -> float:
            outputs = decode_outputs(answered.program, dict(answered.outputs))
            return float(scorer(_typed_inputs(answered), outputs))

        score = self._judged(path, answered, run)
        if not isinstance(score, str):
            self._count_score(answered.variant, path, score)
        return score

    def _compare(self, answered: Answered, sample: Sample) -> dict[str, float | NoScore]:
        """Return what pair scorers find of a shadow run's answer beside the control's, by their names in the plan.

        Raises:
            JudgeBusy: If the model that one calls cannot be called now.
            redis.RedisError: If Redis does not answer.
        """
        table = sample.plan.table if sample.plan else {}
        control_id = self._pairing.control_of(answered, table)
        if not control_id:
            return {}
        hooks, pair = self._hooks[answered.program.name].pair_scorers, None
        of_control = self._pairing.outputs_of(control_id)
        with self._tolerated("pair_scorers", answered.program):
            pair = pair_of(answered, table, of_control) if of_control is not None else None
        compared: dict[str, float | NoScore] = {}
        for name, path in pair_scorers(table).items():
            if pair is None or path not in hooks:
                compared[name] = "no_scorer" if pair else "no_control"
            else:
                compared[name] = self._judged(path, answered, functools.partial(pair.compare, hooks[path]))
        return compared

    def _judged(self, path: str, answered: Answered, run: Callable[[], float]) -> float | NoScore:
        """Return what a function finds, or why there is nothing.

        Raises:
            JudgeBusy: If the model that it calls cannot be called now.
        """
        with self._tolerated(path, answered.program):
            try:
                score = self._judges.run(answered.program.name, answered.variant.name, answered.task_id, run)
            except JudgeRefused:
                return "refused"
            if not math.isfinite(score):
                raise ValueError("a score is a finite number")
            return score
        return "failed"

    def _count_score(self, variant: Variant, path: str, score: float) -> None:
        metrics.ANSWER_QUALITY.labels(variant.queue, path).observe(score)
        latest = self._latest.setdefault(variant.model.name, deque(maxlen=_LATEST_SCORES))
        latest.append(score)
        metrics.ANSWER_QUALITY_SCORE.labels(variant.model.name).set(sum(latest) / len(latest))

    def _count_category(self, category: str) -> None:
        """Count a category, by name only for the first few: names may come from users' texts."""
        if not _CATEGORY.fullmatch(category):
            raise ValueError("a category is a short name")
        if category not in self._categories:
            if len(self._categories) >= _MOST_CATEGORIES:
                category = _OTHER
            else:
                self._categories.add(category)
        metrics.QUESTION_COMPLEXITY.labels(category).inc()

    @contextmanager
    def _tolerated(self, hook: str, program: Program) -> Iterator[None]:
        """Count a failure, and log each kind once without its text, which may quote the answer."""
        try:
            yield
        except JudgeBusy:  # it may be there later
            raise
        except BaseException as error:  # noqa: BLE001 - a hook may raise anything
            self.failures += 1
            kind = type(error).__name__
            if (hook, kind) not in self._told:
                self._told.add((hook, kind))
                logger.warning(
                    "%s of program %s failed: %s; from now on that is only counted", hook, program.name, kind
                )


def _typed_inputs(answered: Answered) -> dict[str, Any]:
    return decode_inputs(answered.program, dict(answered.inputs))


def _import_hooks(settings: Settings, queues: Container[str]) -> dict[str, _Hooks]:
    """Import the hooks that programs declare.

    Raises:
        ConfigurationError: With every hook that does not import.
    """
    faults: list[str] = []

    def find(path: str, setting: str) -> Any:
        try:
            return import_hook(path, setting)
        except ConfigurationError as error:
            faults.extend(error.faults)

    hooks = {}
    for program in settings.programs.values():
        if not any(variant.queue in queues for variant in program.variants.values()):
            continue
        setting = f"programs.{program.name}"
        scorers = {path: find(path, f"{setting}.scorers") for path in program.scorers}
        categorize = find(program.categorize, f"{setting}.categorize") if program.categorize else None
        shadow = program.experiment.shadow if program.experiment else None
        own = f"{setting}.experiment.shadow.pair_scorers"
        pairs = {path: find(path, own) for path in (shadow.pair_scorers.values() if shadow else ())}
        hooks[program.name] = _Hooks(scorers, categorize, pairs)
    if faults:
        raise ConfigurationError(faults)
    return hooks
