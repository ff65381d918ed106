"""The programs of ``user_programs``: they answer without asking a model."""

from __future__ import annotations

import time
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


class Stubborn(dspy.Module):
    """Asks three times and answers whatever happens, as many programs do."""

    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Return a worse answer for each part that failed."""
        answers = []
        for number in range(3):
            try:
                answers.append(self.part(question=f"{question}.{number}").answer)
            except Exception:  # noqa: BLE001 - the point of it
                answers.append("gave up")
        return dspy.Prediction(answer=" ".join(answers))


class TwoSteps(dspy.Module):
    """Asks twice, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Return both answers."""
        first = self.part(question=f"{question} first").answer
        second = self.part(question=f"{question} second").answer
        return dspy.Prediction(answer=f"{first} {second}")


class AsksTheTime(dspy.Module):
    """Asks twice; its second question differs each time."""

    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Return the second answer."""
        first = self.part(question=question).answer
        return self.part(question=f"{first} {time.time_ns()}")


class ThreeAndOne(dspy.Module):
    """Asks three times at once, and then once more."""

    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Return the last answer."""
        parallel = dspy.Parallel(num_threads=3, disable_progress_bar=True)
        parts = parallel([(self.part, {"question": f"{question}.{number}"}) for number in range(3)])
        return self.part(question=" ".join(part.answer for part in parts))


class Crowd(dspy.Module):
    """Asks many at once, whose threads outlive the first that fails."""

    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Return all answers."""
        parallel = dspy.Parallel(num_threads=4, max_errors=100, disable_progress_bar=True)
        parts = parallel([(self.part, {"question": f"{question}.{number}"}) for number in range(40)])
        return dspy.Prediction(answer=" ".join(part.answer for part in parts if part))


class OwnModel(dspy.Module):
    """Brings a model of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")
        self.judge = dspy.LM("openai/gpt-4o-mini")

    def forward(self, question: str) -> dspy.Prediction:
        """Answer."""
        return self.part(question=question)


class Names(dspy.Module):
    """Answers with all inputs, in the order of their names."""

    def forward(self, **inputs: str) -> dspy.Prediction:
        """Return the inputs, joined."""
        return dspy.Prediction(answer=",".join(inputs[name] for name in sorted(inputs)))


class NamedOutputs(dspy.Module):
    """Answers with outputs that are named as attributes are."""

    def forward(self, question: str) -> dspy.Prediction:
        """Return them."""
        del question
        names = ("metadata", "outputs", "get", "keys", "items", "task")
        return dspy.Prediction(**{name: f"its {name}" for name in names})
