"""Upper bound of a call's cost, computed before the call."""

from __future__ import annotations

import math
from decimal import Decimal

#: A dollar for a million tokens is a thousand nano-dollars for each.
_NANO_USD_PER_TOKEN = 1000


def bound_nano_usd(
    *,
    prompt_tokens: int,
    completion_tokens: int,
    input_usd_per_million_tokens: float,
    output_usd_per_million_tokens: float,
) -> int:
    """Return an upper bound of a call's cost, in nano-dollars, rounded up.

    Args:
        prompt_tokens: The most tokens of the prompt: the bytes of the request as it is sent, in UTF-8, for no tokenizer
            makes a token of less than one, and what the provider may count beyond that text.
        completion_tokens: The most tokens of the reply, as the request states it.
        input_usd_per_million_tokens: Highest price of a prompt token.
        output_usd_per_million_tokens: Highest price of a token of the reply.
    """
    prompt = prompt_tokens * _exactly(input_usd_per_million_tokens)
    reply = completion_tokens * _exactly(output_usd_per_million_tokens)
    return math.ceil((prompt + reply) * _NANO_USD_PER_TOKEN)


def _exactly(price: float) -> Decimal:
    """Return the price as written in decimal: binary fractions must not lower a bound."""
    return Decimal(repr(price))
