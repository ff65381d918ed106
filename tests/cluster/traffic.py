"""Callers that ask while something happens to a cluster, and the account of what came of their questions."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from dspyq import predict
from dspyq.errors import RedisUnavailable
from tests.support.endpoint import Endpoint

#: How long a caller waits for its answer.
ANSWER_SECONDS = 120.0


@dataclass
class Account:
    """The outcome of a run.

    Attributes:
        answered: Questions that were answered.
        lost: What those got that were not.
        repeats: How often a caller had to ask again, because Redis did not serve it.
        slowest_seconds: The longest time from a question to its answer.
    """

    answered: int = 0
    lost: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0


class Callers:
    """Threads that ask new questions, one after another, until there were enough."""

    def __init__(self, count: int, *, threads: int, name: str) -> None:
        self.account = Account()
        self._questions = iter([f"{name} {number}" for number in range(count)])
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> Account:
        """Wait for all, and return what came of them."""
        for thread in self._threads:
            thread.join()
        return self.account

    def _run(self) -> None:
        while (question := self._next()) is not None:
            began = time.monotonic()
            try:
                self._ask(question)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
                self.account.lost.append(f"{question}: {type(error).__name__}: {error}")
                continue
            with self._lock:
                self.account.answered += 1
                self.account.slowest_seconds = max(self.account.slowest_seconds, time.monotonic() - began)

    def _ask(self, question: str) -> None:
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                predict.delay(question=question).get(timeout=ANSWER_SECONDS)
            except RedisUnavailable as error:
                self.account.repeats.append(str(error))
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return

    def _next(self) -> str | None:
        with self._lock:
            return next(self._questions, None)


def paid_twice(endpoint: Endpoint, name: str) -> list[str]:
    """Return the questions for which the model was called more than once."""
    questions = Counter(request.inputs["question"] for request in endpoint.requests() if name in request.text)
    return [question for question, count in questions.items() if count > 1]
