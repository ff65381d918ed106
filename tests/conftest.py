"""Fixtures of all tests: the model endpoint, Redis, configurations, workers and producers, all as real processes.

The endpoint and one Redis are started once for the run, when a test first asks for them, and emptied for each test.

In-process tests ask for ``configured`` or ``predict``: this process then has the default configuration and that Redis,
with an application, connections and caches that end with the test; nothing is patched. For another configuration ask
for ``configure``, which takes a file from ``settings_file``. What is killed, frozen or counted runs where it would in
production, in processes of its own: ``worker(settings)`` and ``run_producer(code, settings)``. ``DSPYQ_...`` variables
of whoever runs the tests are dropped, and set only while a test uses one of these.

A test that fails shows the end of the output of every process it had.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import logging
import os
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis
from pytest_celery import CeleryBackendCluster, CeleryBrokerCluster, CeleryTestWorker, CeleryWorkerCluster

from dspyq.cache.memory import CoherentCache, process_cache
from dspyq.celery_app.application import process_app
from dspyq.config.secrets import process_secrets
from dspyq.config.settings import Settings, get_settings
from dspyq.core.runtime import DEFAULT
from tests.support.cluster import RedisCluster
from tests.support.configuration import (
    API_KEY,
    API_KEY_VARIABLE,
    default_document,
    environment,
    merged,
    with_challenger,
    write_settings,
)
from tests.support.endpoint import Endpoint
from tests.support.nodes import LocalBackend, LocalBroker, has_docker, redis_urls
from tests.support.nursery import run_fork, running_nursery, shared_nursery
from tests.support.processes import LocalProcess, wait_until
from tests.support.producer_process import Producer
from tests.support.redis_server import RedisServer
from tests.support.worker import Worker

# Time decides no test: a busy machine must not fail a property.
hypothesis.settings.register_profile("dspyq", deadline=None, print_blob=True)
hypothesis.settings.load_profile("dspyq")

_LOG_TAIL_CHARACTERS = 6_000

for _name in [name for name in os.environ if name.startswith("DSPYQ_")]:
    del os.environ[_name]


#: Files are given out in this order, so that those that take long do not come last and alone.
_LONGEST_FIRST = (
    "processes/test_workers", "lane/", "chaos/", "serve/test_attacks", "properties/", "spines/", "stack/test_demo",
    "faults/test_guards", "stack/test_up", "batch/test_odd_files", "cli/test_every_command", "fleet/",
    "deploy/test_containers", "cli/test_batch_commands", "faults/", "benchmarks/", "cache/", "programs/test_prices",
    "docs/test_tutorial", "testing/", "e2e/", "cli/", "delivery/", "application/", "deploy/", "batch/", "client/",
    "celery_app/", "guards/", "serve/", "experiments/", "sealing/", "streaming/", "worker/",
)  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Have the processes of a run share what starts workers and commands: it imports DSPy, which takes seconds."""
    if _leaves_tests_to_others(config):
        stack = ExitStack()
        stack.enter_context(shared_nursery())
        config.add_cleanup(stack.close)


def _leaves_tests_to_others(config: pytest.Config) -> bool:
    """Return True in the process of a run that starts the others of pytest-xdist."""
    return bool(getattr(config.option, "tx", None)) and not hasattr(config, "workerinput")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Import the tests without looks for garbage, of which imports leave little, and leave them out of later looks."""
    gc.disable()
    try:
        is_whole = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
        if is_whole and not _leaves_tests_to_others(session.config):
            _import_from_a_short_stack("dspy")  # as many tests do
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def _import_from_a_short_stack(name: str) -> None:
    """Import a module that looks at the whole stack, below which pytest has more frames than the module has lines."""
    thread = threading.Thread(target=importlib.import_module, args=(name,))
    thread.start()
    thread.join()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files."""

    def turn(item: pytest.Item) -> int:
        path = item.path.as_posix()
        places = (place for place, part in enumerate(_LONGEST_FIRST) if f"tests/{part}" in path)
        return next(places, len(_LONGEST_FIRST))

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the output of every process that still lives when a test fails."""
    report = yield
    if report.failed and report.when != "teardown":
        for process in LocalProcess.alive():
            report.sections.append((f"output of {process.name}", process.logs()[-_LOG_TAIL_CHARACTERS:]))
    return report


@pytest.fixture(scope="session")
def session_endpoint() -> Iterator[Endpoint]:
    """The endpoint's process; tests ask for ``endpoint``."""
    with Endpoint() as running:
        yield running


@pytest.fixture
def endpoint(session_endpoint: Endpoint) -> Iterator[Endpoint]:
    """The model endpoint, without scripts and with its counts at zero."""
    session_endpoint.reset()
    yield session_endpoint
    session_endpoint.reset()  # a held request must not keep a worker from ending


@pytest.fixture(scope="session")
def session_redis_server() -> Iterator[RedisServer]:
    """The Redis process; tests ask for ``redis_server``."""
    with RedisServer() as running:
        yield running
        # This process's producer still listens to it, and would report its end on the terminal.
        logging.getLogger("dspyq").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def session_redis_cluster() -> Iterator[RedisCluster]:
    """The cluster's processes; tests ask for ``redis_cluster``."""
    with RedisCluster(node_timeout_seconds=2.0) as running:
        yield running


@pytest.fixture
def redis_cluster(session_redis_cluster: RedisCluster) -> RedisCluster:
    """Three masters with a replica each, empty; a test may move slots and end nodes."""
    session_redis_cluster.heal()
    session_redis_cluster.flush()
    return session_redis_cluster


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The process that forks workers, producers and command lines, with everything imported, while this run lives."""
    with running_nursery(tmp_path_factory.mktemp("nursery")) as path:
        yield path


@pytest.fixture(scope="session")
def session_shared_workers() -> Iterator[list[Worker]]:
    """The worker that ``shared_worker`` keeps between tests, if there is one now."""
    workers: list[Worker] = []
    yield workers
    _end(workers)


@pytest.fixture
def redis_server(
    request: pytest.FixtureRequest, session_redis_server: RedisServer, session_shared_workers: list[Worker]
) -> RedisServer:
    """An empty Redis. A test that stops it, restarts it or changes its options takes ``fresh_redis_server()``."""
    if "shared_worker" not in request.fixturenames:
        _end(session_shared_workers)
    session_redis_server.flush()
    return session_redis_server


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of that Redis that decodes nothing, as workers have one."""
    with redis_server.client(decode_responses=False) as connected:
        yield connected


@pytest.fixture
def fresh_redis_server() -> Iterator[Callable[..., RedisServer]]:
    """Start a Redis of the test's own; the arguments are those of ``RedisServer``."""
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(RedisServer(**options))


@pytest.fixture
def settings_file(tmp_path: Path, endpoint: Endpoint) -> Callable[..., Path]:
    """Write a configuration file: ``settings_file({"workers": {"concurrency": 2}}, challenger=0.1)``.

    The first argument is merged into the default (``None`` removes a key); ``challenger`` adds a second variant with
    that weight; ``toml`` is written as it is, in place of both.
    """
    numbers = itertools.count(1)

    def write(
        changes: dict[str, Any] | None = None, *, challenger: float | None = None, toml: str | None = None
    ) -> Path:
        path = tmp_path / f"dspyq-{next(numbers)}.toml"
        if toml is not None:
            path.write_text(toml, encoding="utf-8")
            return path
        document = default_document(endpoint.url)
        if challenger is not None:
            document = with_challenger(document, challenger)
        return write_settings(path, merged(document, changes or {}))

    return write


@pytest.fixture(scope="session")
def session_settings_file(session_endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration file of this process, and of workers and producers that are given none."""
    path = tmp_path_factory.mktemp("configuration") / "dspyq.toml"
    return write_settings(path, default_document(session_endpoint.url))


@pytest.fixture
def configure(
    session_settings_file: Path,
    redis_server: RedisServer,
    endpoint: Endpoint,
    own_secrets: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Settings]]:
    """Configure this process, from a file that ``settings_file`` wrote: ``configure(path)``; returns the settings."""
    del endpoint, own_secrets  # started and reset
    monkeypatch.setenv(API_KEY_VARIABLE, API_KEY)
    with ExitStack() as blocks:

        def use(settings: Path | None = None, *, redis_url: str | None = None) -> Settings:
            monkeypatch.setenv("DSPYQ_CONFIG", str(settings or session_settings_file))
            monkeypatch.setenv("DSPYQ_REDIS_URL", redis_url or redis_server.url)
            blocks.enter_context(DEFAULT.emptied())
            process_app()  # with these settings, for tests that use the module's own
            cache = process_cache()
            if isinstance(cache, CoherentCache):
                wait_until(lambda: cache.is_trusted, 60, "the memory cache to hear of invalidations")
            return get_settings()

        yield use


@pytest.fixture
def own_secrets() -> None:
    """Forget the secrets that other tests of this process have brought: text that may begin one of them would wait."""
    process_secrets.cache_clear()


@pytest.fixture
def configured(configure: Callable[..., Settings]) -> Settings:
    """Configure this process, so that ``from dspyq import predict`` works here; the settings."""
    return configure()


@pytest.fixture
def predict(configured: Any) -> Any:
    """``predict``, configured in this process."""
    del configured
    from dspyq import predict

    return predict


@pytest.fixture
def worker(
    session_settings_file: Path, redis_server: RedisServer, endpoint: Endpoint, nursery: Path
) -> Iterator[Callable[..., Worker]]:
    """Start a worker and wait until it is ready: ``worker()``, ``worker(settings_file(...), arguments=["-c", "2"])``.

    Args of the factory: ``settings`` (a path), ``redis_url``, ``env``, ``waits=False`` to start several at once and
    wait for ``ready()`` of each, and those of ``Worker``. They are killed with the test.
    """
    del endpoint, nursery  # must outlive the worker
    workers: list[Worker] = []

    def start(
        settings: Path | None = None, *, redis_url: str | None = None, waits: bool = True, **options: Any
    ) -> Worker:
        env = environment(settings or session_settings_file, redis_url or redis_server.url, options.pop("env", None))
        workers.append(Worker(env, **options))
        if waits:
            workers[-1].ready()
        return workers[-1]

    yield start
    _end(workers)


@pytest.fixture
def shared_worker(
    session_shared_workers: list[Worker],
    session_settings_file: Path,
    redis_server: RedisServer,
    endpoint: Endpoint,
    nursery: Path,
) -> Worker:
    """A worker with this process's configuration, for tests that neither end it nor leave anything running on it.

    Tests that follow each other share it, which saves each a start of seconds. The first that does without ends it,
    so that nobody else's jobs are taken.
    """
    del endpoint, nursery  # reset and started
    if not (session_shared_workers and session_shared_workers[0].is_running):
        _end(session_shared_workers)
        session_shared_workers.append(Worker(environment(session_settings_file, redis_server.url)))
        session_shared_workers[0].ready()
    return session_shared_workers[0]


def _end(workers: list[Worker]) -> None:
    """Kill workers: a warm shutdown would wait for what a test left running."""
    while workers:
        each = workers.pop()
        each.kill()
        each.close()


@pytest.fixture
def start_producer(
    session_settings_file: Path, redis_server: RedisServer, endpoint: Endpoint, nursery: Path
) -> Iterator[Callable[..., Producer]]:
    """Start producer code in a process of its own: ``start_producer(function, settings, env=..., question="...")``.

    The function's source is sent: it imports what it needs, and its arguments and result are JSON. Text is taken for
    a function's body.
    """
    del endpoint, nursery  # started and reset
    with ExitStack() as producers:

        def start(
            code: str | Callable[..., Any],
            settings: Path | None = None,
            *,
            redis_url: str | None = None,
            env: dict[str, str] | None = None,
            **arguments: Any,
        ) -> Producer:
            variables = environment(settings or session_settings_file, redis_url or redis_server.url, env)
            producer = Producer(code, arguments, variables)
            producers.callback(producer.close)
            return producer

        yield start


@pytest.fixture
def run_producer(start_producer: Callable[..., Producer]) -> Callable[..., Any]:
    """Run producer code in a process of its own, as ``start_producer``, and return its result."""

    def run(*arguments: Any, timeout_seconds: float = 60.0, **options: Any) -> Any:
        return start_producer(*arguments, **options).result(timeout_seconds)

    return run


@pytest.fixture
def dspyq(
    session_settings_file: Path, redis_server: RedisServer, endpoint: Endpoint, nursery: Path, tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line, which prints no traceback: ``dspyq("predict", "question=x", ok=True)``."""
    del endpoint, nursery  # started and reset

    def run(
        *arguments: str,
        settings: Path | None = None,
        redis_url: str | None = None,
        env: dict[str, str] | None = None,
        ok: bool | None = True,
        timeout_seconds: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        one = None if "DSPYQ_REDIS_URLS" in (env or {}) else redis_url or redis_server.url
        variables = environment(settings or session_settings_file, one, env)
        variables |= {"COLUMNS": "80", "NO_COLOR": "1"} | (env or {})
        done = run_fork("dspyq", arguments, env=variables, folder=tmp_path, timeout_seconds=timeout_seconds)
        assert "Traceback" not in done.stdout + done.stderr
        assert ok is None or (done.returncode == 0) == ok, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def celery_broker_cluster(request: pytest.FixtureRequest) -> CeleryBrokerCluster:
    """pytest-celery's broker: its Redis container, or the run's own Redis where there is no Docker engine."""
    if has_docker():
        return CeleryBrokerCluster(request.getfixturevalue("celery_redis_broker"))
    return CeleryBrokerCluster(LocalBroker(request.getfixturevalue("redis_server").process))


@pytest.fixture
def celery_backend_cluster(request: pytest.FixtureRequest) -> CeleryBackendCluster:
    """pytest-celery's backend: its Redis container, or the run's own Redis where there is no Docker engine."""
    if has_docker():
        return CeleryBackendCluster(request.getfixturevalue("celery_redis_backend"))
    return CeleryBackendCluster(LocalBackend(request.getfixturevalue("redis_server").process))


@pytest.fixture
def celery_worker_cluster(
    celery_broker_cluster: CeleryBrokerCluster,
    celery_backend_cluster: CeleryBackendCluster,
    celery_setup_app: Any,
    worker: Callable[..., Worker],
) -> CeleryWorkerCluster:
    """pytest-celery's worker: one of dspyq, always a local process, on the setup's broker and backend."""
    urls = redis_urls(celery_broker_cluster[0], celery_backend_cluster[0])
    return CeleryWorkerCluster(CeleryTestWorker(worker(env=urls, mingles=True), celery_setup_app))
