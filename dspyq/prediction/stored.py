"""Results as stored in Redis. Reading returns a result whatever the bytes; at worst a failed one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import orjson
from celery.states import EXCEPTION_STATES, FAILURE, PENDING, READY_STATES, SUCCESS
from kombu.utils.json import loads

import dspyq.errors
from dspyq.core.tolerated import tolerate
from dspyq.errors import NotAPrediction, PredictionFailed
from dspyq.store.content import RESULT_OF_UNKNOWN_KEY

_UNREADABLE_MESSAGE = (
    "the value in Redis under this task id is no result that a dspyq worker wrote: ask again, and look for another "
    "program that writes to the Redis of DSPYQ_RESULT_URL"
)
_UNKNOWN_KEY_MESSAGE = (
    "the answer is sealed with a key that this process lacks: give it the keys of [encryption] that workers have, then "
    "ask again"
)
_LONGEST_MESSAGE = 500
_INPUT_HASH = b'"input_hash":"'
#: Start of a stored prediction, as the result backend writes it.
_SUCCESS = b'{"status":"SUCCESS",'
#: The module named in stored errors of ours: that of 0.1, whose producers cannot rebuild a class of a module they do
#: not have. 0.3 will write ``dspyq.errors``, which this version reads too.
STORED_ERRORS = "config.errors"


def parse_meta(payload: bytes) -> dict[str, Any] | None:
    """Read a stored result; return None where it is none.

    A result of Celery may hold half a surrogate pair, which orjson rejects.
    """
    try:
        meta: Any = _parse(payload)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
    return meta if is_whole(meta) else None


def read_meta(payload: bytes) -> dict[str, Any]:
    """Read a stored result; an unreadable one becomes a failure with ``NotAPrediction``."""
    try:
        meta = orjson.loads(payload)
        if meta["status"] == SUCCESS and "result" in meta and meta["children"] == []:
            return meta  # type: ignore[no-any-return]  # whole, as nearly all are
    except (ValueError, TypeError, LookupError):
        pass
    if payload == RESULT_OF_UNKNOWN_KEY:
        return failed_meta(NotAPrediction(_UNKNOWN_KEY_MESSAGE))
    meta = parse_meta(payload)
    if meta is None:
        tolerate("result", "unreadable")
        return unreadable_meta()
    return meta


def is_ready(payload: bytes) -> bool | None:
    """Return True if a stored result is final, None if it cannot be read."""
    meta = parse_meta(payload)
    return None if meta is None else meta["status"] in READY_STATES


def is_failure(payload: bytes) -> bool:
    """Return True if a stored result is final and no answer: a failure or a revocation."""
    meta = None if payload.startswith(_SUCCESS) else parse_meta(payload)
    return meta is not None and meta["status"] in READY_STATES - {SUCCESS}


def answers_question(payload: bytes, input_hash: str) -> bool:
    """Return True if a stored result answers this question, not another one asked under the same task id.

    A prediction names its question in its metadata. Inside a text these quotes would be escaped; if outputs have a
    key of this name too, the result is parsed.
    """
    at = payload.find(_INPUT_HASH)
    if at < 0 or payload.find(_INPUT_HASH, at + 1) < 0:
        return at >= 0 and payload.startswith(f'{input_hash}"'.encode(), at + len(_INPUT_HASH))
    meta = parse_meta(payload)
    match meta:
        case {"result": {"metadata": {"input_hash": found}}} | {"input_hash": found}:
            return bool(found == input_hash)
        case _:
            return False


def unreadable_meta() -> dict[str, Any]:
    """Return the failed result that stands for an unreadable one."""
    return failed_meta(NotAPrediction(_UNREADABLE_MESSAGE))


def failed_meta(error: dspyq.errors.DspyqError) -> dict[str, Any]:
    """Return the failed result that stands for one that no worker stored."""
    stated = {"exc_module": type(error).__module__, "exc_type": type(error).__name__, "exc_message": [str(error)]}
    return {"status": FAILURE, "result": stated, "traceback": None, "children": [], "task_id": ""}


def is_unreadable(meta: dict[str, Any]) -> bool:
    """Return True if ``read_meta`` made this result from unreadable bytes."""
    result = meta["result"]
    return isinstance(result, dict) and result.get("exc_message") == [_UNREADABLE_MESSAGE]


def unreadable_error() -> NotAPrediction:
    """Return the error of such a result."""
    return NotAPrediction(_UNREADABLE_MESSAGE)


#: Raised of ``get()`` in a ``map``, they would end it as if there were no more answers.
_ENDS_OF_LOOPS = (StopIteration, StopAsyncIteration)


def find_exception(stored: Any) -> type[Exception] | Exception | None:
    """Look at a stored error before it is rebuilt.

    Only modules that this process has loaded are searched, and nothing is called. An exception that would end a thread
    or a process, such as ``SystemExit``, or a caller's loop without a word, as ``StopIteration`` does, becomes
    ``PredictionFailed``; a name of no exception, ``NotAPrediction``.

    Returns:
        The class that rebuilds it, the error it becomes instead, or None where no class of that name is loaded.
    """
    match stored:
        case {"exc_type": str(name), "exc_module": str(module), **rest}:
            found = _look_up(module, name)
        case {"exc_type": str(name), **rest} if stored.get("exc_module") is None:
            found = None
        case _:
            return unreadable_error()
    if found is None:
        return None
    if not isinstance(found, type) or not issubclass(found, BaseException):
        tolerate("result", "error_of_no_exception")
        return unreadable_error()
    if not issubclass(found, Exception) or issubclass(found, _ENDS_OF_LOOPS):
        text = rest.get("exc_message")
        parts = text if isinstance(text, list) else [text]
        message = " ".join(str(part) for part in parts if part not in (None, ""))
        return PredictionFailed(f"{name}: {message[:_LONGEST_MESSAGE]}".rstrip(": "))
    return found


def with_stored_module(error: Any) -> Any:
    """Return an error as Celery is about to store it, in the module under which errors of ours are stored."""
    if isinstance(error, Mapping) and error.get("exc_module") == dspyq.errors.__name__:
        return {**error, "exc_module": STORED_ERRORS}
    return error


def with_own_module(error: Any) -> Any:
    """Return a stored error with the module that Celery is to look its class up in."""
    if isinstance(error, Mapping) and own_error(error):
        return {**error, "exc_module": dspyq.errors.__name__}
    return error


def own_error(error: Mapping[str, Any]) -> type[dspyq.errors.DspyqError] | None:
    """Return the class of a stored error where it is one of ours, of this version or of 0.1."""
    if error.get("exc_module") not in (STORED_ERRORS, dspyq.errors.__name__):
        return None
    found = vars(dspyq.errors).get(str(error.get("exc_type")))
    return found if isinstance(found, type) and issubclass(found, dspyq.errors.DspyqError) else None


def _look_up(module: str, name: str) -> Any:
    if own := own_error({"exc_module": module, "exc_type": name}):
        return own
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found


def _parse(payload: bytes) -> Any:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return loads(payload)


def is_whole(meta: Any) -> bool:
    """Return True if it has the fields that every reader of a result needs."""
    if not isinstance(meta, dict):
        return False
    status = meta.get("status")
    if not isinstance(status, str) or "result" not in meta:
        return False
    if not isinstance(meta.get("children"), (list, type(None))):
        return False
    return status != PENDING and (status not in EXCEPTION_STATES or isinstance(meta["result"], dict))
