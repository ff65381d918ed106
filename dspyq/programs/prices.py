"""Prices of a model's tokens: the configuration's, or those of the table bundled with DSPy."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from dspy import lm15
from dspy.clients.model_metadata import model_info, rate

from dspyq.config.lanes import Lane
from dspyq.config.models import Model
from dspyq.programs.usage import Tokens, read_tokens, reported_cost_usd, service_tier_of

# Without it the first priced call fetches a price table from the network, and every thread waits for that.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"

_TOKENS_PER_PRICE = 1_000_000
#: Bound of the caches: providers may name any number of models and tiers.
_MOST_KEPT = 256
#: A prompt length beyond which other prices apply.
_STEP = re.compile(r"_above_(\d+)k_tokens")
#: A tier's price of prompt tokens. That of the batch interface is none: no live call is served at it.
_TIER = re.compile(r"^input_cost_per_token_(?!above_|cache_|batches$)([a-z_]+)$")
_BATCHES = "batches"
FLEX = "flex"
#: What the batch interface saves where neither the file nor DSPy's table states it.
_USUAL_BATCH_DISCOUNT = 0.5
#: The account decides on the tier of a request that states one of these.
LEFT_TO_ACCOUNT = frozenset({None, "auto"})
_STANDARD = frozenset({"default", "standard", "standard_only", "on_demand", "auto", "batch", "unspecified"})
_INPUT, _OUTPUT, _WRITTEN = "input_cost_per_token", "output_cost_per_token", "cache_creation_input_token_cost"
_CACHED = "cache_read_input_token_cost"
#: The cache retention of a request that is billed as an hour's.
_FOR_AN_HOUR = "long"
#: The tier at which a call of a lane is priced; that of a live one is in its request or its reply.
_TIER_OF_LANE: dict[Lane, str] = {"provider": _BATCHES, "flex": FLEX}
_SUBSCRIPTIONS = frozenset({"claude-code", "openai-codex"})
_GENERATED_MEDIA = frozenset({"image", "audio", "video", "document", "binary"})


@dataclass(frozen=True, slots=True)
class Prices:
    """Highest prices that may apply to a call.

    Attributes:
        input_usd_per_million_tokens: Each prompt token.
        output_usd_per_million_tokens: Each completion token.
    """

    input_usd_per_million_tokens: float
    output_usd_per_million_tokens: float


@dataclass(frozen=True, slots=True)
class Rates:
    """Price of each kind of token, in dollars per million.

    Attributes:
        prompt: Tokens of the prompt that no other price applies to.
        cached: Those that came from a cache.
        written: Those written to a cache.
        written_1h: Those written to a cache for an hour.
        prompt_audio: Those of audio.
        completion: Tokens of the reply that no other price applies to.
        thoughts: Those of thoughts.
        completion_audio: Those of audio.
    """

    prompt: float
    cached: float
    written: float
    written_1h: float
    prompt_audio: float
    completion: float
    thoughts: float
    completion_audio: float

    def cost_usd(self, tokens: Tokens) -> float:
        """Return the cost of tokens."""
        apart = tokens.cached + tokens.written + tokens.written_1h + tokens.prompt_audio
        usd_per_million = (
            max(0, tokens.prompt - apart) * self.prompt
            + tokens.cached * self.cached
            + tokens.written * self.written
            + tokens.written_1h * self.written_1h
            + tokens.prompt_audio * self.prompt_audio
            + max(0, tokens.completion - tokens.thoughts - tokens.completion_audio) * self.completion
            + tokens.thoughts * self.thoughts
            + tokens.completion_audio * self.completion_audio
        )
        return usd_per_million / _TOKENS_PER_PRICE

    def times(self, factor: float) -> Rates:
        """Return these prices, each multiplied."""
        return Rates(*(price * factor for price in asdict(self).values()))  # in the order of the fields


class Pricing:
    """The prices of a model.

    Args:
        model: The model's table.
        route: Where DSPy sends its requests.
    """

    def __init__(self, model: Model, route: lm15.Resolution) -> None:
        self._model = model
        self._route = route
        self._reports_cost = route.provider == "openrouter" or "openrouter.ai" in (model.api_base or "")
        self._info = lru_cache(_MOST_KEPT)(self._look_up)
        self._rates = lru_cache(_MOST_KEPT)(self._find_rates)
        self._max_prices = lru_cache(_MOST_KEPT)(self._find_max_prices)

    def tokens_of(self, response: lm15.Response) -> Tokens | None:
        """Return the tokens of a reply; None if its provider states none."""
        return read_tokens(response.usage, response.provider_data or {}, self._route.provider)

    def with_report(self, cost_usd: float | None, response: lm15.Response) -> float | None:
        """Return a call's cost, with the cost that its provider reports taken into account.

        Prices in the configuration stand; a higher reported cost replaces them.
        """
        reported_usd = reported_cost_usd(response.provider_data or {}) if self._reports_cost else None
        if reported_usd is None:
            return cost_usd
        return max(reported_usd, cost_usd or 0.0) if self._is_stated else reported_usd

    def cost_usd(
        self, request: lm15.Request | None, response: lm15.Response, tokens: Tokens | None, lane: Lane = "live"
    ) -> float | None:
        """Return the cost of a reply's tokens, as ``tokens_of`` counts them; None if unknown.

        Args:
            request: The request; None where only the reply is left.
            response: The reply.
            tokens: Its tokens; None where it states none.
            lane: The way it came: at the provider's batch interface no service tier counts.
        """
        if self._is_free:
            return 0.0
        if not self._is_stated and self._costs_more_than_tokens(request, response):
            return None
        if tokens is None:
            return None
        if request is not None and request.config.cache is not None and request.config.cache.retention == _FOR_AN_HOUR:
            tokens = replace(tokens, written=0, written_1h=tokens.written + tokens.written_1h)
        tier = service_tier_of(response.provider_data or {}) or (request.config.service_tier if request else None)
        served_at = _TIER_OF_LANE.get(lane) if lane == "provider" else _normal_tier(tier or _TIER_OF_LANE.get(lane))
        rates = self._rates(response.model, served_at, self._step_of(response.model, tokens.prompt))
        return None if rates is None else rates.cost_usd(tokens)

    def usual_cost_usd(self, tokens: Tokens, lane: Lane = "live") -> float | None:
        """Return the cost of a usage at the tier of a lane; None if unknown."""
        rates = self._rates(self._route.model, _TIER_OF_LANE.get(lane), self._step_of(self._route.model, tokens.prompt))
        return None if rates is None else rates.cost_usd(tokens)

    @property
    def is_known(self) -> bool:
        """True if calls have a known price."""
        return self._rates(self._route.model, None, 0) is not None

    def max_prices(
        self, tier: str | None = None, prompt_tokens: int = 0, *, is_text: bool = True, lane: Lane = "live"
    ) -> Prices:
        """Return the highest prices that may apply to a call's tokens: cached, written to a cache, or thoughts.

        Args:
            tier: The service tier that the request states; if it leaves that to the account, the dearest tier counts.
            prompt_tokens: The most tokens of its prompt: long ones may have higher prices.
            is_text: Whether its prompt is text alone.
            lane: The way it goes. A call at the flex tier may be served at the standard one; one at the batch interface
                is not.
        """
        normal = _TIER_OF_LANE.get(lane) or (tier.lower() if tier else None)
        return self._max_prices(normal, self._step_of(self._route.model, prompt_tokens), is_text)

    def _find_max_prices(self, tier: str | None, longest: int, is_text: bool) -> Prices:  # noqa: FBT001 - a key of a cache
        steps = [0, *(step for step in self._steps(self._route.model) if step <= longest)]
        found = [self._rates(self._route.model, one, step) for one in self._possible_tiers(tier) for step in steps]
        rates = [one for one in found if one is not None]
        prompt = [max(one.prompt, one.cached, one.written, one.written_1h) for one in rates]
        sounds = [] if is_text else [one.prompt_audio for one in rates]
        return Prices(
            max([*prompt, *sounds], default=0.0), max((max(one.completion, one.thoughts) for one in rates), default=0.0)
        )

    def _possible_tiers(self, tier: str | None) -> set[str | None]:
        """Return the tiers at which a request may be served, including a lower one than requested if that is full."""
        if tier == _BATCHES:
            return {_BATCHES}
        if tier in LEFT_TO_ACCOUNT:
            return {None, *self._model.service_tier_price_factors, *self._tiers(self._route.model)}
        return {None, _normal_tier(tier)}

    @property
    def _is_stated(self) -> bool:
        return self._model.input_usd_per_million_tokens is not None

    @property
    def _is_free(self) -> bool:
        model = self._model
        dear = model.cached_input_usd_per_million_tokens, model.cache_write_usd_per_million_tokens
        return model.input_usd_per_million_tokens == model.output_usd_per_million_tokens == 0 and not any(dear)

    def _costs_more_than_tokens(self, request: lm15.Request | None, response: lm15.Response) -> bool:
        has_tools = request is not None and any(isinstance(tool, lm15.BuiltinTool) for tool in request.tools)
        is_media = any(part.type in _GENERATED_MEDIA for part in response.message.parts)
        return has_tools or is_media or self._route.provider in _SUBSCRIPTIONS

    def _find_rates(self, name: str, tier: str | None, step: int) -> Rates | None:
        """Return a model's prices at a tier, for a prompt of that length or more; None if unknown."""
        if tier == _BATCHES:
            return self._find_batch_rates(name, step)
        factor = self._model.service_tier_price_factors.get(tier or "", None)
        if self._is_stated:
            return _stated_rates(self._model).times(1.0 if factor is None else factor)
        info = self._info(name)
        if factor is not None:
            standard = self._find_rates(name, None, step)
            return None if standard is None else standard.times(factor)
        return _bundled_rates(info, tier if tier in self._tiers(name) else None, step)

    def _find_batch_rates(self, name: str, step: int) -> Rates | None:
        """Return the batch prices by the file's discount, or else by DSPy's table, or else at the usual discount."""
        live, stated = self._find_rates(name, None, step), self._model.batch_discount
        if live is None:
            return None
        if stated is None and not self._is_stated and rate(self._info(name), f"{_INPUT}_{_BATCHES}") is not None:
            return _bundled_batch_rates(self._info(name), live, step)
        return live.times(1 - (_USUAL_BATCH_DISCOUNT if stated is None else stated))

    def _look_up(self, name: str) -> dict[str, Any]:
        """Return the table's entry for the model that answered, or else for the requested one."""
        provider = self._route.provider
        found: dict[str, Any] = model_info(provider, name) or model_info(provider, self._route.model)
        return found if provider not in _SUBSCRIPTIONS else {}

    def _steps(self, name: str) -> list[int]:
        if self._is_stated:
            return []
        return sorted({int(found[1]) * 1000 for key in self._info(name) if (found := _STEP.search(key))})

    def _step_of(self, name: str, prompt_tokens: int) -> int:
        return max((step for step in self._steps(name) if prompt_tokens > step), default=0)

    def _tiers(self, name: str) -> set[str]:
        return set() if self._is_stated else {found[1] for key in self._info(name) if (found := _TIER.match(key))}


def _normal_tier(tier: str | None) -> str | None:
    name = tier.lower() if tier else None
    return None if name in _STANDARD else name


def _stated_rates(model: Model) -> Rates:
    prompt, completion = model.input_usd_per_million_tokens or 0.0, model.output_usd_per_million_tokens or 0.0
    cached, written = model.cached_input_usd_per_million_tokens, model.cache_write_usd_per_million_tokens
    cached, written = prompt if cached is None else cached, prompt if written is None else written
    written_1h = model.cache_write_1h_usd_per_million_tokens
    return Rates(
        prompt=prompt,
        cached=cached,
        written=written,
        written_1h=written if written_1h is None else written_1h,
        prompt_audio=prompt,
        completion=completion,
        thoughts=completion,
        completion_audio=completion,
    )


def _bundled_rates(info: dict[str, Any], tier: str | None, step: int) -> Rates | None:
    """Read an entry of DSPy's table as ``dspy.clients.costs`` does; kinds without a price get the general one."""
    long, served_at = f"_above_{step // 1000}k_tokens" if step else "", f"_{tier}" if tier else ""

    def price(*keys: str) -> float | None:
        exact = [rate(info, key + long + served_at) for key in keys]
        # Without this price in the table: the highest of those that it has for the tier or for the length.
        others = [rate(info, key + end) for key in keys for end in (served_at, long, "")]
        found = next((one for one in exact if one is not None), None)
        found = max((one for one in others if one is not None), default=None) if found is None else found
        return None if found is None else found * _TOKENS_PER_PRICE

    prompt, completion = price(_INPUT), price(_OUTPUT)
    if prompt is None or completion is None:
        return None
    written = price(_WRITTEN, _INPUT)
    written_1h = price(f"{_WRITTEN}_above_1hr")
    kinds = (
        prompt,
        price(_CACHED, _INPUT),
        written,
        written if written_1h is None else written_1h,
        price("input_cost_per_audio_token", _INPUT),
        completion,
        price("output_cost_per_reasoning_token", _OUTPUT),
        price("output_cost_per_audio_token", _OUTPUT),
    )
    return Rates(*(kind or 0.0 for kind in kinds))


def _bundled_batch_rates(info: dict[str, Any], live: Rates, step: int) -> Rates:
    """Read the batch prices of an entry of DSPy's table; kinds without one cost the same part of the live price."""
    long = f"_above_{step // 1000}k_tokens" if step else ""

    def price(key: str, otherwise: float) -> float:
        found = rate(info, f"{key}{long}_{_BATCHES}")
        return otherwise if found is None else found * _TOKENS_PER_PRICE

    def part(key: str) -> float:
        whole, batches = rate(info, key), rate(info, f"{key}_{_BATCHES}")
        return 1.0 if not whole or batches is None else min(1.0, batches / whole)

    of_prompt, of_completion = part(_INPUT), part(_OUTPUT)
    prompt = price(_INPUT, live.prompt * of_prompt)
    written = price(_WRITTEN, live.written * of_prompt)
    return Rates(
        prompt=prompt,
        # Without a price of their own they may save nothing: providers do not always add the two discounts up.
        cached=price(_CACHED, min(live.cached, prompt)),
        written=written,
        written_1h=live.written_1h * of_prompt,
        prompt_audio=price("input_cost_per_audio_token", live.prompt_audio * of_prompt),
        completion=price(_OUTPUT, live.completion * of_completion),
        thoughts=price("output_cost_per_reasoning_token", live.thoughts * of_completion),
        completion_audio=live.completion_audio * of_completion,
    )
