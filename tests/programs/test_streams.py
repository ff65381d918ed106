"""Streams of programs: which text comes, and that the answer is the one of a program that is not streamed."""

import threading

import pytest

from dspyq.errors import ConfigurationError, PredictionFailed
from dspyq.guards.ledger import Ledger
from dspyq.programs.reply_fields.chat import ChatFields
from dspyq.programs.runner import Runner
from dspyq.programs.tap import CallTap, Tap
from dspyq.streaming.run_log import RunLog
from tests.programs.runner_support import QUESTION, Build, billed, own, tokens
from tests.support.endpoint import Endpoint

pytestmark = pytest.mark.usefixtures("own_secrets")

LONG = "one two  three\nfour 😀 five"


def stream(runner: Runner, inputs=QUESTION):
    """The answer of a streamed run and its frames."""
    log = RunLog("task", "1", lambda: None)
    ledger = Ledger()
    ledger.tap = Tap(log)
    try:
        return runner.run(inputs, ledger), list(log._merged())[1:]  # noqa: SLF001 - what is sent
    except PredictionFailed as error:
        return error, list(log._merged())[1:]  # noqa: SLF001 - as above


def texts(frames):
    """The text of each field as its listeners have it at the end."""
    found: dict[str, str] = {}
    for kind, field, text in frames:
        if kind == "delta":
            found[field] = found.get(field, "") + text
        elif kind == "reset":
            del found[field]
    return found


@pytest.mark.parametrize("adapter", ["ChatAdapter", "JSONAdapter", "XMLAdapter"])
@pytest.mark.parametrize("module", ["Predict", "ChainOfThought"])
def test_the_text_of_a_program_is_its_answer(build: Build, endpoint: Endpoint, adapter: str, module: str):
    runner = build(adapter=adapter, module=module)
    endpoint.script(outputs={"answer": LONG}, piece_characters=3)
    plain = runner.run(QUESTION)
    assert "stream" not in endpoint.requests()[-1].parameters
    answer, frames = stream(runner)
    assert endpoint.requests()[-1].parameters["stream"] is True
    assert texts(frames) == {"answer": answer.outputs["answer"]} == {"answer": LONG}
    assert answer.outputs == plain.outputs
    assert tokens(answer)[0] == 1
    assert [2 * number for number in tokens(answer)] == list(billed(endpoint))


def test_reasoning_comes_where_the_program_states_it(build: Build):
    answer, frames = stream(build(module="ChainOfThought", stream=["predict.reasoning", "answer"]))
    assert texts(frames) == {"reasoning": answer.outputs["reasoning"], "answer": answer.outputs["answer"]}


def test_the_tools_of_an_agent_are_states_of_the_run(build: Build, endpoint: Endpoint):
    endpoint.script(times=1, outputs={"next_tool_name": "search", "next_tool_args": {"query": "x"}})
    answer, frames = stream(build(**own("Searcher")))
    assert [text for kind, field, text in frames if (kind, field) == ("status", "tool")] == ["search", "finish"]
    assert texts(frames) == {"answer": answer.outputs["answer"]}


@pytest.mark.parametrize("name", ["Awaiting", "Gathering", "Twice", "Fan"])
def test_a_field_is_one_call_s_at_a_time(build: Build, name: str):
    answer, frames = stream(build(**own(name)))
    assert len(answer.calls) > 1
    assert texts(frames).keys() <= {"answer"}
    assert texts(frames).get("answer", "echo:").startswith("echo:")


@pytest.mark.parametrize("name", ["ThreeTries", "Refined"])
def test_a_module_that_tries_several_times_states_that_nothing_is_streamed(build: Build, name: str):
    answer, frames = stream(build(**own(name)))
    assert ("status", "stream", "its module tries several times") in frames
    assert not texts(frames)
    assert len(answer.calls) > 1


def test_a_program_without_streams_states_it_and_asks_for_none(build: Build, endpoint: Endpoint):
    answer, frames = stream(build(stream=False))
    assert frames == [("status", "stream", "programs.p.stream is false")]
    assert "stream" not in endpoint.requests()[-1].parameters
    assert answer.outputs["answer"]


def test_a_program_without_texts_states_it(build: Build):
    _, frames = stream(build(signature="question -> answer: int"))
    assert [(kind, field) for kind, field, _ in frames] == [("status", "stream")]


def test_replies_to_an_adapter_of_its_own_come_in_one_piece(build: Build):
    answer, frames = stream(build(adapter=own("ReadsInItsOwnWay")["class"]))
    assert frames == [("status", "stream", "replies to ReadsInItsOwnWay come in one piece")]
    assert answer.outputs["answer"]


@pytest.mark.parametrize("entry", ["nothing", "draft.answer", "self.question"])
def test_a_setting_that_names_no_text_is_refused(build: Build, entry: str):
    with pytest.raises(ConfigurationError, match=r"programs\.p\.stream: .* those are: self\.answer"):
        build(stream=[entry])


def test_a_reply_that_does_not_parse_is_void_and_the_fallback_s_text_comes(build: Build, endpoint: Endpoint):
    endpoint.script(times=1, content="[[ ## answer ## ]]\nhalf of it")
    answer, frames = stream(build(signature="question -> answer, note"))
    assert ("reset", "answer", "again") in frames
    assert texts(frames) == answer.outputs
    assert endpoint.calls() == 2


def test_the_text_of_a_reply_that_breaks_off_is_void(build: Build, endpoint: Endpoint):
    endpoint.script(outputs={"answer": LONG}, drop_after_pieces=12)
    error, frames = stream(build())
    assert isinstance(error, PredictionFailed)
    assert [frame for frame in frames if frame[0] == "delta"]
    assert frames[-1] == ("reset", "answer", "retry")
    assert texts(frames) == {}


def test_a_server_that_answers_in_one_piece_is_understood_and_paid_once(build: Build, endpoint: Endpoint):
    endpoint.script(streams=False)
    answer, frames = stream(build())
    assert answer.outputs["answer"] == "echo:hi"
    assert texts(frames) == {}
    assert tokens(answer) == billed(endpoint)


def test_a_stream_without_usage_has_no_known_cost(build: Build, endpoint: Endpoint):
    endpoint.script(usage=False)
    answer, frames = stream(build())
    assert texts(frames) == answer.outputs
    assert (answer.cost_usd, answer.prompt_tokens) == (None, 0)


def test_a_character_in_two_halves_is_put_together():
    log = RunLog("task", "1", lambda: None)
    call = CallTap(Tap(log), ChatFields, {"answer"})
    for piece in ("[[ ## answer ## ]]\nx\ud83d", "\ude00", "y\ud83d", "z"):
        call.text(piece)
    assert texts(list(log._merged())[1:]) == {"answer": "x😀y\ufffdz"}  # noqa: SLF001 - what is sent


def test_a_lost_run_ends_the_call_that_waits_for_the_provider(build: Build, endpoint: Endpoint):
    runner = build()
    endpoint.hold()
    log, ledger = RunLog("task", "1", lambda: None), Ledger()
    ledger.tap = Tap(log)
    raised = []

    def run():
        try:
            runner.run(QUESTION, ledger)
        except BaseException as error:  # noqa: BLE001 - what ends it is the point
            raised.append(type(error).__name__)

    running = threading.Thread(target=run)
    running.start()
    endpoint.wait_for_calls(1)
    log.lose()
    running.join(60)
    assert raised == ["JobLost"]
    endpoint.wait_until_idle()
    assert endpoint.counts().abandoned == 1
