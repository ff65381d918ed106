"""Mistral's batch jobs against the endpoint."""

from __future__ import annotations

import time

import pytest

from dspyq.guards.provider_access import ProviderAccess
from dspyq.lane.providers.choice import provider_for
from dspyq.lane.providers.errors import CreationUnknown
from dspyq.lane.providers.http import ProviderHttp
from dspyq.lane.providers.mistral import MistralBatches
from dspyq.lane.providers.openai import OpenAIBatches
from dspyq.lane.providers.protocol import BatchState, LineOutcome
from tests.lane.provider_support import access_to, ended, outcomes, results, submit, text_of_reply
from tests.support.endpoint import Endpoint
from tests.support.processes import wait_until


@pytest.fixture
def provider(endpoint: Endpoint) -> MistralBatches:
    return MistralBatches(ProviderHttp(access_to(endpoint, "openai", prefix="/mistral")))


@pytest.mark.parametrize(
    ("base_url", "kind"),
    [
        ("https://api.mistral.ai/v1", MistralBatches),
        ("https://api.openai.com/v1", OpenAIBatches),
        ("https://mistral.ai.test/v1", OpenAIBatches),
    ],
)
def test_mistrals_own_endpoint_has_its_jobs(base_url: str, kind: type) -> None:
    assert type(provider_for("openai", ProviderAccess("openai-chat", base_url))) is kind


def test_a_job_answers_each_line_and_its_files_are_deleted(endpoint: Endpoint, provider: MistralBatches) -> None:
    endpoint.batches.script(failed_share=0.3)
    batch = ended(provider, submit(provider, "openai", "dspyq-1", 30).id)
    found = results(provider, batch)
    answered = outcomes(found)[LineOutcome.ANSWERED]
    assert batch.state is BatchState.ENDED
    assert (batch.total_lines, batch.succeeded_lines, batch.failed_lines) == (30, answered, 30 - answered)
    assert outcomes(found)[LineOutcome.FAILED] == 30 - answered
    assert all(
        text_of_reply(line) == f"echo:question {custom_id}"
        for custom_id, line in found.items()
        if line.outcome is LineOutcome.ANSWERED
    )
    assert provider.delete_files(batch) == 3
    assert endpoint.batches.files() == []


def test_a_job_whose_creation_was_not_answered_is_found_by_its_name_on_any_page(
    endpoint: Endpoint, provider: MistralBatches
) -> None:
    began_at = time.time()
    endpoint.batches.script(times=1, loses_reply=True)
    with pytest.raises(CreationUnknown):
        submit(provider, "openai", "dspyq-lost", 2)
    for number in range(3):
        submit(provider, "openai", f"dspyq-{number}", 1)
    endpoint.batches.page(2)
    (found,) = provider.find("dspyq-lost", began_at, 2)
    assert ended(provider, found.id).succeeded_lines == 2
    assert found.id in [batch.id for batch in provider.batches_named("dspyq-", began_at)]
    assert list(provider.batches_named("dspyq-x", began_at)) == []


@pytest.mark.parametrize(
    ("script", "state"),
    [({"expired_share": 1.0}, BatchState.EXPIRED), ({"fails_with": "some_error"}, BatchState.FAILED)],
)
def test_a_job_may_end_otherwise(
    endpoint: Endpoint, provider: MistralBatches, script: dict[str, object], state: BatchState
) -> None:
    endpoint.batches.script(**script)
    batch = ended(provider, submit(provider, "openai", "dspyq-1", 2).id)
    assert (batch.state, batch.is_over_quota) == (state, False)


def test_a_job_is_cancelled(endpoint: Endpoint, provider: MistralBatches) -> None:
    endpoint.batches.script(is_manual=True)
    batch = submit(provider, "openai", "dspyq-1", 5)
    wait_until(lambda: provider.poll(batch.id).state is BatchState.RUNNING, 30, "its start")
    endpoint.batches.advance(2)
    provider.cancel(batch.id)
    cancelled = ended(provider, batch.id)
    provider.cancel(batch.id)
    assert (cancelled.state, cancelled.succeeded_lines) == (BatchState.CANCELLED, 2)
