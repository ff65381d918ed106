"""Answers of this process's memory as JSON, written once and completed for each call.

Calls that share an answer differ in a few members: their id, time, URLs, request id and token.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import orjson
from cachetools import LRUCache
from celery.states import SUCCESS

from dspyq.prediction.prediction import AnsweredCaller, is_prediction, metadata_from_json
from dspyq.prediction.stored import read_meta
from dspyq.serve.predictions import rendering
from dspyq.serve.predictions.ids import CallOfPrediction
from dspyq.serve.predictions.rendering import PublicCall

if TYPE_CHECKING:
    from dspyq.prediction.request import Request

_MOST_BYTES = 8 * 1024 * 1024
_LARGEST_BYTES = 64 * 1024
#: In place of a member that each call has another of; no answer holds it, as it is random.
_OPEN = secrets.token_hex()
_OPEN_JSON = orjson.dumps(_OPEN)
_NOBODY = PublicCall(CallOfPrediction("", "", 0, "memory"), "", "")


class AnswerForms:
    """Forms of the answers that were served last, in a bounded memory. An event loop alone calls its methods."""

    def __init__(self) -> None:
        self._forms: LRUCache[tuple[bytes, str], bytes] = LRUCache(_MOST_BYTES, getsizeof=len)

    def complete(self, public: PublicCall, payload: bytes, request: Request) -> bytes | None:
        """Return an answer from memory as the JSON of a prediction; None for a result that is no prediction.

        Args:
            public: The call.
            payload: The result as it is stored.
            request: The call's question.
        """
        key = payload, request.variant.name
        form = self._forms.get(key)
        if form is None:
            form = _write_form(*key)
            if form is None:
                return None
            if len(form) <= _LARGEST_BYTES:
                self._forms[key] = form
        call = public.call
        return form % (
            orjson.dumps(public.public_id),
            orjson.dumps(rendering.created_at(call)),
            orjson.dumps(request.request_id),
            orjson.dumps(call.exposure or None),
            orjson.dumps(rendering.urls(public)),
        )


def _write_form(payload: bytes, variant: str) -> bytes | None:
    meta = read_meta(payload)
    stored = meta["result"]
    if meta["status"] != SUCCESS or not is_prediction(stored):
        return None
    metadata = metadata_from_json(stored["metadata"], AnsweredCaller(variant, _OPEN, "memory"))
    shown: dict[str, Any] = rendering.succeeded(_NOBODY, stored["outputs"], metadata)
    shown |= {"id": _OPEN, "created_at": _OPEN, "urls": _OPEN}
    shown["metadata"]["exposure"] = _OPEN
    return orjson.dumps(shown).replace(b"%", b"%%").replace(_OPEN_JSON, b"%b")
