"""Gemini's batches and files: resumable uploads, operations, and files of responses that are downloaded.

Follows https://ai.google.dev/gemini-api/docs/batch-api, /files, and https://ai.google.dev/api/batch-mode.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.batch_endpoint.forms import as_rpc_status
from tests.support.batch_endpoint.store import BatchStore, LineResult, StoredBatch, StoredFile, in_results
from tests.support.batch_endpoint.wire import BatchReply, BatchRequest, refusal, refusal_of, reply, stamp

_ROUTE = re.compile(
    r"^/(?P<pre>upload/|download/)?v1beta/(?P<kind>files|batches|models)(?:/(?P<id>[\w.-]+))?(?::(?P<verb>\w+))?$"
)
_STATES = {
    "validating": "PENDING", "in_progress": "RUNNING", "cancelling": "RUNNING", "completed": "SUCCEEDED",
    "failed": "FAILED", "expired": "EXPIRED", "cancelled": "CANCELLED",
}  # fmt: skip


class GeminiRoutes:
    """The routes of one store.

    Args:
        store: The store.
    """

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._uploads: dict[str, str] = {}
        store.write_results["gemini"] = self._write_results

    def answer(self, request: BatchRequest) -> BatchReply | None:  # noqa: PLR0911 - a branch for each route
        """Answer a request; None if the path is another interface's."""
        found = _ROUTE.match(request.path)
        if found is None:
            return None
        if "x-goog-api-key" not in request.headers and "upload_id" not in request.query:
            return refusal("gemini", 401, "x-goog-api-key is required")
        name, verb = f"{found['kind']}/{found['id']}", found["verb"]
        match (request.method, found["pre"], found["kind"], verb):
            case ("POST", "upload/", "files", None):
                return self._upload(request)
            case ("GET", "download/", "files", "download"):
                return self._download(name)
            case ("GET", None, "files", None) if not found["id"]:
                files = [_shown_file(file) for file in reversed(self._store.files.values())]
                return reply(self._page("files", files, request))
            case ("DELETE", None, "files", None):
                return reply({}) if self._store.delete_file(name) else refusal("gemini", 404, "no such file")
            case ("POST", None, "models", "batchGenerateContent"):
                return self._create(request)
            case ("GET", None, "batches", None) if not found["id"]:
                batches = [_shown(batch) for batch in self._store.listed("gemini")]
                return reply(self._page("operations", batches, request))
        return self._answer_batch(request, name, verb)

    def _answer_batch(self, request: BatchRequest, name: str, verb: str | None) -> BatchReply:
        batch = self._store.find(name)
        if batch is None:
            return refusal("gemini", 404, "not found")
        match (request.method, verb):
            case ("GET", None):
                return reply(_shown(batch))
            case ("POST", "cancel"):
                if batch.is_over:
                    return refusal("gemini", 400, "it has ended", "FAILED_PRECONDITION")
                self._store.cancel(batch)
                return reply({})
            case ("DELETE", None):
                batch.is_deleted = True
                return reply({})
        return refusal("gemini", 404, "not found")

    def _upload(self, request: BatchRequest) -> BatchReply:
        command = request.headers.get("x-goog-upload-command", "")
        if command == "start":
            if request.headers.get("x-goog-upload-protocol") != "resumable":
                return refusal("gemini", 400, "another protocol")
            upload_id = f"upload-{len(self._uploads) + 1}"
            self._uploads[upload_id] = json.loads(request.body)["file"]["display_name"]
            url = f"{request.origin}/upload/v1beta/files?upload_id={upload_id}"
            return BatchReply(200, b"", {"x-goog-upload-url": url, "x-goog-upload-status": "active"})
        name = self._uploads.pop(request.query.get("upload_id", ""), None)
        if name is None or command != "upload, finalize" or request.headers.get("x-goog-upload-offset") != "0":
            return refusal("gemini", 400, "no such upload")
        self._store.counts["uploads"] += 1
        return reply({"file": _shown_file(self._store.add_file(name, "batch", request.body, "files/f"))})

    def _download(self, name: str) -> BatchReply:
        file = self._store.files.get(name)
        if file is None:
            return refusal("gemini", 404, "no such file")
        batch = next((each for each in self._store.batches.values() if each.output_file_id == name), None)
        if batch is not None and batch.script.refused_results > 0:
            batch.script.refused_results -= 1
            return refusal("gemini", 503, "not now")
        is_cut = batch is not None and batch.script.cut_results > 0
        if batch is not None and is_cut:
            batch.script.cut_results -= 1
        return BatchReply(200, file.content, fault="cut" if is_cut else "")

    def _create(self, request: BatchRequest) -> BatchReply:
        asked = json.loads(request.body).get("batch") or {}
        source = asked.get("inputConfig") or asked.get("input_config") or {}
        file_id = str(source.get("fileName") or source.get("file_name") or "")
        file = self._store.files.get(file_id)
        inline = (source.get("requests") or {}).get("requests")
        if not asked.get("displayName", asked.get("display_name")) or (file is None and not inline):
            return refusal("gemini", 400, "a name and requests are required")
        script = self._store.take_script()
        if script.status != 200 and not script.creates:
            return refusal_of("gemini", script)
        model = request.path.rpartition("/")[2].partition(":")[0]
        if file is not None:
            lines = [json.loads(line) for line in file.content.splitlines() if line.strip()]
            requests = [(line["key"], line["request"] | {"model": model}) for line in lines]
        else:
            requests = [(line["metadata"]["key"], line["request"] | {"model": model}) for line in inline]
        name = str(asked.get("displayName", asked.get("display_name")))
        batch = self._store.create("gemini", name, script, requests, file_id)
        if script.loses_reply:
            return BatchReply(200, fault="disconnect")
        return refusal_of("gemini", script) if script.status != 200 else reply(_shown(batch))

    def _page(self, name: str, entries: list[dict[str, Any]], request: BatchRequest) -> dict[str, Any]:
        start = int(request.query.get("pageToken") or 0)
        page, has_more = self._store.page(entries, start, int(request.query.get("pageSize") or 50))
        return {name: page} | ({"nextPageToken": str(start + len(page))} if has_more else {})

    def _write_results(self, batch: StoredBatch) -> None:
        if batch.input_file_id and batch.count("answered", "failed"):
            results = [result for result in batch.results if result.kind in {"answered", "failed"}]
            lines = b"".join(map(_result_line, in_results(results)))
            batch.output_file_id = self._store.add_file(batch.id, "output", lines, "files/batch-").id


def _entry(result: LineResult) -> dict[str, Any]:
    if result.kind == "answered":
        return {"response": result.body}
    message = str((result.body.get("error") or {}).get("message", "scripted"))
    return {"error": as_rpc_status(result.status, message)}


def _result_line(result: LineResult) -> bytes:
    line = json.dumps({"key": result.custom_id, **_entry(result)}).encode()
    return (line[: len(line) // 2] if result.fate == "unreadable" else line) + b"\n"


def _shown(batch: StoredBatch) -> dict[str, Any]:
    total = len(batch.requests) or len(batch.results)
    failed = batch.count("failed", "expired")
    output: dict[str, Any] = {}
    if batch.output_file_id:
        output = {"responsesFile": batch.output_file_id}
    elif batch.is_over and not batch.input_file_id:
        ended = [result for result in batch.results if result.kind in {"answered", "failed"}]
        inlined = [{**_entry(result), "metadata": {"key": result.custom_id}} for result in in_results(ended)]
        output = {"inlinedResponses": {"inlinedResponses": inlined}}
    shown: dict[str, Any] = {
        "name": batch.id,
        "metadata": {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "name": batch.id,
            "displayName": batch.name,
            "state": f"BATCH_STATE_{_STATES[batch.state]}",
            "createTime": stamp(batch.created_at),
            "endTime": stamp(batch.ended_at),
            "inputConfig": {"fileName": batch.input_file_id} if batch.input_file_id else {},
            "batchStats": {
                "requestCount": str(total),
                "successfulRequestCount": str(batch.count("answered")),
                "failedRequestCount": str(failed),
                "pendingRequestCount": str(total - len(batch.results)),
            },
        },
    }
    if output:
        shown["metadata"]["output"] = output
    if batch.is_over:
        shown["done"] = True
        if batch.state == "failed":
            shown["error"] = {"code": 8 if "token" in batch.script.fails_with else 3, "message": "scripted"}
        elif output:
            shown["response"] = output
    return shown


def _shown_file(file: StoredFile) -> dict[str, Any]:
    return {
        "name": file.id,
        "displayName": file.name,
        "mimeType": "application/jsonl",
        "sizeBytes": str(len(file.content)),
        "createTime": stamp(file.created_at),
        "state": "ACTIVE",
    }
