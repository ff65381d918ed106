"""``GET /v1/key``: the key that a request was sent with, for clients that adapt to its rights and limits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dspyq.config.key_grants import ALL_RIGHTS, LEAST_URGENT
from dspyq.serve.callers import Caller
from dspyq.serve.edge import recognized
from dspyq.serve.exchange import exchange_of
from dspyq.serve.programs import visible_programs

_TEXT_OR_NULL: Final = {"type": ["string", "null"]}
_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
_COUNT_OR_NULL: Final = {"type": ["integer", "null"], "minimum": 1}
KEY_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "object": {"const": "key"},
        "id": _TEXT_OR_NULL,
        "tenant": _TEXT_OR_NULL,
        "name": _TEXT_OR_NULL,
        "programs": _TEXTS,
        "variants": {"type": ["array", "null"], "items": {"type": "string"}},
        "priority": {"type": "integer", "minimum": 0, "maximum": LEAST_URGENT},
        "can": {"type": "array", "items": {"enum": list(ALL_RIGHTS)}},
        "rate": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "burst": _COUNT_OR_NULL,
        "most_waiting": _COUNT_OR_NULL,
        "expires_at": {"type": ["string", "null"], "format": "date-time"},
    },
    "required": ["object", "id", "tenant", "name", "programs", "variants", "priority", "can", "rate", "burst",
                 "most_waiting", "expires_at"],
    "additionalProperties": False,
}  # fmt: skip


def describe_key(caller: Caller) -> dict[str, Any]:
    """Return a caller's key as the API shows it; where it has none, what everyone may do here."""
    record = caller.key
    grant = record.grant if record else None
    expires_at = record.expires_at if record else None
    return {
        "object": "key",
        "id": caller.key_id or None,
        "tenant": caller.tenant or None,
        "name": record.name if record else None,
        "programs": [program.name for program in visible_programs(caller)],
        "variants": None if caller.variants is None else sorted(caller.variants),
        "priority": caller.most_urgent,
        "can": [right for right in ALL_RIGHTS if right in caller.can],
        "rate": grant.rate if grant else None,
        "burst": grant.burst_requests if grant and grant.rate else None,
        "most_waiting": grant.most_waiting if grant else None,
        "expires_at": None if expires_at is None else datetime.fromtimestamp(expires_at, UTC).isoformat(),
    }


class ShowOwnKey:
    """``GET /v1/key``."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        del receive, send
        exchange = exchange_of(scope)
        await exchange.reply_json(200, describe_key(await recognized(exchange)))


ROUTES = [Route("/v1/key", ShowOwnKey(), methods=["GET"])]
