"""The endpoint's batch interfaces as a bar: they refuse what providers refuse, and see every line billed twice."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from dspyq.lane.providers.protocol import BatchState
from tests.lane.body_forms import HEADERS, body_of
from tests.lane.provider_support import PROTOCOLS, client, ended, results, submit
from tests.support.endpoint import Endpoint
from tests.support.processes import wait_until


def ask(endpoint: Endpoint, method: str, path: str, body: Any = None, *, protocol: str = "") -> tuple[int, Any]:
    """Send one request and return the status and the JSON."""
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=30)
    try:
        connection.request(method, path, json.dumps(body), dict(HEADERS.get(protocol, ())))
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def test_a_line_billed_twice_and_a_name_used_twice_are_named(endpoint: Endpoint) -> None:
    provider = client(endpoint, "openai")
    for _ in range(2):
        ended(provider, submit(provider, "openai", "dspyq-double", 2).id)
    counts = endpoint.batches.counts()
    assert (counts.lines_billed, counts.billed_twice, counts.double_names) == (4, ["a-0", "a-1"], ["dspyq-double"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_manual_batch_runs_until_it_is_finished(endpoint: Endpoint, protocol: str) -> None:
    endpoint.batches.script(is_manual=True)
    provider = client(endpoint, protocol)
    batch = submit(provider, protocol, "dspyq-manual", 3)
    wait_until(lambda: provider.poll(batch.id).state is BatchState.RUNNING, 30, "its start")
    assert endpoint.batches.advance(2) == 2
    assert [each["answered"] for each in endpoint.batches.list()] == [2]
    assert not provider.poll(batch.id).state.is_final
    assert endpoint.batches.finish() == 1
    assert ended(provider, batch.id).succeeded_lines == 3


def test_a_reset_forgets_batches_files_scripts_and_the_bill(endpoint: Endpoint) -> None:
    provider = client(endpoint, "openai")
    ended(provider, submit(provider, "openai", "dspyq-1", 2).id)
    endpoint.batches.script(status=500)
    endpoint.reset()
    assert (endpoint.batches.list(), endpoint.batches.files(), endpoint.batches.bill().nano_usd) == ([], [], 0)
    assert ended(provider, submit(provider, "openai", "dspyq-1", 1).id).succeeded_lines == 1


def test_the_same_line_has_the_same_fate(endpoint: Endpoint) -> None:
    endpoint.batches.script(expired_share=0.5)
    provider = client(endpoint, "openai")
    first, second = (
        {custom_id: line.outcome for custom_id, line in results(provider, ended(provider, batch.id)).items()}
        for batch in [submit(provider, "openai", f"dspyq-{number}", 20) for number in range(2)]
    )
    assert first == second
    assert len(set(first.values())) == 2


@pytest.mark.parametrize(
    ("protocol", "method", "path"),
    [
        ("openai", "GET", "/v1/batches"),
        ("openai", "GET", "/v1/files"),
        ("anthropic", "GET", "/v1/messages/batches"),
        ("gemini", "GET", "/v1beta/batches"),
    ],
)
def test_a_request_without_a_key_is_refused(endpoint: Endpoint, protocol: str, method: str, path: str) -> None:
    assert ask(endpoint, method, path)[0] == 401
    assert ask(endpoint, method, path, protocol=protocol)[0] == 200


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([("a", body_of("openai", "x")), ("a", body_of("openai", "y"))], "duplicate_custom_id", 2),
        ([("a", b'{"model": "m", "messages": [1], "stream": true}')], "invalid_request", 1),
        ([("a", body_of("openai", "x")), ("b", b"{")], "invalid_json_line", 2),
    ],
)
def test_a_file_that_openai_would_refuse_fails_its_batch(
    endpoint: Endpoint, lines: list[tuple[str, bytes]], code: str, number: int
) -> None:
    provider = client(endpoint, "openai")
    batch = ended(provider, provider.create("dspyq-1", file_id=provider.upload("dspyq-1", lines)).id)
    assert [(fault.code, fault.line) for fault in batch.faults] == [(code, number)]
    assert endpoint.batches.counts().lines_billed == 0


def test_a_batch_that_anthropic_would_refuse_is_refused(endpoint: Endpoint) -> None:
    line = {"custom_id": "a", "params": json.loads(body_of("anthropic", "x"))}
    for requests in ([], [line, line], [line | {"custom_id": "a b"}], [line | {"custom_id": "a" * 65}]):
        status, body = ask(endpoint, "POST", "/v1/messages/batches", {"requests": requests}, protocol="anthropic")
        assert (status, body["error"]["type"]) == (400, "invalid_request_error")


def test_a_batch_that_runs_cannot_be_deleted_at_anthropic(endpoint: Endpoint) -> None:
    endpoint.batches.script(is_manual=True)
    batch = submit(client(endpoint, "anthropic"), "anthropic", "", 1)
    assert ask(endpoint, "DELETE", f"/v1/messages/batches/{batch.id}", protocol="anthropic")[0] == 400
