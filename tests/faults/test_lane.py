"""The short form of what ``make chaos`` does to a lane: no row lost, none doubled, the account is the bill."""

import pytest

from tests.chaos.__main__ import run

pytestmark = pytest.mark.journey


def test_rows_of_a_lane_whose_workers_are_killed_are_answered_and_paid_once():
    ((_, outcome, _),) = run(["lane-killed"], 1, is_quick=True, at_once=1)
    assert outcome.remarks == ()
    assert (outcome.lost, outcome.doubled_answers, outcome.extra_model_calls) == (0, 0, 0)
    assert outcome.figures["kills"] > 0
