"""OpenAI's files and batches, and every ``api_base`` that speaks them: Azure, Groq, Together, LiteLLM before vLLM.

Sources: https://platform.openai.com/docs/api-reference/batch and /files; Azure:
https://learn.microsoft.com/azure/foundry/openai/how-to/batch; Groq: https://console.groq.com/docs/batch; Together:
https://docs.together.ai/reference/batch-create, whose replies lack a name and wrap a created batch in ``job``.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from dspyq.lane.providers.errors import CreationUnknown, ProviderBusy, ReplyUnusable
from dspyq.lane.providers.http import ProviderHttp, StreamedBody, quoted, showable
from dspyq.lane.providers.protocol import (
    BatchFault,
    BatchState,
    RemoteBatch,
    RemoteFile,
    RemoteLine,
    ShipmentLimits,
    ShipmentLine,
)
from dspyq.lane.providers.results import oldest_first, read_count, read_openai_line, read_time
from dspyq.lane.providers.spool import spooled

#: The key of our name in a batch's metadata.
NAME_KEY = "dspyq_shipment"
_ENDPOINT = "/v1/chat/completions"
_WINDOW_SECONDS = 24 * 3600.0
_STATES = {
    "validating": BatchState.VALIDATING,
    "failed": BatchState.FAILED,
    "in_progress": BatchState.RUNNING,
    "finalizing": BatchState.RUNNING,
    "cancelling": BatchState.RUNNING,
    "completed": BatchState.ENDED,
    "expired": BatchState.EXPIRED,
    "cancelled": BatchState.CANCELLED,
}
#: States of a file before it can be used, at Azure. Others have `processed` or `uploaded` for good.
_IMPORTING = frozenset({"pending", "running"})
_MOST_IMPORT_SECONDS = 300.0
_IMPORT_POLL_SECONDS = 0.5
_PAGE = 100
#: A bound of a listing whose provider ignores the cursor.
_MOST_PAGES = 1000
#: What clocks of ours and the provider's may differ by.
_CLOCK_SECONDS = 600.0
#: Files expire after 14 days, the least that Azure takes; OpenAI takes an hour to 30 days. Others refuse the field.
_EXPIRY_SECONDS = 1_209_600
_WITH_EXPIRY = re.compile(r"(?:^|\.)(?:api\.openai\.com|openai\.azure\.com|services\.ai\.azure\.com)$")
_TOGETHER = re.compile(r"(?:^|\.)together\.(?:xyz|ai)$")
_LIMIT_IN_TEXT = re.compile(r"[Ll]imit:?\s+([\d,]+)")
_LIMITS = ShipmentLimits(
    lines=50_000,
    size_bytes=200_000_000,
    line_overhead_bytes=100,
    window_seconds=_WINDOW_SECONDS,
    results_seconds=float(_EXPIRY_SECONDS),
)
#: https://docs.together.ai/docs/batch-inference
_LIMITS_OF_TOGETHER = ShipmentLimits(
    lines=50_000,
    size_bytes=100_000_000,
    line_overhead_bytes=100,
    window_seconds=_WINDOW_SECONDS,
    results_seconds=24 * 3600.0,
)


class OpenAIBatches:
    """The batch interface of OpenAI and its likes.

    Args:
        http: HTTP with the access of live calls.
    """

    has_files = True
    has_names = True

    def __init__(self, http: ProviderHttp) -> None:
        host = urlsplit(http.access.base_url).hostname or ""
        self._http = http
        self._has_expiry = bool(_WITH_EXPIRY.search(host))
        is_together = self._drops_names = bool(_TOGETHER.search(host))
        self._purpose = "batch-api" if is_together else "batch"
        self.limits = _LIMITS_OF_TOGETHER if is_together else _LIMITS

    def upload(self, name: str, lines: Iterable[ShipmentLine]) -> str:
        """Upload a file of lines and return its id; see ``BatchProvider.upload``."""
        with spooled(lines, self._write_line) as (file, size_bytes, _):
            edge = secrets.token_hex(16)
            head = "".join(_field(edge, field, value) for field, value in self._fields().items())
            head += _head_of_file(edge, f"{name}.jsonl")
            body = StreamedBody(head.encode(), file, f"\r\n--{edge}--\r\n".encode(), size_bytes)
            reply = self._http.post("/files", body, headers={"content-type": f"multipart/form-data; boundary={edge}"})
        file_id: str = _text(reply, "id") or self._unusable("an upload")
        self._wait_until_processed(file_id, reply)
        return file_id

    def create(self, name: str, *, file_id: str = "", lines: Iterable[ShipmentLine] = ()) -> RemoteBatch:
        """Create a batch of an uploaded file; see ``BatchProvider.create``."""
        del lines  # they are in the file
        body: dict[str, Any] = {
            "input_file_id": file_id,
            "endpoint": _ENDPOINT,
            "completion_window": "24h",
            "metadata": {NAME_KEY: name},
        }
        if self._has_expiry:
            body["output_expires_after"] = {"anchor": "created_at", "seconds": _EXPIRY_SECONDS}
        reply = self._http.post("/batches", body, creates=True)
        created = reply.get("job", reply) if isinstance(reply, dict) else reply
        if not _text(created, "id"):
            raise CreationUnknown(f"{self._http.access.setting}: batch interface: the reply to a creation has no id")
        return _batch(created)

    def find(self, name: str, since_seconds: float, line_count: int, file_id: str = "") -> list[RemoteBatch]:
        """Return the batches of this name or of this file, the oldest first; see ``BatchProvider.find``."""
        del line_count
        found = [
            batch
            for batch in map(_batch, self._list("/batches", since_seconds - _CLOCK_SECONDS))
            if batch.name == name or (file_id and batch.input_file_id == file_id)
        ]
        return oldest_first(found)

    def batches_named(self, prefix: str, since_seconds: float) -> Iterator[RemoteBatch]:
        """Yield all batches whose name begins so; see ``BatchProvider.batches_named``."""
        since = since_seconds - _CLOCK_SECONDS
        for batch in map(_batch, self._list("/batches", since)):
            is_ours = batch.name.startswith(prefix) or (self._drops_names and not batch.name)
            if is_ours and batch.created_at_seconds >= since:
                yield batch

    def poll(self, batch_id: str) -> RemoteBatch:
        """Return the state of a batch; see ``BatchProvider.poll``."""
        reply = self._http.get(f"/batches/{quoted(batch_id)}")
        if not _text(reply, "id"):
            self._unusable("a poll")
        return _batch(reply)

    def read_lines(self, batch: RemoteBatch) -> Iterator[RemoteLine]:
        """Yield the lines of the output file, then those of the error file; see ``BatchProvider.read_lines``."""
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            yield from map(read_openai_line, self._http.lines(f"/files/{quoted(file_id)}/content"))

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch; see ``BatchProvider.cancel``."""
        self._http.cancel(f"/batches/{quoted(batch_id)}/cancel")

    def delete_files(self, batch: RemoteBatch) -> int:
        """Delete the files of a batch; see ``BatchProvider.delete_files``."""
        files = filter(None, (batch.input_file_id, batch.output_file_id, batch.error_file_id))
        return sum(map(self.delete_file, files))

    def orphan_files(self, prefix: str) -> list[RemoteFile]:
        """Return files whose name begins so, the oldest first; see ``BatchProvider.orphan_files``."""
        files = [_file(entry) for entry in self._list("/files", None, purpose=self._purpose)]
        return oldest_first([file for file in files if file.name.startswith(prefix)])

    def delete_file(self, file_id: str) -> bool:
        """Delete a file; return False if it was not there."""
        return self._http.delete(f"/files/{quoted(file_id)}")

    def _write_line(self, custom_id: str, body: bytes) -> bytes:
        head = b'{"custom_id":"%b","method":"POST","url":"%b","body":' % (custom_id.encode(), _ENDPOINT.encode())
        return b"%b%b}" % (head, body)

    def _fields(self) -> dict[str, str]:
        expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(_EXPIRY_SECONDS)}
        return {"purpose": self._purpose} | (expiry if self._has_expiry else {})

    def _wait_until_processed(self, file_id: str, stated: Any) -> None:
        """Wait for a file that is still imported, as Azure's are: a batch of it would be refused for good.

        Raises:
            ProviderBusy: If it takes too long.
        """
        deadline = time.monotonic() + _MOST_IMPORT_SECONDS
        while _text(stated, "status").lower() in _IMPORTING:
            if time.monotonic() > deadline:
                text = f"{self._http.access.setting}: batch interface: an uploaded file is still not processed"
                raise ProviderBusy(text)
            time.sleep(_IMPORT_POLL_SECONDS)
            stated = self._http.get(f"/files/{quoted(file_id)}")

    def _list(self, path: str, since_seconds: float | None, **query: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a listing, the newest first, page by page, down to a time."""
        seen: set[str] = set()
        for _ in range(_MOST_PAGES):
            page = self._http.get(path, limit=_PAGE, **query)
            listed = page.get("data") if isinstance(page, dict) else page  # Together's is a bare list
            entries = [entry for entry in listed or () if isinstance(entry, dict) and _text(entry, "id") not in seen]
            yield from entries
            has_more = isinstance(page, dict) and page.get("has_more") is True
            if not entries or not has_more:
                return
            oldest = min(read_time(entry.get("created_at")) or 0.0 for entry in entries)
            if since_seconds is not None and oldest < since_seconds:
                return
            seen |= {_text(entry, "id") for entry in entries}
            query["after"] = _text(entries[-1], "id")

    def _unusable(self, what: str) -> Any:
        raise ReplyUnusable(f"{self._http.access.setting}: batch interface: the reply to {what} has no id")


def _field(edge: str, name: str, value: str) -> str:
    return f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'


def _head_of_file(edge: str, filename: str) -> str:
    disposition = f'Content-Disposition: form-data; name="file"; filename="{filename}"'
    return f"--{edge}\r\n{disposition}\r\nContent-Type: application/jsonl\r\n\r\n"


def _batch(entry: dict[str, Any]) -> RemoteBatch:
    counts = entry.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    metadata = entry.get("metadata")
    return RemoteBatch(
        id=_text(entry, "id"),
        name=_text(metadata, NAME_KEY) if isinstance(metadata, dict) else "",
        # A word of a later version: more may come of it.
        state=_STATES.get(_text(entry, "status").lower(), BatchState.RUNNING),
        created_at_seconds=read_time(entry.get("created_at")) or 0.0,
        expires_at_seconds=read_time(entry.get("expires_at") or entry.get("job_deadline")),
        total_lines=read_count(counts.get("total")),
        succeeded_lines=read_count(counts.get("completed")),
        failed_lines=read_count(counts.get("failed")),
        input_file_id=_text(entry, "input_file_id"),
        output_file_id=_text(entry, "output_file_id"),
        error_file_id=_text(entry, "error_file_id"),
        faults=tuple(_faults(entry.get("errors"))),
    )


def _faults(errors: object) -> Iterator[BatchFault]:
    listed = errors.get("data") if isinstance(errors, dict) else errors
    for error in listed if isinstance(listed, list) else ():
        if isinstance(error, dict):
            line = error.get("line")
            limit = _LIMIT_IN_TEXT.search(str(error.get("message") or ""))
            yield BatchFault(
                code=showable(error.get("code")),
                line=line if isinstance(line, int) and not isinstance(line, bool) else None,
                limit_tokens=int(limit[1].replace(",", "")) if limit and limit[1].strip(",") else None,
            )


def _file(entry: dict[str, Any]) -> RemoteFile:
    created_at = read_time(entry.get("created_at")) or 0.0
    return RemoteFile(_text(entry, "id"), _text(entry, "filename"), created_at, read_count(entry.get("bytes")))


def _text(table: object, name: str) -> str:
    value = table.get(name) if isinstance(table, dict) else None
    return value if isinstance(value, str) else ""
