"""Classes whose signature is derived, or cannot be."""

import datetime
from typing import Any, Literal, Optional

import dspy

from tests.programs.sample_types import Verdict


class Typed(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        signature = dspy.Signature("ticket, rest: list[str], hint -> mood: Literal['a'], due: str")
        self.judge = dspy.ChainOfThought(signature.with_updated_fields("due", type_=datetime.date | None))

    def forward(self, ticket: str, rest: list[str], hint: str = "x", note: Optional[str] = None) -> Any:  # noqa: UP045 - users write it so
        return self.judge(ticket=ticket, rest=rest, hint=hint + (note or ""))


class TwoSteps(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.Predict("question -> draft")
        self.finish = dspy.Predict("question, draft -> answer")

    def forward(self, question):
        return self.finish(question=question, draft=self.draft(question=question).draft)


class Judged(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        fields = {"picture": (dspy.Image, dspy.InputField()), "verdict": (Verdict, dspy.OutputField())}
        self.judge = dspy.Predict(dspy.make_signature(fields))

    def forward(self, **inputs: Any) -> Any:
        return self.judge(**inputs)


class SideBySide(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = dspy.Predict("question -> answer")
        self.other = dspy.Predict("question -> verdict: bool")

    def forward(self, question: str) -> Any:
        return dspy.Prediction(answer=self.one(question=question).answer)


class Undecided(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = dspy.Predict("mode: Literal['a', 'b'] -> answer")

    def forward(self, mode: Literal["a", "b"] = "a", at: Any = datetime.date.min) -> Any:
        return self.one(mode=mode, at=at)
