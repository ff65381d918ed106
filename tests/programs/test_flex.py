"""The flex tier of a provider: its price, and what becomes of a call for which it has no room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import redis

from dspyq.batch.account import BatchAccount
from dspyq.config.settings import load_settings
from dspyq.core.money import to_nano_usd
from dspyq.guards.call_records import JobRun
from dspyq.guards.interruptions import Refusal
from dspyq.guards.ledger import Ledger
from dspyq.guards.model import Guards
from dspyq.programs.runner import build_programs
from tests.support.configuration import write_settings
from tests.support.endpoint import Endpoint

BATCH = "00ff00ff00ff00ff"
#: Prompt and completion of each scripted reply, at a dollar and two for a million.
USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
STANDARD_NANO_USD = 200_000
FULL = {"times": 1, "status": 429, "error_code": "resource_unavailable"}


@pytest.fixture
def ask(endpoint: Endpoint, client: redis.Redis, tmp_path: Path) -> Iterator[Callable[..., Ledger]]:
    """Run a program as a batch's row, or as nobody's, and return its ledger."""
    with ExitStack() as opened:

        def ask(batch: str = BATCH, jobs: redis.Redis = client, **model: Any) -> Ledger:
            prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
            table = {"model": "openai/m", "api_base": endpoint.url, "service_tier_price_factors": {"flex": 0.5}}
            document = {
                "models": {"m": table | prices | model},
                "programs": {"p": {"signature": "question -> answer", "variants": {"a": {"model": "m"}}}},
                "budget": {"daily_usd": 1.0},
            }
            settings = load_settings(write_settings(tmp_path / "dspyq.toml", document))
            (runner,) = build_programs(settings, None, Guards(settings, jobs)).values()
            opened.enter_context(closing(runner))
            ledger = Ledger(JobRun("t", "", "p", "a", batch=batch))
            runner.run({"question": "hi"}, ledger)
            return ledger

        endpoint.script(usage=USAGE)
        BatchAccount(client, BATCH).open(lane="flex")
        yield ask


def tiers(endpoint: Endpoint) -> list[str | None]:
    return [request.parameters.get("service_tier") for request in endpoint.requests()]


def settled(client: redis.Redis) -> int:
    books, _ = BatchAccount(client, BATCH).statement()
    assert books.held_nano_usd == 0
    return books.settled_nano_usd


def test_a_row_of_a_flex_batch_is_asked_and_billed_at_the_flex_tier(
    ask: Callable[..., Ledger], endpoint: Endpoint, client: redis.Redis
) -> None:
    ledger = ask()
    assert tiers(endpoint) == ["flex"]
    assert [to_nano_usd(call.cost_usd or 0) for call in ledger.calls] == [STANDARD_NANO_USD // 2]
    assert settled(client) == STANDARD_NANO_USD // 2


@pytest.mark.parametrize(("lane", "tier"), [("provider,flex", "flex"), ("provider,live", None), ("provider", None)])
def test_a_batch_that_leaves_the_providers_lane_goes_on_at_the_tier_that_its_account_states(
    ask: Callable[..., Ledger], endpoint: Endpoint, client: redis.Redis, lane: str, tier: str | None
) -> None:
    BatchAccount(client, BATCH).open(lane=lane)
    ask()
    assert tiers(endpoint) == [tier]


def test_callers_other_than_the_batch_are_not_asked_at_the_flex_tier(
    ask: Callable[..., Ledger], endpoint: Endpoint
) -> None:
    ask(batch="")
    assert tiers(endpoint) == [None]


@pytest.mark.parametrize(("batch", "model"), [(BATCH, {}), ("", {"parameters": {"service_tier": "flex"}})])
def test_a_full_flex_tier_leaves_a_call_to_the_standard_one_and_its_bill_is_within_its_hold(
    ask: Callable[..., Ledger], endpoint: Endpoint, client: redis.Redis, batch: str, model: dict[str, Any]
) -> None:
    endpoint.script(**FULL)
    ledger = ask(batch, **model)
    assert tiers(endpoint) == ["flex", "default"]
    assert [call.outcome for call in ledger.calls] == ["flex_unavailable", "ok"]
    assert [to_nano_usd(call.cost_usd or 0) for call in ledger.calls] == [0, STANDARD_NANO_USD]
    if batch:
        assert settled(client) == STANDARD_NANO_USD
    assert not client.hget("dspy:v1:budget-statistics", "bills_above_hold")


def test_a_full_flex_tier_closes_no_gate_and_a_rate_limit_at_it_does(
    ask: Callable[..., Ledger], endpoint: Endpoint
) -> None:
    endpoint.script(**FULL)
    assert ask().interruption is None
    endpoint.script(times=1, status=429, error_code="rate_limit_exceeded", headers={"retry-after": "30"})
    with pytest.raises(Refusal, match="demands a wait"):
        ask()


def test_a_model_that_states_a_tier_keeps_it_in_a_flex_batch(ask: Callable[..., Ledger], endpoint: Endpoint) -> None:
    ask(parameters={"service_tier": "priority"})
    assert tiers(endpoint) == ["priority"]


def test_a_call_of_a_batch_whose_lane_cannot_be_read_is_not_made(
    ask: Callable[..., Ledger], endpoint: Endpoint
) -> None:
    with pytest.raises(Refusal, match="Redis did not answer whether the lane of its batch is live"):
        ask(jobs=redis.Redis(port=1))
    assert endpoint.calls() == 0
