"""Uploads, creations, listings and ends of batches, against the endpoint's three interfaces."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from dspyq.core.money import to_usd
from dspyq.lane.providers.choice import provider_for
from dspyq.lane.providers.errors import (
    BatchInterfaceClosed,
    BatchInterfaceError,
    CreationUnknown,
    EnqueuedLimitReached,
    ProviderBusy,
    RemoteMissing,
    ShipmentRefused,
)
from dspyq.lane.providers.protocol import BatchProvider, BatchState, LineOutcome, read_one_id
from tests.lane.body_forms import KEY, body_of
from tests.lane.provider_support import (
    PROTOCOLS,
    access_to,
    client,
    ended,
    lines_of,
    outcomes,
    results,
    submit,
    text_of_reply,
)
from tests.support.endpoint import Endpoint
from tests.support.processes import wait_until


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(endpoint: Endpoint, protocol: str) -> BatchProvider:
    return client(endpoint, protocol)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def live_answer(endpoint: Endpoint, protocol: str, question: str) -> dict[str, object]:
    path = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "gemini": "/v1beta/models/m:generateContent"}
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=30)
    try:
        connection.request("POST", path[protocol], body_of(protocol, question))
        answer: dict[str, object] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


def test_a_batch_answers_each_line_as_a_live_call_at_half_the_price(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    created = submit(provider, protocol, "dspyq-1", 20)
    batch = ended(provider, created.id)
    found = results(provider, batch)

    assert batch.state is BatchState.ENDED
    assert (batch.total_lines, batch.succeeded_lines, batch.failed_lines) == (20, 20, 0)
    assert outcomes(found) == {LineOutcome.ANSWERED: 20}
    assert {custom_id: text_of_reply(line) for custom_id, line in found.items()} == {
        f"a-{number}": f"echo:question a-{number}" for number in range(20)
    }
    live = live_answer(endpoint, protocol, "question a-3")
    assert {**(found["a-3"].body or {}), "id": 0, "created": 0} == {**live, "id": 0, "created": 0}
    assert found["a-3"].usage
    bill = endpoint.batches.bill()
    assert bill.batch_nano_usd == 10 * bill.live_nano_usd  # twenty lines at half, and one live call
    assert endpoint.batches.counts().lines_billed == 20


def test_results_come_in_another_order_than_requests(provider: BatchProvider, protocol: str) -> None:
    batch = ended(provider, submit(provider, protocol, "dspyq-1", 30).id)
    ids = [line.custom_id for line in provider.read_lines(batch)]
    assert ids != sorted(ids, key=lambda custom_id: int(custom_id.partition("-")[2]))
    assert read_one_id(provider, batch) == ids[0]


def test_a_batch_is_found_by_its_name_or_its_lines_on_any_page(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    began_at = time.time()
    wanted = submit(provider, protocol, "dspyq-wanted", 3)
    for number in range(3):
        submit(provider, protocol, f"dspyq-{number}", 1)
    endpoint.batches.page(2)

    found = provider.find("dspyq-wanted", began_at, 3)

    assert [batch.id for batch in found] == [wanted.id]
    assert provider.find("dspyq-other", began_at, 4) == []
    if provider.has_names:
        assert found[0].name == "dspyq-wanted"
    else:
        assert read_one_id(provider, ended(provider, found[0].id)) in {"a-0", "a-1", "a-2"}


def test_all_batches_of_ours_are_listed_on_all_pages(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    began_at = time.time()
    names = ["dspyq-1", "dspyq-2", "other", "dspyq-3"]
    ids = {name: submit(provider, protocol, name, 1).id for name in names}
    endpoint.batches.page(2)
    ours = [ids[name] for name in reversed(names) if name.startswith("dspyq-") or not provider.has_names]
    assert [batch.id for batch in provider.batches_named("dspyq-", began_at)] == ours
    assert list(provider.batches_named("dspyq-", began_at + 3600)) == []


def test_a_lost_reply_to_a_creation_is_unknown_and_the_batch_is_found(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    endpoint.batches.script(times=1, loses_reply=True)
    began_at = time.time()
    with pytest.raises(CreationUnknown, match=r"models\.fast: batch interface: the reply to a creation was lost"):
        submit(provider, protocol, "dspyq-lost", 4)

    (found,) = provider.find("dspyq-lost", began_at, 4)
    batch = ended(provider, found.id)

    assert outcomes(results(provider, batch)) == {LineOutcome.ANSWERED: 4}
    counts = endpoint.batches.counts()
    assert (counts.creations, counts.batches, counts.billed_twice) == (1, 1, [])


@pytest.mark.parametrize("creates", [True, False])
def test_a_server_error_of_a_creation_leaves_it_unknown_and_is_not_repeated(
    endpoint: Endpoint, provider: BatchProvider, protocol: str, *, creates: bool
) -> None:
    endpoint.batches.script(times=1, status=500, creates=creates)
    with pytest.raises(CreationUnknown, match="HTTP 500"):
        submit(provider, protocol, "dspyq-500", 2)
    assert (endpoint.batches.counts().creations, endpoint.batches.counts().batches) == (1, int(creates))
    assert len(provider.find("dspyq-500", time.time(), 2)) == int(creates)


def test_a_listing_may_lag_behind_a_creation(endpoint: Endpoint, provider: BatchProvider, protocol: str) -> None:
    endpoint.batches.script(times=1, list_lag_seconds=1.5, loses_reply=True)
    began_at = time.time()
    with pytest.raises(CreationUnknown):
        submit(provider, protocol, "dspyq-lag", 2)
    if time.time() < began_at + 1:  # a slow machine is past the lag
        assert provider.find("dspyq-lag", began_at, 2) == []
    wait_until(lambda: bool(provider.find("dspyq-lag", began_at, 2)), 30, "the batch in a listing")


def test_a_batch_that_is_not_found_after_its_creation_is_found_later(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    endpoint.batches.script(times=1, missing_polls=2)
    batch = submit(provider, protocol, "dspyq-404", 2)
    for _ in range(2):
        with pytest.raises(RemoteMissing, match="HTTP 404") as raised:
            provider.poll(batch.id)
        assert raised.value.retryable
    assert ended(provider, batch.id).state is BatchState.ENDED


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "", ShipmentRefused),
        (413, "", ShipmentRefused),
        (401, "", BatchInterfaceClosed),
        (403, "", BatchInterfaceClosed),
        (429, "", ProviderBusy),
        (409, "", ProviderBusy),
    ],
)
def test_a_refused_creation_states_the_next_step(
    endpoint: Endpoint, provider: BatchProvider, protocol: str, status: int, code: str, error: type[BatchInterfaceError]
) -> None:
    endpoint.batches.script(times=1, status=status, error_code=code or "some_code", retry_after="7")
    with pytest.raises(error, match=rf"models\.fast.*HTTP {status}") as raised:
        submit(provider, protocol, "dspyq-no", 2)
    assert type(raised.value) is error
    assert (raised.value.status, raised.value.retry_after_seconds) == (status, 7.0)
    assert endpoint.batches.counts().batches == 0


@pytest.mark.parametrize("code", ["token_limit_exceeded", "RESOURCE_EXHAUSTED"])
def test_a_full_queue_is_a_limit_and_no_rate(
    endpoint: Endpoint, provider: BatchProvider, protocol: str, code: str
) -> None:
    endpoint.batches.script(times=1, status=429, error_code=code)
    with pytest.raises(EnqueuedLimitReached, match="too much is queued"):
        submit(provider, protocol, "dspyq-full", 2)


def test_without_a_connection_nothing_was_created(endpoint: Endpoint, protocol: str, closed_port: int) -> None:
    access = access_to(endpoint, protocol)
    host = urlsplit(access.base_url).netloc
    away = replace(access, base_url=access.base_url.replace(host, f"127.0.0.1:{closed_port}"))
    with pytest.raises(ProviderBusy, match="no connection"):
        provider_for(protocol, away).create("dspyq-away", file_id="f", lines=lines_of(protocol, 1))


def test_cancelled_batches_keep_what_was_answered(endpoint: Endpoint, provider: BatchProvider, protocol: str) -> None:
    endpoint.batches.script(is_manual=True)
    batch = submit(provider, protocol, "dspyq-cancel", 10)
    wait_until(lambda: provider.poll(batch.id).state is BatchState.RUNNING, 30, "its start")
    endpoint.batches.advance(4)

    provider.cancel(batch.id)
    cancelled = ended(provider, batch.id)
    provider.cancel(batch.id)  # it has ended, which is no error

    found = results(provider, cancelled)
    assert cancelled.state is BatchState.CANCELLED
    assert outcomes(found)[LineOutcome.ANSWERED] == 4
    assert endpoint.batches.counts().lines_billed == 4


def test_files_are_deleted_and_orphans_are_found_by_name(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    batch = ended(provider, submit(provider, protocol, "dspyq-files", 2).id)
    if provider.has_files:
        orphan = provider.upload("dspyq-orphan", lines_of(protocol, 1))
        files = provider.orphan_files("dspyq-")
        assert [file.name for file in files] == ["dspyq-files.jsonl", "dspyq-orphan.jsonl"]
        assert files[1].id == orphan
        assert files[1].size_bytes > 0
        assert provider.delete_file(orphan)
        assert not provider.delete_file(orphan)

    assert provider.delete_files(batch) == (2 if provider.has_files else 1)

    assert endpoint.batches.files() == []
    assert provider.orphan_files("dspyq-") == []
    assert provider.delete_files(batch) == 0


def test_no_error_and_no_text_of_a_client_holds_the_key(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    endpoint.batches.script(times=1, status=401, error_code=KEY)
    with pytest.raises(BatchInterfaceError) as raised:
        submit(provider, protocol, "dspyq-secret", 1)
    assert KEY not in f"{access_to(endpoint, protocol)!r} {provider!r}"
    assert "question" not in str(raised.value)


def test_the_bill_is_exact_to_the_nano_dollar(endpoint: Endpoint, provider: BatchProvider, protocol: str) -> None:
    endpoint.batches.prices(input_usd_per_million_tokens=0.15, output_usd_per_million_tokens=0.6)
    found = results(provider, ended(provider, submit(provider, protocol, "dspyq-bill", 7).id))
    usages = [sorted((line.usage or {}).items()) for line in found.values()]
    names = {"prompt_tokens": 75, "input_tokens": 75, "promptTokenCount": 75}
    names |= {"completion_tokens": 300, "output_tokens": 300, "candidatesTokenCount": 300}
    nano_usd = sum(names.get(name, 0) * count for usage in usages for name, count in usage)
    assert endpoint.batches.bill().nano_usd == nano_usd
    assert to_usd(nano_usd) > 0


def test_a_file_that_is_still_imported_is_waited_for(endpoint: Endpoint) -> None:
    """Azure's files are: a batch of one would be refused for good."""
    provider = client(endpoint, "openai")
    endpoint.batches.pending(polls=2)
    batch = ended(provider, submit(provider, "openai", "dspyq-1", 2).id)
    assert batch.succeeded_lines == 2
