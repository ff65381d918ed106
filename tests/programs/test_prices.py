"""The cost of a call, and its bound: every form of usage that DSPy reads, at stated and at bundled prices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dspy import lm15
from dspy.clients.costs import estimate_cost
from dspy.clients.engines.lm15_engine import LM15Engine
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from dspyq.config.models import Model
from dspyq.core.money import to_nano_usd
from dspyq.errors import ConfigurationError
from dspyq.guards.billing import Bill
from dspyq.guards.budget import Budget
from dspyq.programs.deadline import deadline
from dspyq.programs.prices import Pricing
from dspyq.programs.provider_call import ProviderCall
from dspyq.programs.runner import Runner
from tests.support.budgets import NANO, PREFIX, Calendar, call, do, settings
from tests.support.endpoint import Endpoint
from tests.support.redis_server import RedisServer

STATED = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}
FREE = {"input_usd_per_million_tokens": 0.0, "output_usd_per_million_tokens": 0.0}


class Provider:
    """Answers a request with a reply that is made beforehand."""

    def __init__(self, name: str, *, max_tokens: int = 1000, **table: Any) -> None:
        self.model = Model(name="m", model=name, max_tokens=max_tokens, **table)
        self.route = LM15Engine(lm15.RouterConfig(env={})).resolve(name)
        self.provider: str = self.route.provider
        self.pricing = Pricing(self.model, self.route)
        self.response: Any = None

    def reply(self, raw: dict[str, Any] | None = None, **usage: int | None) -> Provider:
        self.response = lm15.Response(
            id=None,
            model=self.route.model,
            message=lm15.Message.assistant("."),
            finish_reason="stop",
            usage=lm15.Usage(**usage),
            provider_data=raw or {},
        )
        return self

    def attempt(self, _: lm15.Request, __: deadline) -> tuple[lm15.Response, bytes | None]:
        return self.response, b"{}"

    def call(self, tier: str | None = None, text: str = "x" * 2000, **config: Any) -> ProviderCall:
        request = lm15.Request(
            model=self.route.model,
            messages=(lm15.Message.user(text),),
            config=lm15.Config(max_tokens=self.model.max_tokens, service_tier=tier, **config),
        )
        return ProviderCall(self, request)

    def cost(self, tier: str | None = None) -> float | None:
        return self.call(tier).attempt(1).cost_usd


def usd(prompt: float, completion: float) -> Any:
    return pytest.approx((prompt * 1.0 + completion * 10.0) / 1e6)


@pytest.mark.parametrize(
    ("model", "usage", "raw", "prompt", "completion"),
    [
        (
            "openai/x",
            {"input_tokens": 12, "output_tokens": 1, "total_tokens": 399, "reasoning_tokens": 386},
            {},
            12,
            387,
        ),
        ("xai/x", {"input_tokens": 12, "output_tokens": 1, "total_tokens": 399, "reasoning_tokens": 386}, {}, 12, 387),
        ("openai/x", {"input_tokens": 12, "output_tokens": 400, "reasoning_tokens": 386}, {}, 12, 400),
        (
            "openai/x",
            {"input_tokens": 12, "output_tokens": 400, "total_tokens": 798, "reasoning_tokens": 386},
            {},
            12,
            786,
        ),
        ("gemini/x", {"input_tokens": 12, "output_tokens": 5, "reasoning_tokens": 7}, {}, 12, 12),
        (
            "gemini/x",
            {"input_tokens": 12, "output_tokens": 5, "total_tokens": 37},
            {"usageMetadata": {"toolUsePromptTokenCount": 20}},
            32,
            5,
        ),
        ("openai/x", {"input_tokens": 100, "output_tokens": 5, "cache_read_tokens": 90}, {}, 100, 5),
        (
            "anthropic/x",
            {"input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 90, "cache_write_tokens": 40},
            {},
            140,
            5,
        ),
        ("openai/x", {"input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 90}, {}, 100, 5),
        ("anthropic/x", {"input_tokens": 100, "output_tokens": 5, "cache_read_tokens": 90}, {}, 190, 5),
        (
            "deepseek/x",
            {"input_tokens": 40, "output_tokens": 5},
            {"usage": {"prompt_cache_hit_tokens": 30, "prompt_cache_miss_tokens": 70}},
            100,
            5,
        ),
        (
            "deepseek/x",
            {"input_tokens": 100, "output_tokens": 5},
            {"usage": {"prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40}},
            100,
            5,
        ),
        ("openai/x", {"input_tokens": 12, "total_tokens": 20}, {}, 12, 8),
    ],
)
def test_every_token_is_paid_for_once_at_stated_prices(
    model: str, usage: dict[str, int], raw: dict[str, Any], prompt: int, completion: int
) -> None:
    reply = Provider(model, **STATED).reply(raw, **usage).call().attempt(1)
    assert (reply.prompt_tokens, reply.completion_tokens) == (prompt, completion)
    assert reply.cost_usd == usd(prompt, completion)


def test_tokens_of_a_cache_have_prices_of_their_own() -> None:
    prices = STATED | {"cached_input_usd_per_million_tokens": 0.1, "cache_write_usd_per_million_tokens": 1.25}
    usage = {"input_tokens": 10, "output_tokens": 1, "cache_read_tokens": 90, "cache_write_tokens": 40}
    assert Provider("anthropic/x", **prices).reply(**usage).cost() == usd(10 + 9 + 50, 1)
    an_hour = {"usage": {"cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 10}}}
    dearer = prices | {"cache_write_1h_usd_per_million_tokens": 2.0}
    assert Provider("anthropic/x", **dearer).reply(an_hour, **usage).cost() == usd(10 + 9 + 30 * 1.25 + 20, 1)


@pytest.mark.parametrize(
    ("raw", "prompt"),
    [
        ({"cache_read_input_tokens": 90}, 10 + 9),
        ({"cached_tokens": 90}, 10 + 9),
        ({"prompt_cache_hit_tokens": 90}, 10 + 9),
        ({"cache_creation_input_tokens": 40}, 60 + 50),
        ({"prompt_tokens_details": {"cache_creation_tokens": 40}}, 60 + 50),
    ],
)
def test_forms_of_a_cache_that_dspy_does_not_read_have_its_prices_too(raw: dict[str, Any], prompt: float) -> None:
    prices = STATED | {"cached_input_usd_per_million_tokens": 0.1, "cache_write_usd_per_million_tokens": 1.25}
    provider = Provider("openai/x", **prices).reply({"usage": raw}, input_tokens=100, output_tokens=1)
    assert provider.cost() == usd(prompt, 1)


def test_what_deepseek_read_from_its_cache_costs_less() -> None:
    raw = {"usage": {"prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40}}
    found = Provider("deepseek/deepseek-chat").reply(raw, input_tokens=100, output_tokens=5).cost()
    assert found == pytest.approx((60 * 0.028 + 40 * 0.28 + 5 * 0.42) / 1e6)


def test_a_price_of_a_cache_needs_one_of_the_input() -> None:
    with pytest.raises(ValueError, match="cached_input_usd_per_million_tokens stands beside"):
        Model(name="m", model="openai/gpt-4o", cached_input_usd_per_million_tokens=1)


def test_a_stated_cost_beyond_what_its_request_allows_is_charged_at_the_bound_and_flagged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for prices in ({}, STATED):
        caplog.clear()
        provider = Provider("openrouter/openai/gpt-4o-mini", **prices)
        provider.reply({"usage": {"cost": 1.5}}, input_tokens=10, output_tokens=5)
        assert provider.cost() is None
        (record,) = caplog.records
        assert record.msg.fields["cost_usd"] == 1.5  # what the provider stated
    assert Provider("openrouter/openai/gpt-4o-mini").reply({"usage": {"cost": 1.5}}).cost() is None


def test_openrouters_reported_cost_counts() -> None:
    usage = {"input_tokens": 10, "output_tokens": 5}
    bundled = Provider("openrouter/openai/gpt-4o-mini")
    assert bundled.reply({"usage": {"cost": 0.0002}}, **usage).cost() == 0.0002
    own_key = {"cost": 0.00001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.0003}}
    assert bundled.reply({"usage": own_key}, **usage).cost() == pytest.approx(0.00031)
    stated = Provider("openrouter/x", **STATED)
    assert stated.reply({"usage": {"cost": 0.0002}}, **usage).cost() == 0.0002
    assert stated.reply({"usage": {"cost": 0.0}}, **usage).cost() == usd(10, 5)  # a price was stated
    assert bundled.reply({"usage": {"cost": "nan"}}, **usage).cost() == pytest.approx((10 * 0.15 + 5 * 0.6) / 1e6)


@pytest.mark.parametrize(
    ("asked", "served", "factor"),
    [
        (None, "priority", 2.0),
        ("auto", "flex", 0.5),
        ("priority", None, 2.0),
        ("priority", "default", 1.0),
        ("flex", "FLEX", 0.5),
        ("default", "default", 1.0),
        (None, "scale", 1.0),
        (None, None, 1.0),
    ],
)
@pytest.mark.parametrize("prices", [{}, STATED | {"service_tier_price_factors": {"priority": 2.0, "flex": 0.5}}])
def test_a_call_is_settled_at_the_price_of_the_tier_that_served_it(
    asked: str | None, served: str | None, factor: float, prices: dict[str, Any]
) -> None:
    provider = Provider("openai/gpt-5", **prices)
    provider.reply({"service_tier": served} if served else {}, input_tokens=100, output_tokens=10)
    standard = (100 * (1.0 if prices else 1.25) + 10 * 10) / 1e6
    assert provider.cost(asked) == pytest.approx(standard * factor)


def test_a_tier_that_the_usage_states_counts() -> None:
    provider = Provider("openai/gpt-5")
    for usage in ({"usage": {"service_tier": "flex"}}, {"usageMetadata": {"serviceTier": "flex"}}):
        provider.reply(usage, input_tokens=100, output_tokens=10)
        assert provider.cost() == pytest.approx((100 * 1.25 + 10 * 10) / 2 / 1e6)


def test_a_tier_of_which_nothing_is_stated_costs_what_is_stated() -> None:
    provider = Provider("openai/gpt-5", **STATED).reply({"service_tier": "priority"}, input_tokens=9, output_tokens=1)
    assert provider.cost("priority") == usd(9, 1)


def test_a_hold_is_no_dearer_than_the_tier_that_a_request_states() -> None:
    provider = Provider("openai/gpt-5")
    holds = {tier: provider.call(tier).bound_nano_usd for tier in (None, "auto", "priority", "default", "flex")}
    assert holds[None] == pytest.approx(2 * holds["default"], rel=0.01)
    assert holds["auto"] == pytest.approx(holds["priority"], rel=0.01)
    assert holds["flex"] == pytest.approx(holds["default"], rel=0.01)  # where flex is full, it may be served so


def test_a_hold_of_a_prompt_with_sound_is_at_the_price_of_sound() -> None:
    pricing = Provider("gemini/gemini-2.5-flash").pricing
    text, sound = (pricing.max_prices(is_text=is_text).input_usd_per_million_tokens for is_text in (True, False))
    assert sound > text


def test_a_hold_covers_the_thoughts_that_come_beside_max_tokens() -> None:
    provider = Provider("anthropic/claude-sonnet-4-5")
    thinking = provider.call(reasoning=lm15.Reasoning(effort="high", thinking_budget=4000))
    assert thinking.max_completion_tokens == 5000
    assert thinking.bound_nano_usd - provider.call().bound_nano_usd > 4000 * 15_000


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 10**6, "output_tokens": 1},
        {"input_tokens": 1, "output_tokens": 1001},
        {"input_tokens": 10, "output_tokens": 10, "total_tokens": 10**8},
        {"input_tokens": 10**12, "output_tokens": 1},
    ],
)
def test_usage_beyond_what_its_request_allows_is_charged_at_the_bound_and_flagged(
    usage: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    for prices in (STATED, FREE):
        caplog.clear()
        reply = Provider("openai/x", **prices).reply(**usage).call().attempt(1)
        assert (reply.prompt_tokens, reply.completion_tokens, reply.cost_usd) == (None, None, None)
        assert "usage_beyond_request" in caplog.text


def test_usage_of_a_reply_without_a_bound_is_read_unless_it_is_absurd(caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider("openai/x", **STATED)
    request = lm15.Request(model="x", messages=(lm15.Message.user("hi"),), config=lm15.Config())
    provider.reply(input_tokens=10, output_tokens=10**6)
    assert ProviderCall(provider, request).attempt(1).cost_usd == usd(10, 10**6)
    provider.reply(input_tokens=10, output_tokens=2 * 10**9)
    assert ProviderCall(provider, request).attempt(1).cost_usd is None
    assert "usage_beyond_request" in caplog.text


@pytest.mark.parametrize("model", ["openai/gpt-5", "gemini/gemini-2.5-pro", "deepseek/deepseek-chat", "openai/gpt-4o"])
@profile(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_bundled_prices_are_those_that_dspy_itself_estimates(model: str, data: st.DataObject) -> None:
    prompt, completion = data.draw(st.integers(0, 300_000)), data.draw(st.integers(0, 900))
    usage = {
        "input_tokens": prompt,
        "output_tokens": completion,
        "cache_read_tokens": data.draw(st.integers(0, prompt // 2)),
        "cache_write_tokens": data.draw(st.integers(0, prompt // 2)),
        "reasoning_tokens": data.draw(st.integers(0, completion)),
    }
    tier = data.draw(st.sampled_from([None, "default", "priority", "flex"]))
    provider = Provider(model).reply({"service_tier": tier} if tier else {}, **usage)
    expected, _ = estimate_cost(
        provider.response, provider=provider.provider, requested_model=provider.route.model, request=None
    )
    if expected is not None:
        tokens = provider.pricing.tokens_of(provider.response)
        assert provider.pricing.cost_usd(None, provider.response, tokens) == pytest.approx(
            expected, rel=1e-9, abs=1e-15
        )


TIERS = st.sampled_from([None, "auto", "default", "priority", "flex", "scale", "ultrafast", "batch"])
COUNTS = st.none() | st.integers(0, 1500) | st.integers(0, 2**70)


@pytest.mark.timeout(600)  # time decides no test: a busy machine takes minutes for the examples
@profile(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    model=st.sampled_from(
        [
            "openai/gpt-5",
            "openai/gpt-4o",
            "anthropic/claude-sonnet-4-5",
            "gemini/gemini-2.5-pro",
            "xai/grok-3",
            "deepseek/deepseek-chat",
            "openrouter/openai/gpt-4o-mini",
        ]
    ),
    prices=st.sampled_from(
        [
            {},
            STATED,
            STATED | {"service_tier_price_factors": {"priority": 2.5, "flex": 0.5}},
            STATED | {"cached_input_usd_per_million_tokens": 0.1, "cache_write_1h_usd_per_million_tokens": 3.0},
        ]
    ),
    usage=st.fixed_dictionaries(
        {
            f"{name}_tokens": COUNTS
            for name in (
                "input",
                "output",
                "total",
                "cache_read",
                "cache_write",
                "reasoning",
                "input_audio",
                "output_audio",
            )
        }
    ),
    hour=st.integers(0, 1500),
    tools=st.integers(0, 500),
    cost=st.none() | st.floats(0, 0.01) | st.floats(0, 1e8),
    upstream=st.none() | st.floats(0, 0.01),
    asked=TIERS,
    served=TIERS,
)
def test_a_hold_is_never_below_its_bill_and_the_books_have_the_bill(redis_server: RedisServer, **drawn: Any) -> None:
    served, hour = drawn["served"], drawn["hour"]
    raw = {
        "service_tier": served,
        "usage": {
            "cache_creation": {"ephemeral_1h_input_tokens": hour},
            "prompt_cache_hit_tokens": hour,
            "cost": drawn["cost"],
            "is_byok": drawn["upstream"] is not None,
            "cost_details": {"upstream_inference_cost": drawn["upstream"]},
        },
        "usageMetadata": {"toolUsePromptTokenCount": drawn["tools"]},
    }
    provider = Provider(drawn["model"], **drawn["prices"]).reply(raw, **drawn["usage"])
    request = provider.call(drawn["asked"])
    reply, hold = request.attempt(1), request.bound_nano_usd
    bill = hold if reply.cost_usd is None else to_nano_usd(reply.cost_usd)
    assert bill <= hold
    with redis_server.client(decode_responses=False) as client:
        client.flushdb()
        budget, billed = Budget(client, settings((hold + 1) / NANO), Calendar()), call()
        assert do(client, budget.hold(billed, hold)).is_held
        nano_usd = None if reply.cost_usd is None else bill
        settled = do(
            client, budget.settle(billed, Bill(nano_usd, reply.prompt_tokens or 0, reply.completion_tokens or 0))
        )
        assert not settled.is_above_hold
        books = client.hgetall(f"{PREFIX}costs:day1")
        name = b"unknown_nano_usd" if nano_usd is None else b"billed_nano_usd"
        assert int(books.get(b"qa.a m " + name, 0)) == bill
        assert int(client.hget(f"{PREFIX}budget:all:daily:day1", "settled") or 0) == bill


def test_a_reply_over_the_wire_is_priced_by_its_thoughts(build: Callable[..., Runner], endpoint: Endpoint) -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 399}
    endpoint.script(usage=usage | {"completion_tokens_details": {"reasoning_tokens": 386}})
    prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}
    assert build(model=prices).run({"question": "hi"}).cost_usd == usd(12, 387)


def test_factors_of_tiers_are_no_negative_numbers(build: Callable[..., Runner]) -> None:
    with pytest.raises(ConfigurationError, match=r"models\.m\.service_tier_price_factors\.flex"):
        build(model={"service_tier_price_factors": {"flex": -1}})
