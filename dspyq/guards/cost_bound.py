"""The most that a call can cost, known before it is made."""

from __future__ import annotations

import math
from decimal import Decimal

#: A dollar for a million tokens is a thousand nano-dollars for each.
_NANO_USD_PER_TOKEN = 1000


def bound_nano_usd(
    *,
    wire_bytes: int,
    prompt_overhead_tokens: int,
    max_tokens: int,
    input_usd_per_million_tokens: float,
    output_usd_per_million_tokens: float,
) -> int:
    """Return an upper bound of a call's cost, in nano-dollars, rounded up.

    Args:
        wire_bytes: The bytes of the request as it is sent, in UTF-8: no tokenizer makes a token of less than one.
        prompt_overhead_tokens: What the provider may count beyond that text.
        max_tokens: The most tokens of the reply, as the request states it.
        input_usd_per_million_tokens: The dearest price that may apply to a prompt token.
        output_usd_per_million_tokens: The dearest price that may apply to a token of the reply.
    """
    prompt = (wire_bytes + prompt_overhead_tokens) * _exactly(input_usd_per_million_tokens)
    reply = max_tokens * _exactly(output_usd_per_million_tokens)
    return math.ceil((prompt + reply) * _NANO_USD_PER_TOKEN)


def _exactly(price: float) -> Decimal:
    """The price as it was written: a bound must not be less for what binary fractions lose."""
    return Decimal(repr(price))
