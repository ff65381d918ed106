"""Reads what a process serves for machines: metrics and health."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any
from urllib.parse import urlsplit

from tests.support.processes import LocalProcess

_TIMEOUT_SECONDS = 15.0
#: A sample of the text format: name and labels, value.
_SAMPLE = re.compile(r"^([^#\s]\S*(?:\{.*\})?) (\S+)$", re.MULTILINE)


class Monitor:
    """One process's server.

    Attributes:
        url: Its root.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @classmethod
    def of(cls, worker: LocalProcess) -> Monitor:
        """Return that of a worker, which logs where it is."""
        line = worker.wait_for_line("metrics are served at http://")
        (url,) = re.findall(r"served at (http://\S+)/metrics", line)
        return cls(url)

    def get(self, path: str, *, method: str = "GET", accept: str = "text/plain") -> tuple[int, str]:
        """Return the status and the body of a path."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(method, path, headers={"Accept": accept})
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Return every sample by its name with labels, as Prometheus would read it."""
        status, text = self.get("/metrics")
        assert status == 200, text
        return {name: float(value) for name, value in _SAMPLE.findall(text)}

    def health(self) -> dict[str, Any]:
        """Return the report of ``/health``."""
        report: dict[str, Any] = json.loads(self.get("/health")[1])
        return report
