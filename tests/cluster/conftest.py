"""Workers and producers over a cluster: three masters, their replicas, and six spines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dspyq.celery_app.application import process_app
from dspyq.config.settings import Settings, get_settings
from dspyq.core.runtime import DEFAULT
from tests.support.cluster import RedisCluster
from tests.support.configuration import API_KEY, API_KEY_VARIABLE, environment
from tests.support.worker import Worker

SPINES = 6


@pytest.fixture
def cluster_env(redis_cluster: RedisCluster) -> dict[str, str]:
    """The variables that name the cluster."""
    return {"DSPYQ_REDIS_URL": redis_cluster.url_of(SPINES)}


@pytest.fixture
def configured_cluster(
    cluster_env: dict[str, str], session_settings_file: Path, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """This process, configured over the cluster."""
    del endpoint
    monkeypatch.setenv(API_KEY_VARIABLE, API_KEY)
    monkeypatch.setenv("DSPYQ_CONFIG", str(session_settings_file))
    for name, value in cluster_env.items():
        monkeypatch.setenv(name, value)
    with DEFAULT.emptied():
        process_app()
        yield get_settings()


@pytest.fixture
def cluster_worker(
    cluster_env: dict[str, str], session_settings_file: Path, endpoint: Any, nursery: Path
) -> Iterator[Callable[..., Worker]]:
    """Start a worker over the cluster: ``cluster_worker(env={...})``."""
    del endpoint, nursery
    with ExitStack() as workers:

        def start(settings: Path | None = None, *, env: dict[str, str] | None = None, **options: Any) -> Worker:
            variables = environment(settings or session_settings_file, None, cluster_env | (env or {}))
            worker = Worker(variables, **options)
            workers.callback(worker.close)
            workers.callback(worker.kill)
            worker.ready()
            return worker

        yield start
