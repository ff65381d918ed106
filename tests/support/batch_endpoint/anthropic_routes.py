"""Anthropic's ``/v1/messages/batches``: one POST with all requests, no names, one kind of end.

Follows https://platform.claude.com/docs/en/api/messages/batches.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.batch_endpoint.forms import as_error
from tests.support.batch_endpoint.store import WINDOW_SECONDS, BatchStore, LineResult, StoredBatch, in_results
from tests.support.batch_endpoint.wire import BatchReply, BatchRequest, refusal, refusal_of, reply, stamp

_ROUTE = re.compile(r"^/v1/messages/batches(?:/(?P<id>\w+)(?:/(?P<verb>results|cancel))?)?$")
_CUSTOM_ID = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_MOST_LINES = 100_000
_STATES = {"validating": "in_progress", "in_progress": "in_progress", "cancelling": "canceling"}
_KINDS = {"answered": "succeeded", "failed": "errored", "expired": "expired", "cancelled": "canceled"}


class AnthropicRoutes:
    """The routes of one store.

    Args:
        store: The store.
    """

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        store.write_results["anthropic"] = self._write_results

    def answer(self, request: BatchRequest) -> BatchReply | None:  # noqa: PLR0911 - a branch for each route
        """Answer a request; None if the path is another interface's."""
        found = _ROUTE.match(request.path)
        if found is None:
            return None
        if "x-api-key" not in request.headers or "anthropic-version" not in request.headers:
            return refusal("anthropic", 401, "x-api-key and anthropic-version are required")
        batch_id, verb = found["id"], found["verb"]
        if batch_id is None:
            return self._create(request) if request.method == "POST" else self._list(request)
        if verb == "results":
            return self._results(batch_id)
        batch = self._store.find(batch_id)
        if batch is None:
            return refusal("anthropic", 404, "no such batch")
        if request.method == "GET":
            return reply(_shown(batch, request.origin))
        if verb == "cancel":
            if batch.is_over:
                return refusal("anthropic", 400, "it has ended")
            self._store.cancel(batch)
            return reply(_shown(batch, request.origin))
        if not batch.is_over:
            return refusal("anthropic", 400, "a batch that runs cannot be deleted")
        batch.is_deleted = True
        self._store.delete_file(batch.output_file_id)
        return reply({"id": batch.id, "type": "message_batch_deleted"})

    def _create(self, request: BatchRequest) -> BatchReply:
        lines = json.loads(request.body).get("requests") or []
        ids = [str(line.get("custom_id")) for line in lines]
        if not 0 < len(lines) <= _MOST_LINES or len(set(ids)) != len(ids) or not all(map(_CUSTOM_ID.match, ids)):
            return refusal("anthropic", 400, "the custom ids, or their number, are not valid")
        script = self._store.take_script()
        if script.status != 200 and not script.creates:
            return refusal_of("anthropic", script)
        requests = [(str(line["custom_id"]), line["params"]) for line in lines]
        batch = self._store.create("anthropic", "", script, requests)
        if script.loses_reply:
            return BatchReply(200, fault="disconnect")
        return refusal_of("anthropic", script) if script.status != 200 else reply(_shown(batch, request.origin))

    def _list(self, request: BatchRequest) -> BatchReply:
        batches = [_shown(batch, request.origin) for batch in self._store.listed("anthropic")]
        ids = [batch["id"] for batch in batches]
        after = request.query.get("after_id")
        start = ids.index(after) + 1 if after in ids else 0
        page, has_more = self._store.page(batches, start, int(request.query.get("limit", 20)))
        ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
        return reply({"data": page, "has_more": has_more, **ends})

    def _results(self, batch_id: str) -> BatchReply:
        batch = self._store.batches.get(batch_id)
        file = self._store.files.get(batch.output_file_id) if batch else None
        if batch is None or file is None:
            return refusal("anthropic", 404, "there are no results")
        if batch.script.refused_results > 0:
            batch.script.refused_results -= 1
            return refusal("anthropic", 404, "not found")
        if batch.script.cut_results > 0:
            batch.script.cut_results -= 1
            return BatchReply(200, file.content, fault="cut")
        return BatchReply(200, file.content)

    def _write_results(self, batch: StoredBatch) -> None:
        lines = b"".join(map(_result_line, in_results(batch.results)))
        batch.output_file_id = self._store.add_file(f"{batch.id}_results", "results", lines, "results-").id


def _result_line(result: LineResult) -> bytes:
    outcome: dict[str, Any] = {"type": _KINDS[result.kind]}
    if result.kind == "answered":
        outcome["message"] = result.body
    elif result.kind == "failed":
        body = result.body
        if "scripted" in body:
            code, usage = body["scripted"], {name: value for name, value in body.items() if name == "usage"}
            body = as_error("anthropic", result.status, code, "scripted") | usage
        outcome["error"] = body
    line = json.dumps({"custom_id": result.custom_id, "result": outcome}).encode()
    return (line[: len(line) // 2] if result.fate == "unreadable" else line) + b"\n"


def _shown(batch: StoredBatch, origin: str) -> dict[str, Any]:
    total = len(batch.requests) or len(batch.results)
    counts = {theirs: batch.count(ours) for ours, theirs in _KINDS.items()}
    if not batch.is_over:  # tallies are zero until the whole batch has ended
        counts = dict.fromkeys(counts, 0)
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": "ended" if batch.is_over else _STATES[batch.state],
        "request_counts": {"processing": 0 if batch.is_over else total, **counts},
        "created_at": stamp(batch.created_at),
        "expires_at": stamp(batch.created_at + WINDOW_SECONDS),
        "ended_at": stamp(batch.ended_at),
        "archived_at": None,
        "cancel_initiated_at": stamp(batch.created_at) if batch.state in {"cancelling", "cancelled"} else None,
        "results_url": f"{origin}/v1/messages/batches/{batch.id}/results" if batch.is_over else None,
    }
