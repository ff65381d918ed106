"""Pushes a worker's log to Loki, from a thread of its own: slow, failing or gone, it keeps nobody waiting."""

from __future__ import annotations

import gzip
import http.client
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

import orjson

from dspyq.config.sections import Logging
from dspyq.worker.logs.render import Entry, Render

_PATH = "/loki/api/v1/push"
#: Entries that wait to be pushed; what comes beyond is dropped, and counted.
CAPACITY = 10_000
_MOST_AT_ONCE = 1_000
_GATHER_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0
_NANOSECONDS = 1_000_000_000


class Loki:
    """Pushes entries; any thread may give it some.

    Args:
        settings: Where to, and as whom.
        render: What makes lines of entries.
        count_dropped: Told of entries that were dropped.
        timeout_seconds: How long a request may take.
        retry_seconds: The first wait before another; doubled each time.
    """

    def __init__(
        self,
        settings: Logging,
        render: Render,
        *,
        count_dropped: Callable[[int], None],
        timeout_seconds: float = 5.0,
        retry_seconds: float = 0.5,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds
        self._url = urlsplit(settings.loki_url or "")
        self._service = settings.service_name
        self._headers = _headers(settings)
        self._render = render
        self._count_dropped = count_dropped
        self._waiting: deque[Entry] = deque()
        self._wake = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="dspyq-loki", daemon=True)
        self._thread.start()

    def push(self, entries: Iterable[Entry]) -> None:
        """Take entries, and drop those that find no room."""
        new = list(entries)
        with self._wake:
            room = max(0, CAPACITY - len(self._waiting))
            self._waiting.extend(new[:room])
            self._wake.notify()
        if dropped := len(new[room:]):
            self._count_dropped(dropped)

    def close(self, timeout_seconds: float) -> None:
        """Push what waits, once, so long at most."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while batch := self._gather():
            self._deliver(batch)

    def _gather(self) -> list[Entry]:
        """Wait for entries, and a little longer for others; return none at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._is_closing)
            self._wake.wait_for(lambda: len(self._waiting) >= _MOST_AT_ONCE or self._is_closing, _GATHER_SECONDS)
            return [self._waiting.popleft() for _ in range(min(_MOST_AT_ONCE, len(self._waiting)))]

    def _deliver(self, batch: list[Entry]) -> None:
        """Push a batch until Loki has it or refuses it for good; at the end of the process, once more at most."""
        body = gzip.compress(self._body(batch), compresslevel=1)
        seconds = self._retry_seconds
        while not (is_final := self._is_final(status := self._post(body))) and not self._is_closing:
            with self._wake:
                self._wake.wait_for(lambda: self._is_closing, seconds * random.uniform(0.5, 1))  # noqa: S311 - jitter
            seconds = min(2 * seconds, _LONGEST_RETRY_SECONDS)
        if not is_final or status >= HTTPStatus.BAD_REQUEST:
            self._count_dropped(len(batch))

    @staticmethod
    def _is_final(status: int) -> bool:
        return HTTPStatus.OK <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS

    def _post(self, body: bytes) -> int:
        """Return the status of a request, 0 where none came."""
        scheme = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = scheme(self._url.hostname or "", self._url.port, timeout=self._timeout_seconds)
        try:
            connection.request("POST", self._url.path.rstrip("/") or _PATH, body, self._headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _body(self, batch: list[Entry]) -> bytes:
        lines: dict[str, list[tuple[str, str]]] = {}
        for entry in batch:
            moment = str(int(entry["timestamp"] * _NANOSECONDS))
            lines.setdefault(entry["level"], []).append((moment, self._render(entry)))
        return orjson.dumps(
            {
                "streams": [
                    {"stream": {"service": self._service, "level": level}, "values": values}
                    for level, values in lines.items()
                ]
            }
        )


def _headers(settings: Logging) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    if settings.loki_tenant:
        headers["X-Scope-OrgID"] = settings.loki_tenant
    if settings.loki_authorization_env:
        headers["Authorization"] = os.environ.get(settings.loki_authorization_env, "")
    return headers
