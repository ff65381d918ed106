"""Scheduled batches with a real beat, real workers and a real Redis: each time is run once, whichever process dies."""

import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.configuration import environment
from tests.support.processes import LocalProcess, wait_until

DAY = 86_400
ROWS = 12
#: Half a day from now, so that no test sees a time come.
HOUR = (time.gmtime().tm_hour + 12) % 24


class Nights:
    """A batch that is due each day, and what is known of its times."""

    def __init__(self, folder, settings_file, redis_server):
        self.folder = folder
        self.redis_server = redis_server
        batch = {"input": str(folder / "rows-{date}.jsonl"), "output": str(folder / "answers-{date}.jsonl")}
        batch["tenant"] = "night-shift"
        changes = {
            "workers": {"concurrency": 2},
            "delivery": {"shutdown_grace_seconds": 1, "visibility_timeout_seconds": 6},
        }
        changes |= {"models": {"control": {"timeout_seconds": 100}}}  # calls that are held are not to be repeated
        changes |= {"batches": {"nightly": batch | {"schedule": f"0 {HOUR} * * *"}}}
        self.settings = settings_file(changes)

    def miss(self, nights, rows=ROWS):
        """Let so many nights have passed with nothing running; return their dates."""
        last = (int(self.redis_server.cli("TIME")[0]) - HOUR * 3600) // DAY * DAY + HOUR * 3600
        self.redis_server.cli("SET", "dspy:v1:batch-schedule-seen:nightly", last - nights * DAY + 1)
        dates = [time.strftime("%Y-%m-%d", time.gmtime(last - number * DAY)) for number in reversed(range(nights))]
        for date in dates:
            lines = [json.dumps({"question": f"{date} {number}"}) for number in range(rows)]
            (self.folder / f"rows-{date}.jsonl").write_text("\n".join(lines) + "\n")
        return dates

    def known(self, date):
        return self.redis_server.client().hgetall(f"dspy:v1:batch-scheduled:nightly:{date}T{HOUR:02}:00")

    def state(self, date):
        return self.known(date).get("state")

    def answers(self, date):
        path = self.folder / f"answers-{date}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def log(self, date):
        path = self.folder / f"answers-{date}.jsonl.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def nights(tmp_path, settings_file, redis_server):
    return Nights(tmp_path, settings_file, redis_server)


@pytest.fixture
def beat(nights, redis_server):
    """Start ``celery -A dspyq beat``."""
    with ExitStack() as beats:

        def start(*arguments):
            command = [str(Path(sys.executable).with_name("celery")), "-A", "dspyq", "beat", *arguments]
            env = environment(nights.settings, redis_server.url)
            return beats.enter_context(LocalProcess("beat", command, ready_line="beat: Starting", env=env))

        yield start


@pytest.mark.journey
def test_two_beats_and_two_workers_run_each_missed_night_once_one_after_the_other(nights, worker, beat, endpoint):
    first, second = nights.miss(2)
    workers = [worker(nights.settings, waits=False) for _ in range(2)]
    for each in workers:
        each.ready()
    for arguments in (["--schedule", str(nights.folder / "beat")], ["-S", "celery.beat:Scheduler"]):
        beat("-l", "INFO", *arguments).ready()
    wait_until(lambda: nights.state(second) == "done", 60, lambda: f"{nights.known(first)} {nights.known(second)}")
    assert nights.state(first) == "done"
    assert float(nights.known(first)["ended"]) <= float(nights.known(second)["started"])
    assert len(nights.answers(first)) == len(nights.answers(second)) == ROWS
    assert endpoint.calls() == 2 * ROWS
    assert nights.redis_server.client().smembers("dspy:v1:tenants") == {"night-shift"}


def test_a_beat_that_cannot_write_its_file_prints_a_line_with_the_remedy(nights, beat):
    refused = beat("--schedule", str(nights.folder / "nowhere" / "beat"))
    assert refused.wait() == 1
    assert [line for line in refused.logs().splitlines() if "name another file with --schedule" in line]
    assert "Traceback" not in refused.logs()


@pytest.fixture
def ticking(nights, start_producer):
    """Tick far more often than a beat does."""

    def tick():
        import time

        from dspyq.celery_app.application import app
        from dspyq.core.names import BATCH_QUEUE, TICK_NAME

        while True:
            app.send_task(TICK_NAME, queue=BATCH_QUEUE)
            time.sleep(0.3)

    return start_producer(tick, nights.settings).process


@pytest.mark.long
def test_whichever_worker_ends_and_however_another_goes_on_with_the_night_and_no_question_is_asked_twice(
    nights, worker, endpoint, ticking
):
    (night,) = nights.miss(1)
    endpoint.hold()
    predictions = worker(nights.settings, arguments=["-Q", "qa.control"], waits=False)
    workers = [worker(nights.settings, arguments=["-Q", "dspyq.batches"], waits=False) for _ in range(4)]
    for each in (predictions, *workers):
        each.ready()

    def runner(*others):
        """Wait until another worker's process is at work; return the worker and the process's id."""

        def find():
            pid = int(nights.known(night).get("runner", ":0").rpartition(":")[2])
            has_begun = nights.log(night).count(f"answers-{night}.jsonl") > len(others)
            return has_begun and next((each for each in workers if each.pid == pid and each not in others), None)

        found = wait_until(find, 60, lambda: f"another runner: {nights.known(night)}\n{nights.log(night)}")
        return found, json.loads(found.wait_for_line("scheduled_batch_started"))["pid"]

    terminated, _ = runner()
    endpoint.wait_for_calls(2, 60)
    assert terminated.terminate() == 0
    killed, _ = runner(terminated)
    killed.kill()  # its batch sees that, and gives its time back
    lost, batch_pid = runner(terminated, killed)
    assert int(nights.known(night).get("losses", 0)) == 0
    lost.kill()
    os.kill(batch_pid, signal.SIGKILL)  # as if the machine was gone: its lease runs out
    runner(terminated, killed, lost)
    assert int(nights.known(night)["losses"]) >= 1
    endpoint.release()
    wait_until(lambda: nights.state(night) == "done", 60, lambda: f"{nights.known(night)}\n{nights.log(night)}")
    assert sorted(each["custom_id"] for each in nights.answers(night)) == sorted(map(str, range(1, ROWS + 1)))
    assert endpoint.calls() == ROWS
    assert ticking.is_running


@pytest.mark.journey
def test_a_night_without_its_file_fails_alone_and_can_be_had_again(nights, worker, ticking, dspyq):
    missing, there = nights.miss(2, rows=1)
    rows = nights.folder / f"rows-{missing}.jsonl"
    rows.rename(nights.folder / "late.jsonl")
    worker(nights.settings)
    wait_until(lambda: nights.state(there) == "done", 60, lambda: f"{nights.known(there)}")
    (shown,) = json.loads(dspyq("batch", "schedule", "--json", "nightly", settings=nights.settings).stdout)
    times = {each["label"][:10]: each for each in shown["times"]}
    assert (times[missing]["state"], times[missing]["exit_code"], times[there]["exit_code"]) == ("failed", 2, 0)
    assert rows.name in times[missing]["note"]
    assert "failed (2)" in dspyq("batch", "schedule", "nightly", settings=nights.settings).stdout
    (nights.folder / "late.jsonl").rename(rows)
    label = times[missing]["label"]
    dspyq("batch", "schedule", "nightly", "--again", label, settings=nights.settings)
    wait_until(lambda: nights.state(missing) == "done", 60, lambda: f"{nights.known(missing)}")
    refused = dspyq("batch", "schedule", "nightly", "--again", label, settings=nights.settings, ok=False)
    assert "has neither failed nor been skipped" in refused.stderr
    assert ticking.is_running
