"""Gemini's batches: a file of requests by a resumable upload, an operation, and a file of responses.

Sources: https://ai.google.dev/gemini-api/docs/batch-api, https://ai.google.dev/gemini-api/docs/files and
https://ai.google.dev/api/batch-mode; the names of states as DSPy's lm15 saw them on the wire (``BATCH_STATE_...``), and
as the pages have them (``JOB_STATE_...``). Files expire by themselves after 48 hours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from dspyq.lane.providers.errors import CreationUnknown, ReplyUnusable
from dspyq.lane.providers.http import ProviderHttp, StreamedBody, showable
from dspyq.lane.providers.protocol import (
    BatchFault,
    BatchState,
    RemoteBatch,
    RemoteFile,
    RemoteLine,
    ShipmentLimits,
    ShipmentLine,
)
from dspyq.lane.providers.results import oldest_first, read_count, read_gemini_line, read_json, read_time
from dspyq.lane.providers.spool import spooled

_TYPE = "application/jsonl"
_PAGE = 100
_MOST_PAGES = 1000
_CLOCK_SECONDS = 600.0
#: google.rpc.Code.RESOURCE_EXHAUSTED.
_EXHAUSTED = 8
_STATES = {
    "PENDING": BatchState.VALIDATING,
    "UNSPECIFIED": BatchState.VALIDATING,
    "RUNNING": BatchState.RUNNING,
    "CANCELLING": BatchState.RUNNING,
    "SUCCEEDED": BatchState.ENDED,
    "FAILED": BatchState.FAILED,
    "CANCELLED": BatchState.CANCELLED,
    "EXPIRED": BatchState.EXPIRED,
}


class GeminiBatches:
    """The batch interface of Gemini.

    Args:
        http: HTTP with the access of live calls.
    """

    has_files = True
    has_names = True
    limits = ShipmentLimits(
        lines=50_000,  # none is published; the file may have 2 GB
        size_bytes=2_000_000_000,
        line_overhead_bytes=30,
        window_seconds=48 * 3600.0,
        results_seconds=48 * 3600.0,
    )

    def __init__(self, http: ProviderHttp) -> None:
        self._http = http
        parts = urlsplit(http.access.base_url)
        self._upload_url = f"{parts.scheme}://{parts.netloc}/upload{parts.path}/files"
        self._download_url = f"{parts.scheme}://{parts.netloc}/download{parts.path}"
        self._origin = (parts.scheme, parts.netloc)

    def upload(self, name: str, lines: Iterable[ShipmentLine]) -> str:
        """Upload a file of lines and return its id; see ``BatchProvider.upload``."""
        with spooled(lines, _line) as (file, size_bytes, _):
            start = {
                "x-goog-upload-protocol": "resumable",
                "x-goog-upload-command": "start",
                "x-goog-upload-header-content-length": str(size_bytes),
                "x-goog-upload-header-content-type": _TYPE,
            }
            body = {"file": {"display_name": f"{name}.jsonl"}}
            url = self._http.header_of_post(self._upload_url, body, "x-goog-upload-url", start)
            if urlsplit(url)[:2] != self._origin:  # it would get the key
                raise self._unusable("an upload names no address of the endpoint")
            end = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0", "content-type": _TYPE}
            reply = self._http.post(url, StreamedBody(b"", file, b"", size_bytes), headers=end)
        file_id = _text(_table(reply, "file"), "name")
        if not file_id:
            raise self._unusable("the reply to an upload has no name")
        return file_id

    def create(self, name: str, *, file_id: str = "", lines: Iterable[ShipmentLine] = ()) -> RemoteBatch:
        """Create a batch of an uploaded file; see ``BatchProvider.create``."""
        del lines  # they are in the file
        body = {"batch": {"displayName": name, "inputConfig": {"fileName": file_id}}}
        model = quote(self._http.access.model.removeprefix("models/"), safe="")
        reply = self._http.post(f"/models/{model}:batchGenerateContent", body, creates=True)
        if not _text(reply, "name"):
            raise CreationUnknown(f"{self._http.access.setting}: batch interface: the reply to a creation has no name")
        return _batch(reply)

    def find(self, name: str, since_seconds: float, line_count: int, file_id: str = "") -> list[RemoteBatch]:
        """Return the batches of this name or of this file, the oldest first; see ``BatchProvider.find``."""
        del line_count
        since = since_seconds - _CLOCK_SECONDS
        found = [
            batch
            for batch in map(_batch, self._list("/batches", "operations"))
            if (batch.name == name or (file_id and batch.input_file_id == file_id))
            and batch.created_at_seconds >= since
        ]
        return oldest_first(found)

    def batches_named(self, prefix: str, since_seconds: float) -> Iterator[RemoteBatch]:
        """Yield all batches whose name begins so; see ``BatchProvider.batches_named``."""
        since = since_seconds - _CLOCK_SECONDS
        for batch in map(_batch, self._list("/batches", "operations")):
            if batch.name.startswith(prefix) and batch.created_at_seconds >= since:
                yield batch

    def poll(self, batch_id: str) -> RemoteBatch:
        """Return the state of a batch; see ``BatchProvider.poll``."""
        reply = self._http.get(f"/{_resource(batch_id)}")
        if not _text(reply, "name"):
            raise self._unusable("the reply to a poll has no name")
        return _batch(reply)

    def read_lines(self, batch: RemoteBatch) -> Iterator[RemoteLine]:
        """Yield the responses, inlined ones or those of the file; see ``BatchProvider.read_lines``."""
        for entry in batch.inline_lines:
            yield read_gemini_line(dict(entry), json.dumps(entry).encode())
        if batch.output_file_id:
            url = f"{self._download_url}/{_resource(batch.output_file_id)}:download"
            for line in self._http.lines(url, alt="media"):
                yield read_gemini_line(read_json(line), line)

    def cancel(self, batch_id: str) -> None:
        """Cancel a batch; see ``BatchProvider.cancel``."""
        self._http.cancel(f"/{_resource(batch_id)}:cancel")

    def delete_files(self, batch: RemoteBatch) -> int:
        """Delete the files of a batch; see ``BatchProvider.delete_files``. Inlined responses go with the batch."""
        if batch.inline_lines:
            return int(self._http.delete(f"/{_resource(batch.id)}"))
        return sum(map(self.delete_file, filter(None, (batch.input_file_id, batch.output_file_id))))

    def orphan_files(self, prefix: str) -> list[RemoteFile]:
        """Return files whose name begins so, the oldest first; see ``BatchProvider.orphan_files``."""
        files = [_file(entry) for entry in self._list("/files", "files")]
        return oldest_first([file for file in files if file.name.startswith(prefix)])

    def delete_file(self, file_id: str) -> bool:
        """Delete a file; return False if it was not there."""
        return self._http.delete(f"/{_resource(file_id)}")

    def _list(self, path: str, field: str) -> Iterator[dict[str, Any]]:
        """Yield the entries of a listing, page by page; the order of pages is not stated."""
        query: dict[str, str | int] = {"pageSize": _PAGE}
        for _ in range(_MOST_PAGES):
            page = self._http.get(path, **query)
            listed = page.get(field) if isinstance(page, dict) else None
            yield from (entry for entry in listed or () if isinstance(entry, dict))
            token = _text(page, "nextPageToken")
            if not token or token == query.get("pageToken"):
                return
            query["pageToken"] = token

    def _unusable(self, text: str) -> ReplyUnusable:
        return ReplyUnusable(f"{self._http.access.setting}: batch interface: {text}")


def _line(custom_id: str, body: bytes) -> bytes:
    return b'{"key":"%b","request":%b}' % (custom_id.encode(), body)


def _resource(name: str) -> str:
    """Return the name of a resource, ``batches/x`` or ``files/x``, as a path."""
    return quote(name, safe="/")


def _batch(entry: dict[str, Any]) -> RemoteBatch:
    metadata = _table(entry, "metadata")
    stats = _table(metadata, "batchStats")
    output = _table(entry, "response") or _table(metadata, "output")
    inlined = _table(output, "inlinedResponses").get("inlinedResponses")
    failed = read_count(stats.get("failedRequestCount"))
    return RemoteBatch(
        id=_text(entry, "name"),
        name=_text(metadata, "displayName"),
        state=_state(entry, metadata),
        created_at_seconds=read_time(metadata.get("createTime")) or 0.0,
        total_lines=read_count(stats.get("requestCount")),
        succeeded_lines=read_count(stats.get("successfulRequestCount")),
        failed_lines=failed,
        input_file_id=_text(_table(metadata, "inputConfig"), "fileName"),
        output_file_id=_text(output, "responsesFile"),
        faults=tuple(_faults(_table(entry, "error"))),
        inline_lines=tuple(each for each in inlined or () if isinstance(each, dict)),
    )


def _state(entry: dict[str, Any], metadata: dict[str, Any]) -> BatchState:
    word = _text(metadata, "state").removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
    if word in _STATES:
        return _STATES[word]
    if entry.get("done") is not True:
        return BatchState.RUNNING
    return BatchState.FAILED if entry.get("error") else BatchState.ENDED


def _faults(error: dict[str, Any]) -> Iterator[BatchFault]:
    if error:
        code = error.get("code")
        yield BatchFault("RESOURCE_EXHAUSTED" if code == _EXHAUSTED else showable(error.get("status") or code))


def _file(entry: dict[str, Any]) -> RemoteFile:
    created_at = read_time(entry.get("createTime")) or 0.0
    return RemoteFile(_text(entry, "name"), _text(entry, "displayName"), created_at, read_count(entry.get("sizeBytes")))


def _table(table: object, name: str) -> dict[str, Any]:
    value = table.get(name) if isinstance(table, dict) else None
    return value if isinstance(value, dict) else {}


def _text(table: object, name: str) -> str:
    value = table.get(name) if isinstance(table, dict) else None
    return value if isinstance(value, str) else ""
