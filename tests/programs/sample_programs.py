"""Programs and adapters of one's own, as a configuration names them."""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import Any

import dspy

SEARCHES: list[str] = []


class Echo(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.answer(question=question)


class Loud(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.predict(question=question.upper())


class Searcher(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.agent = dspy.ReAct("question -> answer", tools=[self.search])

    @staticmethod
    def search(query: str) -> str:
        """Search."""
        SEARCHES.append(query)
        return f"found {query}"

    def forward(self, question: str) -> dspy.Prediction:
        return self.agent(question=question)


def never_good_enough(_: dict[str, Any], prediction: dspy.Prediction) -> float:
    return float(len(prediction.answer))


class ThreeTries(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.best = dspy.BestOfN(dspy.Predict("question -> answer"), N=3, reward_fn=never_good_enough, threshold=1e9)

    def forward(self, question: str) -> dspy.Prediction:
        return self.best(question=question)


class Refined(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.refined = dspy.Refine(dspy.Predict("question -> answer"), N=2, reward_fn=never_good_enough, threshold=1e9)

    def forward(self, question: str) -> dspy.Prediction:
        return self.refined(question=question)


class Fan(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        parallel = dspy.Parallel(num_threads=4, max_errors=1, disable_progress_bar=True)
        parts = parallel([(self.part, {"question": f"{question}.{number}"}) for number in range(8)])
        return dspy.Prediction(answer=" ".join(part.answer for part in parts))


class Twice(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        return self.part(question=self.part(question=question).answer)


class FanOfTwice(Fan):
    def __init__(self) -> None:
        super().__init__()
        self.part = Twice()


class Awaiting(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        async def both() -> list[dspy.Prediction]:
            in_thread = dspy.asyncify(self.part)
            return await asyncio.gather(self.part.acall(question=f"{question}.a"), in_thread(question=f"{question}.b"))

        return dspy.Prediction(answer=" ".join(part.answer for part in asyncio.run(both())))


class Gathering(Twice):
    def forward(self, question: str) -> dspy.Prediction:
        async def all_at_once() -> list[dspy.Prediction]:
            return await asyncio.gather(*(self.part.acall(question=f"{question}.{number}") for number in range(20)))

        return dspy.Prediction(answer=" ".join(part.answer for part in asyncio.run(all_at_once())))


class PlainThread(Echo):
    def forward(self, question: str) -> dspy.Prediction:
        caught: list[Exception] = []

        def call() -> None:
            try:
                self.answer(question=question)
            except Exception as error:  # noqa: BLE001 - handed over to the test
                caught.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        raise caught[0]


class Raising(Echo):
    def forward(self, question: str) -> dspy.Prediction:
        self.answer(question=question)
        errors = {"base": BaseException, "interrupt": KeyboardInterrupt, "exit": SystemExit, "mute": Mute}
        raise errors.get(question, RuntimeError)(question)


class Mute(Exception):
    def __str__(self) -> str:
        raise TypeError


class Returning(Echo):
    def forward(self, question: str) -> Any:
        if question == "deep":
            return dspy.Prediction(answer="a", steps=functools.reduce(lambda inner, _: [inner], range(5000), 1))
        returned = {"text": "a text", "nothing": None, "other": dspy.Prediction(reply=1), "dict": {"answer": "a dict"}}
        return returned.get(question, dspy.Prediction(answer=5))


class NeedsArguments(Echo):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class WithoutForward(dspy.Module):
    pass


class OwnModel(Echo):
    def __init__(self) -> None:
        super().__init__()
        self.answer.lm = dspy.LM("openai/elsewhere", api_base="http://127.0.0.1:9/v1", api_key="x")
        self.frozen = dspy.Predict("question -> answer")
        self.frozen.lm = self.answer.lm
        self.held = Echo()
        self.held.answer.lm = self.answer.lm
        self.held._compiled = True  # noqa: SLF001 - what an optimizer sets

    def forward(self, question: str) -> dspy.Prediction:
        return self.held(question=self.answer(question=question).answer)


class Shouting(dspy.ChatAdapter):
    def format_task_description(self, signature: type[dspy.Signature]) -> str:
        return super().format_task_description(signature).upper()


class ReadsInItsOwnWay(dspy.ChatAdapter):
    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        return super().parse(signature, completion)


class Lists(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> names: list[str], age: Optional[int], kind: Literal['a', 'b']")

    def forward(self, question: str) -> dspy.Prediction:
        return self.part(question=question)


class AwaitsAlone(dspy.Module):
    """Has no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.part = dspy.Predict("question -> answer")

    async def aforward(self, question: str, hint: str | None) -> dspy.Prediction:
        """Ask, and await it."""
        del hint
        answered: dspy.Prediction = await self.part.acall(question=question)
        return answered
