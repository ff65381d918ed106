"""Exceptions that interrupt a running program: raised by a model call, handled by the task.

None of these is an ``Exception``, because DSPy modules and programs catch those, continue and return a worse answer.
The run is also marked as interrupted (``dspyq.guards.ledger``), so a program cannot undo that by swallowing one.
"""

from __future__ import annotations

from collections.abc import Callable

from dspyq.errors import BatchLimitReached, BatchShareUsed, DspyqError, Unavailable, VariantKilled


class Interruption(BaseException):
    """Base class of interruptions of a run.

    Attributes:
        is_of_tenant: Whether its cause is a limit of the tenant that pays, which blocks no call of others.
    """

    is_of_tenant = False


class Refusal(Interruption):
    """A guard refuses the call: the model may not be called now. The program's ``when_unavailable`` decides the rest.

    Attributes:
        error: The error for a caller who does not wait.
        wait_seconds: Seconds until the next try.
        pauses_queue: True if the queue's other jobs would be refused too.
        seconds_left: Returns the seconds that this will still last, 0 once it is over; None if only ``wait_seconds``
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
    """The job's batch may not spend what the call may cost. The job fails for the batch, and goes on for other callers.

    Attributes:
        error: The batch's error.
    """

    def __init__(self, error: BatchLimitReached | BatchShareUsed) -> None:
        super().__init__(str(error))
        self.error = error


class RetryLater(Interruption):
    """A call must be retried later than a thread should wait.

    Attributes:
        wait_seconds: Seconds until the retry.
        seconds_left: Returns the seconds for which the queue's other jobs would have to wait too, 0 if they would not;
            None if the reason does not affect them.
    """

    def __init__(self, wait_seconds: float, *, seconds_left: Callable[[], float] | None = None) -> None:
        super().__init__(f"the model is called again in {wait_seconds:.1f} s")
        self.wait_seconds = wait_seconds
        self.seconds_left = seconds_left


class Deferral(Interruption):
    """The call waits in a lane for its provider's batch interface; its job sleeps until the reply has landed.

    Attributes:
        longest_seconds: Seconds after which the job is taken again all the same.
    """

    def __init__(self, longest_seconds: float) -> None:
        super().__init__("the call waits in a lane")
        self.longest_seconds = longest_seconds


class ArmKilled(Interruption):
    """The variant, an arm of an experiment, was killed: another variant answers in its place, except for a batch.

    Attributes:
        error: The error where none does.
    """

    def __init__(self, error: VariantKilled) -> None:
        super().__init__(str(error))
        self.error = error


class Cut(BaseException):
    """A call was cut short while its reply came, for its run has lost its job: charged at its bound, blamed on none."""


class FailPrediction(Interruption):
    """The prediction has failed, and its program cannot recover it.

    Attributes:
        error: The callers' error.
    """

    def __init__(self, error: DspyqError) -> None:
        super().__init__(str(error))
        self.error = error


class JobLost(Interruption):
    """The run has lost its job, which was revoked or is another run's: further calls would be paid for nothing."""

    def __init__(self) -> None:
        super().__init__("the job was revoked, or another run has it")
