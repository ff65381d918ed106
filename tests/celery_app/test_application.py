"""The Celery application's settings."""

import threading
from collections import defaultdict

import pytest
from celery.app import amqp

from dspyq.celery_app.application import app, process_app
from dspyq.core.runtime import DEFAULT


@pytest.mark.parametrize("name", ["broker_url", "broker_read_url", "broker_write_url", "result_backend"])
def test_a_variable_that_names_another_applications_broker_changes_nothing(name, configured, monkeypatch):
    del configured
    before = getattr(app.conf, name)
    monkeypatch.setenv(f"CELERY_{name.upper()}", "redis://elsewhere:1/1")
    assert getattr(app.conf, name) == before
    assert app.connection_for_write().as_uri() == app.connection_for_read().as_uri() != "redis://elsewhere:1/1"


def test_another_configuration_of_the_process_is_the_applications_too(configured, monkeypatch):
    assert app.conf.broker_url == configured.redis_url  # it has been read
    app.conf.task_soft_time_limit = 7
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://users-own:1/1")
    with DEFAULT.emptied():
        monkeypatch.setenv("DSPYQ_REDIS_URL", "redis://elsewhere:1/1")
        assert process_app() is app
        assert app.conf.broker_url == "redis://elsewhere:1/1"
        assert app.conf.task_soft_time_limit == 7
    assert app.conf.broker_url == configured.redis_url
    app.conf.task_soft_time_limit = None


def test_threads_that_send_first_at_the_same_time_get_the_pool_once_its_limit_is_set(configured, monkeypatch):
    del configured
    is_setting, may_set, seen = threading.Event(), threading.Event(), []

    class Pool:
        def __setattr__(self, name, value):
            is_setting.set()
            assert may_set.wait(10)
            super().__setattr__(name, value)

    monkeypatch.setattr(amqp.pools, "producers", defaultdict(Pool))
    monkeypatch.setattr(app.amqp, "_producer_pool", None)
    threads = [threading.Thread(target=lambda: seen.append(hasattr(app.producer_pool, "limit"))) for _ in range(2)]
    threads[0].start()
    assert is_setting.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    may_set.set()
    for thread in threads:
        thread.join(10)
    assert seen == [True, True]
