"""Cases of dear tests, of which ``make test`` runs a few and ``make journeys`` the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def few_of(cases: Iterable[Any], count: int) -> list[Any]:
    """Return all cases for ``parametrize``; all but so many of them, which are spread over the whole, are journeys."""
    every = list(cases)
    kept = {place * len(every) // count for place in range(count)}
    return [
        case if number in kept else pytest.param(*(case if type(case) is tuple else (case,)), marks=pytest.mark.journey)
        for number, case in enumerate(every)
    ]
