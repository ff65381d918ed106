"""Amounts in whole nano-dollars."""

import pytest

from dspyq.core.money import exact_dollars, to_nano_usd, to_usd


def test_adding_up_a_million_tenths_of_a_cent_loses_nothing():
    assert to_usd(sum([to_nano_usd(0.001)] * 1_000_000)) == 1000


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [(0, "$0.00"), (1, "$0.000000001"), (500_000_000, "$0.5"), (1_500_000_000, "$1.50"), (9 * 10**15, "$9,000,000.00")],
)
def test_amounts_are_shown_without_losing_what_is_small(nano_usd, text):
    assert exact_dollars(nano_usd) == text
