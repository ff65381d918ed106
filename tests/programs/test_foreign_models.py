"""Models that a program makes while it runs: none is called."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.clients.typesafe import TypeSafe

from dspyq.config.settings import load_settings
from dspyq.errors import UnguardedModel
from dspyq.guards.call_records import JobRun
from dspyq.guards.interruptions import FailPrediction
from dspyq.guards.ledger import Ledger
from dspyq.programs.foreign_models import HOOKS
from dspyq.programs.in_process import InProcessPrograms
from dspyq.programs.runner import Runner
from tests.support.configuration import default_document, write_settings
from tests.support.endpoint import Endpoint

ELSEWHERE = "elsewhere"
#: Where the endpoint is that no guard stands before.
URLS: list[str] = []


class Overridden(dspy.LM):  # type: ignore[misc]  # dspy ships no types
    def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
        return super().forward(prompt, messages, **kwargs)


def foreign(kind: type[dspy.LM] = dspy.LM, **options: Any) -> dspy.LM:
    return kind(f"openai/{ELSEWHERE}", api_base=URLS[-1], api_key="x", cache=False, num_retries=0, **options)


def ask(question: str, **options: Any) -> Any:
    return foreign(**options)(question)


def in_context(question: str) -> Any:
    with dspy.context(lm=foreign()):
        return dspy.Predict("question -> answer")(question=question)


def set_on_a_predictor(question: str) -> Any:
    predictor = dspy.Predict("question -> answer")
    predictor.set_lm(foreign())
    return predictor(question=question)


def given_to_a_call(question: str) -> Any:
    return dspy.Predict("question -> answer")(question=question, lm=foreign())


def in_threads(question: str) -> Any:
    examples = [(in_context, {"question": question}), (in_context, {"question": question})]
    return dspy.Parallel(num_threads=2, disable_progress_bar=True)(examples)


def in_an_adapter(question: str) -> Any:
    with dspy.context(adapter=dspy.TwoStepAdapter(foreign())):
        return dspy.Predict("question -> answer")(question=question)


def in_a_tool(question: str) -> Any:
    return dspy.Tool(ask, name="search")(question=question)


def in_a_task(question: str) -> Any:
    async def ask() -> Any:
        return await asyncio.gather(*(foreign().acall(question) for _ in range(2)))

    return asyncio.run(ask())


def swallowed(question: str) -> Any:
    try:
        return foreign()(question)
    except BaseException:  # noqa: BLE001 - as a program may
        return None


def with_another_engine(question: str) -> Any:
    copied = dspy.settings.lm.copy(engine="lm15", model=f"openai/{ELSEWHERE}")
    copied.kwargs |= {"api_base": URLS[-1], "api_key": "x"}
    return copied(question)


WAYS: list[Callable[[str], Any]] = [
    ask,
    lambda question: foreign().forward(question),
    functools.partial(ask, kind=Overridden),
    functools.partial(ask, engine="litellm"),
    in_context,
    set_on_a_predictor,
    given_to_a_call,
    in_threads,
    in_an_adapter,
    in_a_tool,
    in_a_task,
    swallowed,
    with_another_engine,
    lambda _: TypeSafe(base_url=URLS[-1], api_key="x")("state", []),
]


class Inventive(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """Answers by the way whose number it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        WAYS[int(question)](question)
        return self.answer(question=question)


class InventiveLater(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """The same, awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        await foreign().acall(question)
        return await self.answer.acall(question=question)


def run(runner: Runner, question: str, endpoint: Endpoint) -> str:
    """Run a program that is refused, and return the line that says so."""
    URLS[:] = [endpoint.url]
    ledger = Ledger(JobRun("id", "", "qa", "a"))
    with pytest.raises(FailPrediction) as raised:
        runner.run({"question": question}, ledger)
    assert isinstance(raised.value.error, UnguardedModel)
    assert not raised.value.error.retryable
    return str(raised.value.error)


def test_a_model_that_a_program_makes_while_it_runs_is_never_called(
    build: Callable[..., Runner], endpoint: Endpoint
) -> None:
    runner = build(**{"class": f"{__name__}:Inventive"})
    told = [run(runner, str(number), endpoint) for number in range(len(WAYS))]
    assert [request for request in endpoint.requests() if request.model != "m"] == []
    assert all("[programs.qa.models]" in line and "\n" not in line for line in told)
    assert all(f"openai/{ELSEWHERE}" in line for line in told[:-1])


def test_one_that_is_awaited_is_not_called_either(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    runner = build(**{"class": f"{__name__}:InventiveLater"})
    assert f"openai/{ELSEWHERE}" in run(runner, "0", endpoint)
    assert endpoint.calls() == 0


def test_a_model_is_called_as_before_where_no_program_runs(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    runner = build()
    URLS[:] = [endpoint.url]
    assert foreign()("hello") == ["echo:hello"]
    assert in_context("hi").answer == "echo:hi"
    assert runner.run({"question": "hi"}).outputs == {"answer": "echo:hi"}
    assert asyncio.run(foreign().acall("hello")) == ["echo:hello"]


def test_programs_under_test_run_on_models_of_the_users_own(
    build: Callable[..., Runner], tmp_path: Path, endpoint: Endpoint
) -> None:
    build()  # the refusal is there
    path = write_settings(tmp_path / "own.toml", default_document(endpoint.url))
    program = load_settings(path).programs["qa"]
    (variant, *_) = program.variants.values()
    lm = dspy.utils.DummyLM([{"answer": "yes"}])
    assert InProcessPrograms(lm).run(program, variant, {"question": "?"}).outputs == {"answer": "yes"}


def test_dspy_has_what_the_refusal_hooks_into() -> None:
    for owner, name in HOOKS:
        called = inspect.unwrap(getattr(owner, name))
        assert next(iter(inspect.signature(called).parameters)) in {"lm", "self"}
