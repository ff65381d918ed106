"""Three Redis servers that hold questions, and one of money."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dspyq.celery_app.application import process_app
from dspyq.config.settings import Settings, get_settings
from dspyq.core.runtime import DEFAULT
from dspyq.store.spines import process_spines
from tests.support.collector import Collector
from tests.support.configuration import (
    API_KEY,
    API_KEY_VARIABLE,
    default_document,
    environment,
    merged,
    write_settings,
)
from tests.support.door import Door
from tests.support.endpoint import Endpoint
from tests.support.processes import LocalProcess
from tests.support.producer_process import Producer
from tests.support.redis_server import RedisServer
from tests.support.several_servers import lists_of
from tests.support.worker import Worker

SPINES = 3


class SpineServers:
    """The servers.

    Attributes:
        servers: Those of the spines, in the order of the configuration.
        money: That of what the fleet has once.
        env: The variables that name them.
    """

    def __init__(self, folder: Path) -> None:
        self.servers = [RedisServer(append_only_directory=_made(folder / str(number))) for number in range(SPINES)]
        self.money = RedisServer()
        urls = [server.url for server in self.servers]
        self.env = {"DSPYQ_REDIS_URLS": json.dumps(urls), "DSPYQ_MONEY_URL": self.money.url}

    def flush(self) -> None:
        """Empty them."""
        for server in (*self.servers, self.money):
            server.flush()

    def close(self) -> None:
        """End them."""
        for server in (*self.servers, self.money):
            server.close()

    def of(self, name: str) -> RedisServer:
        """Return the server of a question's hash or a task's id; this process must be configured."""
        spines = process_spines()
        assert spines is not None
        return self.servers[spines.of(name).number]

    def keys(self, pattern: str) -> list[list[str]]:
        """Return the keys of each spine."""
        return [server.keys(pattern) for server in self.servers]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def session_spine_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpineServers]:
    """The processes; tests ask for ``spines``."""
    servers = SpineServers(tmp_path_factory.mktemp("spines"))
    yield servers
    servers.close()


@pytest.fixture
def spines(session_spine_servers: SpineServers) -> SpineServers:
    """The servers, empty. Tests that end one begin it again."""
    for server in (*session_spine_servers.servers, session_spine_servers.money):
        if not server.process.is_running:
            server.restart()
    session_spine_servers.flush()
    return session_spine_servers


@pytest.fixture
def two(spines: SpineServers) -> dict[str, str]:
    """The variables of processes with the first two servers."""
    return lists_of(*spines.servers[:2])


@pytest.fixture
def three(spines: SpineServers) -> dict[str, str]:
    """The variables of processes with all servers, the third of them added."""
    return lists_of(*spines.servers, former=spines.servers[:2])


@pytest.fixture
def configure_spines(
    spines: SpineServers,
    session_settings_file: Path,
    endpoint: Any,
    own_secrets: None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Settings]]:
    """Configure this process over all servers."""
    del endpoint, own_secrets
    monkeypatch.setenv(API_KEY_VARIABLE, API_KEY)
    with ExitStack() as blocks:

        def use(settings: Path | None = None, **env: str) -> Settings:
            monkeypatch.setenv("DSPYQ_CONFIG", str(settings or session_settings_file))
            for name, value in (spines.env | env).items():
                monkeypatch.setenv(name, value)
            blocks.enter_context(DEFAULT.emptied())
            process_app()
            return get_settings()

        yield use


@pytest.fixture
def configured_spines(configure_spines: Callable[..., Settings]) -> Settings:
    """This process, configured over all servers."""
    return configure_spines()


@pytest.fixture
def spine_worker(
    spines: SpineServers, session_settings_file: Path, endpoint: Any, nursery: Path
) -> Iterator[Callable[..., Worker]]:
    """Start a worker over all servers: ``spine_worker(settings_file(...), env={...})``."""
    del endpoint, nursery
    workers: list[Worker] = []

    def start(
        settings: Path | None = None, *, env: dict[str, str] | None = None, waits: bool = True, **options: Any
    ) -> Worker:
        variables = environment(settings or session_settings_file, None, spines.env | (env or {}))
        workers.append(Worker(variables, **options))
        if waits:
            workers[-1].ready()
        return workers[-1]

    yield start
    _end(workers)


@pytest.fixture
def spine_producer(spines: SpineServers, session_settings_file: Path, nursery: Path) -> Iterator[Callable[..., Any]]:
    """Start producer code over all servers in a process of its own: ``spine_producer(function, question="x")``."""
    del nursery
    with ExitStack() as producers:

        def start(
            code: Callable[..., Any],
            settings: Path | None = None,
            *,
            env: dict[str, str] | None = None,
            **arguments: Any,
        ) -> Producer:
            variables = environment(settings or session_settings_file, None, spines.env | (env or {}))
            producer = Producer(code, arguments, variables)
            producers.callback(producer.close)
            return producer

        yield start


@pytest.fixture
def spine_door(spines: SpineServers, session_settings_file: Path, nursery: Path) -> Iterator[Callable[..., Door]]:
    """Start an HTTP server over all servers: ``spine_door(settings_file(...), env={...})``."""
    del nursery
    with ExitStack() as doors:

        def start(settings: Path | None = None, *, env: dict[str, str] | None = None) -> Door:
            variables = spines.env | {"DSPYQ_SERVE__DRAIN_SECONDS": "0"} | (env or {})
            started = Door(environment(settings or session_settings_file, None, variables))
            doors.callback(started.close)
            started.ready()
            return started

        yield start


@pytest.fixture
def spine_command(
    dspyq: Callable[..., subprocess.CompletedProcess[str]], spines: SpineServers
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command over all servers, as ``dspyq`` runs it."""

    def run(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        return dspyq(*arguments, env=spines.env | (env or {}), **options)

    return run


def _end(processes: list[Any]) -> None:
    while processes:
        each: LocalProcess = processes.pop()
        each.kill()
        each.close()


class SharedWorker(NamedTuple):
    """A worker over all servers that the tests of a module share.

    Attributes:
        settings: Its configuration.
        worker: The worker.
        collector: What takes its spans.
    """

    settings: Path
    worker: Worker
    collector: Collector


@pytest.fixture(scope="module")
def shared_spine_worker(
    request: pytest.FixtureRequest,
    session_spine_servers: SpineServers,
    session_endpoint: Endpoint,
    tmp_path_factory: pytest.TempPathFactory,
    nursery: Path,
) -> Iterator[SharedWorker]:
    """The worker, with the changes of the configuration that the module states as ``CHANGES``."""
    del nursery
    with Collector() as collector:
        collector.status = 200
        changes = merged(request.module.CHANGES, {"tracing": {"endpoint": collector.url}})
        path = tmp_path_factory.mktemp("shared") / "dspyq.toml"
        settings = write_settings(path, merged(default_document(session_endpoint.url), changes))
        worker = Worker(environment(settings, None, session_spine_servers.env))
        worker.ready()
        yield SharedWorker(settings, worker, collector)
        _end([worker])
