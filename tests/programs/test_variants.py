"""Each variant is built as its own settings state, and runs beside the others of its program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dspy
import pytest

from dspyq.errors import ConfigurationError
from dspyq.programs.runner import Runner
from tests.programs.runner_support import QUESTION, BuildAll
from tests.programs.test_own_models import own_lm
from tests.support.endpoint import Endpoint

HERE = "tests.programs.test_variants"


class Silent(dspy.Module):
    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=f"nobody was asked {question}")


class OfOtherInputs(dspy.Module):
    def forward(self, title: str) -> dspy.Prediction:
        return dspy.Prediction(answer=title)


class Judged(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.draft = dspy.Predict("question -> answer")
        self.judge = dspy.Predict("answer -> verdict")
        self.judge.set_lm(own_lm())

    def forward(self, question: str) -> dspy.Prediction:
        return dspy.Prediction(answer=self.judge(answer=self.draft(question=question).answer).verdict)


@pytest.fixture
def compiled(tmp_path: Path) -> str:
    program = dspy.Predict("question -> answer")
    program.demos = [dspy.Example(question="a saved question", answer="a saved answer")]
    program.save(tmp_path / "compiled.json")
    return str(tmp_path / "compiled.json")


@pytest.fixture
def build(build_all: BuildAll) -> Any:
    """Build ``p`` with its variant ``a``, which replaces nothing, and ``b``, which replaces what is given."""

    def build(other: dict[str, Any], **program: Any) -> tuple[Runner, Runner]:
        variants = {"a": {"model": "m", "weight": 0.5}, "b": {"model": "m", "weight": 0.5, **other}}
        tables = {"signature": "question -> answer", "variants": variants, **program}
        runners = build_all({"p": tables}, model={"max_tokens": 100, "parameters": {"seed": 7}})
        return runners["p", "a"], runners["p", "b"]

    return build


def fault_of(build: Any, other: dict[str, Any], **program: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        build(other, **program)
    (fault,) = raised.value.faults
    return str(fault)


def test_a_compiled_variant_shows_its_demonstrations_and_the_plain_one_none(
    build: Any, compiled: str, endpoint: Endpoint
) -> None:
    for runner in build({"state": compiled}):
        assert runner.run(QUESTION).outputs == {"answer": "echo:hi"}
    plain, other = endpoint.requests()
    assert "a saved question" not in plain.text
    assert "a saved question" in other.text


def test_an_empty_state_serves_the_plain_program_beside_the_compiled_one(
    build: Any, compiled: str, endpoint: Endpoint
) -> None:
    for runner in build({"state": ""}, state=compiled):
        runner.run(QUESTION)
    assert ["a saved question" in request.text for request in endpoint.requests()] == [True, False]


def test_instructions_adapter_and_module_reach_the_prompt_of_their_variant_alone(
    build: Any, endpoint: Endpoint
) -> None:
    other = {"instructions": "Answer in rhyme.", "adapter": "JSONAdapter", "module": "ChainOfThought"}
    for runner in build(other, instructions="Answer."):
        runner.run(QUESTION)
    plain, changed = endpoint.requests()
    assert ("Answer in rhyme." in plain.text, "Answer in rhyme." in changed.text) == (False, True)
    assert ("reasoning" in plain.text, "reasoning" in changed.text) == (False, True)
    assert ("JSON object" in plain.text, "JSON object" in changed.text) == (False, True)


def test_sampling_reaches_the_endpoint_of_its_variant_alone(build: Any, endpoint: Endpoint) -> None:
    for runner in build({"temperature": 0.25, "max_tokens": 70, "parameters": {"top_p": 0.5}}):
        runner.run(QUESTION)
    plain, changed = (request.parameters for request in endpoint.requests())
    assert (plain["max_completion_tokens"], plain["seed"]) == (100, 7)
    assert not {"temperature", "top_p"} & plain.keys()
    assert (changed["max_completion_tokens"], changed["seed"]) == (70, 7)
    assert (changed["temperature"], changed["top_p"]) == (0.25, 0.5)


def test_a_class_runs_beside_the_signature_of_its_program(build: Any, endpoint: Endpoint) -> None:
    plain, loud = build(
        {"class": "tests.programs.sample_programs:Loud"}, instructions="Answer.", module="ChainOfThought"
    )
    assert plain.run(QUESTION).outputs["answer"] == "echo:hi"
    assert loud.run(QUESTION).outputs == {"answer": "echo:HI"}
    assert ["Answer." in request.text for request in endpoint.requests()] == [True, False]


def test_outputs_that_a_variants_signature_adds_are_in_its_answers(build: Any) -> None:
    plain, more = build({"signature": "question -> answer, sure: bool"})
    assert plain.run(QUESTION).outputs.keys() == {"answer"}
    outputs = more.run(QUESTION).outputs
    assert outputs["answer"] == "echo:hi"
    assert type(outputs["sure"]) is bool


def test_variants_of_one_form_of_a_model_share_its_connections_and_others_do_not(build: Any) -> None:
    plain, equal = build({"max_tokens": 100, "instructions": "Be brief."})
    assert plain._lm is equal._lm  # noqa: SLF001 - a connection more for each would show nowhere
    plain, other = build({"max_tokens": 99})
    assert plain._lm is not other._lm  # noqa: SLF001 - as above


def test_a_state_that_does_not_fit_the_variants_class_names_both(build: Any, compiled: str) -> None:
    fault = fault_of(build, {"module": "ChainOfThought"}, state=compiled)
    assert fault.startswith(
        f'programs.p.state: {compiled} is of another program than that of variant b (state = "" in '
        "programs.p.variants.b leaves it out there): "
    )


def test_a_state_of_another_program_names_the_variants_own_table(build: Any, compiled: str) -> None:
    fault = fault_of(build, {"module": "ChainOfThought", "state": compiled})
    assert fault.startswith(f"programs.p.variants.b.state: {compiled} is of another program: it has the predictors ")


def test_a_state_for_a_class_without_predictors_is_refused(build: Any, compiled: str) -> None:
    assert fault_of(build, {"class": f"{HERE}:Silent", "state": compiled}) == (
        f"programs.p.variants.b.state: {compiled} is of another program: the program has no predictors, and so no "
        "state: leave it out"
    )


def test_instructions_that_the_state_would_hide_are_refused(build: Any, compiled: str) -> None:
    assert fault_of(build, {"instructions": "Answer in rhyme."}, state=compiled) == (
        f"programs.p.variants.b.instructions: {compiled} has instructions of its own, which would take their place; "
        'state = "" in the same table leaves it out'
    )
    build({"instructions": "Answer in rhyme.", "state": ""}, state=compiled)


@pytest.mark.parametrize(
    ("other", "begins"),
    [
        ({"class": "tests.nowhere:Program"}, "programs.p.variants.b.class: tests.nowhere:Program does not import: "),
        ({"class": f"{HERE}:own_lm"}, f"programs.p.variants.b.class: {HERE}:own_lm is no subclass of dspy.Module"),
        ({"class": f"{HERE}:OfOtherInputs"}, "programs.p.variants.b.class: OfOtherInputs.forward does not take these"),
        ({"adapter": "tests.nowhere:It"}, "programs.p.variants.b.adapter: tests.nowhere:It does not import: "),
        ({"parameters": {"cache": True}}, "programs.p.variants.b.parameters: cache cannot be set here; "),
        ({"parameters": {"extra_headers": {}}}, "programs.p.variants.b: dspy.LM: ['extra_headers'] configure a "),
        (
            {"signature": "question -> answer, at: tests.nowhere.Type"},
            "programs.p.variants.b.signature: at: tests.nowhere.Type: ",
        ),
    ],
)
def test_what_cannot_be_built_names_the_table_of_its_variant(build: Any, other: dict[str, Any], begins: str) -> None:
    assert fault_of(build, other).startswith(begins)


def test_a_model_named_for_a_part_is_one_that_some_variant_has(build: Any, endpoint: Endpoint) -> None:
    models = {"models": {"judge": "m"}}
    plain, judged = build({"class": f"{HERE}:Judged"}, **models)
    assert plain.run(QUESTION).outputs == {"answer": "echo:hi"}
    assert judged.run(QUESTION).outputs == {"answer": "echo:echo:hi"}
    assert endpoint.calls() == 3
    assert fault_of(build, {"class": "tests.programs.sample_programs:Loud"}, **models) == (
        "programs.p.models.judge: no variant has a predictor or a model of this path"
    )


def test_a_part_runs_on_the_table_that_is_named_for_it_without_what_the_variant_replaces(
    build: Any, endpoint: Endpoint
) -> None:
    _, judged = build({"class": f"{HERE}:Judged", "temperature": 0.25}, models={"judge": "m"})
    judged.run(QUESTION)
    assert [request.parameters.get("temperature") for request in endpoint.requests()] == [0.25, None]
