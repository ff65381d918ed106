"""Public ids of predictions: each names one caller's call, and only this fleet can make one.

An id holds the run's task, a random name of the call, the time of the call and the source of its answer, signed for
the caller's tenant. So no look-up decides whose a prediction is, no id can be guessed, and what is done to a call is
done to no other call that shares its run.
"""

from __future__ import annotations

import functools
import hmac
import time
from typing import NamedTuple, get_args

from blake3 import blake3

from dspyq.prediction.prediction import CacheLevel
from dspyq.serve.url_text import from_url_text, to_url_text

PREFIX = "pred_"
#: Ids of our own tasks; one that another producer chose for its task may be longer.
PATTERN = "^pred_[A-Za-z0-9_-]{64,1200}$"
_LONGEST = 1200
_LEVELS: tuple[CacheLevel | None, ...] = (None, *get_args(CacheLevel))
_IS_TEXT, _HAS_EXPOSURE = 0x80, 0x40
_LENGTH_BYTES = 2
_TIME_BYTES, _CALL_BYTES, _MAC_BYTES = 6, 16, 9
_HEAD_BYTES = 1 + _TIME_BYTES + _CALL_BYTES
_UUID_CHARACTERS = 36
#: Tasks whose answers are served again and again.
_TASKS_KEPT = 4096


class CallOfPrediction(NamedTuple):
    """A call of a prediction.

    Attributes:
        task_id: The task that answers, which other calls may share.
        call_id: The name of the call, a UUID; that of the task where this call began it.
        created_ms: The time of the call, milliseconds since 1970.
        cache_level: The source of its answer; None where this call began the run.
        exposure: The token of the call for feedback, where an experiment counts it; empty for none.
    """

    task_id: str
    call_id: str
    created_ms: int
    cache_level: CacheLevel | None
    exposure: str = ""

    @classmethod
    def made_now(
        cls, task_id: str, call_id: str, cache_level: CacheLevel | None, exposure: str = ""
    ) -> CallOfPrediction:
        """Return a call of this moment."""
        return cls(task_id, call_id, int(time.time() * 1000), cache_level, exposure)


def write_id(call: CallOfPrediction, tenant: str, key: bytes) -> str:
    """Return a call's public id.

    Args:
        call: The call.
        tenant: The caller's tenant; empty for none.
        key: The fleet's signing key.
    """
    task, text_flag = _packed(call.task_id), 0
    if task is None:
        task, text_flag = call.task_id.encode("utf-8", "surrogatepass"), _IS_TEXT
    flags = _LEVELS.index(call.cache_level) | text_flag
    if call.exposure:
        flags |= _HAS_EXPOSURE
        exposure = call.exposure.encode()
        task += exposure + len(exposure).to_bytes(_LENGTH_BYTES, "big")
    head = bytes((flags,)) + call.created_ms.to_bytes(_TIME_BYTES, "big") + bytes.fromhex(call.call_id.replace("-", ""))
    mac = _mac(head + task, tenant, key)
    return PREFIX + to_url_text(head + mac + task)


def read_id(text: str, tenant: str, key: bytes) -> CallOfPrediction | None:
    """Return the call of a public id; None for one that this fleet did not make for this tenant."""
    if not text.startswith(PREFIX) or len(text) > _LONGEST:
        return None
    try:
        raw = from_url_text(text[len(PREFIX) :])
    except ValueError:
        return None
    if len(raw) <= _HEAD_BYTES + _MAC_BYTES or PREFIX + to_url_text(raw) != text:
        return None
    head, mac, task = raw[:_HEAD_BYTES], raw[_HEAD_BYTES : _HEAD_BYTES + _MAC_BYTES], raw[_HEAD_BYTES + _MAC_BYTES :]
    if not hmac.compare_digest(mac, _mac(head + task, tenant, key)):
        return None
    flags, exposure = head[0], b""
    if flags & _HAS_EXPOSURE:
        end = len(task) - _LENGTH_BYTES
        start = end - int.from_bytes(task[end:], "big")
        task, exposure = task[:start], task[start:end]
    return CallOfPrediction(
        task.decode("utf-8", "surrogatepass") if flags & _IS_TEXT else _uuid(task.hex()),
        _uuid(head[1 + _TIME_BYTES :].hex()),
        int.from_bytes(head[1 : 1 + _TIME_BYTES], "big"),
        _LEVELS[flags & ~(_IS_TEXT | _HAS_EXPOSURE)],
        exposure.decode(),
    )


def _mac(signed: bytes, tenant: str, key: bytes) -> bytes:
    return blake3(tenant.encode() + b"\0" + signed, key=key).digest(length=_MAC_BYTES)


@functools.lru_cache(maxsize=_TASKS_KEPT)
def _packed(task_id: str) -> bytes | None:
    """Return the bytes of a task id that is a UUID as Celery writes it; None for any other."""
    if len(task_id) != _UUID_CHARACTERS:
        return None
    try:
        packed = bytes.fromhex(task_id.replace("-", ""))
    except ValueError:
        return None
    return packed if _uuid(packed.hex()) == task_id else None


def _uuid(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
