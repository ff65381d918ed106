"""Lines of results, in the forms of all providers, as ``RemoteLine``s with the live interface's status and body.

A line may be anything: each reader returns ``UNREADABLE`` in place of raising, since the line may have been paid for.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, TypeVar

from dspyq.lane.providers.http import showable
from dspyq.lane.providers.protocol import LineOutcome, RemoteBatch, RemoteFile, RemoteLine

Remote = TypeVar("Remote", RemoteBatch, RemoteFile)
_OK = 200
_FIRST_SERVER_ERROR = 500
#: Errors that pass, or that concern the account rather than the request: another attempt may be answered.
_PASSING = frozenset({401, 402, 403, 408, 409, 425, 429})
_PASSING_CODES = frozenset({
    "batch_expired", "batch_cancelled", "batch_canceled", "expired", "canceled", "cancelled", "request_timeout",
    "rate_limit_exceeded", "server_error", "internal_error", "service_unavailable", "overloaded", "insufficient_quota",
})  # fmt: skip
#: OpenAI's codes of requests that fail again, where a line states no status.
_LASTING_CODES = {"invalid_request": 400, "invalid_request_error": 400, "model_not_found": 404, "content_filter": 400}
#: Anthropic's types of errors, https://docs.claude.com/en/api/errors.
_STATUS_OF_TYPE = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504,
    "overloaded_error": 529,
}  # fmt: skip
#: The canonical codes of google.rpc.Status and the HTTP statuses that stand for them (google/rpc/code.proto).
_STATUS_OF_RPC = {
    1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503,
    15: 500, 16: 401,
}  # fmt: skip
_RPC_CANCELLED = 1
_STATUS_NAME_OF_RPC = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 10: "ABORTED", 11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip
_CUSTOM_ID = re.compile(rb'"(?:custom_id|key)"\s*:\s*"([A-Za-z0-9_-]{1,64})"')
_UNREADABLE_CODE = "unreadable_line"


def read_json(line: bytes) -> dict[str, Any] | None:
    """Read a line; None if it is no JSON object. Python's reader takes half of a surrogate pair, others refuse it."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def unreadable(line: bytes) -> RemoteLine:
    """Return a line that cannot be read; its custom id is found by its form, if possible."""
    found = _CUSTOM_ID.search(line)
    return RemoteLine(found[1].decode() if found else "", LineOutcome.UNREADABLE, code=_UNREADABLE_CODE)


def read_openai_line(line: bytes) -> RemoteLine:
    """Read a line of an output or error file.

    Form: ``{"custom_id", "response": {"status_code", "body"} | null, "error": {"code", "message"} | null}``
    (https://platform.openai.com/docs/api-reference/batch/request-output).
    """
    entry = read_json(line)
    custom_id = _text(entry, "custom_id")
    if entry is None or not custom_id:
        return unreadable(line)
    response = _table(entry, "response")
    status = _status(response.get("status_code"))
    error = _table(entry, "error")
    body = response.get("body")
    if status == _OK:
        return _answered(custom_id, body) or unreadable(line)
    envelope = body if isinstance(body, dict) else {"error": error} if error else None
    code = _code(_table(envelope, "error")) or _code(error)
    if status is None:
        status = _LASTING_CODES.get(code)
    return _failed(custom_id, status, envelope, code)


def read_anthropic_line(line: bytes) -> RemoteLine:
    """Read a line of a batch's results.

    Form: ``{"custom_id", "result": {"type": "succeeded", "message"} | {"type": "errored", "error"} | {"type":
    "canceled"} | {"type": "expired"}}``; an error is an envelope ``{"type": "error", "error": {"type", "message"}}``
    (https://docs.claude.com/en/api/retrieving-message-batch-results). Only succeeded lines are billed.
    """
    entry = read_json(line)
    custom_id = _text(entry, "custom_id")
    if entry is None or not custom_id:
        return unreadable(line)
    result = _table(entry, "result")
    kind = result.get("type")
    if kind == "succeeded":
        return _answered(custom_id, result.get("message")) or unreadable(line)
    if kind == "errored":
        raw = _table(result, "error")
        envelope = raw if isinstance(raw.get("error"), dict) else {"type": "error", "error": raw}
        code = showable(_table(envelope, "error").get("type"))
        return _failed(custom_id, _STATUS_OF_TYPE.get(code, _FIRST_SERVER_ERROR), envelope, code)
    if kind in {"canceled", "expired"}:
        return RemoteLine(custom_id, LineOutcome.UNANSWERED, code=str(kind))
    return unreadable(line)


def read_gemini_line(entry: dict[str, Any] | None, line: bytes) -> RemoteLine:
    """Read a line of a file of responses, or an inlined response.

    Form: ``{"key", "response"}`` or ``{"key", "error"}``, where an error is a google.rpc.Status; inlined, the key is in
    ``metadata`` (https://ai.google.dev/gemini-api/docs/batch-api).
    """
    custom_id = _text(entry, "key") or _text(_table(entry, "metadata"), "key")
    if entry is None or not custom_id:
        return unreadable(line)
    if isinstance(entry.get("response"), dict):
        return _answered(custom_id, entry["response"]) or unreadable(line)
    error = _table(entry, "error") or _table(entry, "status")
    if not error:
        return unreadable(line)
    code = error.get("code")
    number = code if isinstance(code, int) and not isinstance(code, bool) else None
    if number is None or number in _STATUS_OF_RPC:
        status = _STATUS_OF_RPC.get(number or 0, _FIRST_SERVER_ERROR)
        name = _STATUS_NAME_OF_RPC.get(number or 0, "UNKNOWN")
    else:
        status, name = _status(number) or _FIRST_SERVER_ERROR, showable(error.get("status"))
    envelope = {"error": {"code": status, "message": str(error.get("message", "")), "status": name}}
    if number == _RPC_CANCELLED:
        return RemoteLine(custom_id, LineOutcome.UNANSWERED, None, envelope, code=name)
    return _failed(custom_id, status, envelope, name)


def read_time(value: object) -> float | None:
    """Read a time in seconds, or in RFC 3339; None if it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp() if value else None
    except (ValueError, OverflowError):
        return None


def read_count(value: object) -> int:
    """Read a count, also one in text, as Google writes them; 0 if it is none."""
    try:
        return max(0, int(value)) if isinstance(value, int | str) else 0
    except ValueError:
        return 0


def oldest_first(newest_first: list[Remote]) -> list[Remote]:
    """Return what a listing holds, the oldest first, also where its times are whole seconds."""
    ordered = newest_first[::-1]
    ordered.sort(key=lambda remote: remote.created_at_seconds)
    return ordered


def _answered(custom_id: str, body: object) -> RemoteLine | None:
    if not isinstance(body, dict) or not body:
        return None
    return RemoteLine(custom_id, LineOutcome.ANSWERED, _OK, body, _usage(body))


def _failed(custom_id: str, status: int | None, body: dict[str, Any] | None, code: str) -> RemoteLine:
    passes = status is None or status >= _FIRST_SERVER_ERROR or status in _PASSING or code in _PASSING_CODES
    outcome = LineOutcome.UNANSWERED if passes or status == _OK else LineOutcome.FAILED
    return RemoteLine(custom_id, outcome, status, body, _usage(body), code)


def _usage(body: dict[str, Any] | None) -> dict[str, Any] | None:
    for name in ("usage", "usageMetadata"):
        if found := _table(body, name):
            return found
    return None


def _code(error: dict[str, Any]) -> str:
    code = error.get("code")
    return showable(code if isinstance(code, str) and code else error.get("type"))


def _status(value: object) -> int | None:
    number = read_count(value) if not isinstance(value, bool) else 0
    return number if 100 <= number < 600 else None  # noqa: PLR2004 - HTTP's


def _text(table: dict[str, Any] | None, name: str) -> str:
    value = (table or {}).get(name)
    return value if isinstance(value, str) else ""


def _table(table: dict[str, Any] | None, name: str) -> dict[str, Any]:
    value = (table or {}).get(name)
    return value if isinstance(value, dict) else {}
