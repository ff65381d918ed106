"""The bound of a call covers the dearest that it may cost; else a true bill would be cut to the bound and flagged."""

from __future__ import annotations

from typing import Any

import pytest

from dspyq.core.money import to_nano_usd
from dspyq.guards.cost_bound import bound_nano_usd
from tests.programs.test_prices import STATED, Provider


def _most_expensive(provider: Provider, kind: str, **request: Any) -> tuple[int, int | None]:
    """The bound of a request, and its bill where all tokens that it allows are of one kind."""
    call = provider.call(**request)
    most = {"input_tokens": call.most_prompt_tokens, "output_tokens": provider.model.max_tokens}
    if kind.startswith("cache"):
        most["input_tokens"] = 0 if "anthropic" in provider.provider else call.most_prompt_tokens
        most[kind] = call.most_prompt_tokens
    elif kind == "reasoning_tokens":
        most |= {"output_tokens": 0 if provider.provider == "gemini" else provider.model.max_tokens}
        most[kind] = provider.model.max_tokens
    provider.reply(**most)
    cost_usd = call.attempt(1).cost_usd
    return call.bound_nano_usd, None if cost_usd is None else to_nano_usd(cost_usd)


@pytest.mark.parametrize("kind", ["", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"])
@pytest.mark.parametrize(
    ("model", "prices"),
    [
        ("openai/gpt-5", {}),
        ("anthropic/claude-sonnet-4-5", {}),
        ("gemini/gemini-2.5-pro", {}),
        ("deepseek/deepseek-chat", {}),
        ("openai/x", STATED),
        ("anthropic/x", STATED | {"cache_write_usd_per_million_tokens": 1.25}),
        ("openai/x", STATED | {"cached_input_usd_per_million_tokens": 3.0}),
    ],
)
def test_all_tokens_that_a_request_allows_are_billed_within_its_bound(
    model: str, prices: dict[str, Any], kind: str
) -> None:
    bound, bill = _most_expensive(Provider(model, **prices), kind)
    assert bill is not None
    assert 0 < bill <= bound


def test_a_long_prompt_is_held_at_the_prices_of_long_ones() -> None:
    bound, bill = _most_expensive(Provider("gemini/gemini-2.5-pro"), "", text="x" * 300_000)
    assert bill is not None
    assert bill > 300_000 * 1_250  # nano-dollars a token, of short ones
    assert bill <= bound


def test_the_bound_covers_the_tokens_that_a_provider_counts_beyond_the_text() -> None:
    prices: dict[str, Any] = STATED
    plain, more = (Provider("openai/x", prompt_overhead_tokens=tokens, **prices).call() for tokens in (0, 500))
    assert more.bound_nano_usd - plain.bound_nano_usd == 500 * 1_000


@pytest.mark.parametrize(
    ("tokens", "usd_per_million", "nano_usd"), [(1, 0.0005, 1), (10, 0.1, 1_000), (10, 0.7, 7_000), (0, 3.0, 0)]
)
def test_a_bound_is_exact_and_rounded_up(tokens: int, usd_per_million: float, nano_usd: int) -> None:
    prices = {"input_usd_per_million_tokens": usd_per_million, "output_usd_per_million_tokens": usd_per_million}
    assert bound_nano_usd(prompt_tokens=tokens, completion_tokens=0, **prices) == nano_usd
    assert bound_nano_usd(prompt_tokens=0, completion_tokens=tokens, **prices) == nano_usd
