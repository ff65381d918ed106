"""Results of batches that fail in part, expire, are cut off or are refused, against the endpoint's three interfaces."""

from __future__ import annotations

import pytest

from dspyq.lane.providers.errors import BatchInterfaceError, ReplyUnusable
from dspyq.lane.providers.protocol import BatchProvider, BatchState, LineOutcome, read_one_id
from tests.lane.body_forms import body_of
from tests.lane.provider_support import (
    PROTOCOLS,
    client,
    ended,
    outcomes,
    results,
    submit,
    text_of_reply,
)
from tests.support.endpoint import Endpoint


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(endpoint: Endpoint, protocol: str) -> BatchProvider:
    return client(endpoint, protocol)


def test_lines_that_expire_are_unanswered_and_unbilled_and_paid_ones_are_kept(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    endpoint.batches.script(expired_share=0.4)
    batch = ended(provider, submit(provider, protocol, "dspyq-1", 50).id)
    found = outcomes(results(provider, batch))
    answered = found[LineOutcome.ANSWERED]
    assert 10 < answered < 45
    assert endpoint.batches.counts().lines_billed == answered
    # Anthropic has one final state; Gemini has no line for what expired.
    assert batch.state is (BatchState.ENDED if protocol == "anthropic" else BatchState.EXPIRED)
    assert found.get(LineOutcome.UNANSWERED, 0) == (0 if protocol == "gemini" else 50 - answered)


def test_a_batch_that_expires_whole_has_no_paid_line(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    endpoint.batches.script(expired_share=1.0)
    batch = ended(provider, submit(provider, protocol, "dspyq-1", 5).id)
    assert batch.state is BatchState.EXPIRED
    assert LineOutcome.ANSWERED not in outcomes(results(provider, batch))
    assert read_one_id(provider, batch) in ({None} if protocol == "gemini" else {f"a-{n}" for n in range(5)})


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (400, LineOutcome.FAILED),
        (404, LineOutcome.FAILED),
        (429, LineOutcome.UNANSWERED),
        (500, LineOutcome.UNANSWERED),
        (503, LineOutcome.UNANSWERED),
    ],
)
def test_lines_that_fail_have_the_status_and_the_body_of_a_live_error(
    endpoint: Endpoint, provider: BatchProvider, protocol: str, status: int, outcome: LineOutcome
) -> None:
    endpoint.batches.script(failed_share=0.5, failed_status=status)
    batch = ended(provider, submit(provider, protocol, "dspyq-1", 40).id)
    found = results(provider, batch)
    failed = [line for line in found.values() if line.outcome is outcome]
    assert len(failed) + outcomes(found)[LineOutcome.ANSWERED] == 40
    assert 5 < len(failed) < 35
    is_overloaded = (protocol, status) == ("anthropic", 503)  # its word for both
    assert {line.status for line in failed} == {529 if is_overloaded else status}
    assert all("error" in (line.body or {}) and line.usage is None for line in failed)
    assert endpoint.batches.counts().lines_billed == 40 - len(failed)
    assert batch.failed_lines == len(failed)


def test_a_usage_beside_an_error_is_read(endpoint: Endpoint) -> None:
    endpoint.batches.script(failed_share=1.0, failed_usage=True)
    provider = client(endpoint, "openai")
    found = results(provider, ended(provider, submit(provider, "openai", "dspyq-1", 3).id))
    assert all(line.outcome is LineOutcome.FAILED and line.usage for line in found.values())
    assert endpoint.batches.counts().lines_billed == 3


def test_a_batch_with_errors_alone_has_no_output_file(endpoint: Endpoint) -> None:
    endpoint.batches.script(failed_share=1.0)
    provider = client(endpoint, "openai")
    batch = ended(provider, submit(provider, "openai", "dspyq-1", 3).id)
    assert (batch.state, batch.output_file_id, bool(batch.error_file_id)) == (BatchState.ENDED, "", True)
    assert outcomes(results(provider, batch)) == {LineOutcome.FAILED: 3}


def test_prose_is_an_answer_as_live(endpoint: Endpoint, provider: BatchProvider, protocol: str) -> None:
    endpoint.batches.script(unparseable_share=1.0)
    found = results(provider, ended(provider, submit(provider, protocol, "dspyq-1", 2).id))
    assert {text_of_reply(line) for line in found.values()} == {"I would rather talk about something else."}


def test_scripts_of_live_calls_hold_for_lines_too(endpoint: Endpoint, provider: BatchProvider, protocol: str) -> None:
    endpoint.script(containing="question a-1", status=400, lane="batch")
    found = results(provider, ended(provider, submit(provider, protocol, "dspyq-1", 3).id))
    assert found["a-1"].outcome is LineOutcome.FAILED
    assert outcomes(found)[LineOutcome.ANSWERED] == 2
    assert endpoint.calls() == 0


def test_lines_that_cannot_be_read_keep_their_id_and_stop_no_other(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    endpoint.batches.script(unreadable_share=0.3)
    batch = ended(provider, submit(provider, protocol, "dspyq-1", 40).id)
    found = results(provider, batch)
    assert len(found) == 40
    counts = outcomes(found)
    assert 2 < counts[LineOutcome.UNREADABLE] < 30
    assert counts[LineOutcome.ANSWERED] == 40 - counts[LineOutcome.UNREADABLE]
    assert endpoint.batches.counts().lines_billed == 40


def test_lines_may_be_missing_or_come_twice(endpoint: Endpoint, provider: BatchProvider, protocol: str) -> None:
    endpoint.batches.script(missing_share=0.3, doubled_share=0.3)
    batch = ended(provider, submit(provider, protocol, "dspyq-1", 60).id)
    ids = [line.custom_id for line in provider.read_lines(batch)]
    assert len(set(ids)) < 60
    assert len(ids) > len(set(ids))


def test_results_that_are_cut_off_are_unusable_and_whole_the_next_time(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    endpoint.batches.script(cut_results=1)
    batch = ended(provider, submit(provider, protocol, "dspyq-1", 20).id)
    with pytest.raises(ReplyUnusable, match="cut short"):
        results(provider, batch)
    assert len(results(provider, batch)) == 20


def test_results_that_are_refused_for_a_while_can_be_asked_for_again(
    endpoint: Endpoint, provider: BatchProvider, protocol: str
) -> None:
    endpoint.batches.script(refused_results=1)
    batch = ended(provider, submit(provider, protocol, "dspyq-1", 2).id)
    with pytest.raises(BatchInterfaceError) as raised:
        results(provider, batch)
    assert raised.value.retryable
    assert len(results(provider, batch)) == 2


@pytest.mark.parametrize("protocol", ["openai", "gemini"], indirect=True)
def test_a_quota_refuses_a_batch_after_its_creation(endpoint: Endpoint, provider: BatchProvider, protocol: str) -> None:
    endpoint.batches.script(times=1, fails_with="token_limit_exceeded", limit_tokens=90_000)
    batch = ended(provider, submit(provider, protocol, "dspyq-1", 2).id)
    assert (batch.state, batch.is_over_quota) == (BatchState.FAILED, True)
    if protocol == "openai":  # Gemini's text states none
        assert [fault.limit_tokens for fault in batch.faults] == [90_000]
    assert outcomes(results(provider, batch)) == {}
    assert endpoint.batches.counts().lines_billed == 0


def test_the_endpoints_queue_has_a_limit_of_tokens(endpoint: Endpoint) -> None:
    provider = client(endpoint, "openai")
    endpoint.batches.limit(tokens=300)
    assert ended(provider, submit(provider, "openai", "dspyq-small", 3).id).state is BatchState.ENDED
    large = ended(provider, submit(provider, "openai", "dspyq-large", 100).id)
    assert (large.is_over_quota, large.faults[0].limit_tokens) == (True, 300)


def test_a_line_at_fault_is_named_by_its_number(endpoint: Endpoint) -> None:
    provider = client(endpoint, "openai")
    lines = [("good", body_of("openai", "x")), ("bad", b'{"messages": []}')]
    batch = ended(provider, provider.create("dspyq-1", file_id=provider.upload("dspyq-1", lines)).id)
    assert (batch.state, batch.is_over_quota) == (BatchState.FAILED, False)
    assert [(fault.code, fault.line) for fault in batch.faults] == [("invalid_request", 2)]


def test_a_provider_that_drops_our_name_is_searched_by_the_file(endpoint: Endpoint) -> None:
    """Together's form: no metadata, words in capitals, times as text, and a listing without pages."""
    provider = client(endpoint, "openai", prefix="/together")
    provider._purpose = "batch-api"  # type: ignore[attr-defined]  # noqa: SLF001 - as for Together's host
    file_id = provider.upload("dspyq-1", [("a-1", body_of("openai", "question a-1"))])
    created = provider.create("dspyq-1", file_id=file_id)
    found = provider.find("dspyq-1", created.created_at_seconds, 1, file_id=file_id)
    assert [batch.id for batch in found] == [created.id]
    assert created.name == ""
    assert created.expires_at_seconds is not None
    batch = ended(provider, created.id)
    assert outcomes(results(provider, batch)) == {LineOutcome.ANSWERED: 1}
