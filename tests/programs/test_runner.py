"""Programs are checked when a worker starts, and answer from any thread."""

from __future__ import annotations

import datetime
import json
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from celery import Celery

from dspyq.config.codec import decode_outputs
from dspyq.config.programs import Program
from dspyq.errors import InvalidInputs, InvalidOutputs, PredictionFailed, TransientPredictionFailure
from dspyq.guards.call_records import CallRecord, ProgramAnswer
from tests.programs import sample_programs
from tests.programs.runner_support import QUESTION, TYPES, Build, billed, own, tokens
from tests.programs.sample_types import Mood, Span, Verdict
from tests.support.endpoint import Endpoint


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
    assert tokens(ProgramAnswer({}, raised.value.calls)) == billed(endpoint)
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
    endpoint.hold()
    runner = build(**own("Gathering"))
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(runner.run, QUESTION)
        try:
            endpoint.wait_for_calls(20)  # none of them is answered yet
        finally:
            endpoint.release()
        answer = running.result()
    assert answer.outputs["answer"] == " ".join(f"echo:hi.{number}" for number in range(20))
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
        ("deep", "p returned outputs that nest deeper than 200 levels"),
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
        ("mute", "Mute: (its message cannot be read)"),
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


def test_a_failed_call_is_recorded_beside_the_answered_one(build: Build, endpoint: Endpoint) -> None:
    endpoint.script(times=1, fault="unparseable")
    endpoint.script(times=1, fault="cut")
    with pytest.raises(TransientPredictionFailure) as raised:
        build().run(QUESTION)
    answered, failed = raised.value.calls
    assert answered.cost_usd is not None
    assert failed == CallRecord("m", "transport", failed.duration_seconds)


def test_a_class_with_aforward_alone_answers(build: Build, endpoint: Endpoint) -> None:
    runner = build(signature="question, hint: str | None -> answer", **own("AwaitsAlone"))
    answer = runner.run(QUESTION)
    assert answer.outputs == {"answer": "echo:hi"}
    assert tokens(answer) == billed(endpoint)
