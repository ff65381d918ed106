"""Answers that came to this process lately, for callers that wait for them only later.

Every answer to a task that this process sent comes on its channel, whether or not a caller waits for it yet. A caller
that asked since the channel has been listened to without a gap needs no look into Redis: its answer is here, or will
come.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import NamedTuple

_MOST_REPLIES = 10_000
_MOST_BYTES = 8 * 2**20


class _Reply(NamedTuple):
    """An answer that came.

    Attributes:
        at: The monotonic second in which it came.
        result: The stored result; None if a caller has it.
    """

    at: float
    result: bytes | None


class HeardReplies:
    """Answers that came lately, bounded in number and size. Callers hold a lock around each call.

    Attributes:
        complete_since: The monotonic second since which every answer that was published is either here or still on its
            way; infinite while the channel is not listened to.
    """

    def __init__(self) -> None:
        self.complete_since = float("inf")
        self._replies: OrderedDict[str, _Reply] = OrderedDict()
        self._bytes = 0

    def begin(self) -> None:
        """Note that the channel is listened to from now on."""
        self.complete_since = time.monotonic()

    def end(self) -> None:
        """Forget everything: the channel is listened to no more."""
        self.complete_since = float("inf")
        self._replies.clear()
        self._bytes = 0

    def put(self, key: str, result: bytes, *, is_taken: bool) -> None:
        """Note that an answer came.

        Args:
            key: The key of the task's result.
            result: The stored result.
            is_taken: Whether a caller waited for it; then the result is not kept.
        """
        before = self._replies.pop(key, None)
        self._bytes -= len(before.result or b"") if before else 0
        self._replies[key] = _Reply(time.monotonic(), None if is_taken else result)
        self._bytes += 0 if is_taken else len(result)
        while self._bytes > _MOST_BYTES or len(self._replies) > _MOST_REPLIES:
            _, oldest = self._replies.popitem(last=False)
            self._bytes -= len(oldest.result or b"")
            self.complete_since = max(self.complete_since, oldest.at)

    def __contains__(self, key: str) -> bool:
        """Return True if an answer came, taken or not."""
        return key in self._replies

    def take(self, key: str, *, asked_at: float) -> bytes | None:
        """Return an answer that no caller has had yet; None if it has to be looked for.

        Args:
            key: The key of the task's result.
            asked_at: The monotonic second before which its caller asked. What came earlier is the outcome of an
                earlier run: the caller found the task under way.
        """
        reply = self._replies.get(key)
        if reply is None or reply.result is None or reply.at < asked_at:
            return None
        self._bytes -= len(reply.result)
        self._replies[key] = reply._replace(result=None)
        return reply.result
