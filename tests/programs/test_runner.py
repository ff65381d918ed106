"""Programs are checked when a worker starts, and answer from any thread."""

from __future__ import annotations

import datetime
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import psutil
import pytest
from celery import Celery

from dspyq.config.codec import decode_outputs
from dspyq.config.models import Program
from dspyq.config.settings import Settings
from dspyq.errors import (
    ConfigurationError,
    InvalidInputs,
    InvalidOutputs,
    PredictionFailed,
    TransientPredictionFailure,
)
from dspyq.guards.ledger import Answer, CallRecord
from dspyq.programs.runner import Runner, build_programs
from tests.programs import sample_programs
from tests.programs.sample_types import Mood, Span, Verdict
from tests.support.endpoint import Endpoint

Build = Callable[..., Runner]
BuildAll = Callable[..., dict[tuple[str, str], Runner]]

QUESTION = {"question": "hi"}
TYPES = "tests.programs.sample_types"


def own(name: str) -> dict[str, str]:
    """The settings of a program of one's own."""
    return {"class": f"tests.programs.sample_programs:{name}"}


def tokens(answer: Answer) -> tuple[int, int, int]:
    return len(answer.calls), answer.prompt_tokens, answer.completion_tokens


def billed(endpoint: Endpoint) -> tuple[int, int, int]:
    counts = endpoint.counts()
    return counts.calls, counts.prompt_tokens, counts.completion_tokens


def test_predict_makes_one_call(build: Build, endpoint: Endpoint) -> None:
    answer = build().run(QUESTION)
    assert answer.outputs == {"answer": "echo:hi"}
    assert tokens(answer) == billed(endpoint)
    assert len(answer.calls) == 1


def test_chain_of_thought_makes_one_call_and_keeps_its_reasoning(build: Build, endpoint: Endpoint) -> None:
    answer = build(module="ChainOfThought").run(QUESTION)
    assert answer.outputs == {"reasoning": "echo:hi", "answer": "echo:hi"}
    assert tokens(answer) == billed(endpoint)
    assert len(answer.calls) == 1


def test_the_instructions_and_the_adapter_write_the_prompt(build: Build, endpoint: Endpoint) -> None:
    build(instructions="Answer like a pirate.").run(QUESTION)
    build(instructions="Answer like a pirate.", adapter="tests.programs.sample_programs:Shouting").run(QUESTION)
    build(instructions="Answer like a pirate.", adapter="XMLAdapter").run(QUESTION)
    chat, shouted, xml = [request.text for request in endpoint.requests()]
    assert "Answer like a pirate." in chat
    assert "ANSWER LIKE A PIRATE." in shouted
    assert "<question>" in xml


def test_an_adapters_second_attempt_is_counted_and_billed(build: Build, endpoint: Endpoint) -> None:
    endpoint.script(times=1, fault="unparseable")
    answer = build().run(QUESTION)
    assert answer.outputs == {"answer": "echo:hi"}
    assert tokens(answer) == billed(endpoint)
    assert len(answer.calls) == 2


def test_a_reply_that_never_parses_fails_with_all_its_calls(build: Build, endpoint: Endpoint) -> None:
    endpoint.script(fault="unparseable")
    with pytest.raises(PredictionFailed, match=r"^AdapterParseError: ") as raised:
        build().run(QUESTION)
    assert tokens(Answer({}, raised.value.calls)) == billed(endpoint)
    assert [call.outcome for call in raised.value.calls] == ["ok", "ok"]
    assert "\n" not in str(raised.value)


def test_an_agents_steps_are_all_recorded(build: Build, endpoint: Endpoint) -> None:
    sample_programs.SEARCHES.clear()
    step = {"next_thought": "look", "next_tool_name": "search", "next_tool_args": {"query": "cats"}}
    endpoint.script(times=2, outputs=step)
    answer = build(**own("Searcher")).run(QUESTION)
    assert sample_programs.SEARCHES == ["cats", "cats"]
    assert tokens(answer) == billed(endpoint)
    assert len(answer.calls) == 4
    assert answer.outputs["trajectory"]["observation_0"] == "found cats"


def test_best_of_n_records_every_try_and_keeps_no_state_between_runs(build: Build, endpoint: Endpoint) -> None:
    runner = build(**own("ThreeTries"))
    for _ in range(6):  # each run forgives three failures of its own
        endpoint.reset()
        endpoint.script(times=1, status=500)
        answer = runner.run(QUESTION)
        assert answer.outputs == {"answer": "echo:hi"}
        assert tokens(answer) == billed(endpoint)
        assert [call.outcome for call in answer.calls] == ["server", "ok", "ok"]


def test_refine_records_its_tries_and_the_advice_between_them(build: Build, endpoint: Endpoint) -> None:
    runner = build(**own("Refined"))
    for _ in range(2):
        endpoint.reset()
        answer = runner.run(QUESTION)
        assert answer.outputs == {"answer": "echo:hi"}
        assert tokens(answer) == billed(endpoint)
        assert len(answer.calls) == 3


def test_calls_from_the_threads_of_parallel_are_recorded(build: Build, endpoint: Endpoint) -> None:
    answer = build(**own("Fan")).run(QUESTION)
    assert answer.outputs["answer"] == " ".join(f"echo:hi.{number}" for number in range(8))
    assert tokens(answer) == billed(endpoint)
    assert len(answer.calls) == 8


def test_calls_that_are_awaited_are_recorded(build: Build, endpoint: Endpoint) -> None:
    answer = build(**own("Awaiting")).run(QUESTION)
    assert answer.outputs["answer"] == "echo:hi.a echo:hi.b"
    assert tokens(answer) == billed(endpoint)
    assert len(answer.calls) == 2


def test_calls_that_are_awaited_together_are_made_together(build: Build, endpoint: Endpoint) -> None:
    endpoint.script(latency_seconds=0.3)
    answer = build(**own("Gathering")).run(QUESTION)
    assert answer.outputs["answer"] == " ".join(f"echo:hi.{number}" for number in range(20))
    assert endpoint.counts().max_in_flight == 20
    assert tokens(answer) == billed(endpoint)


def test_typed_outputs_reach_a_producer_as_equal_values(build: Build, endpoint: Endpoint) -> None:
    verdict = {"label": "a", "score": 0.5, "mood": "cross", "price": "9.90", "spans": [{"start": 1, "end": 2}]}
    outputs = {
        "on": "2024-02-29",
        "moods": ["calm", "cross"],
        "verdict": verdict,
        "span": {"start": 1, "end": 2, "on": None},
        "counts": {"3": "three"},
        "choice": "yes",
        "pair": [1, "2024-02-29"],
        "maybe": None,
    }
    signature = (
        f"question -> on: date, moods: list[{TYPES}.Mood], verdict: {TYPES}.Verdict, span: {TYPES}.Span | None, "
        'counts: dict[int, str], choice: Literal["yes", "no"], pair: tuple[int, date], maybe: float | None'
    )
    runner = build(signature=signature, adapter="JSONAdapter")
    endpoint.script(outputs=outputs)
    answer = runner.run(QUESTION)
    program = Program.model_validate(
        {
            "name": "p",
            "signature": signature,
            "variants": {"a": {"name": "a", "queue": "p.a", "model": {"name": "m", "model": "openai/m"}}},
        }
    )
    assert decode_outputs(program, json.loads(json.dumps(answer.outputs))) == {
        "on": datetime.date(2024, 2, 29),
        "moods": [Mood.CALM, Mood.CROSS],
        "verdict": Verdict.model_validate(verdict),
        "span": Span(1, 2),
        "counts": {3: "three"},
        "choice": "yes",
        "pair": (1, datetime.date(2024, 2, 29)),
        "maybe": None,
    }


def test_inputs_reach_the_prompt_as_the_types_the_signature_states(build: Build, endpoint: Endpoint) -> None:
    runner = build(signature=f"on: date, span: {TYPES}.Span -> answer")
    runner.run({"on": "2024-02-29", "span": {"start": 1, "end": 2}})
    assert endpoint.requests()[0].inputs["on"] == "2024-02-29"
    with pytest.raises(InvalidInputs, match="on: input should be a valid date"):
        runner.run({"on": "some day", "span": {"start": 1, "end": 2}})
    assert endpoint.calls() == 1


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("a number", "answer: input should be a valid string"),
        ("other", "answer is missing"),
        ("a text", "p returned outputs"),
        ("text", "p returned a str, not a dspy.Prediction"),
        ("nothing", "p returned a NoneType, not a dspy.Prediction"),
    ],
)
def test_what_does_not_fit_the_signature_is_refused(build: Build, question: str, reason: str) -> None:
    with pytest.raises(InvalidOutputs, match=reason):
        build(**own("Returning")).run({"question": question})


def test_a_program_may_return_a_plain_dictionary(build: Build) -> None:
    assert build(**own("Returning")).run({"question": "dict"}).outputs == {"answer": "a dict"}


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("boom", "RuntimeError: boom"),
        ("base", "BaseException: base"),
        ("mute", "Mute: (it does not say why)"),
        ("many\n  lines", "RuntimeError: many lines"),
    ],
)
def test_whatever_a_program_raises_becomes_one_error_with_its_calls(build: Build, question: str, message: str) -> None:
    with pytest.raises(PredictionFailed) as raised:
        build(**own("Raising")).run({"question": question})
    assert type(raised.value) is PredictionFailed
    assert raised.value.args == (message,)
    assert len(raised.value.calls) == 1


@pytest.mark.parametrize(("question", "error"), [("interrupt", KeyboardInterrupt), ("exit", SystemExit)])
def test_only_the_end_of_the_process_passes_through(build: Build, question: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        build(**own("Raising")).run({"question": question})


def test_a_failure_survives_celerys_round_trip(build: Build, endpoint: Endpoint) -> None:
    endpoint.script(times=1, status=500)
    with pytest.raises(TransientPredictionFailure) as raised:
        build().run(QUESTION)
    failure = raised.value
    backend = Celery(set_as_current=False, backend="cache+memory://").backend
    stored = json.loads(json.dumps(backend.prepare_exception(failure, serializer="json")))
    for copy in (backend.exception_to_python(stored), pickle.loads(pickle.dumps(failure))):  # noqa: S301 - our own bytes
        assert type(copy) is TransientPredictionFailure
        assert copy.args == failure.args
        assert copy.retryable


def test_threads_share_a_program_without_mixing_answers_or_usage(build_all: BuildAll, endpoint: Endpoint) -> None:
    runners = build_all(
        {
            "plain": {"signature": "question -> answer"},
            "thought": {"signature": "question -> answer", "module": "ChainOfThought"},
            "best": {"signature": "question -> answer", **own("ThreeTries")},
            "fan": {"signature": "question -> answer", **own("Fan")},
        }
    )
    expected_calls = {"plain": 1, "thought": 1, "best": 3, "fan": 8}
    mixed: list[object] = []
    totals = [0, 0, 0]

    lock = threading.Lock()

    def ask(number: int) -> None:
        for turn in range(20):
            name = {3: "best", 7: "fan"}.get(turn, ("plain", "thought")[turn % 2])
            question = f"{number}.{turn}." + "x" * (7 * number)
            answer = runners[name, "a"].run({"question": question})
            parts = [f"{question}.{part}" for part in range(8)] if name == "fan" else [question]
            is_own = answer.outputs["answer"] == " ".join(f"echo:{part}" for part in parts)
            prompt_lengths = {call.prompt_tokens for call in answer.calls}
            if not is_own or len(answer.calls) != expected_calls[name] or len(prompt_lengths) != 1:
                mixed.append((name, question, answer))
            with lock:
                totals[:] = [total + part for total, part in zip(totals, tokens(answer), strict=True)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mixed == []
    assert tuple(totals) == billed(endpoint)


@pytest.mark.long
def test_memory_does_not_grow_with_predictions(build: Build) -> None:
    runner = build(module="ChainOfThought")
    process = psutil.Process()

    def grown_bytes(runs: int) -> int:
        before = process.memory_info().rss
        for number in range(runs):
            runner.run({"question": f"{number} " + "x" * 500})
        return process.memory_info().rss - before

    grown_bytes(300)  # pools, caches and arenas fill
    assert grown_bytes(2000) < 4_000_000
    assert dspy.settings.trace == []


def test_the_structure_of_a_signature_is_written_once(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    write = dspy.ChatAdapter.format_field_structure
    monkeypatch.setattr(
        dspy.ChatAdapter, "format_field_structure", lambda self, signature: written.append(1) or write(self, signature)
    )
    runner = build()
    assert {runner.run({"question": question}).outputs["answer"] for question in ("a", "b")} == {"echo:a", "echo:b"}
    assert len(written) == 1


def test_dspys_own_caches_are_off(build: Build) -> None:
    build()
    assert not dspy.cache.enable_disk_cache
    assert not dspy.cache.enable_memory_cache


def test_the_variants_of_a_program_run_on_their_own_models(build_all: BuildAll, endpoint: Endpoint) -> None:
    free = {"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 0}
    models = {name: {"model": f"openai/{name}", "api_base": endpoint.url, **free} for name in ("small", "large")}
    variants = {"a": {"model": "small", "weight": 0.5}, "b": {"model": "large", "weight": 0.5}}
    runners = build_all(
        {"p": {**own("OwnModel"), "signature": "question -> answer", "variants": variants}}, models=models
    )
    calls = runners["p", "a"].run(QUESTION).calls
    assert [call.model for call in calls] == ["small", "small"]
    runners["p", "b"].run(QUESTION)
    assert [request.model for request in endpoint.requests()] == ["small", "small", "large", "large"]


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
        ({"signature": "question, config -> answer"}, "p.signature: DSPy has a use of its own for the name config"),
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


def test_every_fault_of_every_program_and_model_is_told_at_once(build_all: BuildAll) -> None:
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


def test_what_dspy_says_quotes_nobody(build: Build, endpoint: Endpoint, capfd: pytest.CaptureFixture[str]) -> None:
    endpoint.script(times=2, content="a secret reply")
    endpoint.script(times=1, finish_reason="length")
    build(**own("ThreeTries")).run({"question": "a secret question"})
    with pytest.raises(PredictionFailed):
        build(**own("Fan"), model={"api_base": "http://127.0.0.1:9/v1"}).run({"question": "a secret question"})
    printed = capfd.readouterr()
    assert "secret" not in printed.out + printed.err
    assert printed.err == ""


def test_a_worker_loads_neither_litellm_nor_prices_from_the_network(endpoint: Endpoint, tmp_path: Path) -> None:
    code = f"""
import sys
from dspyq.config.settings import Settings
from dspyq.programs.runner import build_programs
model = {{"model": "openai/gpt-4o-mini", "api_base": {endpoint.url!r}}}
program = {{"signature": "question -> answer", "variants": {{"a": {{"model": "m"}}}}}}
runners = build_programs(Settings(models={{"m": model}}, programs={{"p": program}}))
assert runners["p", "a"].run({{"question": "hi"}}).cost_usd > 0
from dspy.clients.model_metadata import source_info
assert source_info()["is_env_forced"], "the price table would come from the network"
print(sorted({{"litellm", "openai", "numpy", "pandas", "optuna", "datasets", "diskcache"}} & sys.modules.keys()))
"""
    home = {"HOME": str(tmp_path), "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=home, timeout=60
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
    assert list(tmp_path.iterdir()) == [], "DSPy's disk cache was made"


class TestState:
    """What an optimizer saved."""

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
            ("{", "is not the JSON that program.save writes"),
            ("[]", r"it has the predictors \(none\), the program self"),
            ('{"self": []}', "its self is no predictor"),
            ('{"demos": [], "signature": {}}', "the predictor self has other fields"),
            (
                '{"demos": [], "signature": {"instructions": "", "fields": [1, 2]}}',
                "the predictor self has other fields",
            ),
            ("\x80", "is not the JSON"),
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


def test_a_failed_call_is_recorded_beside_the_answered_one(build: Build, endpoint: Endpoint) -> None:
    endpoint.script(times=1, fault="unparseable")
    endpoint.script(times=1, fault="cut")
    with pytest.raises(TransientPredictionFailure) as raised:
        build().run(QUESTION)
    answered, failed = raised.value.calls
    assert answered.cost_usd is not None
    assert failed == CallRecord("m", "transport", failed.duration_seconds)
