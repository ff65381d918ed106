"""Several models in one program: each predictor and adapter runs on the table that is named for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspyq.config.settings import load_settings
from dspyq.errors import ConfigurationError
from dspyq.programs.runner import Runner
from tests.support.configuration import write_settings
from tests.support.endpoint import Endpoint

Build = Callable[[dict[str, Any]], Runner]
HERE = "tests.programs.test_own_models"
QUESTION = {"question": "hi"}


def own_lm() -> dspy.LM:
    return dspy.LM("openai/elsewhere", api_base="http://127.0.0.1:9/v1", api_key="x")


GLOBAL_LM = own_lm()


class TwoModels(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.ChainOfThought("question -> answer")
        self.answer = dspy.Predict("question -> answer")
        self.draft.set_lm(own_lm())

    def forward(self, question: str) -> dspy.Prediction:
        return self.answer(question=self.draft(question=question).answer)


class Judged(TwoModels):
    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.Predict("question -> answer")
        self.judges = {"strict": [own_lm()]}

    def forward(self, question: str) -> dspy.Prediction:
        with dspy.context(lm=self.judges["strict"][0]):
            return self.draft(question=question)


class InAClosure(TwoModels):
    def __init__(self) -> None:
        super().__init__()
        lm = own_lm()
        self.draft = dspy.ReAct("question -> answer", tools=[lambda query: str(lm(query))])


class InAGlobal(TwoModels):
    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        with dspy.context(lm=GLOBAL_LM):
            return self.answer(question=question)


class Adapter(dspy.TwoStepAdapter):
    def __init__(self) -> None:
        super().__init__(own_lm())


@pytest.fixture
def build(build_all: Callable[..., dict[tuple[str, str], Runner]], endpoint: Endpoint) -> Build:
    """Build one program; the models ``m``, ``fast`` and ``cheap`` are on the endpoint."""

    def build_one(program: dict[str, Any]) -> Runner:
        prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
        models = {
            name: {"model": f"openai/{name}", "api_base": endpoint.url, **prices} for name in ("m", "fast", "cheap")
        }
        (runner,) = build_all({"p": {"signature": "question -> answer", **program}}, models=models).values()
        return runner

    return build_one


@pytest.mark.parametrize("path", ["draft", "draft.predict"])
def test_a_predictor_runs_on_the_model_that_is_named_for_it(build: Build, endpoint: Endpoint, path: str) -> None:
    answer = build({"class": f"{HERE}:TwoModels", "models": {path: "fast"}}).run(QUESTION)
    assert [call.model for call in answer.calls] == ["fast", "m"]
    assert [request.model for request in endpoint.requests()] == ["fast", "m"]
    assert all(call.cost_usd for call in answer.calls)


@pytest.mark.parametrize("adapter", ["dspy:TwoStepAdapter", f"{HERE}:Adapter"])
@pytest.mark.parametrize("name", ["extraction_model", "extraction"])
def test_an_adapters_model_is_called_past_no_guard(build: Build, adapter: str, name: str) -> None:
    answer = build({"adapter": adapter, "models": {name: "cheap"}}).run(QUESTION)
    assert [call.model for call in answer.calls] == ["m", "cheap"]


def test_a_model_in_an_attribute_is_replaced(build: Build, endpoint: Endpoint) -> None:
    models = {"judges['strict'][0]": "fast"}
    assert [call.model for call in build({"class": f"{HERE}:Judged", "models": models}).run(QUESTION).calls] == ["m"]
    endpoint.wait_for_calls(1)


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ({"class": f"{HERE}:TwoModels"}, r'holds a model of its own, draft\.predict, .* "draft\.predict" = '),
        ({"class": f"{HERE}:Judged"}, r"holds a model of its own, judges\['strict'\]\[0\]"),
        ({"class": f"{HERE}:InAClosure"}, r"holds a model of its own, draft\.tools.*\.lm, .*: hold it as an attribute"),
        ({"class": f"{HERE}:InAGlobal"}, r"holds a model of its own, GLOBAL_LM, .*: hold it as an attribute"),
        ({"adapter": f"{HERE}:Adapter"}, "Adapter holds a model of its own, extraction_model"),
        ({"models": {"nothing": "fast"}}, r"programs\.p\.models\.nothing: there is no predictor and no model"),
        ({"models": {"self": "fats"}}, r"programs\.p\.models\.self: .* no \[models\.fats\] \(did you mean fast\?\)"),
    ],
)
def test_a_model_that_no_table_names_is_refused_at_start(build: Build, program: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        build(program)


def test_models_of_its_own_are_in_a_programs_fingerprint_and_only_theirs(tmp_path: Path) -> None:
    def fingerprint(temperature: float, **program: Any) -> str:
        models = {name: {"model": f"openai/{name}"} for name in ("m", "fast")}
        models["fast"] |= {"temperature": temperature}  # type: ignore[dict-item]  # a table of TOML
        table = {"signature": "question -> answer", "variants": {"a": {"model": "m"}}, **program}
        document = {"models": models, "programs": {"p": table}}
        return load_settings(write_settings(tmp_path / "dspyq.toml", document)).programs["p"].fingerprints["a"]

    assert fingerprint(0.1) == fingerprint(0.2)
    with_own = {"models": {"self": "fast"}}
    assert len({fingerprint(0.1), fingerprint(0.1, **with_own), fingerprint(0.2, **with_own)}) == 3
