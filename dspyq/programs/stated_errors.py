"""Errors that gateways write into the body of a reply with HTTP status 200."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson
from dspy import lm15

from dspyq.programs.repair import is_no_error, mended
from dspyq.programs.usage import usage_of

_FIRST_ERROR_STATUS, _LAST_ERROR_STATUS = 400, 599
#: How deep gateways wrap the errors of others.
_MOST_LAYERS = 4
#: The status of an error that names none.
_UNKNOWN_STATUS = 500
#: Each reply with an answer has one of these.
_ANSWER_FIELDS = frozenset({"choices", "output", "content", "candidates"})
_ANSWERS = tuple(f'"{name}"'.encode() for name in sorted(_ANSWER_FIELDS))
#: Fields that name an error's status, the most exact first.
_STATUS_FIELDS = ("code", "status", "statusCode", "status_code", "http_status", "error_code", "type")
_TEXT_FIELDS = ("message", "detail", "msg", "error_message", "error_msg")
#: A body of only these fields states an error, even without the word.
_ERROR_FIELDS = frozenset({"error", "errors", "object", "success", *_STATUS_FIELDS, *_TEXT_FIELDS})
#: The status that a code in words stands for, as OpenAI, Azure, Anthropic, Google and gateways write them.
_STATUS_OF_CODE = {
    code: status
    for status, codes in {
        400: "invalid_request_error invalid_request bad_request invalid_argument failed_precondition invalid_prompt "
        "context_length_exceeded content_filter content_policy_violation unsupported_parameter",
        401: "invalid_api_key authentication_error unauthorized unauthenticated invalid_authentication",
        402: "insufficient_quota billing_error billing_hard_limit_reached billing_not_active payment_required "
        "insufficient_balance insufficient_credits exceeded_current_quota_error quota_exceeded 1113",
        403: "permission_error permission_denied forbidden access_denied account_deactivated",
        404: "not_found not_found_error model_not_found",
        413: "request_too_large",
        429: "rate_limit_exceeded rate_limit_error rate_limit rate_limited too_many_requests resource_exhausted "
        "no_capacity throttled throttling throttlingexception requests_limit_exceeded tokens_limit_exceeded",
        500: "server_error internal internal_error internal_server_error api_error",
        502: "bad_gateway upstream_error provider_error",
        503: "unavailable service_unavailable overloaded overloaded_error engine_overloaded",
        504: "timeout timeout_error request_timeout gateway_timeout deadline_exceeded",
    }.items()
    for code in codes.split()
}
#: Providers' names of a usage's counts, by DSPy's name of each.
_COUNTS = {
    "input_tokens": ("prompt_tokens", "input_tokens", "promptTokenCount"),
    "output_tokens": ("completion_tokens", "output_tokens", "candidatesTokenCount"),
    "total_tokens": ("total_tokens", "totalTokenCount"),
    "cache_read_tokens": ("cache_read_input_tokens", "cachedContentTokenCount"),
    "cache_write_tokens": ("cache_creation_input_tokens",),
    "reasoning_tokens": ("thoughtsTokenCount",),
}
#: The same for the tables within a usage.
_COUNTS_OF_DETAILS = {
    ("prompt_tokens_details", "input_tokens_details"): {
        "cache_read_tokens": "cached_tokens",
        "cache_write_tokens": "cache_write_tokens",
        "input_audio_tokens": "audio_tokens",
    },
    ("completion_tokens_details", "output_tokens_details"): {
        "reasoning_tokens": "reasoning_tokens",
        "output_audio_tokens": "audio_tokens",
    },
}


class StatedError(NamedTuple):
    """An error in a reply of status 200.

    Attributes:
        status: The HTTP status that it stands for.
        body: The body in the form of a reply of that status.
        retry_after_seconds: The wait that it demands; None if it states none.
        billed: The reply if it states a usage despite the error.
    """

    status: int
    body: bytes
    retry_after_seconds: float | None
    billed: dict[str, Any] | None = None

    @property
    def is_billed(self) -> bool:
        """True if the reply states a usage despite the error."""
        return self.billed is not None


def find_stated_error(body: bytes) -> StatedError | None:
    """Return the error that a reply's body states; None where it states none, or is no JSON.

    It is parsed only if it may hold an error, so that a good reply costs no more than a text search.
    """
    if b'"error"' not in body and any(answer in body for answer in _ANSWERS):
        return None
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(reply, list) and len(reply) == 1:  # as Google's stream of a single part
        reply = reply[0]
    if not isinstance(reply, dict):
        return None
    error = _error_in(reply)
    if error is None:
        return None
    retry_after = _number(error.get("retry_after")) or _number(_table(error.get("metadata")).get("retry_after"))
    billed = _readable(reply) if _states_usage(reply) else None
    return StatedError(_status_of(error), orjson.dumps({"error": error}), retry_after, billed)


def attach_bill(error: Exception, body: bytes | None) -> None:
    """Attach a reply that DSPy could not read to the exception that it raised, if the reply states a usage."""
    try:
        reply = orjson.loads(body or b"")
    except orjson.JSONDecodeError:
        reply = None
    if isinstance(reply, dict) and _states_usage(reply):
        error.billed_reply = _readable(reply)  # type: ignore[attr-defined]  # an exception takes what it is given


def billed_reply(error: Exception) -> dict[str, Any] | None:
    """Return the reply attached to an error, if it stated a usage; else None."""
    reply: dict[str, Any] | None = getattr(error, "billed_reply", None)
    return reply


def response_of(reply: dict[str, Any], model: str) -> lm15.Response:
    """Return a reply with an error as a response that can be priced by its usage.

    Args:
        reply: The reply.
        model: The requested model.
    """
    return lm15.Response(
        id=None,
        model=str(reply.get("model") or model),
        message=lm15.Message.assistant("."),
        finish_reason="error",
        usage=lm15.Usage(**_counts_of(usage_of(reply))),
        provider_data=reply,
    )


def status_of_code(code: object) -> int | None:
    """Return the HTTP status that an error's code stands for; None where it stands for none."""
    if isinstance(code, float) and code.is_integer():
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int | str):
        return None
    text = str(code).strip().lower().replace("-", "_").replace(" ", "_")
    if text.isdecimal() and _FIRST_ERROR_STATUS <= int(text) <= _LAST_ERROR_STATUS:
        return int(text)
    return _STATUS_OF_CODE.get(text)


def _error_in(reply: dict[str, Any]) -> dict[str, Any] | None:
    """Return the error of a reply as a table, with a message in any case."""
    stated: Any = reply.get("error")
    if not stated or (reply.get("choices") and is_no_error(stated)):
        stated = _error_of_choices(reply.get("choices"))
    if not stated:
        filled = {name for name, value in reply.items() if value not in (None, [], {}, "") or name in _ANSWER_FIELDS}
        if not filled or not (filled <= _ERROR_FIELDS or reply.get("object") == "error"):
            return None
        stated = reply.get("errors") or reply
    stated = _innermost(stated)
    error: dict[str, Any] = {name: reply[name] for name in _STATUS_FIELDS if name in reply}
    if isinstance(stated, dict):
        error |= stated
    else:
        error |= {"code": stated} if status_of_code(stated) else {}
        error["message"] = stated if isinstance(stated, str) else reply.get("message")
    message = next((text for text in map(error.get, _TEXT_FIELDS) if text), None)
    return error | {"message": message if isinstance(message, str) else "the reply states an error"}


def _innermost(stated: Any) -> Any:
    """Return the error within lists of errors, and within errors of errors."""
    for _ in range(_MOST_LAYERS):
        if isinstance(stated, list) and stated:
            stated = stated[0]
        elif isinstance(stated, dict) and isinstance(stated.get("error"), dict | list) and stated["error"]:
            stated = stated["error"]
    return stated


def _error_of_choices(choices: object) -> object:
    """Return the error of a reply's first choice, where none of them holds an answer."""
    if not isinstance(choices, list) or not choices:
        return None
    errors = [
        choice.get("error")
        or _table(choice.get("message")).get("error")
        or (choice.get("finish_reason") == "error" and {"message": "the reply was cut by an error"})
        for choice in choices
        if isinstance(choice, dict)
    ]
    return errors[0] if errors and all(errors) else None


def _status_of(error: Mapping[str, Any]) -> int:
    return next(_statuses(error), _UNKNOWN_STATUS)


def _statuses(error: Mapping[str, Any]) -> Iterator[int]:
    for name in _STATUS_FIELDS:
        status = status_of_code(error.get(name))
        if status is not None:
            yield status


def _states_usage(reply: Mapping[str, Any]) -> bool:
    usage = usage_of(reply)
    names = [*_COUNTS["input_tokens"], *_COUNTS["output_tokens"], *_COUNTS["total_tokens"], "cost"]
    return any(_number(usage.get(name)) for name in names)


def _readable(reply: dict[str, Any]) -> dict[str, Any]:
    """Return a reply with its counts as whole numbers; it may state them as text."""
    readable = mended(orjson.dumps(reply))
    found: dict[str, Any] = reply if readable is None else orjson.loads(readable)
    return found


def _counts_of(usage: Mapping[str, Any]) -> dict[str, int]:
    counts = {ours: usage.get(name) for ours, names in _COUNTS.items() for name in names if usage.get(name) is not None}
    for tables, names in _COUNTS_OF_DETAILS.items():
        for details in (_table(usage.get(table)) for table in tables):
            counts |= {ours: details[name] for ours, name in names.items() if details.get(name) is not None}
    return {name: count for name, count in counts.items() if isinstance(count, int) and not isinstance(count, bool)}


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    """Return a positive number, also one in text."""
    try:
        number = float(value) if isinstance(value, int | float | str) else 0.0
    except ValueError:
        return None
    return number if number > 0 else None
