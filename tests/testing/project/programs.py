"""The user's DSPy program."""

import dspy


class Shouted(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    async def aforward(self, question):
        answered = await self.answer.acall(question=question)
        return dspy.Prediction(answer=answered.answer.upper())
