"""The Celery application's settings."""

import pytest

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
