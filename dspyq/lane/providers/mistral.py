"""Mistral's batch jobs: files as OpenAI's, and jobs of an interface of their own.

Sources: https://docs.mistral.ai/studio-api/batch-processing and https://docs.mistral.ai/api/#tag/batch. A line has a
custom id and a body; the model is the job's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from dspyq.guards.provider_access import ProviderAccess
from dspyq.lane.providers.errors import CreationUnknown
from dspyq.lane.providers.http import ProviderHttp, quoted
from dspyq.lane.providers.openai import NAME_KEY, OpenAIBatches
from dspyq.lane.providers.protocol import BatchFault, BatchState, RemoteBatch, ShipmentLimits, ShipmentLine
from dspyq.lane.providers.results import oldest_first, read_count, read_time

_HOST = re.compile(r"(?:^|\.)mistral\.ai$")
_PATH = "/batch/jobs"
_WINDOW_HOURS = 24
_STATES = {
    "QUEUED": BatchState.VALIDATING,
    "RUNNING": BatchState.RUNNING,
    "CANCELLATION_REQUESTED": BatchState.RUNNING,
    "SUCCESS": BatchState.ENDED,
    "FAILED": BatchState.FAILED,
    "TIMEOUT_EXCEEDED": BatchState.EXPIRED,
    "CANCELLED": BatchState.CANCELLED,
}
_PAGE = 100
_MOST_PAGES = 1000
_CLOCK_SECONDS = 600.0


def is_mistral(access: ProviderAccess) -> bool:
    """Return True if an access is to Mistral's own endpoint."""
    return bool(_HOST.search(urlsplit(access.base_url).hostname or ""))


class MistralBatches(OpenAIBatches):
    """The batch interface of Mistral.

    Args:
        http: HTTP with the access of live calls.
    """

    def __init__(self, http: ProviderHttp) -> None:
        super().__init__(http)
        self.limits = ShipmentLimits(
            lines=1_000_000,
            size_bytes=512_000_000,  # of a file
            line_overhead_bytes=40,
            window_seconds=_WINDOW_HOURS * 3600.0,
            results_seconds=30 * 24 * 3600.0,
        )

    def create(self, name: str, *, file_id: str = "", lines: Iterable[ShipmentLine] = ()) -> RemoteBatch:
        """Create a job of an uploaded file; see ``BatchProvider.create``."""
        del lines  # they are in the file
        body = {
            "input_files": [file_id],
            "endpoint": "/v1/chat/completions",
            "model": self._http.access.model,
            "metadata": {NAME_KEY: name},
            "timeout_hours": _WINDOW_HOURS,
        }
        reply = self._http.post(_PATH, body, creates=True)
        if not _text(reply, "id"):
            raise CreationUnknown(f"{self._http.access.setting}: batch interface: the reply to a creation has no id")
        return _batch(reply)

    def find(self, name: str, since_seconds: float, line_count: int, file_id: str = "") -> list[RemoteBatch]:
        """Return the jobs of this name or of this file, the oldest first; see ``BatchProvider.find``."""
        del line_count
        since = since_seconds - _CLOCK_SECONDS
        return oldest_first(
            [
                batch
                for batch in map(_batch, self._jobs())
                if (batch.name == name or (file_id and batch.input_file_id == file_id))
                and batch.created_at_seconds >= since
            ]
        )

    def batches_named(self, prefix: str, since_seconds: float) -> Iterator[RemoteBatch]:
        """Yield all batches whose name begins so; see ``BatchProvider.batches_named``."""
        since = since_seconds - _CLOCK_SECONDS
        for batch in map(_batch, self._jobs()):
            if batch.name.startswith(prefix) and batch.created_at_seconds >= since:
                yield batch

    def poll(self, batch_id: str) -> RemoteBatch:
        """Return the state of a job; see ``BatchProvider.poll``."""
        reply = self._http.get(f"{_PATH}/{quoted(batch_id)}")
        if not _text(reply, "id"):
            self._unusable("a poll")
        return _batch(reply)

    def cancel(self, batch_id: str) -> None:
        """Cancel a job; see ``BatchProvider.cancel``."""
        self._http.cancel(f"{_PATH}/{quoted(batch_id)}/cancel")

    def _jobs(self) -> Iterator[dict[str, Any]]:
        """Yield jobs page by page; the order of pages is not stated."""
        seen = 0
        for number in range(_MOST_PAGES):
            page = self._http.get(_PATH, page=number, page_size=_PAGE)
            listed = page.get("data") if isinstance(page, dict) else None
            entries = [entry for entry in listed or () if isinstance(entry, dict)]
            yield from entries
            seen += len(entries)
            if not entries or seen >= read_count(page.get("total")):
                return

    def _write_line(self, custom_id: str, body: bytes) -> bytes:
        return b'{"custom_id":"%b","body":%b}' % (custom_id.encode(), body)


def _batch(entry: dict[str, Any]) -> RemoteBatch:
    created_at = read_time(entry.get("created_at")) or 0.0
    files = entry.get("input_files")
    errors = entry.get("errors")
    return RemoteBatch(
        id=_text(entry, "id"),
        name=_text(entry.get("metadata"), NAME_KEY),
        state=_STATES.get(_text(entry, "status"), BatchState.RUNNING),
        created_at_seconds=created_at,
        expires_at_seconds=created_at + _WINDOW_HOURS * 3600.0,
        total_lines=read_count(entry.get("total_requests")),
        succeeded_lines=read_count(entry.get("succeeded_requests")),
        failed_lines=read_count(entry.get("failed_requests")),
        input_file_id=files[0] if isinstance(files, list) and files and isinstance(files[0], str) else "",
        output_file_id=_text(entry, "output_file"),
        error_file_id=_text(entry, "error_file"),
        # Errors are texts with a count, and may quote a line.
        faults=tuple(BatchFault("job_error") for _ in (errors if isinstance(errors, list) else ())),
    )


def _text(table: object, name: str) -> str:
    value = table.get(name) if isinstance(table, dict) else None
    return value if isinstance(value, str) else ""
