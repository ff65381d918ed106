"""Scores answers and names kinds of questions, as programs declare it, in a thread of its own.

Nobody waits for a score. Where scorers are slower than the answers come, answers are passed over and counted.
"""

from __future__ import annotations

import importlib
import logging
import math
import operator
import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from dspyq.config.codec import decode_inputs, decode_outputs
from dspyq.config.models import Program, Variant
from dspyq.config.settings import Settings
from dspyq.errors import ConfigurationError
from dspyq.guards import metrics

logger = logging.getLogger("dspyq.scoring")

Scorer = Callable[[dict[str, Any], dict[str, Any]], float]
Categorizer = Callable[[dict[str, Any]], str]

_MOST_WAITING = 1000
_LATEST_SCORES = 100
_MOST_CATEGORIES = 16
_OTHER = "other"
#: A name, not what a user wrote.
_CATEGORY = re.compile(r"[A-Za-z0-9_-]{1,32}")


class _Hooks(NamedTuple):
    """What a program declares.

    Attributes:
        scorers: Its scorers, by their import path.
        categorize: Its own way to name a question's kind; None for the length of the inputs.
    """

    scorers: dict[str, Scorer]
    categorize: Categorizer | None


class _Answered(NamedTuple):
    program: Program
    variant: Variant
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


class Scoring:
    """Runs the hooks of all programs.

    Attributes:
        failures: How often a hook failed, or returned what it must not.
        dropped: How many answers were passed over, because too many waited.
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
        self._waiting: queue.SimpleQueue[_Answered] = queue.SimpleQueue()
        self._latest: dict[str, deque[float]] = {}
        self._categories: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._run, name="dspyq-scoring", daemon=True)

    def start(self) -> None:
        """Start the thread, where a program has hooks."""
        if any(hooks.scorers or hooks.categorize for hooks in self._hooks.values()):
            self._thread.start()

    def take(self, program: Program, variant: Variant, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Take an answer to be scored soon, or pass it over; any thread may call this, and never waits."""
        if self._waiting.qsize() < _MOST_WAITING:
            self._waiting.put(_Answered(program, variant, inputs, outputs))
        else:
            self.dropped += 1

    def _run(self) -> None:
        while True:
            self.score(self._waiting.get())

    def score(self, answered: _Answered) -> None:
        """Run a program's hooks on one answer; none of their failures leaves this."""
        hooks = self._hooks[answered.program.name]
        if hooks.categorize is not None:
            with self._tolerated("categorize", answered.program):
                self._count_category(hooks.categorize(_typed_inputs(answered)))
        for path, scorer in hooks.scorers.items():
            with self._tolerated(path, answered.program):
                outputs = decode_outputs(answered.program, dict(answered.outputs))
                score = float(scorer(_typed_inputs(answered), outputs))
                if not math.isfinite(score):
                    raise ValueError("a score is a finite number")
                self._count_score(answered.variant, path, score)

    def _count_score(self, variant: Variant, path: str, score: float) -> None:
        metrics.ANSWER_QUALITY.labels(variant.queue, path).observe(score)
        latest = self._latest.setdefault(variant.model.name, deque(maxlen=_LATEST_SCORES))
        latest.append(score)
        metrics.ANSWER_QUALITY_SCORE.labels(variant.model.name).set(sum(latest) / len(latest))

    def _count_category(self, category: str) -> None:
        """Count a category, the first few by their name: it may be made of what users write."""
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
        """Count a failure, and log each kind once: without its text, which may quote the answer."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001 - a hook may raise what it likes
            self.failures += 1
            kind = type(error).__name__
            if (hook, kind) not in self._told:
                self._told.add((hook, kind))
                logger.warning(
                    "%s of program %s failed: %s; from now on that is only counted", hook, program.name, kind
                )


def _typed_inputs(answered: _Answered) -> dict[str, Any]:
    return decode_inputs(answered.program, dict(answered.inputs))


def _import_hooks(settings: Settings, queues: Container[str]) -> dict[str, _Hooks]:
    """Import what programs declare.

    Raises:
        ConfigurationError: With every hook that does not import.
    """
    faults: list[str] = []

    def find(path: str, setting: str) -> Any:
        module_path, _, name = path.partition(":")
        try:
            found = operator.attrgetter(name)(importlib.import_module(module_path))
        except Exception as error:  # noqa: BLE001 - the user's module may raise what it likes
            faults.append(f"{setting}: {path} does not import: {type(error).__name__}: {error}")
            return None
        if not callable(found):
            faults.append(f"{setting}: {path} is no function")
        return found

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
