"""Hooks of Schemathesis: a usable Idempotency-Key is a new one in each case, as each case has another body."""

from __future__ import annotations

import uuid
from typing import Any

import schemathesis

_KEY = "Idempotency-Key"
_LONGEST = 255


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Replace a key that the description allows; one that it does not must be refused."""
    del context, kwargs
    if case.headers and 0 < len(case.headers.get(_KEY) or "") <= _LONGEST:
        case.headers[_KEY] = uuid.uuid4().hex
