"""Money in whole nano-dollars, which add up without rounding."""

from __future__ import annotations

NANO_USD_PER_USD = 10**9


def to_nano_usd(amount_usd: float) -> int:
    """Return dollars as the nearest whole nano-dollars."""
    return round(amount_usd * NANO_USD_PER_USD)


def to_usd(nano_usd: int) -> float:
    """Return nano-dollars as dollars."""
    return nano_usd / NANO_USD_PER_USD


def exact_dollars(nano_usd: int) -> str:
    """Return an amount for people; less than a dollar keeps its digits."""
    amount_usd = to_usd(nano_usd)
    return f"${amount_usd:,.2f}" if amount_usd >= 1 or not nano_usd else f"${amount_usd:.9f}".rstrip("0")
