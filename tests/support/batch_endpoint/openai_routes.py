"""OpenAI's ``/v1/files`` and ``/v1/batches``; below ``/together`` in the form of Together, which names no batch.

Follows https://platform.openai.com/docs/api-reference/batch and /files.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from tests.support.batch_endpoint.store import (
    WINDOW_SECONDS,
    BatchStore,
    LineResult,
    StoredBatch,
    StoredFile,
    in_results,
)
from tests.support.batch_endpoint.wire import BatchReply, BatchRequest, refusal, refusal_of, reply, stamp

_CHAT = "/v1/chat/completions"
_ROUTE = re.compile(
    r"^(?:/mistral|(?P<together>/together))?/v1/(?P<kind>files|batches)(?:/(?P<id>[\w-]+)(?:/(?P<verb>\w+))?)?$"
)
_MOST_LINES = 50_000
_MOST_METADATA, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512
_FIELD = re.compile(rb'name="([^"]+)"(?:; filename="([^"]*)")?')


class OpenAIRoutes:
    """The routes of one store.

    Args:
        store: The store.
    """

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        store.write_results["openai"] = self._write_results

    def answer(self, request: BatchRequest) -> BatchReply | None:  # noqa: C901, PLR0911 - a branch for each route
        """Answer a request; None if the path is another interface's."""
        found = _ROUTE.match(request.path)
        if found is None:
            return None
        if not request.headers.get("authorization", "").startswith("Bearer ") and "api-key" not in request.headers:
            return refusal("openai", 401, "no key", "invalid_api_key")
        is_together = found["together"] is not None
        match (request.method, found["kind"], found["id"], found["verb"]):
            case ("POST", "files", None, None):
                return self._upload(request, "batch-api" if is_together else "batch")
            case ("GET", "files", None, None):
                return self._list_files(request)
            case ("GET", "files", file_id, None):
                return self._file(str(file_id))
            case ("GET", "files", file_id, "content"):
                return self._download(str(file_id))
            case ("DELETE", "files", file_id, None):
                deleted = self._store.delete_file(str(file_id))
                gone = {"id": file_id, "object": "file", "deleted": True}
                return reply(gone) if deleted else refusal("openai", 404, "no such file")
            case ("POST", "batches", None, None):
                return self._create(request, is_together=is_together)
            case ("GET", "batches", None, None):
                return self._list_batches(request, is_together=is_together)
            case ("GET", "batches", batch_id, None):
                batch = self._store.find(str(batch_id))
                shown = None if batch is None else _shown(batch, is_together=is_together)
                return refusal("openai", 404, "no such batch") if shown is None else reply(shown)
            case ("POST", "batches", batch_id, "cancel"):
                return self._cancel(str(batch_id), is_together=is_together)
        return refusal("openai", 405, "no such method")

    def _upload(self, request: BatchRequest, purpose: str) -> BatchReply:
        fields = _multipart(request)
        name, content = fields.get("file", ("", b""))
        if fields.get("purpose", ("", b""))[1] != purpose.encode() or not content:
            return refusal("openai", 400, "a file and its purpose are required", "invalid_request_error")
        self._store.counts["uploads"] += 1
        return reply(self._with_status(_shown_file(self._store.add_file(name, "batch", content))))

    def _file(self, file_id: str) -> BatchReply:
        file = self._store.files.get(file_id)
        if file is None:
            return refusal("openai", 404, "no such file")
        self._store.pending_polls = max(0, self._store.pending_polls - 1)
        return reply(self._with_status(_shown_file(file)))

    def _with_status(self, file: dict[str, Any]) -> dict[str, Any]:
        return file | ({"status": "pending"} if self._store.pending_polls else {})

    def _list_files(self, request: BatchRequest) -> BatchReply:
        files = [_shown_file(file) for file in reversed(self._store.files.values())]
        return reply(self._page(files, request))

    def _download(self, file_id: str) -> BatchReply:
        file = self._store.files.get(file_id)
        if file is None:
            return refusal("openai", 404, "no such file")
        batch = next((each for each in self._store.batches.values() if each.output_file_id == file_id), None)
        if batch is not None and batch.script.refused_results > 0:
            batch.script.refused_results -= 1
            return refusal("openai", 503, "not now", "server_error")
        if batch is not None and batch.script.cut_results > 0:
            batch.script.cut_results -= 1
            return BatchReply(200, file.content, fault="cut")
        return BatchReply(200, file.content)

    def _create(self, request: BatchRequest, *, is_together: bool) -> BatchReply:
        body = json.loads(request.body)
        file = self._store.files.get(str(body.get("input_file_id")))
        metadata = body.get("metadata") or {}
        fault = _fault_of(body, file, metadata)
        if fault or self._store.pending_polls:
            return refusal("openai", 400, fault or "the file is pending", "invalid_request_error")
        script = self._store.take_script()
        if script.status != 200 and not script.creates:
            return refusal_of("openai", script)
        assert file is not None
        requests, code, line = _read_lines(file.content)
        if code:
            script.fails_with, script.bad_line = code, line
        if is_together:
            metadata = {}
        batch = self._store.create("openai", str(metadata.get("dspyq_shipment", "")), script, requests, file.id)
        if script.loses_reply:
            return BatchReply(200, fault="disconnect")
        if script.status != 200:
            return refusal_of("openai", script)
        shown = _shown(batch, is_together=is_together)
        return reply({"job": shown} if is_together else shown)

    def _list_batches(self, request: BatchRequest, *, is_together: bool) -> BatchReply:
        batches = [_shown(batch, is_together=is_together) for batch in self._store.listed("openai")]
        shown = reply(batches if is_together else self._page(batches, request))
        if self._store.cut_lists > 0:
            self._store.cut_lists -= 1
            return replace(shown, fault="cut")
        return shown

    def _cancel(self, batch_id: str, *, is_together: bool) -> BatchReply:
        batch = self._store.batches.get(batch_id)
        if batch is None:
            return refusal("openai", 404, "no such batch")
        if batch.is_over:
            return refusal("openai", 409, f"cannot cancel a batch that is {batch.state}", "invalid_request_error")
        self._store.cancel(batch)
        return reply(_shown(batch, is_together=is_together))

    def _page(self, entries: list[dict[str, Any]], request: BatchRequest) -> dict[str, Any]:
        ids = [entry["id"] for entry in entries]
        after = request.query.get("after")
        start = ids.index(after) + 1 if after in ids else 0
        page, has_more = self._store.page(entries, start, int(request.query.get("limit", 20)))
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
        return {"object": "list", "data": page, "has_more": has_more} | ends

    def _write_results(self, batch: StoredBatch) -> None:
        files: dict[bool, list[bytes]] = {True: [], False: []}
        for number, result in enumerate(in_results(batch.results)):
            if result.kind != "cancelled":
                files[result.kind == "answered"].append(_result_line(number, result))
        if files[True]:
            name = f"{batch.id}_output.jsonl"
            batch.output_file_id = self._store.add_file(name, "batch_output", b"".join(files[True])).id
        if files[False]:
            name = f"{batch.id}_error.jsonl"
            batch.error_file_id = self._store.add_file(name, "batch_output", b"".join(files[False])).id


def _result_line(number: int, result: LineResult) -> bytes:
    entry: dict[str, Any] = {
        "id": f"batch_req_{number}",
        "custom_id": result.custom_id,
        "response": None,
        "error": None,
    }
    if result.kind == "expired":
        entry["error"] = {"code": "batch_expired", "message": "This request could not be executed before the expiry."}
    else:
        body = result.body
        if "scripted" in body:
            error = {"message": "scripted", "type": "invalid_request_error", "code": body["scripted"] or None}
            body = {"error": error} | {name: value for name, value in body.items() if name != "scripted"}
        entry["response"] = {"status_code": result.status, "request_id": f"req_{number}", "body": body}
    line = json.dumps(entry).encode()
    return (line[: len(line) // 2] if result.fate == "unreadable" else line) + b"\n"


def _fault_of(body: dict[str, Any], file: StoredFile | None, metadata: dict[str, str]) -> str:
    if body.get("endpoint") != _CHAT or body.get("completion_window") != "24h":
        return "the endpoint or the window is not supported"
    if file is None:
        return "there is no such file"
    is_long = any(len(name) > _LONGEST_NAME or len(value) > _LONGEST_VALUE for name, value in metadata.items())
    return "the metadata is too large" if len(metadata) > _MOST_METADATA or is_long else ""


def _read_lines(content: bytes) -> tuple[list[tuple[str, dict[str, Any]]], str, int | None]:
    """The lines of a file, or the code and the number of the first that is at fault."""
    requests: list[tuple[str, dict[str, Any]]] = []
    seen: set[str] = set()
    lines = content.splitlines()
    if len(lines) > _MOST_LINES:
        return [], "too_many_tasks", None
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            custom_id, body = line["custom_id"], line["body"]
        except (ValueError, KeyError, TypeError):
            return [], "invalid_json_line", number
        if custom_id in seen:
            return [], "duplicate_custom_id", number
        if (line.get("method"), line.get("url")) != ("POST", _CHAT):
            return [], "invalid_url", number
        if not isinstance(body, dict) or not body.get("model") or not body.get("messages") or body.get("stream"):
            return [], "invalid_request", number
        seen.add(custom_id)
        requests.append((custom_id, body))
    return requests, "" if requests else "empty_file", None


def _shown(batch: StoredBatch, *, is_together: bool = False) -> dict[str, Any]:
    script = batch.script
    total = len(batch.requests) or len(batch.results)
    shown: dict[str, Any] = {
        "id": batch.id,
        "object": "batch",
        "endpoint": _CHAT,
        "input_file_id": batch.input_file_id,
        "completion_window": "24h",
        "status": batch.state,
        "output_file_id": batch.output_file_id or None,
        "error_file_id": batch.error_file_id or None,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.created_at) + WINDOW_SECONDS,
        "request_counts": {
            "total": total,
            "completed": batch.count("answered"),
            "failed": batch.count("failed", "expired"),
        },
        "metadata": {"dspyq_shipment": batch.name} if batch.name else None,
        "errors": None,
    }
    if batch.state == "failed":
        limit = f" Limit: {script.limit_tokens:,} enqueued tokens." if script.limit_tokens else ""
        message = f"Refused for a model in organization org-x.{limit} Please try again later."
        error = {"code": script.fails_with, "message": message, "line": script.bad_line, "param": None}
        shown["errors"] = {"object": "list", "data": [error]}
    if is_together:
        times = {"created_at": stamp(batch.created_at), "job_deadline": stamp(batch.created_at + WINDOW_SECONDS)}
        shown |= {"status": batch.state.upper(), **times}
        for name in ("metadata", "request_counts", "errors", "expires_at"):
            del shown[name]
    return shown


def _shown_file(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": len(file.content),
        "created_at": int(file.created_at),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


def _multipart(request: BatchRequest) -> dict[str, tuple[str, bytes]]:
    """The fields of a form: the file's name and the value of each."""
    edge = b"--" + request.headers.get("content-type", "").partition("boundary=")[2].encode()
    fields = {}
    for part in request.body.split(edge)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        if found := _FIELD.search(head):
            fields[found[1].decode()] = ((found[2] or b"").decode(), value.removesuffix(b"\r\n"))
    return fields
