"""The fleet's metrics, envelopes and a tenant's traces over several spines: one sum of all."""

import json

import pytest

from dspyq.client.predict import process_predict
from dspyq.config.settings import get_settings
from dspyq.sealing.keyring import new_key_line
from dspyq.worker.monitoring.fleet import Fleet, FleetCollector
from tests.support.spine_questions import some_of_each

pytestmark = [pytest.mark.usefixtures("configured_spines"), pytest.mark.journey]

COUNT = 12
#: Metrics that are added up over the spines.
SUMMED = {"dspy_queue_jobs", "dspy_dead_jobs", "dspy_variant_answers", "dspy_cache_misses", "dspy_lane_lines"}


@pytest.fixture
def rows(configured_spines):
    del configured_spines
    return [{"question": each} for each in some_of_each("question", COUNT)]


def samples_of(collector):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for metric in collector.collect()
        for sample in metric.samples
    }


def test_metrics_are_summed_and_name_a_spine_that_is_away(rows, spines):
    process_predict().many(rows)
    for server in spines.servers:
        server.client().sadd("dspy:v1:lanes", "control")
        server.client().hset("dspy:v1:lane:control:lines", "a", "{}")
    collector = FleetCollector(get_settings(), Fleet(get_settings(), {}))
    found = samples_of(collector)
    assert found["dspy_queue_jobs", "qa.control", "waiting"] == COUNT
    assert found["dspy_cache_misses_total", "control"] == COUNT
    assert found["dspy_lane_lines", "control", "shipped"] == len(spines.servers)
    assert [value for (name, *_), value in found.items() if name == "dspy_spine_up"] == [1, 1, 1]
    assert all(spines.keys("dspy:v1:job:*"))
    spines.servers[2].process.kill()
    metrics = list(collector.collect())
    names = {metric.name for metric in metrics}
    assert not names & SUMMED
    assert {"dspy_budget_spent_usd", "dspy_batches_ended"} <= names
    (up,) = [metric for metric in metrics if metric.name == "dspy_spine_up"]
    assert sorted(sample.value for sample in up.samples) == [0, 1, 1]
    spines.servers[2].restart()
    assert samples_of(collector)["dspy_queue_jobs", "qa.control", "waiting"] == COUNT


def test_what_is_stored_of_a_tenant_is_forgotten_on_each_spine(rows, spine_worker, spine_command, spines):
    spine_worker()
    [handle.get(timeout=30) for handle in process_predict().many(rows, tenant="acme")]
    others = [handle.get(timeout=30) for handle in process_predict().many(rows, tenant="other")]
    removed = json.loads(spine_command("forget", "--tenant", "acme", "--yes", "--json").stdout)
    assert removed["answers"] == COUNT == len(others)
    assert all(keys for keys in spines.keys("dspy:v1:prediction:*"))
    left = [handle.get(timeout=30) for handle in process_predict().many(rows, tenant="other")]
    assert all(each.metadata.cached for each in left)
    costs = json.loads(spine_command("costs", "--by", "tenant", "--json").stdout)["costs"]
    assert {line["tenant"]: line["calls"] for line in costs} == {"acme": COUNT, "other": COUNT}


def test_envelopes_of_all_spines_and_of_money_are_counted_and_a_unit_is_forgotten_on_all(
    configure_spines, settings_file, spine_command, tmp_path
):
    keys = tmp_path / "keys"
    keys.write_text(f"{new_key_line('seal')}\n{new_key_line('index')}\n", encoding="utf-8")
    keys.chmod(0o600)
    path = settings_file(
        {"encryption": {"keys_file": str(keys), "index_units": True}, "programs": {"qa": {"encrypt": True}}}
    )
    configure_spines(path)
    rows = [{"question": each} for each in some_of_each("question", COUNT, unit="one")]
    process_predict().many(rows, tenant="acme")
    process_predict().many(rows, unit="one")
    found = json.loads(spine_command("encryption", "status", "--json", settings=path).stdout)
    (key,) = found["keys"]
    # The tenant's own key is sealed too, at the Redis of money.
    assert (key["envelopes"], found["tenants"], found["plain"]) == (COUNT + 1, COUNT, 0)
    forgotten = json.loads(spine_command("forget", "--unit", "one", "--yes", "--json", settings=path).stdout)
    assert forgotten["answers"] == COUNT
    assert f"unfinished jobs: {COUNT}" in forgotten["not_reached"][0]
