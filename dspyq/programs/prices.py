"""What a model's tokens cost: the configuration's prices, or those of the table that comes with DSPy."""

from __future__ import annotations

import os
from dataclasses import dataclass

from dspy import lm15
from dspy.clients.costs import estimate_cost

from dspyq.config.models import Model

# Without it the first priced call fetches a price table from the network, and every thread waits for that.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"

_TOKENS_PER_PRICE = 1_000_000
#: Prices rise with a prompt's length, in steps that end well below this.
_LONG_PROMPT_TOKENS = 10_000_000


@dataclass(frozen=True, slots=True)
class Prices:
    """What tokens can cost at most.

    Attributes:
        input_usd_per_million_tokens: Each prompt token.
        output_usd_per_million_tokens: Each completion token.
    """

    input_usd_per_million_tokens: float
    output_usd_per_million_tokens: float


class Pricing:
    """The prices of a model.

    Args:
        model: The model's table.
        route: Where DSPy sends its requests.
    """

    def __init__(self, model: Model, route: lm15.Resolution) -> None:
        self._model = model
        self._route = route

    def cost_usd(self, request: lm15.Request | None, response: lm15.Response) -> float | None:
        """Return what a call cost; None where that is unknown.

        At stated prices every prompt token counts alike; the bundled table knows cheaper cached ones.
        """
        input_usd, output_usd = self._model.input_usd_per_million_tokens, self._model.output_usd_per_million_tokens
        if input_usd is None or output_usd is None:
            cost_usd: float | None
            cost_usd, _ = estimate_cost(
                response, provider=self._route.provider, requested_model=self._route.model, request=request
            )
            return cost_usd
        if input_usd == output_usd == 0:
            return 0.0
        usage = response.usage
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        return float(usage.input_tokens * input_usd + usage.output_tokens * output_usd) / _TOKENS_PER_PRICE

    @property
    def is_known(self) -> bool:
        """Whether a call has a known price."""
        return self._cost_of(input_tokens=1, output_tokens=1) is not None

    def dearest(self) -> Prices:
        """Return what tokens can cost at most: of a long prompt, written to a cache, thought over."""
        tokens = _TOKENS_PER_PRICE
        prompt = max(
            self._cost_of(input_tokens=tokens, output_tokens=0, **cached) or 0.0
            for cached in ({}, {"cache_write_tokens": tokens})
        )
        long_prompt = self._cost_of(input_tokens=_LONG_PROMPT_TOKENS, output_tokens=0) or 0.0
        completion = max(
            (self._cost_of(input_tokens=length, output_tokens=tokens, **thought) or 0.0)
            - (self._cost_of(input_tokens=length, output_tokens=0) or 0.0)
            for length in (0, _LONG_PROMPT_TOKENS)
            for thought in ({}, {"reasoning_tokens": tokens})
        )
        return Prices(max(prompt, long_prompt * tokens / _LONG_PROMPT_TOKENS), completion)

    def _cost_of(self, **usage: int) -> float | None:
        reply = lm15.Message.assistant(".")
        response = lm15.Response(
            id=None, model=self._route.model, message=reply, finish_reason="stop", usage=lm15.Usage(**usage)
        )
        return self.cost_usd(None, response)
