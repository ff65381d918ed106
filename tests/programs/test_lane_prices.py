"""Prices by lane: the bill of a call through the batch interface or at the flex tier, and its bound."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from dspyq.core.money import to_nano_usd
from dspyq.programs.usage import Tokens
from tests.programs.test_prices import STATED, Provider

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("table", "prompt", "completion"),
    [({}, 0.5, 5.0), ({"batch_discount": 0.25}, 0.75, 7.5), ({"batch_discount": 0.0}, 1.0, 10.0)],
)
def test_stated_prices_are_discounted_in_the_providers_lane(
    table: dict[str, Any], prompt: float, completion: float
) -> None:
    pricing = Provider("openai/x", **STATED, **table).pricing
    assert pricing.usual_cost_usd(Tokens(MILLION, MILLION), "provider") == pytest.approx(prompt + completion)
    assert pricing.usual_cost_usd(Tokens(MILLION, MILLION), "live") == pytest.approx(11.0)


@pytest.mark.parametrize(
    ("model", "tokens", "usd"),
    [
        ("openai/gpt-4o-mini", Tokens(MILLION, MILLION), 0.075 + 0.3),
        # Without a batch price of its own, what came from a cache costs at most what the rest of the prompt does.
        ("openai/gpt-4o-mini", Tokens(MILLION, 0, cached=MILLION), 0.075),
        ("openai/gpt-5.4", Tokens(MILLION, 0, cached=MILLION), 0.25),  # the price of a long prompt
        ("openai/gpt-5.4", Tokens(100_000, 0, cached=100_000), 0.013),
        ("openai/gpt-5.4", Tokens(300_000, 100_000), 0.75 + 1.125),
    ],
)
def test_bundled_batch_prices_are_those_of_the_table_cached_and_long_prompts_too(
    model: str, tokens: Tokens, usd: float
) -> None:
    assert Provider(model).pricing.usual_cost_usd(tokens, "provider") == pytest.approx(usd)


def test_a_stated_discount_replaces_the_tables_batch_prices() -> None:
    pricing = Provider("openai/gpt-4o-mini", batch_discount=0.25).pricing
    assert pricing.usual_cost_usd(Tokens(MILLION, 0), "provider") == pytest.approx(0.15 * 0.75)


@pytest.mark.parametrize("tier", ["batch", "flex", "default", "priority", None])
def test_a_reply_of_the_batch_interface_has_its_batch_price_whatever_tier_it_states(tier: str | None) -> None:
    provider = Provider("openai/gpt-5-mini")
    raw = {"service_tier": tier} if tier else {}
    response = provider.reply(raw, input_tokens=MILLION, output_tokens=MILLION).response
    cost = provider.pricing.cost_usd(None, response, provider.pricing.tokens_of(response), "provider")
    assert cost == pytest.approx(0.125 + 1.0)


def test_a_live_reply_that_states_the_batch_tier_has_a_known_price() -> None:
    provider = Provider("openai/gpt-5-mini").reply({"service_tier": "batch"}, input_tokens=1000, output_tokens=1000)
    assert provider.cost() == pytest.approx((0.25 + 2.0) / 1000)


def test_flex_is_half_the_price_in_the_table_and_held_at_the_dearer_one() -> None:
    provider = Provider("openai/gpt-5-mini")
    assert provider.pricing.usual_cost_usd(Tokens(MILLION, MILLION), "flex") == pytest.approx(1.125)
    call = provider.call("default")
    assert call.bound_in("flex") == call.bound_in("live")


_COUNTS = st.integers(0, 2000)
_MODELS = [
    ("openai/x", STATED),
    ("openai/x", {**STATED, "batch_discount": 0.3, "service_tier_price_factors": {"flex": 0.5}}),
    ("openai/x", {**STATED, "cached_input_usd_per_million_tokens": 0.1, "cache_write_usd_per_million_tokens": 1.25}),
    ("openai/gpt-4o-mini", {}),
    ("openai/gpt-5.4", {}),
    ("anthropic/claude-haiku-4-5", {}),
    ("gemini/gemini-2.5-flash", {}),
]
_PROVIDERS = [Provider(name, max_tokens=3_000_000, **table) for name, table in _MODELS]


@profile(suppress_health_check=[HealthCheck.too_slow], max_examples=300, deadline=None)
@given(
    provider=st.sampled_from(_PROVIDERS),
    lane=st.sampled_from(["provider", "flex"]),
    served_at=st.sampled_from([None, "flex", "default", "batch"]),
    scale=st.sampled_from([1, 200]),
    prompt=_COUNTS,
    cached=_COUNTS,
    written=_COUNTS,
    completion=_COUNTS,
)
def test_no_bill_of_a_lane_is_above_its_hold(
    provider: Provider,
    lane: Any,
    served_at: str | None,
    scale: int,
    prompt: int,
    cached: int,
    written: int,
    completion: int,
) -> None:
    call = provider.call(None, "x" * 6000 * scale)
    raw = {"service_tier": served_at} if served_at else {}
    counts = {"cache_read_tokens": cached * scale, "cache_write_tokens": written * scale}
    response = provider.reply(raw, input_tokens=prompt * scale, output_tokens=completion * scale, **counts).response
    pricing = provider.pricing
    tokens = pricing.tokens_of(response)
    assert tokens is not None
    assert tokens.prompt <= call.most_prompt_tokens
    cost_usd = pricing.cost_usd(None, response, tokens, lane)
    assert cost_usd is not None
    assert to_nano_usd(cost_usd) <= call.bound_in(lane)
    assert call.bound_in("provider") <= call.bound_in("live")
