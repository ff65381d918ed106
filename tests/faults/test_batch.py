"""A batch whose process, workers and Redis are killed at random rows ends as an undisturbed one."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import run
from tests.chaos.batches import FAULTS

pytestmark = pytest.mark.journey

_TIMEOUT_SECONDS = 200


@pytest.fixture(scope="module")
def outcomes():
    """Run both forms at once: they wait more than they compute."""
    return {name: outcome for name, outcome, _ in run(list(FAULTS), 1, is_quick=True, at_once=2)}


@pytest.mark.timeout(_TIMEOUT_SECONDS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_batch_killed_at_random_rows_has_each_row_once_and_every_call_on_a_row_or_listed(outcomes, name):
    outcome = outcomes[name]
    assert outcome.remarks == ()
    assert outcome.lost == 0
    assert outcome.doubled_answers == 0
    assert outcome.extra_model_calls <= outcome.explained_model_calls
    assert outcome.jobs > 0
    assert outcome.figures["kills of the batch"] > 0
