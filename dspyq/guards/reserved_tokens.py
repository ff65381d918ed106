"""Tokens of a model's rate limit that a call has reserved, and returns if it is not made."""

from __future__ import annotations

from typing import Self

from dspyq.guards.interruptions import Interruption
from dspyq.guards.outbox import Outbox
from dspyq.guards.rate_limit import RateLimiter


class ReservedTokens:
    """Context that returns a call's reserved tokens if it is not made; a class, which costs less than a generator.

    Attributes:
        tokens: The tokens.
    """

    __slots__ = ("_batch", "_outbox", "_rate_limiter", "tokens")

    def __init__(self, rate_limiter: RateLimiter, outbox: Outbox, batch: str) -> None:
        self.tokens = 0
        self._rate_limiter = rate_limiter
        self._outbox = outbox
        self._batch = batch

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Return the tokens after an interruption."""
        if isinstance(error, Interruption):
            step = self._rate_limiter.correct(self.tokens, 0, self._batch)
            if step is not None:
                self._outbox.send([step])
