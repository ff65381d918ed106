import config
import dspy


class Shout(dspy.Module):
    """A program of the project's own, in a package that 0.1 had claimed."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=f"{config.NAME}: {self.answer(question=question).answer}")
