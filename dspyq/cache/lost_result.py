"""Answers that nothing will bring any more: Redis has forgotten them before they were read, or has lost their jobs."""

from __future__ import annotations

import orjson
from celery.states import FAILURE

from dspyq.errors import AnswerLost

_MESSAGE = (
    "Redis has forgotten this answer before it was read, or has lost its job: ask again; where that happens often, "
    "give the Redis of DSPYQ_RESULT_URL more memory or raise cache.result_ttl_seconds"
)
_ERROR = {"exc_module": AnswerLost.__module__, "exc_type": AnswerLost.__name__, "exc_message": [_MESSAGE]}
#: What Celery would store of ``AnswerLost``. It is told to who waits and never stored.
LOST_RESULT = orjson.dumps({"status": FAILURE, "result": _ERROR, "traceback": None, "children": []})
