"""A guard's refusal of a model call, on its way to the task that answers for it."""

from __future__ import annotations

from config.errors import Unavailable


class Refusal(BaseException):
    """A model call that may not be made now.

    It is no ``Exception``: modules of DSPy, and programs, catch those and would go on and answer worse.

    Attributes:
        error: What a caller is told who does not want to wait.
        wait_seconds: When to try again.
        pauses_queue: Whether the queue's other jobs would be refused too.
    """

    def __init__(self, error: Unavailable, *, wait_seconds: float, pauses_queue: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_seconds = wait_seconds
        self.pauses_queue = pauses_queue
        error.retry_after_seconds = wait_seconds
