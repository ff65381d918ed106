"""pytest-celery's nodes over local processes, and whether its containers can be used instead."""

from __future__ import annotations

import os
import socket

from pytest_celery import CeleryTestBackend, CeleryTestBroker

_DOCKER_SOCKET = "/var/run/docker.sock"
_CONNECT_TIMEOUT_SECONDS = 1.0


def has_docker() -> bool:
    """Return True if a Docker engine answers; ``TEST_DOCKER=1`` or ``0`` decides instead of looking."""
    if forced := os.environ.get("TEST_DOCKER"):
        return forced == "1"
    host = os.environ.get("DOCKER_HOST", f"unix://{_DOCKER_SOCKET}")
    if not host.startswith("unix://"):
        return True  # somebody configured an engine elsewhere
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_TIMEOUT_SECONDS)
        try:
            connection.connect(host.removeprefix("unix://"))
        except OSError:
            return False
        return True


class LocalBroker(CeleryTestBroker):
    """A broker whose process belongs to the test run, not to the node."""

    def teardown(self) -> None:
        """Leave the process to its owner."""


class LocalBackend(CeleryTestBackend):
    """A backend whose process belongs to the test run, not to the node."""

    def teardown(self) -> None:
        """Leave the process to its owner."""


def redis_urls(broker: CeleryTestBroker, backend: CeleryTestBackend) -> dict[str, str]:
    """Return the settings of a dspyq whose jobs and answers live on these nodes."""
    return {"DSPYQ_BROKER_URL": broker.config()["host_url"], "DSPYQ_RESULT_URL": backend.config()["host_url"]}
