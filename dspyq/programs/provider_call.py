"""A call of a provider: its cost bound, its reply, and its actual cost."""

from __future__ import annotations

import functools
import json
import logging
import math
import re
from dataclasses import replace
from typing import Protocol

import orjson
from dspy import lm15
from dspy._vendor.lm15.providers.anthropic import _reasoning_thinking_budget
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict

from dspyq.config.lanes import Lane
from dspyq.config.models import Model
from dspyq.config.secrets import process_secrets
from dspyq.core.events import Event
from dspyq.core.money import to_nano_usd, to_usd
from dspyq.guards import metrics
from dspyq.guards.call import CallReply
from dspyq.guards.cost_bound import bound_nano_usd
from dspyq.programs.deadline import deadline
from dspyq.programs.failures import Failure, classify, code_of, is_tier_full
from dspyq.programs.media import NO_MEDIA, measure
from dspyq.programs.prices import FLEX, LEFT_TO_ACCOUNT, Pricing
from dspyq.programs.run_spans import ChatSpans
from dspyq.programs.stated_errors import billed_reply, response_of
from dspyq.programs.usage import MOST_TOKENS, Tokens
from dspyq.store.seal_keys import hash_of, process_question_keys

logger = logging.getLogger("dspyq.guards")

#: Parts of a request that cost more than their text; in a text itself the quotes would be escaped.
_COSTS_MORE_THAN_TEXT = re.compile(rb'"type":"(?:image|audio|video|document|binary|builtin)"')
#: Names of the standard tier at providers; a request without one could be served at a dearer tier of the account.
_STANDARD_TIER = "default"
_STANDARD_TIERS = {"gemini": "standard", "vertex": "standard", "groq": "on_demand"}
#: Prefix of a stored reply that orjson cannot write.
_WRITTEN_BY_STDLIB = b" "


class Provider(Protocol):
    """Protocol of an engine that makes attempts of calls."""

    model: Model
    provider: str
    pricing: Pricing

    def attempt(self, request: lm15.Request, clock: deadline) -> tuple[lm15.Response, bytes | None]:
        """Call the provider once; return its reply and, if possible, the reply in a form that can be loaded again."""

    def line_body(self, request: lm15.Request) -> bytes | None:
        """Return a request as a line of the provider's batch interface holds it; None if none can."""


class ProviderCall:
    """A call of a provider for the guards, which do not depend on DSPy.

    Attributes:
        digest: Hash of the request; equal for equal requests.
        wire_bytes: The bytes of its text, which bound the tokens of its prompt.
        max_completion_tokens: The most tokens of its reply; None where it sets no bound.
        is_text: Whether all of it is text.
        unbounded_part: The first part without a bound of tokens, and the setting that gives it one; None if all have.
    """

    def __init__(self, engine: Provider, request: lm15.Request, spans: ChatSpans | None = None) -> None:
        self._engine = engine
        self._request = request
        self._sent = request
        self._spans = spans
        self._clock = deadline(0)
        self._dumped: bytes | None = None
        stated = request_to_dict(request)
        try:
            wire = orjson.dumps(stated, default=str, option=orjson.OPT_SORT_KEYS)
        except TypeError:  # half of a surrogate pair, or a number beyond 64 bits
            wire = json.dumps(stated, default=str, sort_keys=True).encode()
        self.digest = hash_of(wire, process_question_keys().common).hexdigest(length=16)
        self.wire_bytes = len(wire)
        self.max_completion_tokens: int | None = _most_completion_tokens(request, engine.provider)
        self.is_text = _COSTS_MORE_THAN_TEXT.search(wire) is None
        self._media = NO_MEDIA if self.is_text else measure(stated, engine.model)
        self.unbounded_part = self._media.unbounded_part
        self.wire_bytes -= self._media.data_bytes

    @property
    def most_prompt_tokens(self) -> int:
        """The most tokens of its prompt, where all its parts have a bound."""
        return self.wire_bytes + self._media.tokens + self._engine.model.prompt_overhead_tokens

    @functools.cached_property
    def bound_nano_usd(self) -> int:
        """The most it may cost live, where all its parts have a bound and its reply too."""
        return self.bound_in("live")

    def bound_in(self, lane: Lane) -> int:
        """Return the most it may cost in a lane, in nano-dollars, as ``bound_nano_usd``."""
        prices = self._engine.pricing.max_prices(
            self._sent.config.service_tier, self.most_prompt_tokens, is_text=self.is_text, lane=lane
        )
        return bound_nano_usd(
            prompt_tokens=self.most_prompt_tokens,
            completion_tokens=self.max_completion_tokens or self._engine.model.max_tokens,
            input_usd_per_million_tokens=prices.input_usd_per_million_tokens,
            output_usd_per_million_tokens=prices.output_usd_per_million_tokens,
        )

    def at_flex_tier(self) -> None:
        """Make it at the provider's flex tier, unless it states a tier of its own; its digest stays."""
        if self._request.config.service_tier in LEFT_TO_ACCOUNT:
            self._sent = _at_tier(self._request, FLEX)

    def line_body(self) -> bytes | None:
        """Return the request as JSON, as a line of its provider's batch interface holds it; None if none can."""
        return self._engine.line_body(self._request)

    def attempt(self, seconds: float) -> CallReply:
        """Call the provider once, for so many seconds at most."""
        self._clock = deadline(seconds)
        return self._attempt() if self._spans is None else self._spans.attempt(self._attempt, code_of)

    def _attempt(self) -> CallReply:
        response, self._dumped = self._engine.attempt(self._sent, self._clock)
        return CallReply(response, *self._bill_of(response))

    def _bill_of(self, response: lm15.Response) -> tuple[int | None, int | None, float | None]:
        """Return the tokens of prompt and reply and their cost; None for each that is unknown or beyond its bound."""
        pricing = self._engine.pricing
        tokens = pricing.tokens_of(response)
        cost_usd = pricing.with_report(pricing.cost_usd(self._sent, response, tokens), response)
        if self._is_beyond(tokens, cost_usd):
            self._flag(tokens, cost_usd)
            return None, None, None
        return (None, None, cost_usd) if tokens is None else (tokens.prompt, tokens.completion, cost_usd)

    def _is_beyond(self, tokens: Tokens | None, cost_usd: float | None) -> bool:
        """Return True if a reply's tokens or cost exceed the request's bound; then the bound is charged."""
        prompt, completion = (0, 0) if tokens is None else (tokens.prompt, tokens.completion)
        if self.unbounded_part is not None or self.max_completion_tokens is None:
            return max(prompt, completion) > MOST_TOKENS
        return (
            prompt > self.most_prompt_tokens
            or completion > self.max_completion_tokens
            or (cost_usd is not None and to_nano_usd(cost_usd) > self.bound_nano_usd)
        )

    def _flag(self, tokens: Tokens | None, cost_usd: float | None) -> None:
        model = self._engine.model
        name, raised = model.name, f"{model.setting('prompt_overhead_tokens')} or {model.setting('max_tokens')}"
        metrics.USAGE_BEYOND_REQUEST.labels(name).inc()
        logger.warning(
            Event(
                "usage_beyond_request",
                model=name,
                prompt_tokens=None if tokens is None else tokens.prompt,
                most_prompt_tokens=self.most_prompt_tokens,
                completion_tokens=None if tokens is None else tokens.completion,
                most_completion_tokens=self.max_completion_tokens,
                cost_usd=cost_usd,
                charged_usd=to_usd(self.bound_nano_usd),
                advice=f"if the provider is right, raise {raised}",
            )
        )

    @property
    def was_sent(self) -> bool:
        """True if a byte of the latest attempt left this process."""
        return self._clock.has_written

    def classify(self, error: Exception) -> Failure:
        """Classify an exception of the latest attempt, with its bill if the reply states a usage.

        Where the flex tier is full, further attempts go to the standard tier: the bound of a flex call covers that too.
        """
        failure = classify(error, was_sent=self.was_sent)
        if self._sent.config.service_tier == FLEX and is_tier_full(error):
            self._sent = _at_tier(self._request, _STANDARD_TIERS.get(self._engine.provider, _STANDARD_TIER))
            return replace(failure, kind="tier_full", code="flex_unavailable", is_billed=False)
        billed = billed_reply(error)
        if billed is None:
            return failure
        prompt, completion, cost_usd = self._bill_of(response_of(billed, self._request.model))
        return replace(failure, prompt_tokens=prompt, completion_tokens=completion, cost_usd=cost_usd)

    def dump(self, _: lm15.Response) -> bytes | None:
        """Return the latest reply in a form that can be loaded again; None if there is none."""
        return self._dumped

    @staticmethod
    def load(reply: bytes) -> lm15.Response:
        """Load a reply that was paid for before."""
        loads = json.loads if reply.startswith(_WRITTEN_BY_STDLIB) else orjson.loads
        return response_from_dict(loads(reply))


def _at_tier(request: lm15.Request, tier: str) -> lm15.Request:
    return replace(request, config=replace(request.config, service_tier=tier))


def _most_completion_tokens(request: lm15.Request, provider: str) -> int | None:
    """Return the most tokens of a request's reply, thoughts included; None where it sets no bound."""
    most: int | None = request.config.max_tokens
    if most is None or request.config.reasoning is None or "anthropic" not in provider:
        return most
    return most + (_reasoning_thinking_budget(request) or 0)  # DSPy requests both together


def dump(response: lm15.Response) -> bytes:
    """Return a usual reply in a form that can be loaded again.

    Raises:
        TypeError: If it holds half of a surrogate pair, or a number that is none or beyond 64 bits.
    """
    logprobs = response.logprobs or ()
    if not all(math.isfinite(one.logprob) for token in logprobs for one in (token, *token.top)):
        raise TypeError("a logprob is no number")
    # Scrubbed again: text that the provider escaped, as \u0073..., is plain only now.
    return process_secrets().scrub_reply(orjson.dumps(response_to_dict(response), default=str))


def dump_what_is_unusual(response: lm15.Response) -> bytes | None:
    """Return any reply in a form that can be loaded again; None if impossible: a later run then pays for it again."""
    try:
        written = json.dumps(response_to_dict(response), default=str, ensure_ascii=False)
        return _WRITTEN_BY_STDLIB + process_secrets().scrub_reply(written.encode())
    except (TypeError, ValueError, RecursionError) as error:
        logger.warning(Event("reply_not_kept", error=type(error).__name__))
        return None
