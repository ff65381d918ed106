"""The short form of what ``make chaos`` does to the guards: no job lost, no dollar over, no hold leaked."""

import pytest

from tests.chaos.__main__ import run

pytestmark = pytest.mark.journey

_NAMES = ["budget", "guards-redis-full", "provider-cut", "provider-429"]


def test_no_fault_loses_a_job_or_a_dollar():
    outcomes = {name: outcome for name, outcome, _ in run(_NAMES, 1, is_quick=True, at_once=len(_NAMES))}
    assert {name: outcome.remarks for name, outcome in outcomes.items()} == dict.fromkeys(_NAMES, ())
    assert {name: outcome.lost for name, outcome in outcomes.items()} == dict.fromkeys(_NAMES, 0)
    assert all(outcome.doubled_answers == 0 for outcome in outcomes.values())
    assert outcomes["budget"].figures["overspend"] == "$0.000000"
