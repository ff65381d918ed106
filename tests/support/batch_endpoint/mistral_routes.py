"""Mistral's ``/mistral/v1/batch/jobs`` over the files of the OpenAI routes, which write its results too.

Follows https://docs.mistral.ai/api/#tag/batch.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.batch_endpoint.store import BatchStore, StoredBatch
from tests.support.batch_endpoint.wire import BatchReply, BatchRequest, refusal, refusal_of, reply

_ROUTE = re.compile(r"^/mistral/v1/batch/jobs(?:/(?P<id>\w+)(?P<cancel>/cancel)?)?$")
_STATES = {
    "validating": "QUEUED", "in_progress": "RUNNING", "cancelling": "CANCELLATION_REQUESTED", "completed": "SUCCESS",
    "failed": "FAILED", "expired": "TIMEOUT_EXCEEDED", "cancelled": "CANCELLED",
}  # fmt: skip


class MistralRoutes:
    """The routes of one store.

    Args:
        store: The store.
    """

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def answer(self, request: BatchRequest) -> BatchReply | None:
        """Answer a request; None if the path is another interface's."""
        found = _ROUTE.match(request.path)
        if found is None:
            return None
        if found["id"] is None:
            return self._create(request) if request.method == "POST" else self._list(request)
        batch = self._store.find(found["id"])
        if batch is None:
            return refusal("openai", 404, "no such job")
        if found["cancel"]:
            if batch.is_over:
                return refusal("openai", 400, "it has ended")
            self._store.cancel(batch)
        return reply(_shown(batch))

    def _create(self, request: BatchRequest) -> BatchReply:
        body = json.loads(request.body)
        file = self._store.files.get(str((body.get("input_files") or [""])[0]))
        if file is None or body.get("endpoint") != "/v1/chat/completions" or not body.get("model"):
            return refusal("openai", 422, "a file, an endpoint and a model are required")
        lines = [json.loads(line) for line in file.content.splitlines()]
        if any(set(line) != {"custom_id", "body"} for line in lines):
            return refusal("openai", 422, "a line has a custom id and a body")
        script = self._store.take_script()
        if script.status != 200 and not script.creates:
            return refusal_of("openai", script)
        requests = [(line["custom_id"], line["body"] | {"model": body["model"]}) for line in lines]
        name = str((body.get("metadata") or {}).get("dspyq_shipment", ""))
        batch = self._store.create("openai", name, script, requests, file.id)
        if script.loses_reply:
            return BatchReply(200, fault="disconnect")
        return refusal_of("openai", script) if script.status != 200 else reply(_shown(batch))

    def _list(self, request: BatchRequest) -> BatchReply:
        jobs = [_shown(batch) for batch in self._store.listed("openai")]
        size = min(int(request.query.get("page_size", 100)), self._store.most_per_page)
        page, _ = self._store.page(jobs, int(request.query.get("page", 0)) * size, size)
        return reply({"object": "list", "data": page, "total": len(jobs)})


def _shown(batch: StoredBatch) -> dict[str, Any]:
    succeeded, failed = batch.count("answered"), batch.count("failed", "expired")
    return {
        "id": batch.id,
        "object": "batch",
        "input_files": [batch.input_file_id],
        "metadata": {"dspyq_shipment": batch.name},
        "endpoint": "/v1/chat/completions",
        "output_file": batch.output_file_id or None,
        "error_file": batch.error_file_id or None,
        "errors": [{"message": "scripted", "count": 1}] if batch.state == "failed" else [],
        "status": _STATES[batch.state],
        "created_at": int(batch.created_at),
        "total_requests": len(batch.requests) or len(batch.results),
        "completed_requests": succeeded + failed,
        "succeeded_requests": succeeded,
        "failed_requests": failed,
    }
