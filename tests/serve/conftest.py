"""Servers as real processes, on the run's Redis, with its worker where a test asks for one."""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.configuration import environment
from tests.support.endpoint import Endpoint
from tests.support.processes import LocalProcess, free_port
from tests.support.redis_server import RedisServer

_numbers = itertools.count(1)
#: The client waits longer than any server of these tests does.
_CLIENT_SECONDS = 60.0


class Door(LocalProcess):
    """A ``dspyq serve`` process.

    Attributes:
        url: The root of its API.
        metrics_url: The root of its metrics and probes.
        api: A client of the API.
    """

    def __init__(self, env: dict[str, str], arguments: tuple[str, ...] = ()) -> None:
        first = free_port(8)
        env = {"DSPYQ_SERVE__METRICS_PORT": str(first + 1), **env}
        self.port = first
        command = [sys.executable, "-m", "dspyq", "serve", "--port", str(first), *arguments]
        super().__init__(f"door{next(_numbers)}", command, ready_line="server_ready", env=env, module="dspyq")
        self.url = f"http://127.0.0.1:{first}"
        self.metrics_url = f"http://127.0.0.1:{env['DSPYQ_SERVE__METRICS_PORT']}"
        self.api = httpx.Client(base_url=self.url, timeout=_CLIENT_SECONDS)

    def ask(self, question: str, program: str = "qa", prefer: str | None = None, **members: Any) -> httpx.Response:
        """Ask a program with one input, ``question``."""
        body = {"inputs": {"question": question}, **members}
        headers = {"Prefer": prefer} if prefer else {}
        return self.api.post(f"/v1/programs/{program}/predictions", json=body, headers=headers)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        page = httpx.get(f"{self.metrics_url}/metrics").text
        samples = re.findall(rf"^{re.escape(name)}(?:{{(.*)}})? (\S+)$", page, re.MULTILINE)
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(float(value) for found, value in samples if all(each in found for each in wanted))

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries of its log."""
        return [json.loads(line) for line in self.logs().splitlines() if line.startswith("{")]

    def close(self) -> None:
        """End it."""
        self.api.close()
        super().close()


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
        ) -> Door:
            variables = {"DSPYQ_SERVE__DRAIN_SECONDS": "0", **(env or {})}
            started = Door(
                environment(settings or session_settings_file, redis_url or redis_server.url, variables), arguments
            )
            doors.callback(started.close)
            started.ready()
            return started

        yield start
