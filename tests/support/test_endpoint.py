from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
from dspy import ChatAdapter, JSONAdapter, Signature, XMLAdapter

from tests.support.endpoint import Endpoint

QA = Signature("question -> answer")


def ask(endpoint: Endpoint, question: str = "Why?", *, model: str = "control", timeout_seconds: float = 10) -> Any:
    """Send one request as a plain HTTP client and return the status, the headers and the body's bytes."""
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=timeout_seconds)
    messages = ChatAdapter().format(QA, [], {"question": question})
    headers = {"content-type": "application/json", "authorization": "Bearer secret"}
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": model, "messages": messages}), headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def answer_of(body: bytes) -> str:
    content = json.loads(body)["choices"][0]["message"]["content"]
    return str(ChatAdapter().parse(QA, content)["answer"])


@pytest.fixture
def ask_in_background(endpoint: Endpoint) -> Any:
    with ThreadPoolExecutor(max_workers=64) as threads:

        def start(*arguments: Any, **options: Any) -> Future[Any]:
            return threads.submit(ask, endpoint, *arguments, **options)

        yield start
        endpoint.reset()  # or the threads would wait for what is still held


@pytest.mark.parametrize("adapter", [ChatAdapter(), JSONAdapter(), XMLAdapter()], ids=lambda a: type(a).__name__)
def test_an_unscripted_reply_parses_and_echoes_the_last_input(endpoint: Endpoint, adapter: Any) -> None:
    signature = Signature(
        "context: list[str], question -> reasoning, verdict: Literal['yes', 'no'], count: int, share: float,"
        " holds: bool, names: list[str], scores: dict[str, int], note: Optional[str]"
    )
    question = 'naïve <b>"日本 & 😀"</b>\n\nquoting [[ ## context ## ]]\nas text'
    messages = adapter.format(signature, [], {"context": ["one", "two"], "question": question})
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc)
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": messages}))
    content = json.loads(connection.getresponse().read())["choices"][0]["message"]["content"]
    connection.close()

    outputs = adapter.parse(signature, content)

    assert outputs["reasoning"] == f"echo:{question}"
    assert endpoint.requests()[0].inputs == {"context": '["one", "two"]', "question": question}


def test_every_caller_gets_its_own_answer(endpoint: Endpoint, ask_in_background: Callable[..., Future[Any]]) -> None:
    replies = [ask_in_background(f"question {number}") for number in range(300)]

    answers = [answer_of(reply.result()[2]) for reply in replies]

    assert answers == [f"echo:question {number}" for number in range(300)]
    counts = endpoint.counts()
    assert (counts.calls, counts.answered, counts.in_flight, counts.abandoned) == (300, 300, 0, 0)


def test_usage_is_a_function_of_the_text(endpoint: Endpoint) -> None:
    first, second = (json.loads(ask(endpoint, "the same")[2])["usage"] for _ in range(2))

    assert first == second
    assert first["total_tokens"] == first["prompt_tokens"] + first["completion_tokens"]
    counts = endpoint.counts()
    assert counts.prompt_tokens == 2 * first["prompt_tokens"]
    assert counts.completion_tokens == 2 * first["completion_tokens"]


def test_held_requests_wait_until_they_are_released(
    endpoint: Endpoint, ask_in_background: Callable[..., Future[Any]]
) -> None:
    endpoint.hold()
    replies = [ask_in_background(str(number)) for number in range(20)]
    endpoint.wait_for_calls(20)

    counts = endpoint.counts()
    assert (counts.held, counts.in_flight, counts.max_in_flight, counts.answered) == (20, 20, 20, 0)

    endpoint.release(3)
    endpoint.wait_for_answers(3)
    assert endpoint.counts().held == 17
    assert sum(reply.done() for reply in replies) <= 3

    endpoint.release()
    for reply in replies:
        assert reply.result()[0] == 200
    assert ask(endpoint)[0] == 200, "nothing is held any more"


def test_only_prompts_with_a_text_are_held(endpoint: Endpoint, ask_in_background: Callable[..., Future[Any]]) -> None:
    endpoint.hold(containing="slow")
    held = ask_in_background("a slow one")

    assert answer_of(ask(endpoint, "a quick one")[2]) == "echo:a quick one"

    endpoint.wait_for_calls(2)
    assert not held.done()
    endpoint.release()
    assert answer_of(held.result()[2]) == "echo:a slow one"


def test_counted_scripts_are_used_up_in_their_order_and_then_the_uncounted_one_holds(endpoint: Endpoint) -> None:
    endpoint.script(status=503)
    endpoint.script(times=2, status=500)
    endpoint.script(times=1, status=429, headers={"Retry-After": "2"}, error_code="insufficient_quota")

    replies = [ask(endpoint) for _ in range(5)]

    assert [status for status, _, _ in replies] == [500, 500, 429, 503, 503]
    assert replies[2][1]["retry-after"] == "2"
    assert json.loads(replies[2][2])["error"]["code"] == "insufficient_quota"


def test_a_script_can_be_for_one_model_or_one_text(endpoint: Endpoint) -> None:
    endpoint.script(model="challenger", status=500)
    endpoint.script(containing="poison", status=400)

    assert ask(endpoint)[0] == 200
    assert ask(endpoint, model="challenger")[0] == 500
    assert ask(endpoint, "with poison")[0] == 400
    assert endpoint.counts().calls_by_model == {"control": 2, "challenger": 1}


def test_outputs_and_content_can_be_scripted(endpoint: Endpoint) -> None:
    endpoint.script(times=1, outputs={"answer": "forty-two"})
    endpoint.script(times=1, content="[[ ## answer ## ]]\n{question} at call {call}")

    assert answer_of(ask(endpoint)[2]) == "forty-two"
    assert answer_of(ask(endpoint, "When?")[2]) == "When? at call 2"


def test_usage_can_be_left_out_or_given(endpoint: Endpoint) -> None:
    endpoint.script(times=1, usage=False)
    endpoint.script(times=1, usage={"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12})

    assert "usage" not in json.loads(ask(endpoint)[2])
    assert json.loads(ask(endpoint)[2])["usage"]["total_tokens"] == 12
    assert endpoint.counts().prompt_tokens == 7


def test_a_cut_reply_ends_in_the_middle_of_its_body(endpoint: Endpoint) -> None:
    endpoint.script(times=1, fault="cut")

    with pytest.raises(http.client.IncompleteRead) as error:
        ask(endpoint)

    assert error.value.partial
    assert error.value.expected
    assert endpoint.counts().abandoned == 1


def test_a_disconnect_sends_nothing(endpoint: Endpoint) -> None:
    endpoint.script(times=1, fault="disconnect")

    with pytest.raises(http.client.RemoteDisconnected):
        ask(endpoint)


def test_a_hanging_request_never_answers_and_leaves_with_its_client(endpoint: Endpoint) -> None:
    endpoint.script(times=1, fault="hang")

    with pytest.raises(TimeoutError):
        ask(endpoint, timeout_seconds=0.3)

    endpoint.wait_until_idle()
    counts = endpoint.counts()
    assert (counts.calls, counts.answered, counts.abandoned) == (1, 0, 1)


def test_a_trickle_sends_a_byte_at_a_time_and_outlives_a_read_timeout(endpoint: Endpoint) -> None:
    endpoint.script(times=1, fault="trickle", trickle_interval_seconds=0.1, body="0123456789" * 3)
    started = time.monotonic()

    status, _, body = ask(endpoint, timeout_seconds=2)

    assert (status, body) == (200, b"0123456789" * 3)
    assert time.monotonic() - started > 2


def test_latency_is_waited_for_by_many_at_once(
    endpoint: Endpoint, ask_in_background: Callable[..., Future[Any]]
) -> None:
    endpoint.script(latency_seconds=0.5)
    started = time.monotonic()

    replies = [ask_in_background() for _ in range(50)]
    assert all(reply.result()[0] == 200 for reply in replies)

    assert 0.5 <= time.monotonic() - started < 20  # 25 for one after another
    assert endpoint.counts().max_in_flight > 25


def test_html_and_prose_come_with_status_200(endpoint: Endpoint) -> None:
    endpoint.script(times=1, fault="html")
    endpoint.script(times=1, fault="unparseable")

    status, headers, body = ask(endpoint)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert body.startswith(b"<html>")
    status, _, body = ask(endpoint)
    assert status == 200
    assert "[[ ##" not in json.loads(body)["choices"][0]["message"]["content"]


def test_secrets_are_not_kept(endpoint: Endpoint) -> None:
    ask(endpoint)

    (request,) = endpoint.requests()
    assert request.headers["content-type"] == "application/json"
    assert "secret" not in json.dumps(request.headers)


def test_a_reset_cuts_off_what_is_held_and_forgets_everything(
    endpoint: Endpoint, ask_in_background: Callable[..., Future[Any]]
) -> None:
    endpoint.script(status=500)
    endpoint.hold()
    held = ask_in_background()
    endpoint.wait_for_calls(1)

    endpoint.reset()

    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        held.result()
    assert endpoint.counts().calls == 0
    assert endpoint.requests() == []
    assert ask(endpoint)[0] == 200
    assert endpoint.counts().in_flight == 0


def test_one_connection_serves_many_requests_even_in_pieces(endpoint: Endpoint) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "é"}]}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with socket.create_connection(urlsplit(endpoint.url).netloc.split(":"), timeout=60) as connection:
        for piece in (request[:10], request[10:-3], request[-3:] + request, b""):
            connection.sendall(piece)
            time.sleep(0.02)
        endpoint.wait_for_answers(2)

    assert endpoint.counts().calls == 2
