"""A program of a user's own that logs, as programs do, by both libraries, and from a thread of DSPy's."""

from __future__ import annotations

import logging

import dspy
import structlog

logger = logging.getLogger("talkative")


class Ask(dspy.Module):
    """Says that it asks, and asks."""

    def __init__(self) -> None:
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Answer."""
        logger.info("a line of a thread", extra={"stage": 3})
        return self.answer(question=question)


class Talkative(dspy.Module):
    """Says that it runs, and asks the model twice, the second time in a thread."""

    def __init__(self) -> None:
        self.ask = Ask()

    def forward(self, question: str) -> dspy.Prediction:
        """Answer, unless it is asked to raise."""
        logger.info("a plain line", extra={"stage": 1})
        structlog.get_logger("talkative").info("a structured line", stage=2)
        if question.startswith("raise"):
            raise ValueError(question)
        parallel = dspy.Parallel(num_threads=2, disable_progress_bar=True)
        return parallel([(self.ask, {"question": question}), (self.ask, {"question": f"second {question}"})])[0]
