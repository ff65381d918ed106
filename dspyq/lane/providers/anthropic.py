"""Anthropic's Message Batches: one POST with all requests, no file, and no name of ours.

Sources: https://platform.claude.com/docs/en/api/messages/batches and
https://platform.claude.com/docs/en/build-with-claude/batch-processing. Errored, expired and canceled lines are not
billed. Without a name, a batch whose creation was not answered is found by its time and its number of lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dspyq.lane.providers.errors import CreationUnknown, ReplyUnusable
from dspyq.lane.providers.http import ProviderHttp, StreamedBody, quoted
from dspyq.lane.providers.protocol import (
    BatchState,
    RemoteBatch,
    RemoteFile,
    RemoteLine,
    ShipmentLimits,
    ShipmentLine,
)
from dspyq.lane.providers.results import oldest_first, read_anthropic_line, read_count, read_time
from dspyq.lane.providers.spool import spooled

_PATH = "/messages/batches"
_PAGE = 1000
_MOST_PAGES = 100
_CLOCK_SECONDS = 600.0
_OTHER_ENDS = ("errored", "canceled", "expired")


class AnthropicBatches:
    """The batch interface of Anthropic.

    Args:
        http: HTTP with the access of live calls.
    """

    has_files = False
    has_names = False
    limits = ShipmentLimits(
        lines=100_000,
        size_bytes=256_000_000,
        line_overhead_bytes=40,
        window_seconds=24 * 3600.0,
        results_seconds=29 * 24 * 3600.0,
    )

    def __init__(self, http: ProviderHttp) -> None:
        self._http = http

    def upload(self, name: str, lines: Iterable[ShipmentLine]) -> str:
        """Raise ``NotImplementedError``: there are no files; ``create`` sends the lines."""
        raise NotImplementedError(f"{self._http.access.setting}: Anthropic's batches have no files ({name})")

    def create(self, name: str, *, file_id: str = "", lines: Iterable[ShipmentLine] = ()) -> RemoteBatch:
        """Create a batch of these lines; see ``BatchProvider.create``."""
        del name, file_id  # the interface has neither
        with spooled(lines, _line, separator=b",") as (file, size_bytes, _):
            reply = self._http.post(_PATH, StreamedBody(b'{"requests":[', file, b"]}", size_bytes), creates=True)
        if not _text(reply, "id"):
            raise CreationUnknown(f"{self._http.access.setting}: batch interface: the reply to a creation has no id")
        return _batch(reply)

    def find(self, name: str, since_seconds: float, line_count: int, file_id: str = "") -> list[RemoteBatch]:
        """Return the batches created since with so many lines, the oldest first; see ``BatchProvider.find``."""
        del name, file_id
        since = since_seconds - _CLOCK_SECONDS
        found = [
            batch
            for batch in map(_batch, self._list(since))
            if batch.created_at_seconds >= since and batch.total_lines in {line_count, 0}
        ]
        return oldest_first(found)

    def batches_named(self, prefix: str, since_seconds: float) -> Iterator[RemoteBatch]:
        """Yield all batches created since, which carry no names; see ``BatchProvider.batches_named``."""
        del prefix
        since = since_seconds - _CLOCK_SECONDS
        return (batch for batch in map(_batch, self._list(since)) if batch.created_at_seconds >= since)

    def poll(self, batch_id: str) -> RemoteBatch:
        """Return the state of a batch; see ``BatchProvider.poll``."""
        reply = self._http.get(f"{_PATH}/{quoted(batch_id)}")
        if not _text(reply, "id"):
            raise ReplyUnusable(f"{self._http.access.setting}: batch interface: the reply to a poll has no id")
        return _batch(reply)

    def read_lines(self, batch: RemoteBatch) -> Iterator[RemoteLine]:
        """Yield the results; see ``BatchProvider.read_lines``.

        Their address is made of the batch's id: a URL within a reply would get the key.
        """
        yield from map(read_anthropic_line, self._http.lines(f"{_PATH}/{quoted(batch.id)}/results"))

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch; see ``BatchProvider.cancel``."""
        self._http.cancel(f"{_PATH}/{quoted(batch_id)}/cancel")

    def delete_files(self, batch: RemoteBatch) -> int:
        """Delete a batch with its requests and results; see ``BatchProvider.delete_files``."""
        return int(self._http.delete(f"{_PATH}/{quoted(batch.id)}"))

    def orphan_files(self, prefix: str) -> list[RemoteFile]:
        """Return nothing: there are no files."""
        del prefix
        return []

    def delete_file(self, file_id: str) -> bool:
        """Return False: there are no files."""
        del file_id
        return False

    def _list(self, since_seconds: float) -> Iterator[dict[str, Any]]:
        """Yield batches, the newest first, page by page, down to a time."""
        query: dict[str, str | int] = {"limit": _PAGE}
        for _ in range(_MOST_PAGES):
            page = self._http.get(_PATH, **query)
            listed = page.get("data") if isinstance(page, dict) else None
            entries = [entry for entry in listed or () if isinstance(entry, dict)]
            yield from entries
            last = _text(page, "last_id")
            if not entries or page.get("has_more") is not True or not last or query.get("after_id") == last:
                return
            if min(read_time(entry.get("created_at")) or 0.0 for entry in entries) < since_seconds:
                return
            query["after_id"] = last


def _line(custom_id: str, body: bytes) -> bytes:
    return b'{"custom_id":"%b","params":%b}' % (custom_id.encode(), body)


def _batch(entry: dict[str, Any]) -> RemoteBatch:
    counts = entry.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    succeeded = read_count(counts.get("succeeded"))
    others = sum(read_count(counts.get(name)) for name in _OTHER_ENDS)
    return RemoteBatch(
        id=_text(entry, "id"),
        name="",
        state=_state(entry, counts, succeeded),
        created_at_seconds=read_time(entry.get("created_at")) or 0.0,
        expires_at_seconds=read_time(entry.get("expires_at")),
        total_lines=read_count(counts.get("processing")) + succeeded + others,
        succeeded_lines=succeeded,
        failed_lines=others,
        output_file_id="results" if entry.get("results_url") else "",
    )


def _state(entry: dict[str, Any], counts: dict[str, Any], succeeded: int) -> BatchState:
    """Return the state; ``ended`` is the only final one, and the counts show how it ended."""
    if entry.get("processing_status") != "ended":
        return BatchState.RUNNING
    if read_count(counts.get("canceled")):
        return BatchState.CANCELLED
    if read_count(counts.get("expired")) and not succeeded:
        return BatchState.EXPIRED
    return BatchState.ENDED


def _text(table: object, name: str) -> str:
    value = table.get(name) if isinstance(table, dict) else None
    return value if isinstance(value, str) else ""
