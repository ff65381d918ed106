"""Lines of OUT: one JSON object for each entry, with all keys in this order.

``{"custom_id", "status": "ok"|"error", "outputs", "error": {"type", "message", "retryable"}, "metadata"}``; ``outputs``
is null in an error, ``error`` is null otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from dspyq.batch.entry import Entry, EntryState
from dspyq.core.money import to_usd
from dspyq.prediction.prediction import CacheLevel, is_prediction
from dspyq.prediction.stored import own_error

#: Celery's transient errors: the job was ended from outside, or its worker died.
_RETRYABLE_OF_CELERY = frozenset({"TaskRevokedError", "WorkerLostError", "Retry"})
_NOTHING_SPENT = {"prompt_tokens": 0, "completion_tokens": 0, "duration_seconds": 0.0}


class OutputLine(NamedTuple):
    """A line of OUT, and the facts for the journal.

    Attributes:
        entry: Its entry.
        state: The entry's final state.
        outcome: ``computed``, the source of a cached answer, or the type of the error.
        text: The line, with its end.
    """

    entry: Entry
    state: EntryState
    outcome: str
    text: bytes


class BatchContext(NamedTuple):
    """Facts of a batch that its rows and lines have in common.

    Attributes:
        program: The program's name.
        variants: The names of its variants, in their order.
        batch_id: The batch.
        tenant: The tenant of its calls; None for none.
    """

    program: str
    variants: tuple[str, ...]
    batch_id: str
    tenant: str | None = None

    def request_id(self, entry_number: int) -> str:
        """Return the request id of an entry."""
        return f"{self.batch_id}:{entry_number}"

    def variant_of(self, entry: Entry) -> str | None:
        """Return the name of an entry's variant; None where it cannot be asked."""
        return None if entry.variant is None else self.variants[entry.variant]


def line_of_result(entry: Entry, meta: Mapping[str, Any], batch: BatchContext, level: CacheLevel | None) -> OutputLine:
    """Return the line of an entry whose task's result is stored.

    Args:
        entry: The entry, with its cost.
        meta: The stored result: an answer or a failure.
        batch: The batch.
        level: Source of an answer that the entry did not cause; None for its own run's.
    """
    result = meta["result"]
    if meta["status"] == "SUCCESS" and is_prediction(result):
        return _answered(entry, result["outputs"], result["metadata"], batch, level)
    spent = meta.get("spent") if level is None else None
    return _failed(entry, error_of(meta), batch, level, spent or _NOTHING_SPENT)


def line_of_copy(entry: Entry, line: bytes, batch: BatchContext, level: CacheLevel) -> OutputLine:
    """Return the line of an entry whose question another entry of the batch has asked, from that one's line."""
    original = orjson.loads(line)
    if original["status"] == "ok":
        return _answered(entry, original["outputs"], original["metadata"], batch, level)
    return _failed(entry, original["error"], batch, level, _NOTHING_SPENT)


def line_of_fault(entry: Entry, error_type: str, message: str, batch: BatchContext) -> OutputLine:
    """Return the line of a row that cannot be asked."""
    error = {"type": error_type, "message": _printable(message), "retryable": False}
    return _failed(entry, error, batch, None, _NOTHING_SPENT)


def _answered(
    entry: Entry, outputs: Any, stored: Mapping[str, Any], batch: BatchContext, level: CacheLevel | None
) -> OutputLine:
    level = level or stored["cache_level"]  # our run may have found another's answer
    metadata = {
        **stored,
        "row": entry.row,
        "variant": batch.variant_of(entry),
        "request_id": batch.request_id(entry.number),
        "usage": stored["usage"] if level else _usage(entry, stored["usage"]),
        "cost_usd": to_usd(entry.paid_nano_usd),
        "cached": level is not None,
        "cache_level": level,
    }
    return OutputLine(entry, EntryState.OK, level or "computed", _text(entry, "ok", outputs, None, metadata))


def _failed(
    entry: Entry, error: Mapping[str, Any], batch: BatchContext, level: CacheLevel | None, spent: Mapping[str, Any]
) -> OutputLine:
    metadata = {
        "row": entry.row,
        "program": batch.program,
        "variant": batch.variant_of(entry),
        "request_id": batch.request_id(entry.number),
        "usage": _usage(entry, spent),
        "cost_usd": to_usd(entry.paid_nano_usd),
        "duration_seconds": spent["duration_seconds"],
        "cached": level is not None,
        "cache_level": level,
    }
    state = EntryState.RETRYABLE if error["retryable"] else EntryState.FAILED
    text = _text(entry, "error", None, error, metadata)
    return OutputLine(entry, state, error["type"], text)


def _usage(entry: Entry, stated: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens paid for an entry, or those that its run states if the ledger has lost its calls."""
    paid = entry.prompt_tokens, entry.completion_tokens
    prompt_tokens, completion_tokens = paid if any(paid) else (stated["prompt_tokens"], stated["completion_tokens"])
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def error_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``error`` of a line for a failure as Celery stored it."""
    status, result = meta["status"], meta["result"]
    if not isinstance(result, Mapping) or "exc_type" not in result:
        return {
            "type": "NotAPrediction",
            "message": f"the task ended as {status}, without an answer",
            "retryable": False,
        }
    name, message = str(result["exc_type"]), result.get("exc_message", "")
    if isinstance(message, list | tuple):
        message = ", ".join(map(str, message))
    return {"type": name, "message": _printable(str(message)), "retryable": _is_retryable(name, result)}


def _is_retryable(name: str, result: Mapping[str, Any]) -> bool:
    error = own_error(result)
    return error.retryable if error else name in _RETRYABLE_OF_CELERY


def _printable(text: str) -> str:
    """Return text without halves of surrogate pairs, which JSON has no form for."""
    return text.encode("utf-8", "replace").decode()


def _text(entry: Entry, status: str, outputs: Any, error: Any, metadata: Mapping[str, Any]) -> bytes:
    line = {
        "custom_id": entry.custom_id,
        "status": status,
        "outputs": outputs,
        "error": error,
        "metadata": metadata,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def answers_entry(entry: Entry, meta: Mapping[str, Any]) -> bool:
    """Return True unless a result belongs to another question, sent later under the id of the task joined."""
    result = meta["result"]
    answered = result["metadata"]["input_hash"] if is_prediction(result) else meta.get("input_hash")
    return answered is None or entry.input_hash is None or str(answered).startswith(entry.input_hash.hex())
