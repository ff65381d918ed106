"""The way of a message's body into Redis and out of it; apart from kombu's, which a producer needs later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from dspyq.core.names import HEADER
from dspyq.store import content


class _NamedProgram(Protocol):
    @property
    def name(self) -> str: ...


class _RequestOfMessage(Protocol):
    """The part of a request that its message's body belongs to."""

    @property
    def program(self) -> _NamedProgram: ...
    @property
    def input_hash(self) -> str: ...
    @property
    def refresh(self) -> bool: ...
    @property
    def tenant(self) -> str: ...


def is_of_task(headers: object) -> bool:
    """Return whether a message of these headers is a task's."""
    return isinstance(headers, Mapping) and "task" in headers and "id" in headers


def encode_prediction(request: _RequestOfMessage, task_id: str, version: str, body: bytes) -> bytes:
    """Return the body of a prediction's message as ``encode_body`` does, without its headers.

    Args:
        request: Its request.
        task_id: The task.
        version: The part of the owner that its variant has, as of ``version_of_owner``.
        body: The body.
    """
    owner = _owner_of_prediction(task_id, version, request.input_hash, request.refresh, request.tenant)
    return content.encode(content.Kind.JOB, owner, body, program=request.program.name, tenant=request.tenant)


def encode_body(headers: Mapping[str, Any], body: bytes) -> bytes:
    """Return the body of a task's message as it is stored."""
    program, tenant = (_stated(headers, name) for name in ("program", "tenant"))
    return content.encode(content.Kind.JOB, _owner(headers), body, program=program, tenant=tenant)


def decode_body(headers: Mapping[str, Any], stored: bytes) -> bytes:
    """Return the body of a task's message.

    Raises:
        dspyq.store.content.UnknownKey: If it is sealed with a key that this process lacks.
        dspyq.store.content.UnreadableContent: If it cannot be read, or was another message's.
    """
    return content.decode(content.Kind.JOB, _owner(headers), stored, program=_stated(headers, "program"))


def _stated(headers: Mapping[str, Any], name: str) -> str:
    header = headers.get(HEADER)
    return str(header.get(name) or "") if isinstance(header, dict) else ""


def _owner(headers: Mapping[str, Any]) -> str:
    """Return the task and, of a prediction's header, what its body belongs to; not its batch, which scripts change."""
    header = headers.get(HEADER)
    if not isinstance(header, dict):
        return f"{headers['id']}\0{headers['task']}"
    get = header.get
    version = version_of_owner(headers["task"], get("program"), get("variant"), get("fingerprint"))
    return _owner_of_prediction(headers["id"], version, get("input_hash"), get("refresh"), get("tenant", ""))


def _owner_of_prediction(task_id: str, version: str, input_hash: object, refresh: object, tenant: object) -> str:
    return f"{task_id}{version}{input_hash}\0{refresh}\0{tenant}"


def version_of_owner(task: object, program: object, variant: object, fingerprint: object) -> str:
    """Return the part of the owner of a prediction's body that stands between its task id and its input hash."""
    return f"\0{task}\0{program}\0{variant}\0{fingerprint}\0"
