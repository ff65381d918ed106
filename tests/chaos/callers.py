"""Callers of one fault, and those that ask all the while."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.stage import Stage

_PATIENCE_SECONDS = 60.0


@dataclass
class Call:
    """One caller's question.

    Attributes:
        question: The question.
        handle: What the caller holds.
        asked_at: When it asked, seconds since 1970.
        answered_at: When it heard of its result.
        answer: The answer it saw.
        error: What it saw in place of one.
    """

    question: str
    handle: Any
    asked_at: float
    answered_at: float | None = None
    answer: str | None = None
    error: str | None = None


class Load(threading.Thread):
    """Callers that ask all the while.

    Attributes:
        refusals: What they were told where Redis could not be asked.
    """

    _ROWS = 5

    def __init__(self, stage: Stage, questions_per_second: float, *, is_patient: bool) -> None:
        super().__init__(daemon=True)
        self._stage = stage
        self._interval_seconds = self._ROWS / questions_per_second
        self._is_patient = is_patient
        self._is_ending = threading.Event()
        self.refusals: Counter[str] = Counter()

    def run(self) -> None:
        """Ask."""
        while not self._is_ending.wait(self._interval_seconds):
            questions = self._stage.questions(self._ROWS)
            self._ask(questions)
            for question in self._stage.questions(self._ROWS):
                self._ask([question])

    def end(self) -> None:
        """Ask no more; what was begun is asked to its end."""
        self._is_ending.set()
        self.join()

    def _ask(self, questions: list[str]) -> None:
        from dspyq.errors import RedisUnavailable

        while True:
            try:
                self._stage.ask_and_get(questions, _PATIENCE_SECONDS)
            except RedisUnavailable as error:
                self.refusals[str(error)[:200]] += 1
                if not self._is_patient:
                    return
                time.sleep(0.1)
            else:
                return
