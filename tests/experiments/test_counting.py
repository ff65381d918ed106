"""Sums of an experiment in Redis: equal to a replay of the events, whatever is repeated."""

from __future__ import annotations

import orjson
import pytest
import redis

from dspyq.errors import DamagedKey
from dspyq.experiments import administration
from dspyq.experiments.arm_hits import ArmHits
from dspyq.experiments.exposure import Exposure
from dspyq.experiments.sums_reader import read_sums
from dspyq.experiments.tally import process_tally
from dspyq.store.keys import experiment_sums_key, key
from dspyq.store.scripts import load_script
from tests.support.experiments import TABLE, with_experiment

TODAY = 20_000
TABLE_WITH_ALL = {
    "scores": {"grounded": {"scorer": "quality:is_grounded", "low": 0, "high": 1}},
    "feedback": {"stars": {"low": 1, "high": 5, "window_days": 3, "replace": True}},
    "guards": [*TABLE["guards"], {"metric": "call.slow_wait", "margin": 0.1, "seconds": 2}],
}


@pytest.fixture
def started(configure, settings_file):
    changes = with_experiment(**TABLE_WITH_ALL)
    changes["programs"]["qa"]["scorers"] = ["quality:is_grounded"]
    program = configure(settings_file(changes, challenger=0.5)).programs["qa"]
    return administration.start(program), administration.plan_of(program).table


@pytest.fixture
def exposure(started):
    state, _ = started
    return lambda arm="control", unit=5, question=9, cell=77, day=TODAY: Exposure(
        "qa", state.epoch, arm, unit, question, cell, day
    )


@pytest.fixture
def metrics(started):
    """Read a metric of the control: its rows and sum, by unit and by question."""

    def read(metric, arm="control", today=TODAY):
        reading = read_sums(*started, today=today)[arm]
        found = []
        for clusters in (reading.metrics[metric].by_unit, reading.metrics[metric].by_question):
            rows = {bucket: n for bucket, n in enumerate(clusters.denominators) if n}
            found.append({bucket: (n, clusters.numerators[bucket]) for bucket, n in rows.items()})
        return found

    return read


def judge(client, exposure, said="a", value=500_000, replaces=""):
    """Take a judgement, as callers give one."""
    return load_script(client, "dspyq.experiments", "feedback")(
        program="qa", exposure=exposure.stated(), question="00000000", name="stars", said=said, value=value,
        window_seconds=60, replaces=replaces,
    )  # fmt: skip


def test_hits_are_counted_by_unit_and_by_question(exposure, metrics, started):
    tally = process_tally()
    for unit in (5, 5, 6):
        tally.count(exposure(unit=unit, cell=unit), "an answer", 0.25, is_slow=False)
    tally.count(exposure(unit=6, question=10, cell=6), "another", 3.0, is_slow=True)
    tally.flush()
    assert metrics("call.hit") == [{5: (2, 2), 6: (2, 2)}, {9: (3, 3), 10: (1, 1)}]
    assert metrics("call.waited") == [{5: (2, 0.5), 6: (2, 3.25)}, {9: (3, 0.75), 10: (1, 3.0)}]
    assert metrics("call.slow_wait")[1] == {9: (3, 0), 10: (1, 1)}
    assert read_sums(*started, today=TODAY)["control"].units == 2
    rows = read_sums(*started, today=TODAY)["control"].metrics["call.waited"].rows
    assert (rows.rows, rows.total, rows.squares) == (4, 3.75, 3 * 0.25**2 + 9)


def test_a_flush_that_is_repeated_counts_once(exposure, client, metrics):
    script = load_script(client, "dspyq.experiments", "count")
    parts = [["calls:u", "control", TODAY, [35, 3]], ["calls:q", "control", TODAY, [81, 3]]]
    arguments = {"process": "one", "flush": 1, "program": "qa", "epoch": exposure().epoch, "parts": orjson.dumps(parts)}
    assert [script(**arguments), script(**arguments)] == [2, -1]
    assert metrics("call.hit") == [{5: (3, 3)}, {9: (3, 3)}]
    later = [arguments | {"flush": 2}, arguments | {"process": "other"}, arguments]
    assert [script(**each) for each in later] == [2, 2, -1]
    assert metrics("call.hit") == [{5: (9, 9)}, {9: (9, 9)}]


def test_a_process_leaves_one_key_however_often_it_flushes(exposure, client):
    tally = process_tally()
    for _ in range(5):
        tally.count(exposure(), "an answer", 0.1, is_slow=False)
        tally.flush()
    assert len(client.keys(key("experiment-flush:") + "*")) == 1


def test_hits_of_an_experiment_that_is_no_more_are_not_counted(exposure, client):
    tally = process_tally()
    tally.count(exposure()._replace(epoch="9e"), "an answer", 0.1, is_slow=False)
    tally.flush()
    assert not client.keys(experiment_sums_key("qa", "9e") + "*")


def test_counters_are_exact_beyond_what_a_float_holds(client, started):
    script = load_script(client, "dspyq.experiments", "count")
    state, _ = started
    parts = orjson.dumps([["sums:u", "control", TODAY, [5 * 7 + 3, str(2**53 + 1)]]])
    for number in (1, 2):
        script(process="one", flush=number, program="qa", epoch=state.epoch, parts=parts)
    array = experiment_sums_key("qa", state.epoch) + "control:calls:u"
    assert client.bitfield(array).get("i64", f"#{5 * 7 + 3}").execute() == [2 * (2**53 + 1)]


def test_sums_that_a_float_does_not_hold_are_sent_as_text(exposure):
    hits = ArmHits()
    hits.add(exposure(), "", 2**53 + 1, is_slow=False)
    hits.add(exposure(), "", 2**53 - 1, is_slow=False)
    (sums,) = [part.values for part in hits.parts("control", TODAY) if part.kind == "sums:u"]
    assert sums == [5 * 7 + 3, str(2**54)]


def test_a_flush_of_more_than_one_script_counts_each_call_once(exposure, client, metrics, started):
    tally = process_tally()
    for number in range(3_000):
        unit = number % 1_500
        tally.count(exposure("challenger", unit % 1_024, unit % 700, unit), f"{unit}", 0.002, is_slow=number > 2_900)
    tally.flush()
    (latest,) = client.keys(key("experiment-flush:") + "*")
    assert int(client.get(latest)) > 1
    by_unit, by_question = metrics("call.waited", "challenger")
    assert by_unit == {
        unit: (2 + 2 * (unit < 476), pytest.approx(0.004 + 0.004 * (unit < 476))) for unit in range(1_024)
    }
    assert sum(n for n, _ in by_question.values()) == 3_000
    reading = read_sums(*started, today=TODAY)["challenger"]
    assert reading.units == 1_500
    assert sum(reading.metrics["call.slow_wait"].by_unit.numerators) == 99
    assert reading.metrics["call.waited"].rows.squares == pytest.approx(3_000 * 0.002**2)


def test_calls_that_an_answer_was_served_to_count_for_its_score(exposure, client, metrics):
    answer = key("experiment-answer:") + "an answer"
    client.hset(answer, mapping={"exposure": exposure().stated(), "s:grounded": 250_000})
    tally = process_tally()
    for unit in (5, 5, 6):
        tally.count(exposure(unit=unit, cell=unit), "an answer", 0.1, is_slow=False)
    tally.count(exposure(unit=6, cell=6), "", 0.1, is_slow=False)
    tally.flush()
    assert metrics("delivered.grounded") == [{5: (2, 0.5), 6: (1, 0.25)}, {9: (3, 0.75)}]


def test_calls_that_come_before_an_answers_score_count_for_it_too(exposure, client, metrics):
    client.hset(key("experiment-answer:") + "an answer", "exposure", exposure().stated())
    score = load_script(client, "dspyq.experiments", "score")
    tally = process_tally()
    for _ in range(2):
        tally.count(exposure(), "an answer", 0.1, is_slow=False)
        tally.count(exposure(unit=6), "an answer", 0.1, is_slow=False)
        tally.flush()
        score(id="an answer", program="qa", is_complete="1", scores=["grounded", 500_000])
    assert metrics("delivered.grounded") == [{5: (2, 1.0), 6: (2, 1.0)}, {9: (4, 2.0)}]


def test_every_key_of_an_experiment_has_an_end(exposure, client):
    process_tally().count(exposure(), "an answer", 0.1, is_slow=False)
    process_tally().flush()
    keys = client.keys(key("experiment-sums:") + "*") + client.keys(key("experiment-flush:") + "*")
    assert len(keys) == 7  # calls and exposures by unit and question, the bitmap, its units, the flush
    assert all(client.ttl(each) > 0 for each in keys)


@pytest.mark.parametrize("replaces", ["1", ""])
def test_judgements_of_one_call_are_one(exposure, client, metrics, replaces):
    assert judge(client, exposure(), "a", 1_000_000, replaces) == b"new"
    assert judge(client, exposure(), "a", 1_000_000, replaces) == b"same"
    assert judge(client, exposure(), "a", 250_000, replaces) == (b"replaced" if replaces else b"kept")
    assert judge(client, exposure(), "b", 0, replaces) == b"new"
    mature = TODAY + 4
    left = 1 + 4 * (0.25 if replaces else 1.0)
    assert metrics("feedback.stars", today=mature) == [{5: (2, 1 + left)}, {9: (2, 1 + left)}]


def test_a_judgement_counts_once_its_day_is_mature(exposure, client, metrics):
    judge(client, exposure())
    assert metrics("feedback.stars", today=TODAY + 3)[0] == {}
    assert metrics("feedback.stars", today=TODAY + 4)[0] == {5: (1, 3.0)}


def test_the_response_rate_has_every_exposure_below_it(exposure, client, metrics):
    process_tally().count(exposure(), "an answer", 0.1, is_slow=False)
    process_tally().count(exposure(unit=6), "an answer", 0.1, is_slow=False)
    process_tally().flush()
    judge(client, exposure())
    assert metrics("response.stars", today=TODAY + 4) == [{5: (1, 1), 6: (1, 0)}, {9: (2, 1)}]


def test_of_a_flush_whose_reply_is_lost_nothing_is_counted_twice(configure, settings_file, fresh_redis_server):
    server = fresh_redis_server()
    settings = settings_file({**with_experiment(), "redis_timeout_seconds": 1.5}, challenger=0.5)
    program = configure(settings, redis_url=server.url).programs["qa"]
    state, table = administration.start(program), administration.plan_of(program).table
    tally = process_tally()
    server.process.stop()  # before its thread can send
    tally.count(Exposure("qa", state.epoch, "control", 5, 9, 77, TODAY), "an answer", 0.1, is_slow=False)
    with pytest.raises(redis.RedisError):
        tally.flush()
    server.process.cont()  # runs what was sent to it
    tally.flush()
    assert read_sums(state, table, today=TODAY)["control"].metrics["call.hit"].rows.rows == 1


def test_sums_of_another_type_are_named_and_are_no_arm_without_calls(started, client):
    state, table = started
    name = experiment_sums_key("qa", state.epoch) + "challenger:answers:q"
    client.rpush(name, "a stranger's list")
    with pytest.raises(DamagedKey, match=f"WRONGTYPE {name} is a list"):
        read_sums(state, table, today=TODAY)
