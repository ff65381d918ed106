"""The fence of jobs that no claim checks: one is put only while the state that gave its call a variant is the latest.

Celery and kombu make such a job's message, and know nothing of states: the state is that of the thread which sends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from dspyq.errors import RedisUnavailable

#: In place of a state's version: no state decided, so that none is checked.
ANY_STATE = "*"

_seen: ContextVar[str] = ContextVar("_seen", default=ANY_STATE)


class StateChanged(RedisUnavailable):
    """The experiment's state is not the one that gave a call its variant; nothing of the call was sent.

    Attributes:
        version: The version of the latest state; empty where the program has no experiment any more.
        stored: That state.
    """

    def __init__(self, version: str, stored: bytes) -> None:
        super().__init__("cannot send the prediction: its program's experiment has changed meanwhile; ask again")
        self.version = version
        self.stored = stored


@contextlib.contextmanager
def sent_under(seen: str) -> Iterator[None]:
    """Put this thread's predictions of ids of their own only if the latest state is of this version."""
    token = _seen.set(seen)
    try:
        yield
    finally:
        _seen.reset(token)


def state_to_send_under() -> str:
    """Return the version of the state that must be the latest for this thread's predictions to be put."""
    return _seen.get()
