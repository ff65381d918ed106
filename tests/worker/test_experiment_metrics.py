"""Prometheus metrics of experiments, from the latest look."""

from __future__ import annotations

import pytest
from prometheus_client.registry import CollectorRegistry

from dspyq.experiments import administration
from dspyq.experiments.referee import Referee
from dspyq.store.keys import experiment_look_key
from dspyq.worker.monitoring.experiments import ExperimentCollector
from tests.support.experiment_traffic import Traffic, bring_pairs
from tests.support.experiments import with_experiment


@pytest.fixture
def settings(configure, settings_file):
    return configure(settings_file(with_experiment(on_breach="pause"), challenger=0.5))


@pytest.fixture
def read(settings):
    """Read a sample as Prometheus would."""
    registry = CollectorRegistry()
    registry.register(ExperimentCollector(settings))
    return lambda name, **labels: registry.get_sample_value(f"dspy_experiment_{name}", {"program": "qa", **labels})


def test_what_a_look_has_found_is_exported(settings, read, client):
    assert read("coverage") is None
    state = administration.start(settings.programs["qa"])
    assert (read("coverage"), read("look_timestamp_seconds")) == (1.0, None)
    Traffic(state, {"control": 0.1, "challenger": 0.5}).bring(4000)
    look = Referee("a worker", clock=lambda: state.started_at + 60).attend_to(state)
    of_metric = {"arm": "challenger", "metric": "call.failed"}
    assert read("state", experiment="first", state="paused") == 1
    assert read("state", experiment="first", state="running") is None
    assert read("coverage") == 0
    assert read("units", arm="control") == look.units["control"]
    assert read("effect", **of_metric) == pytest.approx(0.4, abs=0.05)
    assert read("low", **of_metric) < read("effect", **of_metric) < read("high", **of_metric)
    assert read("evidence", **of_metric) > 1e6
    assert read("harm_evidence", **of_metric) > 100
    assert read("guard_breached", **of_metric) == 1
    assert read("srm_evidence") == pytest.approx(1, abs=1)
    assert read("verdict", arm="challenger", outcome="breach") == 1
    assert read("look_timestamp_seconds") == pytest.approx(state.started_at + 60)
    client.hset(experiment_look_key("qa"), "look", b"{")  # damaged: the scrape goes on without it
    assert read("coverage") is None


def test_shadow_runs_and_their_pairs_are_exported(configure, settings_file):
    shadow = {"variants": ["challenger"], "share": 1, "daily_usd": 1}
    stated = with_experiment(scores={"brief": {"scorer": "quality:is_brief", "low": 0, "high": 2}}, shadow=shadow)
    stated["programs"]["qa"]["scorers"] = ["quality:is_brief"]
    settings = configure(settings_file(stated, challenger=0.5))
    bring_pairs(administration.start(settings.programs["qa"]), "challenger", "brief", 55)
    registry = CollectorRegistry()
    registry.register(ExperimentCollector(settings))

    def read(name, **labels):
        stated = {"program": "qa", "arm": "challenger", **labels}
        return registry.get_sample_value(f"dspy_experiment_shadow_{name}", stated)

    runs = {outcome: read("runs_total", outcome=outcome) for outcome in ("asked", "paired", "failed")}
    assert runs == {"asked": 55, "paired": 55, "failed": 0}
    assert read("pairs", metric="brief") == 55
    assert read("low", metric="brief") < read("difference", metric="brief") < read("high", metric="brief")
    assert read("difference", metric="cost") == pytest.approx(0.002, abs=1e-6)
    assert read("low", metric="time") < read("difference", metric="time") < -0.2
    assert registry.get_sample_value("dspy_experiment_arm_killed", {"program": "qa", "arm": "challenger"}) == 0


def test_a_redis_that_does_not_answer_costs_these_metrics_alone(configure, settings_file, fresh_redis_server):
    server = fresh_redis_server()
    settings = configure(settings_file(with_experiment(), challenger=0.5), redis_url=server.url)
    collector = ExperimentCollector(settings)
    server.process.stop()
    assert list(collector.collect()) == []
    assert collector.failures == 1
    server.process.cont()
