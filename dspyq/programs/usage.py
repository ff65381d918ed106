"""Token counts of a reply in one form, although providers group them differently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: A larger count is nonsense and is ignored.
MOST_TOKENS = 10**9
#: These providers count thoughts separately from output.
_COUNT_THOUGHTS_APART = frozenset({"gemini", "vertex", "vertex-express", "xai"})
#: Counts that DSPy does not parse from each provider's usage. Most replies state none of them.
_UNPARSED = frozenset({
    "cache_creation", "cache_creation_input_tokens", "cache_read_input_tokens", "cached_tokens",
    "prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "prompt_tokens_details", "toolUsePromptTokenCount",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a call.

    Attributes:
        prompt: All tokens of the prompt, including those read from or written to a cache.
        completion: All tokens of the reply, including thoughts.
        cached: Of the prompt, those that came from a cache.
        written: Of the prompt, those that went into a cache for some minutes.
        written_1h: Of the prompt, those that went into a cache for an hour.
        prompt_audio: Of the prompt, those of audio.
        thoughts: Of the completion, those that the provider counts as thoughts.
        completion_audio: Of the completion, those of audio.
    """

    prompt: int
    completion: int
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    prompt_audio: int = 0
    thoughts: int = 0
    completion_audio: int = 0


def read_tokens(usage: Any, reply: Mapping[str, Any], provider: str) -> Tokens | None:
    """Return the tokens of a reply; None if the provider states none.

    Args:
        usage: The reply's counts as DSPy read them: the provider's own, under common names.
        reply: The reply as the provider wrote it.
        provider: The provider, as DSPy names it.
    """
    stated = usage_of(reply)
    prompt, completion, total = usage.input_tokens, usage.output_tokens, usage.total_tokens
    if total is not None:  # it gives the count that is left out
        prompt = max(0, total - completion) if prompt is None and completion is not None else prompt
        completion = max(0, total - prompt) if completion is None and prompt is not None else completion
    if prompt is None or completion is None:
        return None
    cached, written, written_1h, of_tools = usage.cache_read_tokens or 0, max(0, usage.cache_write_tokens or 0), 0, 0
    if not _UNPARSED.isdisjoint(stated):
        cached, written, written_1h = _of_caches(usage, stated)
        prompt = max(prompt, _count(stated, "prompt_cache_hit_tokens") + _count(stated, "prompt_cache_miss_tokens"))
        of_tools = _count(stated, "toolUsePromptTokenCount")
    prompt_audio = usage.input_audio_tokens or 0
    parts = cached + written + written_1h
    if "anthropic" in provider or parts + prompt_audio > prompt:  # it counts the prompt without them
        prompt += parts
    prompt += of_tools
    thoughts = usage.reasoning_tokens or 0
    if provider in _COUNT_THOUGHTS_APART or thoughts > completion:
        completion += thoughts
    completion = max(completion, (total or 0) - prompt)  # tokens counted only in the total are paid for too
    completion_audio = min(usage.output_audio_tokens or 0, completion - thoughts)
    return Tokens(
        prompt, completion, cached, written, written_1h, min(prompt_audio, prompt - parts), thoughts, completion_audio
    )


def usage_of(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the usage of a reply as its provider wrote it."""
    for name in ("usage", "usageMetadata"):
        if isinstance(stated := reply.get(name), dict):
            return stated
    return {}


def reported_cost_usd(reply: Mapping[str, Any]) -> float | None:
    """Return the cost that OpenRouter reports for a call, with that at your own provider; None if it reports none."""
    usage = usage_of(reply)
    cost_usd = _amount(usage.get("cost"))
    if cost_usd is None or not usage.get("is_byok"):
        return cost_usd
    details = usage.get("cost_details")
    upstream_usd = _amount(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
    return cost_usd + (upstream_usd or 0.0)


def service_tier_of(reply: Mapping[str, Any]) -> str | None:
    """Return the service tier of a call; None if its provider does not state it."""
    stated = usage_of(reply)
    tiers = (reply.get("service_tier"), stated.get("service_tier"), stated.get("serviceTier"))
    return next((tier for tier in tiers if tier and isinstance(tier, str)), None)


def _of_caches(usage: Any, stated: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the tokens read from a cache, written for minutes and written for an hour, also where DSPy parses none."""
    details = stated.get("prompt_tokens_details")
    cached = (
        usage.cache_read_tokens
        or _count(stated, "prompt_cache_hit_tokens")
        or _count(stated, "cache_read_input_tokens")
        or _count(stated, "cached_tokens")
    )
    written = (
        usage.cache_write_tokens
        or _count(stated, "cache_creation_input_tokens")
        or _count(details, "cache_creation_tokens")
    )
    written_1h = _count(stated.get("cache_creation"), "ephemeral_1h_input_tokens")
    return cached, max(0, written - written_1h), written_1h


def _count(table: object, name: str) -> int:
    count = table.get(name) if isinstance(table, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0


def _amount(amount: object) -> float | None:
    is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
    return float(amount) if is_number and 0 <= amount < MOST_TOKENS else None  # type: ignore[operator, arg-type]  # mypy does not follow is_number
