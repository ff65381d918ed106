"""Push of a worker's log to Loki from a thread of its own: a slow or failing Loki blocks no task."""

from __future__ import annotations

import gzip
import http.client
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from dspyq.config.sections import LoggingSection
from dspyq.core.address import read_variable
from dspyq.core.events import Event
from dspyq.core.tolerated import tolerate
from dspyq.worker.logs.render import LogEntry, Render

logger = logging.getLogger(__name__)

_PATH = "/loki/api/v1/push"
#: Most entries that wait to be pushed; further ones are dropped and counted.
CAPACITY = 10_000
_MOST_AT_ONCE = 1_000
_GATHER_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 30.0
_NANOSECONDS = 1_000_000_000
#: Loki's statuses for faulty entries: too long, too old, too many bytes.
_OF_ENTRIES = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY})
#: Enough to find three refused entries in a batch; beyond, a part that is refused is dropped whole.
_MOST_POSTS = 64


class _Value(NamedTuple):
    """An entry in Loki's form.

    Attributes:
        level: Its level, which is a label.
        json: The pair of its time and its line.
    """

    level: str
    json: bytes


class Loki:
    """Pushes entries; any thread may call ``push``.

    Args:
        settings: Address, tenant and credentials.
        render: Function that renders an entry as a line.
        count_dropped: Callback for the number of dropped entries.
        timeout_seconds: Timeout of a request.
        retry_seconds: The wait before the first retry; doubled each time.
    """

    def __init__(
        self,
        settings: LoggingSection,
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
        self._waiting: deque[LogEntry] = deque()
        self._wake = threading.Condition()
        self._is_closing = False
        self._is_refusing = False
        self._thread = threading.Thread(target=self._run, name="dspyq-loki", daemon=True)
        self._thread.start()

    def push(self, entries: Iterable[LogEntry]) -> None:
        """Queue entries, and drop those beyond the queue's room."""
        new = list(entries)
        with self._wake:
            room = max(0, CAPACITY - len(self._waiting))
            self._waiting.extend(new[:room])
            self._wake.notify()
        if dropped := len(new[room:]):
            self._count_dropped(dropped)

    def close(self, timeout_seconds: float) -> None:
        """Push waiting entries once, within the given time."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while batch := self._gather():
            prepared = self._prepare(batch)
            try:
                self._deliver_apart(prepared)
            except Exception as error:  # noqa: BLE001 - a failed batch must not stop the next
                self._count_dropped(len(prepared))
                tolerate("loki_thread", error)

    def _prepare(self, batch: list[LogEntry]) -> list[_Value]:
        """Return the entries in Loki's form; drop, count and log only those that cannot be rendered."""
        prepared = []
        for entry in batch:
            try:
                moment = str(int(entry["timestamp"] * _NANOSECONDS))
                value = orjson.dumps((moment, self._render(entry)))
                prepared.append(_Value(str(entry["level"]), value))
            except Exception as error:  # noqa: BLE001 - one entry must not stop the others
                self._count_dropped(1)
                tolerate("loki_thread", error)
        return prepared

    def _gather(self) -> list[LogEntry]:
        """Wait for entries, and a little longer for others; return none at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._is_closing)
            self._wake.wait_for(lambda: len(self._waiting) >= _MOST_AT_ONCE or self._is_closing, _GATHER_SECONDS)
            return [self._waiting.popleft() for _ in range(min(_MOST_AT_ONCE, len(self._waiting)))]

    def _deliver_apart(self, batch: list[_Value]) -> None:
        """Push a batch; if Loki refuses it for good, push its halves, until each refused entry is alone.

        Loki ignores an entry that it already has, so none is stored twice.
        """
        parts = deque([batch] if batch else [])
        posts = refused = status_refused = 0
        while parts:
            part = parts.popleft()
            status = self._deliver(part)
            posts += 1
            if status in _OF_ENTRIES and len(part) > 1 and posts < _MOST_POSTS:
                middle = len(part) // 2
                parts.extendleft((part[middle:], part[:middle]))
            elif not HTTPStatus.OK <= status < HTTPStatus.BAD_REQUEST:
                refused, status_refused = refused + len(part), status
        if refused:
            self._count_dropped(refused)
        self._report(refused, status_refused)

    def _report(self, refused: int, status: int) -> None:
        """Log the first refusal after a success: this entry goes to Loki too, which may refuse it in turn."""
        if refused and not self._is_refusing and not self._is_closing:
            logger.warning(Event("loki_refused_entries", entries=refused, status=status))
        self._is_refusing = bool(refused)

    def _deliver(self, batch: list[_Value]) -> int:
        """Push a batch until Loki accepts it or refuses it for good; at the end of the process, at most once more.

        Returns:
            The last status; 0 where none came.
        """
        body = gzip.compress(self._body(batch), compresslevel=1)
        seconds = self._retry_seconds
        while not self._is_final(status := self._post(body)) and not self._is_closing:
            with self._wake:
                self._wake.wait_for(lambda: self._is_closing, seconds * random.uniform(0.5, 1))  # noqa: S311 - jitter
            seconds = min(2 * seconds, _LONGEST_RETRY_SECONDS)
        return status

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

    def _body(self, batch: list[_Value]) -> bytes:
        lines: dict[str, list[orjson.Fragment]] = {}
        for level, value in batch:
            lines.setdefault(level, []).append(orjson.Fragment(value))
        return orjson.dumps(
            {
                "streams": [
                    {"stream": {"service": self._service, "level": level}, "values": values}
                    for level, values in lines.items()
                ]
            }
        )


def read_authorization(settings: LoggingSection) -> str | None:
    """Return the header for Loki; None if its variable is not set or not configured.

    Raises:
        ConfigurationError: If HTTP cannot carry it.
    """
    variable = settings.loki_authorization_env
    return None if variable is None else read_variable(variable, "logging.loki_authorization_env")


def _headers(settings: LoggingSection) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    if settings.loki_tenant:
        headers["X-Scope-OrgID"] = settings.loki_tenant
    if settings.loki_authorization_env:
        headers["Authorization"] = read_authorization(settings) or ""
    return headers
