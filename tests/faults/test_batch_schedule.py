"""Scheduled batches with a real beat, real workers and a real Redis: each time is run once, whoever dies."""

import json
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
        changes = {"workers": {"concurrency": 2}, "batches": {"nightly": batch | {"schedule": f"0 {HOUR} * * *"}}}
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
        return (self.folder / f"answers-{date}.jsonl.log").read_text()


@pytest.fixture
def nights(tmp_path, settings_file, redis_server):
    return Nights(tmp_path, settings_file, redis_server)


@pytest.fixture
def beat(nights, redis_server):
    """Start ``celery -A workers beat``."""
    with ExitStack() as beats:

        def start(*arguments):
            command = [str(Path(sys.executable).with_name("celery")), "-A", "workers", "beat", *arguments]
            env = environment(nights.settings, redis_server.url)
            return beats.enter_context(LocalProcess("beat", command, ready_line="beat: Starting", env=env))

        yield start


def test_two_beats_and_two_workers_run_each_missed_night_once_one_after_the_other(nights, worker, beat, endpoint):
    first, second = nights.miss(2)
    workers = [worker(nights.settings, waits=False) for _ in range(2)]
    for each in workers:
        each.ready()
    for _ in range(2):
        beat("-l", "INFO", "-S", "celery.beat:Scheduler").ready()
    wait_until(lambda: nights.state(second) == "done", 40, lambda: f"{nights.known(first)} {nights.known(second)}")
    assert nights.state(first) == "done"
    assert float(nights.known(first)["ended"]) <= float(nights.known(second)["started"])
    assert len(nights.answers(first)) == len(nights.answers(second)) == ROWS
    assert endpoint.calls() == 2 * ROWS


def tick(nights, run_producer):
    def send():
        from config.celery import BATCH_QUEUE, TICK_NAME, app

        app.send_task(TICK_NAME, queue=BATCH_QUEUE)

    run_producer(send, nights.settings)
