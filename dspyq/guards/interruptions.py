"""What ends a run before its program is done: on its way from a model call to the task that answers for it.

None of these is an ``Exception``: modules of DSPy, and programs, catch those and would go on and answer worse. The run
is marked besides (``dspyq.guards.ledger``), so whatever swallows one of these changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from dspyq.errors import BatchLimitReached, BatchShareUsed, DspyqError, Unavailable


class Interruption(BaseException):
    """The root of what ends a run."""


class Refusal(Interruption):
    """A guard's no: the model may not be called now. The program's ``when_unavailable`` decides what follows.

    Attributes:
        error: What a caller is told who does not want to wait.
        wait_seconds: When to try again.
        pauses_queue: Whether the queue's other jobs would be refused too.
        seconds_left: Asks how long that will still be so, 0 where it is over; None where ``wait_seconds`` is all that
            is known.
    """

    def __init__(
        self,
        error: Unavailable,
        *,
        wait_seconds: float,
        pauses_queue: bool,
        seconds_left: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_seconds = wait_seconds
        self.pauses_queue = pauses_queue
        self.seconds_left = seconds_left
        error.retry_after_seconds = wait_seconds


class BatchRefusal(Interruption):
    """The job's batch may not spend what a call may cost. It fails for the batch; for whoever else waits it goes on.

    Attributes:
        error: What the batch is told.
    """

    def __init__(self, error: BatchLimitReached | BatchShareUsed) -> None:
        super().__init__(str(error))
        self.error = error


class Postponement(Interruption):
    """A call is to be tried again, later than a thread should wait for.

    Attributes:
        wait_seconds: How much later.
        seconds_left: Asks how long the queue's other jobs would only wait too, 0 where they would not; None where that
            says nothing of them.
    """

    def __init__(self, wait_seconds: float, *, seconds_left: Callable[[], float] | None = None) -> None:
        super().__init__(f"the model is called again in {wait_seconds:.1f} s")
        self.wait_seconds = wait_seconds
        self.seconds_left = seconds_left


class Ending(Interruption):
    """The prediction has failed, whatever its program would make of it.

    Attributes:
        error: What its callers are told.
    """

    def __init__(self, error: DspyqError) -> None:
        super().__init__(str(error))
        self.error = error


class Loss(Interruption):
    """The run has lost its job, which was revoked or is another run's: nobody would get what it still pays for."""

    def __init__(self) -> None:
        super().__init__("the job was revoked, or another run has it")
