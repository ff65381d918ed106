"""The short form of the faults: nothing is lost, nothing doubled, and no model called more often than it must be."""

import contextlib
import threading
from concurrent.futures import Future

import pytest

from tests.chaos.__main__ import run
from tests.chaos.faults import SHORT
from tests.support.journeys import few_of

#: They wait for leases more than they compute.
AT_ONCE = 6
TIMEOUT_SECONDS = 240


@pytest.fixture(scope="module")
def outcomes(request):
    """Run the faults that are asked for, together; each test waits for its own."""
    names = [item.callspec.params["name"] for item in request.session.items if item.fspath == request.node.fspath]
    outcomes = {name: Future() for name in names}

    def play():
        with contextlib.suppress(BaseException):
            for name, outcome, _ in run(names, 1, is_quick=True, at_once=AT_ONCE):
                outcomes[name].set_result(outcome)

    player = threading.Thread(target=play)
    player.start()
    yield outcomes
    player.join()


@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("name", few_of(SHORT, 1))
def test_a_fault_loses_nothing_doubles_nothing_and_pays_for_nothing_twice_without_need(outcomes, name):
    outcome = outcomes[name].result(TIMEOUT_SECONDS - 10)
    assert outcome.remarks == ()
    assert outcome.lost == 0
    assert outcome.doubled_answers == 0
    assert outcome.extra_model_calls <= outcome.explained_model_calls
    assert outcome.jobs > 0
