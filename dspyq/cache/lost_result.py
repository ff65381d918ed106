"""Lost answers: Redis evicted them before they were read, or lost their jobs."""

from __future__ import annotations

import orjson
from celery.states import FAILURE, REVOKED

from dspyq.errors import AnswerLost

_MESSAGE = (
    "Redis has forgotten this answer before it was read, or has lost its job: ask again; where that happens often, "
    "give the Redis of DSPYQ_RESULT_URL more memory or raise cache.result_ttl_seconds"
)
_ERROR = {"exc_module": AnswerLost.__module__, "exc_type": AnswerLost.__name__, "exc_message": [_MESSAGE]}
#: ``AnswerLost`` as Celery would store it. Waiting callers get it; it is never stored.
LOST_RESULT = orjson.dumps({"status": FAILURE, "result": _ERROR, "traceback": None, "children": []})
_REVOKED = {"exc_module": "celery.exceptions", "exc_type": "TaskRevokedError", "exc_message": ["revoked"]}
#: The result of a revoked job in Celery's form, for a caller without the right to write results.
REVOKED_RESULT = orjson.dumps({"status": REVOKED, "result": _REVOKED, "traceback": None, "children": []})
