"""Changes of an experiment: each is made once, from the version it was based on, and logged."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from dspyq.errors import ExperimentRefused
from dspyq.experiments import administration
from dspyq.experiments.administration import Change
from dspyq.store.keys import experiment_log_key, experiment_state_key, invalidations_channel, killed_arms_key
from dspyq.store.scripts import load_script
from tests.support.experiments import with_experiment


@pytest.fixture
def program(configure, settings_file):
    ramp = [{"coverage": 0.1, "hours": 1}, {"coverage": 1.0}]
    return configure(settings_file(with_experiment(ramp=ramp), challenger=0.5)).programs["qa"]


@pytest.fixture
def started(program):
    return administration.start(program)


def test_an_experiment_starts_at_the_first_step_of_its_ramp(program):
    state = administration.start(program, reason="the compiled program is ready")
    assert (state.status, state.coverage, state.serve, state.arms) == (
        "running",
        0.1,
        "control",
        program.experiment.arms,
    )
    assert administration.read_state("qa") == state
    assert administration.read_plan("qa") == administration.plan_of(program)


def test_a_program_whose_experiment_was_never_started_has_no_state(program):
    assert administration.read_state(program.name) is None
    assert administration.read_plan(program.name) is None


def test_coverage_changes_and_then_stays_until_the_ramp_is_followed_again(started):
    state = administration.ramp("qa", 0.5)
    assert (state.coverage, state.is_held, state.version) == (0.5, True, started.version + 1)
    assert not administration.hold("qa", held=False).is_held


def test_a_paused_experiment_goes_on_as_it_was(started):
    assert administration.pause("qa").status == "paused"
    resumed = administration.resume("qa")
    assert dataclasses.replace(resumed, version=started.version, step_at=started.step_at) == started
    assert resumed.step_at > started.step_at  # the step of the ramp begins anew


@pytest.mark.usefixtures("started")
def test_a_killed_arm_is_listed_where_its_calls_begin(client):
    state = administration.kill("qa", "challenger", reason="answers in French")
    assert state.killed == ("challenger",)
    assert client.smembers(killed_arms_key()) == {b"qa.challenger"}


@pytest.mark.usefixtures("started")
def test_the_control_cannot_be_killed():
    with pytest.raises(ExperimentRefused, match="'control' is no challenger of first; they are challenger"):
        administration.kill("qa", "control")


@pytest.mark.usefixtures("started")
def test_what_is_served_after_the_end_is_the_control_another_arm_or_the_files_weights():
    assert administration.stop("qa").serve == "control"
    assert administration.stop("qa", serve="challenger").serve == "challenger"
    assert administration.stop("qa", by_weight=True).status == "off"


@pytest.mark.usefixtures("started")
def test_a_killed_arm_cannot_be_served_to_all():
    administration.kill("qa", "challenger")
    with pytest.raises(ExperimentRefused, match="challenger was killed"):
        administration.stop("qa", serve="challenger")


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("change", ["ramp", "pause", "resume", "kill"])
def test_an_experiment_that_has_ended_does_not_change(change):
    administration.stop("qa")
    arguments = {"ramp": [0.5], "kill": ["challenger"]}.get(change, [])
    with pytest.raises(ExperimentRefused, match="first has ended; start another"):
        getattr(administration, change)("qa", *arguments)


@pytest.mark.usefixtures("started")
def test_a_running_experiment_is_not_started_again(program):
    with pytest.raises(ExperimentRefused, match="first is running; stop it first"):
        administration.start(program)


@pytest.mark.usefixtures("started")
def test_a_name_is_used_once_so_that_counts_are_not_mixed(program):
    administration.stop("qa")
    with pytest.raises(ExperimentRefused, match=r"programs\.qa\.experiment\.name"):
        administration.start(program)


@pytest.mark.usefixtures("started")
def test_a_name_of_any_earlier_experiment_is_not_used_again(program, configure, settings_file):
    administration.stop("qa")
    second = configure(settings_file(with_experiment(name="second"), challenger=0.5)).programs["qa"]
    administration.start(second)
    administration.stop("qa")
    with pytest.raises(ExperimentRefused, match="an experiment named first has ended"):
        administration.start(program)


def test_a_new_experiment_may_assign_an_arm_that_the_last_one_killed(started, configure, settings_file, client):
    administration.kill("qa", "challenger")
    administration.stop("qa")
    second = configure(settings_file(with_experiment(name="second"), challenger=0.5)).programs["qa"]
    state = administration.start(second)
    assert (state.version, state.killed, client.exists(killed_arms_key())) == (started.version + 3, (), 0)


def test_the_log_states_each_change_with_its_author_and_reason(started):
    administration.ramp("qa", 0.5, reason="all is well")
    administration.stop("qa", serve="challenger", reason="it wins")
    log = administration.read_log("qa")
    assert [(entry.what, entry.detail, entry.reason, entry.version) for entry in log] == [
        ("start", "first", "", 1),
        ("ramp", "0.5", "all is well", 2),
        ("stop", "challenger", "it wins", 3),
    ]
    assert all("@" in entry.who and entry.at > started.started_at - 1 for entry in log)


def test_a_change_made_from_an_older_version_is_not_written(started):
    administration.ramp("qa", 0.5)
    late = started.changed(status="paused")
    assert not administration.change_from(started, late, Change("pause", who="a worker"))
    assert administration.read_state("qa").status == "running"


def test_of_two_who_make_the_same_change_one_has_made_it(started):
    changed = started.changed(coverage=0.3)
    made = [administration.change_from(started, changed, Change("ramp", "0.3")) for _ in range(2)]
    assert made == [True, False]
    assert [entry.what for entry in administration.read_log("qa")] == ["start", "ramp"]


def test_a_change_whose_reply_is_lost_is_made_once(started, client):
    changed = started.changed(coverage=0.3)
    script = load_script(client, "dspyq.experiments", "change")
    arguments = {
        "expected": str(started.version), "version": str(changed.version), "written": changed.dump(), "id": "one",
        "plan": b"", "counting": "", "entry": b"{}", "announcement": b"", "channel": "", "most": 9, "arms": [],
    }  # fmt: skip
    keys = [experiment_state_key("qa"), experiment_log_key("qa")]
    assert [script(keys, **arguments) for _ in range(2)] == [1, 1]
    assert client.xlen(experiment_log_key("qa")) == 2


def test_of_changes_at_the_same_time_none_is_lost(started):
    threads = [threading.Thread(target=administration.ramp, args=("qa", share / 10)) for share in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert administration.read_state("qa").version == started.version + 3


@pytest.mark.usefixtures("started")
def test_every_change_is_announced_with_the_new_state(client):
    with client.pubsub() as channel:
        channel.subscribe(invalidations_channel())
        assert channel.get_message(timeout=30)["type"] == "subscribe"
        state = administration.ramp("qa", 0.5)
        while (message := channel.get_message(timeout=30))["data"][:1] != b"~":
            pass
    program, version, written = message["data"][1:].split(b" ", 2)
    assert (program, version, written) == (b"qa", str(state.version).encode(), state.dump())


@pytest.mark.usefixtures("started")
def test_a_coverage_beyond_the_whole_is_refused():
    with pytest.raises(ExperimentRefused, match=r"a coverage is 0 to 1, not 1\.5"):
        administration.ramp("qa", 1.5)


@pytest.mark.usefixtures("started")
@pytest.mark.parametrize("stored", [b"", b"{}", b"\xff", b"[1]", b'{"arms": 3}'])
def test_a_state_of_another_form_is_refused_in_one_line(client, stored):
    client.hset(experiment_state_key("qa"), "state", stored)
    with pytest.raises(ExperimentRefused, match="no state that this version reads"):
        administration.read_state("qa")


@pytest.mark.usefixtures("started")
def test_a_reason_of_any_length_and_bytes_is_kept_short_in_the_state_and_the_log():
    given = "broken \udcff " + "x" * 100_000
    paused = administration.pause("qa", reason=given)
    assert paused.reason == administration.read_state("qa").reason == administration.read_log("qa")[-1].reason
    assert paused.reason.startswith("broken ? x")
    assert len(paused.dump()) < 2_000
