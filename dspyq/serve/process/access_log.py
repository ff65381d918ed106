"""The log of requests: one line for each, written together some times a second, off the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from datetime import UTC, datetime

import orjson

from dspyq.core.tolerated import tolerate
from dspyq.serve.exchange import Exchange

_FLUSH_SECONDS = 0.1
#: Lines kept while the reader of the log is slow; further ones are dropped and counted.
_MOST_LINES = 10_000


class AccessLog:
    """Writes a line for each request to the standard error. Its event loop alone calls its methods.

    Of a request's own text, a line holds its method and its ids, which are checked; no path, query, header or body.

    Args:
        for_people: Whether lines are for people, not JSON.
    """

    def __init__(self, *, for_people: bool) -> None:
        self._for_people = for_people
        self._is_on = logging.getLogger("dspyq.access").isEnabledFor(logging.INFO)
        self._lines: list[bytes] = []
        self._writing: asyncio.Future[None] | None = None
        self._is_due = False

    def note(self, exchange: Exchange) -> None:
        """Note a request that was answered."""
        if not self._is_on:
            return
        if len(self._lines) >= _MOST_LINES:
            tolerate("access_log", "lines_dropped")
            return
        duration_ms = round((time.monotonic() - exchange.started_at) * 1000, 3)
        if self._for_people:
            asked = f"{exchange.scope['method']} {exchange.route}"
            self._lines.append(f"{time.strftime('%H:%M:%S')} {asked} {exchange.status} {duration_ms} ms\n".encode())
        else:
            self._lines.append(orjson.dumps(_entry(exchange, duration_ms), option=_OPTIONS))
        if not self._is_due and self._writing is None:
            self._write_later()

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            await self._writing
        _write(b"".join(self._lines))
        self._lines.clear()

    def _write_later(self) -> None:
        self._is_due = True
        asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._is_due = False
        lines, self._lines = self._lines, []
        if lines:
            self._writing = asyncio.get_running_loop().run_in_executor(None, _write, b"".join(lines))
            self._writing.add_done_callback(self._note_written)

    def _note_written(self, _: asyncio.Future[None]) -> None:
        self._writing = None
        if self._lines:
            self._write_later()  # at once, a busy server would hand its lines to a thread one by one


_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


def _entry(exchange: Exchange, duration_ms: float) -> dict[str, object]:
    entry: dict[str, object] = {
        "timestamp": datetime.now(UTC),
        "level": "info",
        "logger": "dspyq.access",
        "event": "request",
        "method": exchange.scope["method"],
        "route": exchange.route,
        "status": exchange.status,
        "duration_ms": duration_ms,
        "bytes": exchange.sent_bytes,
        "request_id": exchange.request_id,
    }
    if exchange.caller is not None and exchange.caller.key_id:
        entry["key"] = exchange.caller.key_id
    if exchange.prediction:
        entry["prediction"] = exchange.prediction
    if exchange.cache_level:
        entry["cache_level"] = exchange.cache_level
    return entry


def _write(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(sys.stderr.fileno(), data) :]
    except OSError as error:  # its reader is gone; requests are answered all the same
        tolerate("access_log", error)
