"""An experiment over a cluster: its state in the slot of the fleet, a copy in each spine's, and sums over all."""

import time

import pytest

from dspyq import predict
from dspyq.celery_app.application import process_app
from dspyq.config.settings import get_settings
from dspyq.core.days import day_at
from dspyq.core.runtime import DEFAULT
from dspyq.experiments import administration
from dspyq.experiments.placement import place
from dspyq.experiments.sums_reader import read_sums
from dspyq.store.clients import jobs_client, money_client
from dspyq.store.keys import experiment_state_key
from dspyq.store.spines import each_spine
from dspyq.worker.refereeing import Refereeing
from tests.cluster.conftest import SPINES
from tests.support.configuration import API_KEY, API_KEY_VARIABLE
from tests.support.experiments import with_experiment

pytestmark = pytest.mark.journey

UNITS = [f"user {number}" for number in range(6)]


def versions():
    return [jobs_client().hget(experiment_state_key("qa"), "version") for _ in each_spine()]


def test_units_and_calls_are_counted_once_and_changes_reach_every_slot(
    cluster_worker, cluster_env, settings_file, monkeypatch
):
    path = settings_file(with_experiment(), challenger=0.5)
    for name, value in {**cluster_env, API_KEY_VARIABLE: API_KEY, "DSPYQ_CONFIG": str(path)}.items():
        monkeypatch.setenv(name, value)
    with DEFAULT.emptied():
        process_app()
        cluster_worker(path)
        state = administration.start(get_settings().programs["qa"])
        for number in range(8):
            asked = [predict.apply_async(kwargs={"question": f"asked {number}"}, unit=unit) for unit in UNITS]
            assert all(each.get(timeout=60) for each in asked)
        table = administration.read_plan("qa").table
        for arm, reading in read_sums(state, table, today=day_at(time.time())).items():
            own = [unit for unit in UNITS if place(state.placing, unit).variant == arm]
            assert reading.units == len(own)
        administration.kill("qa", "challenger")
        assert versions() == [b"2"] * SPINES
        lose_a_copy()
        Refereeing(get_settings(), money_client(), "referee").look()
        assert versions() == [b"2"] * SPINES


def lose_a_copy():
    for spine in each_spine():
        if spine.number == 0:
            jobs_client().delete(experiment_state_key("qa"))
