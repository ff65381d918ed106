"""States as processes have them: also where Redis has lost the latest changes."""

from __future__ import annotations

import pytest

from dspyq.experiments import administration
from dspyq.experiments.known import process_states
from dspyq.store.keys import experiment_state_key
from tests.support.experiments import with_experiment


@pytest.fixture
def failed_over(settings_file, configure, client):
    """Start and ramp an experiment; then Redis has the state from before the ramp, as a replica that lagged has."""
    program = configure(settings_file(with_experiment(), challenger=0.5)).programs["qa"]
    before = administration.start(program)
    kept = client.dump(experiment_state_key("qa"))
    administration.ramp("qa", 0.5)
    client.restore(experiment_state_key("qa"), 0, kept, replace=True)
    return before


@pytest.fixture
def asked(failed_over):
    """Ask on the road of a name; return the version that the call was placed by."""
    from dspyq import predict

    del failed_over

    def ask(road):
        inputs = {"question": road}
        options = {"task_id": "mine"} if road == "own id" else {}
        if road == "many":
            (handle,) = predict.many([inputs], unit="user")
        else:
            handle = predict.apply_async(kwargs=inputs, unit="user", **options)
        return int(handle.request.seen)

    return ask


@pytest.mark.parametrize("road", ["plain", "many", "own id"])
def test_calls_go_on_by_the_state_that_redis_has_after_it_lost_a_change(failed_over, asked, road):
    assert process_states().get("qa").version == failed_over.version + 1
    assert asked(road) == failed_over.version
    assert process_states().get("qa") == failed_over


def test_an_announcement_that_comes_late_does_not_take_the_place_of_a_newer_state(failed_over):
    newer = process_states().get("qa")
    process_states().learn_announced(b"~qa %d " % failed_over.version + failed_over.dump())
    assert process_states().get("qa") == newer
