"""The programs of ``user_programs``: they answer without asking a model."""

from __future__ import annotations

from typing import Any

import dspy

from tests.support.user_programs import TYPED_OUTPUTS


class Echo(dspy.Module):
    """Answers with the question."""

    def forward(self, question: Any) -> dspy.Prediction:
        """Return the question."""
        return dspy.Prediction(answer=question)


class Listing(dspy.Module):
    """Answers with a list."""

    def forward(self, question: str) -> dspy.Prediction:
        """Return the question in a list."""
        return dspy.Prediction(answer=[question])


class Typed(dspy.Module):
    """Answers with a value of each type."""

    def forward(self, question: str) -> dspy.Prediction:
        """Return the outputs that tests compare."""
        del question
        return dspy.Prediction(**TYPED_OUTPUTS)
