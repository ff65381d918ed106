"""``Idempotency-Key``: a request that is repeated is the same prediction, even where its content does not imply that.

The first request under a key decides the name of its call before its question is sent. So a request that is
repeated after its server died has that name too, and what had begun is found.
"""

from __future__ import annotations

from typing import NamedTuple

from blake3 import blake3

from dspyq.errors import InvalidOption
from dspyq.serve.callers import Caller
from dspyq.serve.exchange import Exchange
from dspyq.serve.problems import IDEMPOTENCY_MISMATCH, Declined
from dspyq.store.clients import money_client, redis_errors
from dspyq.store.keys import key
from dspyq.store.scripts import load_script
from dspyq.store.seal_keys import hash_of, process_question_keys

_SECONDS_REMEMBERED = 86_400
#: Of a key.
LONGEST_CHARACTERS = 255


class RememberedCall(NamedTuple):
    """The request that came first under a key.

    Attributes:
        name: The key's name in Redis.
        call_id: The name of its call.
        public_id: The public id of its prediction; empty where that is not noted yet.
        is_first: Whether it is this request.
    """

    name: str
    call_id: str
    public_id: str
    is_first: bool


def idempotency_key(exchange: Exchange) -> bytes | None:
    """Return a request's key; None for none.

    Raises:
        InvalidOption: If it cannot be used.
    """
    stated = exchange.headers.get(b"idempotency-key")
    if stated is None:
        return None
    if not 0 < len(stated) <= LONGEST_CHARACTERS:
        raise InvalidOption(f"Idempotency-Key has 1 to {LONGEST_CHARACTERS} characters")
    return stated


def remember(exchange: Exchange, caller: Caller, stated: bytes, body: bytes, call_id: str) -> RememberedCall:
    """Remember a request under its key, and return the first one under it.

    Args:
        exchange: The request.
        caller: The caller, whose tenant's keys are its own.
        stated: The key.
        body: The request's body.
        call_id: The name of its call, should it be the first.

    Raises:
        Declined: With 422, if the first one was another request.
        RedisUnavailable: If Redis does not answer.
    """
    request = f"{exchange.scope['method']} {exchange.scope['path']}\0".encode()
    fingerprint = hash_of(request + body, process_question_keys().common).hexdigest()
    name = key("serve-idempotency:") + blake3(caller.tenant.encode() + b"\0" + stated).hexdigest()
    client = money_client()
    with redis_errors("remember the Idempotency-Key"):
        first, known, public_id, is_first = load_script(client, "dspyq.serve.asking", "remember")(
            (name,), fingerprint=fingerprint, call=call_id, seconds=_SECONDS_REMEMBERED
        )
    if first.decode() != fingerprint:
        raise Declined(IDEMPOTENCY_MISMATCH, "this Idempotency-Key came with another request before")
    return RememberedCall(name, known.decode(), public_id.decode(), bool(is_first))


def note_prediction(remembered: RememberedCall, public_id: str) -> None:
    """Note the prediction of the first request under a key.

    Raises:
        RedisUnavailable: If Redis does not answer.
    """
    with redis_errors("remember the prediction"):
        money_client().hsetnx(remembered.name, "prediction", public_id)
