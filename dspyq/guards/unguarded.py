"""Guard of a model outside of a worker, which refuses nothing."""

from __future__ import annotations

import time
from typing import Any

from dspyq.config.models import Model
from dspyq.guards.call import Call
from dspyq.guards.call_records import ANSWERED, CallRecord
from dspyq.guards.ledger import Ledger


class Unguarded:
    """Guard of a model outside of a worker: makes and records each call."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def answer(self, ledger: Ledger, call: Call) -> Any:
        """Return the provider's response to a call."""
        key, began_at, started = ledger.key_of(call.digest), time.time(), time.monotonic()
        kept = ledger.reply_to(key)
        if kept is not None:
            return call.load(kept)
        try:
            reply = call.attempt(min(self._model.timeout_seconds, ledger.seconds_left()))
        except Exception as error:
            seconds = time.monotonic() - started
            code = call.classify(error).code
            ledger.add(CallRecord(self._model.name, code, seconds, key=key, began_at=began_at))
            raise
        seconds = time.monotonic() - started
        tokens = reply.prompt_tokens, reply.completion_tokens
        ledger.add(CallRecord(self._model.name, ANSWERED, seconds, *tokens, reply.cost_usd, key=key, began_at=began_at))
        if (dumped := call.dump(reply.response)) is not None:
            ledger.keep(key, dumped)
        return reply.response
