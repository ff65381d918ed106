"""Start of a runner: what could not answer is refused, and states are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

from dspyq.config.settings import Settings
from dspyq.errors import ConfigurationError
from dspyq.programs.runner import build_programs
from tests.programs.runner_support import QUESTION, TYPES, Build, BuildAll, own
from tests.support.endpoint import Endpoint


def test_only_the_queues_that_are_served_are_built(build_all: BuildAll) -> None:
    programs = {
        "good": {"signature": "question -> answer"},
        "bad": {"signature": "question -> answer", "class": "nowhere:Program"},
    }
    assert build_all(programs, queues={"good.a"}).keys() == {("good", "a")}
    with pytest.raises(ConfigurationError, match=r"programs\.bad\.class: nowhere:Program does not import"):
        build_all(programs, queues={"bad.a"})


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ({"class": "nowhere:Program"}, "p.class: nowhere:Program does not import: ModuleNotFoundError"),
        (own("Missing"), "p.class: .*Missing does not import: AttributeError"),
        ({"class": f"{TYPES}:Span"}, "p.class: .*Span is no subclass of dspy.Module"),
        (own("NeedsArguments"), r"p.class: NeedsArguments\(\) raised TypeError: .*it is built without arguments"),
        (own("WithoutForward"), "p.class: WithoutForward has no method forward"),
        ({**own("Echo"), "signature": "text -> answer"}, "p.signature: Echo.forward does not take these inputs"),
        ({**own("Echo"), "signature": "question, x -> answer"}, "p.signature: Echo.forward does not take these inputs"),
        (
            {**own("Echo"), "signature": "question -> answer: int"},
            "p.signature: the output answer is stated as int, but Echo predicts str",
        ),
        ({"signature": "question -> answer: nowhere.Type"}, "p.signature: answer: nowhere.Type: "),
        ({"signature": f"question -> answer: {TYPES}.NotData"}, "p.signature: answer: .*NotData"),
        (
            {"signature": "question, config -> answer"},
            "p: signature: DSPy itself uses the input names config;",
        ),
        ({"signature": "question -> instructions"}, "p.signature: DSPy has a use of its own for the name instructions"),
        ({"signature": "_question -> answer"}, "p.signature: .*leading underscores"),
        ({"adapter": "nowhere:Adapter"}, "p.adapter: nowhere:Adapter does not import"),
        ({"adapter": f"{TYPES}:Span"}, "p.adapter: .*Span is no subclass of dspy.Adapter"),
    ],
)
def test_a_program_that_could_not_answer_is_refused_at_start(build: Build, program: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=fault):
        build(**program)


def test_a_stated_output_that_no_predictor_names_is_the_programs_own_affair(build: Build) -> None:
    build(**own("Echo"), signature="question -> length: int")


def test_types_that_mean_the_same_agree(build: Build) -> None:
    build(**own("Echo"), signature="question -> answer: str")
    build(**own("Lists"), signature="question -> names: List[str], age: int | None, kind: Literal['b', 'a']")


def test_all_faults_of_programs_and_models_are_reported_at_once(build_all: BuildAll) -> None:
    programs = {
        "one": {"signature": "question -> answer", "class": "nowhere:Program", "adapter": "nowhere:Adapter"},
        "two": {"signature": "text -> answer: int", **own("Echo"), "variants": {"a": {"model": "unpriced"}}},
    }
    models = {"m": {"model": "openai/m", "api_key_env": "NO_SUCH_KEY"}, "unpriced": {"model": "nowhere/m"}}
    with pytest.raises(ConfigurationError) as raised:
        build_all(programs, models=models)
    told = sorted(fault.partition(":")[0] for fault in raised.value.faults)
    assert told == [
        "models.m.api_key_env",
        "models.unpriced.model",
        "programs.one.adapter",
        "programs.one.class",
        "programs.two.signature",
        "programs.two.signature",
    ]


def test_another_version_of_dspy_is_refused(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dspy, "__version__", "3.3.0")
    with pytest.raises(ConfigurationError, match=r"dspy 3\.3\.0 is installed"):
        build()


class TestState:
    """The state that an optimizer saved."""

    @staticmethod
    def save(program: dspy.Module, path: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> str:
        program.save(str(path))
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))
        return str(path)

    def test_it_is_loaded_without_the_model_it_was_optimized_on(
        self, build: Build, endpoint: Endpoint, tmp_path: Path
    ) -> None:
        program = dspy.ChainOfThought("question -> answer")
        program.predict.signature = program.predict.signature.with_instructions("Answer like a pirate.")
        program.predict.demos = [dspy.Example(question="Who?", reasoning="Arr.", answer="Me.")]
        unknown = {"_dspy_lm_class": "nowhere.LM", "model": "openai/elsewhere"}
        path = self.save(program, tmp_path / "s.json", lambda state: state["predict"].update(lm=unknown))
        answer = build(module="ChainOfThought", state=path).run(QUESTION)
        assert answer.outputs["answer"] == "echo:hi"
        (request,) = endpoint.requests()
        assert request.model == "m"
        assert "Answer like a pirate." in request.text
        assert "Who?" in request.text

    def test_a_prefix_that_an_optimizer_rewrote_is_no_other_field(
        self, build: Build, endpoint: Endpoint, tmp_path: Path
    ) -> None:
        program = dspy.Predict("question -> answer")
        program.signature = program.signature.with_updated_fields("answer", prefix="The answer is:")
        build(state=self.save(program, tmp_path / "s.json")).run(QUESTION)
        assert endpoint.calls() == 1

    @pytest.mark.parametrize(
        ("saved", "reason"),
        [
            (dspy.Predict("question -> reply"), "the predictor self has other fields"),
            (dspy.Predict("question, context -> answer"), "the predictor self has other fields"),
            (dspy.ChainOfThought("question -> answer"), "it has the predictors predict, the program self"),
        ],
    )
    def test_one_of_another_program_is_refused(
        self, build: Build, tmp_path: Path, saved: dspy.Module, reason: str
    ) -> None:
        with pytest.raises(ConfigurationError, match=f"programs.p.state: .* is of another program: {reason}"):
            build(state=self.save(saved, tmp_path / "s.json"))

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("{", "is not whole JSON, as program.save writes it"),
            ("[]", "holds no state, as program.save writes it"),
            ('{"self": []}', "its self is no predictor"),
            ('{"demos": [], "signature": {}}', "the predictor self has other fields"),
            (
                '{"demos": [], "signature": {"instructions": "", "fields": [1, 2]}}',
                "the predictor self has other fields",
            ),
            ("\x80", "is not whole JSON"),
        ],
    )
    def test_a_file_that_holds_no_state_is_refused(
        self, build: Build, tmp_path: Path, content: str, reason: str
    ) -> None:
        path = tmp_path / "s.json"
        path.write_text(content, encoding="latin-1")
        with pytest.raises(ConfigurationError, match=f"programs.p.state: .*{reason}"):
            build(state=str(path))

    def test_one_that_does_not_load_is_refused(self, build: Build, tmp_path: Path) -> None:
        path = self.save(dspy.Predict("question -> answer"), tmp_path / "s.json", lambda state: state.update(fields=5))
        with pytest.raises(ConfigurationError, match=r"programs.p.state: .* does not load"):
            build(state=path)

    def test_one_that_changed_after_the_settings_were_read_is_refused(self, endpoint: Endpoint, tmp_path: Path) -> None:
        path = self.save(dspy.Predict("question -> answer"), tmp_path / "s.json")
        program = {
            "signature": "question -> answer",
            "variants": {"a": {"model": "m"}},
            "state": path,
            "state_sha256": "0" * 64,
        }
        model = {"model": "openai/gpt-4o-mini", "api_base": endpoint.url}
        with pytest.raises(ConfigurationError, match="changed after the settings were read"):
            build_programs(Settings(models={"m": model}, programs={"p": program}))
