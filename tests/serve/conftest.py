"""Servers as real processes, on the run's Redis, with its worker where a test asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.configuration import environment
from tests.support.door import Door
from tests.support.endpoint import Endpoint
from tests.support.redis_server import RedisServer


@pytest.fixture
def door(
    session_settings_file: Path, redis_server: RedisServer, endpoint: Endpoint, nursery: Path
) -> Iterator[Callable[..., Door]]:
    """Start a server and wait until it is ready: ``door()``, ``door(settings_file({"serve": {...}}))``.

    It drains for no time unless its settings state one, so that tests end quickly.
    """
    del endpoint, nursery  # must outlive the server
    with ExitStack() as doors:

        def start(
            settings: Path | None = None,
            *,
            arguments: tuple[str, ...] = (),
            redis_url: str | None = None,
            env: dict[str, str] | None = None,
            waits: bool = True,
        ) -> Door:
            variables = {"DSPYQ_SERVE__DRAIN_SECONDS": "0", **(env or {})}
            started = Door(
                environment(settings or session_settings_file, redis_url or redis_server.url, variables), arguments
            )
            doors.callback(started.close)
            if waits:
                started.ready()
            return started

        yield start


@pytest.fixture(scope="session")
def session_doors() -> Iterator[list[Door]]:
    """The server that ``shared_door`` keeps between tests, if there is one now."""
    doors: list[Door] = []
    yield doors
    for each in doors:
        each.close()


@pytest.fixture
def shared_door(
    session_doors: list[Door],
    session_settings_file: Path,
    redis_server: RedisServer,
    endpoint: Endpoint,
    nursery: Path,
) -> Door:
    """A server with the default configuration, for tests that neither end it nor ask what another test asks."""
    del endpoint, nursery  # reset and started
    if not (session_doors and session_doors[0].is_running):
        while session_doors:
            session_doors.pop().close()
        variables = {"DSPYQ_SERVE__DRAIN_SECONDS": "0"}
        session_doors.append(Door(environment(session_settings_file, redis_server.url, variables)))
        session_doors[0].ready()
    return session_doors[0]
