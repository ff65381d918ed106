"""Conversion of tasks' messages to jobs, and of jobs to messages or requests."""

# mypy: allow-untyped-calls
# kombu is typed in part only.

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from typing import Any

import orjson
from celery.app.task import Context
from kombu.serialization import loads as deserialized
from kombu.utils.encoding import bytes_to_str, str_to_bytes
from kombu.utils.json import dumps, loads

from dspyq.config.settings import get_settings
from dspyq.core.names import HEADER
from dspyq.delivery.message_body import decode_body
from dspyq.delivery.records import Delivery, QueuedJob
from dspyq.delivery.task_run import DeliveryProperties
from dspyq.experiments.fence import ANY_STATE, state_to_send_under
from dspyq.store.keys import result_key
from dspyq.store.spines import current_spine, process_spines

#: kombu's marker of a type that JSON lacks.
_KOMBU_TYPE = b'"__type__"'
#: A task that replaces itself restarts its count of retries, and still must be newer than the replaced one.
_RETRIES_PER_REPLACEMENT = 2**20


def job_of(message: dict[str, Any], queue: str, priority: int) -> QueuedJob:
    """Return the job of a task's message."""
    headers = message["headers"]
    header = headers.get(HEADER)
    question, is_own_id = _question(header)
    return QueuedJob(
        id=headers["id"],
        message=dumps({**message, "headers": {**headers, "eta": None}}),  # else Celery would hold it in memory
        queue=queue,
        priority=priority,
        delay_seconds=_seconds_until(headers.get("eta")),
        generation=_generation(headers),
        is_child=bool(headers.get("parent_id")),
        input_hash=question,
        is_own_id=is_own_id,
        result_key=result_key(headers["id"]) if is_own_id and _is_result_beside(headers["id"], question) else "",
        seen=state_to_send_under() if is_own_id else ANY_STATE,
        tenant=str(header.get("tenant") or "") if isinstance(header, dict) else "",
    )


def message_of(delivery: Delivery) -> dict[str, Any]:
    """Return the message of a job's run.

    Raises:
        ValueError: If it is another job's, or no message. Reading it may raise other errors too.
    """
    message = _read(delivery.message)
    if message["headers"]["id"] != delivery.id:
        raise ValueError("it is another job's")
    spine = current_spine()
    DeliveryProperties(
        delivery.tag,
        delivery.run_count,
        is_given_up=delivery.is_given_up,
        claim_seen_at=time.monotonic() if delivery.is_claimed else None,
        disowned_by=delivery.disowned_by,
        is_streamed=delivery.is_streamed,
        runtime=None if spine is None else spine.runtime,
    ).write(message)
    return message


def request_of_message(message: bytes) -> Context | None:
    """Return a message's request, with its links, chain and chord; None if it cannot be read."""
    try:
        envelope: dict[str, Any] = loads(bytes_to_str(message))
        headers = envelope["headers"]
        if envelope["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(envelope["body"])
        else:
            body = envelope["body"]
        args, kwargs, embed = deserialized(
            decode_body(headers, str_to_bytes(body)), envelope["content-type"], envelope["content-encoding"]
        )
        links = {name: embed.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
        return Context({**headers, **links, "args": args, "kwargs": kwargs, "delivery_info": {}, "properties": {}})
    except Exception:  # noqa: BLE001 - a damaged message raises anything
        return None


def _read(text: bytes) -> dict[str, Any]:
    """Read a message as kombu does, but ten times faster if it is plain JSON."""
    try:
        message: dict[str, Any] = loads(text) if _KOMBU_TYPE in text else orjson.loads(text)
    except orjson.JSONDecodeError:  # also for half a surrogate pair, which kombu accepts
        message = loads(text)
    return message


def _question(header: object) -> tuple[str, bool]:
    """Return the input hash of a prediction, and whether its caller chose its id: then it claimed no question."""
    if not isinstance(header, dict):
        return "", False
    input_hash = str(header.get("input_hash") or "")
    return input_hash, bool(input_hash) and not header.get("is_claimed")


def _is_result_beside(task_id: str, input_hash: str) -> bool:
    """Return True if a prediction's result is in the same Redis as its job, so that one script can look at both."""
    spines = process_spines()
    return get_settings().is_one_redis and (spines is None or spines.of(task_id) is spines.of(input_hash))


def _seconds_until(eta: str | None) -> float:
    if not eta:
        return 0.0
    moment = datetime.fromisoformat(eta)
    now = datetime.now(UTC) if moment.tzinfo else datetime.now(UTC).replace(tzinfo=None)
    return (moment - now).total_seconds()


def _generation(headers: dict[str, Any]) -> int:
    replacements, retries = headers.get("replaced_task_nesting") or 0, headers.get("retries") or 0
    return int(replacements * _RETRIES_PER_REPLACEMENT + retries)
