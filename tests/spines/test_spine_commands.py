"""Commands over several spines: each covers the whole fleet."""

import json
import time
from datetime import UTC, datetime

import pytest

from dspyq.cli import spine_commands
from dspyq.client.predict import process_predict
from dspyq.delivery.dead import find_dead
from dspyq.delivery.leases import process_leases
from dspyq.delivery.spine_holdings import read_spines
from dspyq.store.spines import each_spine
from tests.support.processes import wait_until
from tests.support.spine_questions import some_of_each

pytestmark = [pytest.mark.usefixtures("configured_spines"), pytest.mark.journey]

COUNT = 12


@pytest.fixture
def questions(configured_spines):
    del configured_spines
    return some_of_each("question", COUNT)


@pytest.fixture
def predict():
    return process_predict()


def as_json(done):
    return json.loads(done.stdout)


def set_aside(predict, questions):
    """Dead-letter the jobs of questions, as a worker does whose program ends its process; return the handles."""
    handles = predict.many([{"question": each} for each in questions])
    for _ in each_spine():
        while delivery := process_leases().take("qa.control"):
            process_leases().set_aside(delivery.tag, "for a test")
    return handles


def test_commands_cover_all_spines(predict, questions, spine_worker, spine_command, spines, endpoint):
    assert as_json(spine_command("queues", "list", "--json"))[0]["name"]
    spine_worker()
    rows = [{"question": each} for each in questions]
    answers = [handle.get(timeout=30) for handle in predict.many(rows)]
    billed = sum(each.metadata.cost_usd for each in answers)
    again = [handle.get(timeout=30) for handle in predict.many(rows)]
    assert [each.answer for each in answers + again] == [f"echo:{each}" for each in questions] * 2
    assert endpoint.calls() == COUNT

    costs = as_json(spine_command("costs", "--json"))["costs"]
    assert sum(line["calls"] for line in costs) == COUNT
    assert sum(line["billed_usd"] for line in costs) == pytest.approx(billed)

    def counted():
        return as_json(spine_command("cache", "stats", "--json"))

    wait_until(lambda: counted()["hits_memory"] + counted()["hits_redis"] == COUNT, 20, "the hits' counts")
    stats = counted()
    assert (stats["entries"], stats["misses"]) == (COUNT, COUNT)
    wait_until(
        lambda: (
            sum(line["avoided_usd"] for line in as_json(spine_command("costs", "--json"))["costs"])
            == pytest.approx(billed)
        ),
        20,
        "the savings",
    )
    (control,) = as_json(spine_command("variants", "--json"))
    assert (control["calls"], control["runs"]) == (2 * COUNT, COUNT)
    assert control["mean_duration_seconds"] > 0

    shown = as_json(spine_command("predict", f"question={questions[0]}", "--json"))
    assert shown["metadata"]["cached"]
    assert as_json(spine_command("check", "--json"))["ok"]
    assert as_json(spine_command("cache", "invalidate", f"question={questions[0]}", "--json")) == {"forgotten": 1}
    assert as_json(spine_command("cache", "clear", "--all", "--json")) == {"forgotten": COUNT - 1}
    assert counted()["entries"] == 0
    again = [handle.get(timeout=30) for handle in predict.many([{"question": each} for each in questions])]
    assert not any(each.metadata.cached for each in again)
    time.sleep(1.1)  # `forget` takes whole seconds
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    removed = as_json(spine_command("forget", "--before", moment, "--yes", "--json"))
    assert removed["results"] == 2 * COUNT
    assert spines.keys("celery-task-meta-*") == [[], [], []]


def test_dead_jobs_of_all_spines_are_listed_replayed_and_dropped(predict, questions, spine_command):
    handles = set_aside(predict, questions)
    listed = as_json(spine_command("dead", "list", "--json"))
    assert {row["id"] for row in listed} == {handle.id for handle in handles}
    assert [row["set_aside_at"] for row in listed] == sorted((row["set_aside_at"] for row in listed), reverse=True)
    shown = as_json(spine_command("dead", "show", handles[0].id, "--json"))
    assert (shown["id"], shown["reason"]) == (handles[0].id, "for a test")
    first, *rest = (row["id"] for row in listed)
    assert as_json(spine_command("dead", "replay", *rest, "--json")) == {"replayed": len(rest)}
    assert [job.id for job in find_dead()] == [first]
    assert as_json(spine_command("dead", "drop", first, "--json")) == {"dropped": 1}
    assert find_dead() == []
    (queue,) = (row for row in as_json(spine_command("queues", "list", "--json")) if row["name"] == "qa.control")
    assert queue["waiting"] == len(rest)
    assert "there is no dead job nobody" in spine_command("dead", "show", "nobody", ok=False).stderr
    assert as_json(spine_command("queues", "drain", "qa.control", "--json")) == {"ended": len(rest)}


def test_a_spine_that_is_away_is_named_by_the_check(spine_command, spines):
    spines.servers[1].process.kill()
    done = spine_command("check", ok=False)
    port = spines.servers[1].url.rpartition(":")[2].partition("/")[0]
    (line,) = [line for line in done.stderr.splitlines() if "does not answer" in line]
    assert "redis_urls (" in line
    assert port in line
    refused = spine_command("dead", "list", ok=False).stderr
    assert refused.startswith("dspyq: cannot read the dead jobs: ")
    assert port in refused.partition("DSPYQ_REDIS_URLS")[0]


def test_the_spines_are_shown_with_the_workers_that_serve_each(spine_worker, capsys):
    spine_worker()
    spine_worker(env={"DSPYQ_WORKERS__SPINES": "1"})
    wait_until(lambda: sorted(each.workers for each in read_spines()) == [1, 1, 2], 60, "both workers")
    spine_commands.spines(as_json=True)
    assert sorted(each["workers"] for each in json.loads(capsys.readouterr().out)) == [1, 1, 2]
    spine_commands.spines()
    assert "workers" in capsys.readouterr().out
