"""The interval of pairs holds at every look, by cluster; the one it replaced did not."""

from __future__ import annotations

import math
import random

import pytest

from dspyq.experiments.burn_in import LEAST_EFFECTIVE_CLUSTERS, LEAST_ROWS
from dspyq.experiments.effects import paired_effect
from dspyq.experiments.mixture import paired_radius
from dspyq.experiments.sums import ClusterSums

WORLDS, LOOKS, DOCUMENTS = 150, 50, 200


def looks(numbers, correlation, effect=0.0):
    """Yield |z| by row and whether the interval excludes no difference, at 50 looks while documents land."""
    totals, rows, squares = [], [], 0.0
    for document in range(1, DOCUMENTS + 1):
        shared = math.sqrt(correlation) * numbers.gauss(0, 1)
        own = [numbers.gauss(0, math.sqrt(1 - correlation)) for _ in range(numbers.randint(1, 9))]
        differences = [effect + shared + each for each in own]
        totals.append(sum(differences))
        rows.append(len(differences))
        squares += sum(each * each for each in differences)
        number = sum(rows)
        if document % (DOCUMENTS // LOOKS) == 0 and number >= LEAST_ROWS:
            mean = sum(totals) / number
            z = abs(mean) / math.sqrt((squares - number * mean * mean) / (number - 1) / number)
            found = paired_effect(ClusterSums(tuple(totals), tuple(map(float, rows))))
            is_ripe = found.effective_clusters >= LEAST_EFFECTIVE_CLUSTERS
            yield z, is_ripe and abs(found.value) > paired_radius(found.variance, document, 0.05)


@pytest.mark.parametrize(("correlation", "least_by_row"), [(0.0, 0.15), (0.3, 0.5)])
def test_nothing_is_found_where_nothing_differs_however_often_it_is_looked_at(correlation, least_by_row):
    numbers = random.Random(7)  # noqa: S311 - no secret
    seen = [list(looks(numbers, correlation)) for _ in range(WORLDS)]
    assert sum(any(excludes for _, excludes in each) for each in seen) / WORLDS <= 0.05
    by_row = sum(any(z > 1.96 for z, _ in each) for each in seen) / WORLDS
    assert by_row >= least_by_row  # the test has teeth


def test_a_difference_that_is_there_is_found():
    numbers = random.Random(8)  # noqa: S311 - no secret
    found = [any(excludes for _, excludes in looks(numbers, 0.3, effect=0.4)) for _ in range(30)]
    assert sum(found) >= 27


@pytest.mark.parametrize("variance", [0.0, math.inf, math.nan])
def test_without_a_variance_there_is_no_interval(variance):
    assert paired_radius(variance, 100, 0.05) == math.inf
