"""Scheduled times in a real Redis: each is claimed once, leased, made good after downtime, and never overlaps."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dspyq.batch.schedule import Schedule
from dspyq.cli.batch.scheduled import _options
from dspyq.config.batches import ScheduledBatch
from tests.support.processes import wait_until

HOUR = 3600
#: Half an hour from now, so that no test sees a time come.
MINUTE = (time.gmtime().tm_min + 30) % 60


def hourly(**changes):
    files = {"input": Path("in"), "output": Path("out-{date}-{time}")}
    return ScheduledBatch(**{"name": "hourly", "schedule": f"{MINUTE} * * * *", **files, **changes})


@pytest.fixture
def runner(redis_server):
    """A runner as one more worker has it."""
    client = redis_server.client(decode_responses=False)
    return lambda lease_seconds=60.0: Schedule(client, lease_seconds=lease_seconds, max_losses=2)


@pytest.fixture
def nothing_ran_for(redis_server):
    """Let a batch have been looked at last so many hours ago, in the middle of an hour; return the hours since."""

    def wait(hours, name="hourly"):
        last = (int(redis_server.cli("TIME")[0]) - 60 * MINUTE) // HOUR * HOUR + 60 * MINUTE
        redis_server.cli("SET", f"dspy:v1:batch-schedule-seen:{name}", last - hours * HOUR + HOUR // 2)
        return [last - number * HOUR for number in reversed(range(hours))]

    return wait


def label(second):
    return time.strftime("%Y-%m-%dT%H:%M", time.gmtime(second))


def states(schedule, name="hourly"):
    return {each.label: each.state for each in schedule.times(name, 100)}


def test_a_batch_that_is_new_has_missed_nothing(runner):
    assert runner().claim(hourly()) is None
    assert runner().times("hourly") == []


def test_missed_times_are_made_good_one_after_the_other_the_oldest_first(runner, nothing_ran_for):
    missed = nothing_ran_for(3)
    ran = []
    while claimed := runner().claim(hourly()):
        assert runner().claim(hourly()) is None  # none begins while one is running
        assert runner().end(claimed, "done", exit_code=0)
        ran.append(claimed.label)
    assert ran == [label(second) for second in missed]
    assert set(states(runner()).values()) == {"done"}


def test_only_so_many_missed_times_are_made_good_the_latest(runner, nothing_ran_for):
    missed = nothing_ran_for(30)
    claimed = runner().claim(hourly(catch_up=2))
    assert claimed.label == label(missed[-2])
    assert states(runner()) == {
        label(missed[-3]): "skipped",
        label(missed[-2]): "running",
        label(missed[-1]): "pending",
    }


def test_a_time_is_claimed_once_by_any_number_of_runners_at_once(runner, nothing_ran_for):
    nothing_ran_for(1)
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda _: runner().claim(hourly()), range(40)))
    assert len([claimed for claimed in claims if claimed]) == 1


def test_the_time_of_a_dead_runner_is_resumed_by_another_and_the_first_cannot_change_it(runner, nothing_ran_for):
    nothing_ran_for(1)
    dead = runner(0.05).claim(hourly())
    wait_until(lambda: runner().times("hourly")[0].is_lost, 60, "the lease to run out")
    resumed = runner().claim(hourly())
    assert resumed.label == dead.label
    assert not runner().renew(dead)
    assert not runner().end(dead, "failed", exit_code=2)
    assert runner().end(resumed, "done", exit_code=0)
    assert runner().times("hourly")[0].losses == 1


def test_a_slow_runner_keeps_its_time_if_no_other_checked(runner, nothing_ran_for):
    nothing_ran_for(1)
    slow = runner(0.05).claim(hourly())
    wait_until(lambda: runner().times("hourly")[0].is_lost, 60, "the lease to run out")
    assert runner().renew(slow)
    assert runner().claim(hourly()) is None


def test_a_time_that_kills_its_runners_has_failed(runner, nothing_ran_for):
    nothing_ran_for(1)
    for _ in range(2):
        assert runner().end(runner().claim(hourly()), "lost")
    assert runner().claim(hourly()) is None
    found = runner().times("hourly")[0]
    assert (found.state, found.note) == ("failed", "its runner was lost too often")


def test_a_time_that_is_given_back_is_the_next_to_run(runner, nothing_ran_for):
    missed = nothing_ran_for(2)
    for _ in range(5):  # as often as workers are replaced
        claimed = runner().claim(hourly())
        assert claimed.label == label(missed[0])
        assert runner().end(claimed, "pending")


def test_an_operator_can_have_a_failed_time_again_and_no_other(runner, nothing_ran_for):
    nothing_ran_for(1)
    claimed = runner().claim(hourly())
    assert not runner().again("hourly", claimed.label)
    runner().end(claimed, "failed", exit_code=2, note="no such file")
    found = runner().times("hourly")[0]
    assert (found.state, found.exit_code, found.note) == ("failed", 2, "no such file")
    assert runner().again("hourly", claimed.label)
    assert runner().claim(hourly()).label == claimed.label


def test_old_times_are_forgotten_but_not_those_that_wait(runner, redis_server, nothing_ran_for):
    missed = nothing_ran_for(300)
    assert runner().claim(hourly(catch_up=250)).label == label(missed[50])
    assert len(redis_server.keys("dspy:v1:batch-scheduled:*")) == 251
    nothing_ran_for(1)
    runner().claim(hourly(catch_up=1))  # 248 of them are skipped
    runner().claim(hourly(catch_up=1))
    assert len(redis_server.keys("dspy:v1:batch-scheduled:*")) == 201  # with the one that is running
    assert list(states(runner()).values()).count("skipped") == 99


def test_a_cluster_is_for_paired_batches_and_reaches_the_run():
    options = _options(hourly(paired=True, score=True, cluster="document"), "2026-11-24T22:00")
    assert (options.is_paired, options.is_scored, options.cluster) == (True, True, "document")
    with pytest.raises(ValueError, match="cluster is for comparisons: set paired too"):
        hourly(cluster="document")
