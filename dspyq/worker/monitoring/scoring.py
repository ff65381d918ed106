"""Scoring of answers and categories of questions, as programs declare them, in a thread.

No caller waits for a score. If answers arrive faster than scorers run, answers are skipped and counted; those of an
experiment with scores wait in Redis, where they survive this worker.
"""

from __future__ import annotations

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

from dspyq.config.codec import decode_inputs, decode_outputs
from dspyq.config.programs import Program
from dspyq.config.settings import Settings
from dspyq.config.variants import Variant
from dspyq.core.runtime import current
from dspyq.core.tolerated import survived
from dspyq.errors import ConfigurationError
from dspyq.guards import metrics
from dspyq.prediction.hooks import import_hook
from dspyq.worker.monitoring.answered import Answered
from dspyq.worker.monitoring.experiment_scoring import ExperimentScoring

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
    """

    scorers: dict[str, Scorer]
    categorize: Categorizer | None


class Scoring:
    """Runs the hooks of all programs.

    Attributes:
        failures: Number of hooks that failed or returned an invalid value.
        dropped: Number of answers skipped because too many waited.
    """

    def __init__(self, settings: Settings, queues: Container[str]) -> None:
        """Import the hooks.

        Args:
            settings: The configuration.
            queues: The queues that are served.

        Raises:
            ConfigurationError: With every hook that does not import.
        """
        self.failures = 0
        self.dropped = 0
        self._hooks = _import_hooks(settings, queues)
        self._experiments = ExperimentScoring(settings, queues)
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
                self.score(self._waiting.get(timeout=self._experiments.seconds_to_look))
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
        found: dict[str, float | None] = {}
        for path, scorer in hooks.scorers.items():
            found[path] = None
            with self._tolerated(path, answered.program):
                outputs = decode_outputs(answered.program, dict(answered.outputs))
                score = float(scorer(_typed_inputs(answered), outputs))
                if not math.isfinite(score):
                    raise ValueError("a score is a finite number")
                found[path] = score
                self._count_score(answered.variant, path, score)
        if answered.task_id:
            self._experiments.add(answered, found)

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
        hooks[program.name] = _Hooks(scorers, categorize)
    if faults:
        raise ConfigurationError(faults)
    return hooks
