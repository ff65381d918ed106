"""Sums for the tests, from rows of (unit's bucket, question's bucket, value)."""

import random

from dspyq.experiments.sums import ArmSums, ClusterSums, RowSums


def clusters(pairs, buckets):
    """Return the sums by cluster of (bucket, value)."""
    numerators, denominators = [0.0] * buckets, [0.0] * buckets
    for bucket, value in pairs:
        numerators[bucket] += value
        denominators[bucket] += 1
    return ClusterSums(tuple(numerators), tuple(denominators))


def arm(rows, buckets):
    """Return the sums of rows."""
    values = [value for _, _, value in rows]
    return ArmSums(
        by_question=clusters(((question, value) for _, question, value in rows), buckets),
        by_unit=clusters(((unit, value) for unit, _, value in rows), buckets),
        rows=RowSums(len(values), sum(values), sum(value * value for value in values)),
    )


def rates(yes, rows, clusters_used=100, buckets=128):
    """Return an arm of yes or no, the yes at random, whose units each have a question of their own."""
    found = set(random.Random(1000 * rows + yes).sample(range(rows), yes))  # noqa: S311 - a sample, no secret
    return arm([(row % clusters_used, row % clusters_used, float(row in found)) for row in range(rows)], buckets)
