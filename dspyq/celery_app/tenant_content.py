"""Content that Celery stores by itself, in the name of the tenant whose task it is of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from kombu.utils.encoding import str_to_bytes

from dspyq.core.names import HEADER
from dspyq.store import content

#: The tenant and the group of the result that is stored now: the steps that Celery takes for it do not get its request.
_stored_for: ContextVar[tuple[str, str]] = ContextVar("dspyq_stored_for", default=("", ""))


def tenant_of(request: Any) -> str:
    """Return the tenant of a task's prediction; empty for none."""
    header = getattr(request, HEADER, None)
    return str(header.get("tenant") or "") if isinstance(header, Mapping) else ""


@contextmanager
def storing_for(request: Any) -> Iterator[None]:
    """Have ``encode_for`` and ``group_in_store`` take a request into account within a block."""
    token = _stored_for.set((tenant_of(request), str(getattr(request, "group", None) or "")))
    try:
        yield
    finally:
        _stored_for.reset(token)


def encode_for(kind: content.Kind, owner: str, written: str | bytes) -> bytes:
    """Return the stored form of what Celery wrote."""
    return content.encode(kind, owner, str_to_bytes(written), tenant=_stored_for.get()[0])


def group_in_store() -> str:
    """Return the group of the task whose result is stored now, to which a part of its chord belongs; empty for none."""
    return _stored_for.get()[1]
