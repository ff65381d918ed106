"""Reachability of the models' endpoints: opens and closes a connection, sends no request and costs nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from dspyq.config.models import Model
from dspyq.core.tolerated import survived

_LOOK_SECONDS = 5.0
_TIMEOUT_SECONDS = 2.0
_MILLISECONDS = 1000
_PORTS = {"http": 80, "https": 443}

HostAndPort = tuple[str, int]


class Endpoints:
    """Watches the endpoints stated in models' tables; a provider's default one is not known here.

    Args:
        models: The models.
    """

    def __init__(self, models: Iterable[Model]) -> None:
        self._addresses = {model.name: _address(model.api_base) for model in models}
        self._latencies: dict[HostAndPort, float | None] = {}

    def start(self) -> None:
        """Measure them every few seconds, in a thread."""
        threading.Thread(target=self._run, name="dspyq-endpoints", daemon=True).start()

    def measure(self) -> None:
        """Connect to each of them once."""
        for address in dict.fromkeys(filter(None, self._addresses.values())):
            self._latencies[address] = _connect(address)

    def check(self) -> dict[str, Any]:
        """Return the latest result: degraded if an endpoint cannot be reached."""
        models: dict[str, str] = {}
        latencies = [latency for latency in list(self._latencies.values()) if latency is not None]
        for name, address in self._addresses.items():
            if address is None or address not in self._latencies:
                models[name] = "unknown"
            else:
                models[name] = "unreachable" if self._latencies[address] is None else "reachable"
        status = "degraded" if "unreachable" in models.values() else "healthy"
        return {"status": status, "latency_ms": max(latencies, default=None), "models": models}

    def _run(self) -> None:
        while True:
            with survived("endpoints_thread"):
                self.measure()
            time.sleep(_LOOK_SECONDS)


def _address(url: str | None) -> HostAndPort | None:
    if url is None:
        return None
    parts = urlsplit(url)
    return (parts.hostname, parts.port or _PORTS[parts.scheme]) if parts.hostname else None


def _connect(address: HostAndPort) -> float | None:
    """Return the milliseconds that connecting took; None if it failed."""
    began_at = time.monotonic()
    try:
        socket.create_connection(address, timeout=_TIMEOUT_SECONDS).close()
    except (OSError, UnicodeError):  # a host name may be none
        return None
    return round((time.monotonic() - began_at) * _MILLISECONDS, 2)
